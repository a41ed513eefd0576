"""Every card of the deck has its texts, its page, its pictures and its rule, and the page says what the card says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cards.deck import GROUPS, card, index
from PIL import Image

from colordim.diagnosis import SYMPTOMS

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "cards"
PICTURES = PAGES / "images"
SLUGS = [slug for slugs in GROUPS.values() for slug in slugs]
MOST_BYTES, MOST_WORDS = 120_000, 240

WITHOUT_CARD = {
    "not-in-optimizer": "is on the card of layers that stand still, beside frozen",
    "no-gradient": "is on the card of layers that stand still, beside frozen",
    "exploding-gradients": "grows with the values that the card of exploding ones shows",
    "gradients-not-zeroed": "is seen in the sums of gradients, of which no chart shows more than of other gradients",
    "input-scale": "is a number, and no pattern over batches",
    "softmax-twice": "is seen in the loss alone",
    "plateau": "is seen in the loss alone",
    "divergence": "is seen in the loss alone",
    "dead-output": "looks as the last layer on the card of dead ReLUs",
}
"""Symptoms that no card is about, and why."""


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def page_of(slug: str) -> str:
    return (PAGES / f"{slug}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("slug", SLUGS)
def test_each_card_has_all_its_texts(slug: str) -> None:
    this = card(slug)
    texts = ("title", "summary", "training", "see", "meaning", "look_alike", "remedy")
    assert [name for name in texts if not getattr(this, name).strip()] == []
    assert this.symptom or this.rule.strip(), "where no rule finds a pattern, the card says why"
    body = " ".join((this.see, this.meaning, this.look_alike, this.remedy, this.rule))
    assert len(body.split()) <= MOST_WORDS, "a card prints on one page"
    assert "**1**" in this.see


def test_the_deck_names_each_card_once_and_no_module_is_left_out() -> None:
    modules = [
        path.stem for path in (ROOT / "cards").glob("*.py") if re.search(r"^CARD = ", path.read_text(), re.MULTILINE)
    ]
    assert sorted(SLUGS) == sorted(modules)


@pytest.mark.parametrize("slug", SLUGS)
def test_the_rule_of_a_card_exists(slug: str) -> None:
    assert card(slug).symptom in ("", *SYMPTOMS)


def test_symptoms_without_a_card_are_listed_with_the_reason() -> None:
    shown = {card(slug).symptom for slug in SLUGS}
    assert set(WITHOUT_CARD) == set(SYMPTOMS) - shown
    assert all(WITHOUT_CARD.values())


@pytest.mark.parametrize("slug", SLUGS)
def test_the_page_is_what_the_card_says_but_for_numbers(slug: str, differs: Callable[[str, str], str]) -> None:
    assert differs(slug, page_of(slug)) == ""


@pytest.mark.parametrize("slug", SLUGS)
def test_pictures_are_there_and_neither_too_large_nor_too_small(slug: str) -> None:
    pictures = sorted(PICTURES.glob(f"{slug}-[0-9].png"))
    assert [path.stem for path in pictures] == [f"{slug}-{number}" for number in range(1, len(pictures) + 1)]
    assert 1 <= len(pictures) <= 2
    for path in pictures:
        assert 2_000 < path.stat().st_size < MOST_BYTES, path.name
        with Image.open(path) as image:
            assert 700 <= image.width <= 1500, path.name
            assert 250 <= image.height <= 1000, path.name


def test_each_picture_is_shown_on_a_page_and_each_that_is_shown_is_there() -> None:
    pages = [*PAGES.glob("*.md"), ROOT / "docs" / "reading.md"]
    shown = {
        name
        for page in pages
        if page.exists()
        for name in re.findall(r"\]\((?:cards/)?images/([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == {path.name for path in PICTURES.iterdir()}


@pytest.mark.parametrize("slug", SLUGS)
def test_links_of_a_page_lead_somewhere(slug: str) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page_of(slug))
    assert f"../../cards/{slug}.py" in links
    for link in links:
        path, _, heading = link.partition("#")
        target = PAGES / path if path else PAGES / f"{slug}.md"
        assert target.exists(), link
        assert not heading or heading in anchors(target), link


@pytest.mark.parametrize("slug", SLUGS)
def test_a_card_with_a_rule_shows_what_it_says(slug: str) -> None:
    if card(slug).symptom:
        assert "`colordim diagnose` says of this run:" in page_of(slug)


def test_the_list_is_what_the_deck_says() -> None:
    assert (PAGES / "index.md").read_text(encoding="utf-8") == index()
