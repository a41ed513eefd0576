"""Cards are made from trainings, and a card whose training does not show what its text says is refused."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import cards.__main__ as command
import pytest
from cards.card import Card, CardError, Picture, Shown
from cards.deck import card
from cards.marks import INK
from cards.page import page, save
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.typing import ColorType

FAST = ("dead_relu", "saturated_tanh", "frozen_layer", "not_finite")


def a_card(make: Callable[[Path], Shown]) -> Card:
    """Return a card whose texts refer to one number."""
    return Card("Title", "Summary.", "Training.", make, "- **1** {number} %.", "Meaning.", "Look-alike.", "Remedy.")


@pytest.mark.parametrize("slug", FAST)
def test_a_card_is_made_and_its_claims_hold(slug: str, tmp_path: Path, differs: Callable[[str, str], str]) -> None:
    shown = card(slug).make(tmp_path)
    assert [claim for claim, holds in shown.claims.items() if not holds] == []
    assert len(shown.claims) >= 3
    written = page(slug, card(slug), shown)
    assert differs(slug, written) == ""
    first, *_ = shown.run.diagnose().findings if shown.run else [None]
    if first is not None and first.symptom != card(slug).symptom:
        assert all(each.title.split()[0] in written for each in first.consequences), "the pattern is a consequence here"
        assert "\n  leads to" in written
    drawn = {
        text.get_text()
        for picture in shown.pictures
        for ax in picture.figure.axes
        for text in ax.texts
        if isinstance(text, Annotation) and (box := text.get_bbox_patch()) is not None and _is_ink(box.get_facecolor())
    }
    assert drawn == set(re.findall(r"\*\*(\d)\*\*", card(slug).see))


def _is_ink(color: ColorType) -> bool:
    return to_hex(color).upper() == INK


def test_a_claim_that_does_not_hold_is_named_with_its_card() -> None:
    shown = Shown(pictures=[], claims={"the sky is blue": True, "the moon is green": False})
    with pytest.raises(CardError, match=r"moonlight: it is no longer true that the moon is green"):
        shown.check("moonlight")
    Shown(pictures=[], claims={"the sky is blue": True}).check("moonlight")


def test_a_refused_card_leaves_its_page_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def make(_: Path) -> Shown:
        return Shown([Picture(Figure(), "Caption.")], {"number": 1}, {"the moon is green": False})

    (tmp_path / "dead_relu.md").write_text("as it was")
    monkeypatch.setattr(command, "card", lambda _: a_card(make))
    monkeypatch.setattr(command, "index", lambda: "")
    monkeypatch.setattr(sys, "argv", ["cards", "dead_relu", "--out", str(tmp_path)])
    assert command.main() == 1
    assert "dead_relu: it is no longer true that the moon is green" in capsys.readouterr().err
    assert (tmp_path / "dead_relu.md").read_text() == "as it was"
    assert not list(tmp_path.glob("images/*"))


def test_a_number_that_was_not_measured_is_no_text() -> None:
    def make(_: Path) -> Shown:
        return Shown([], {})

    with pytest.raises(KeyError, match="number"):
        page("moonlight", a_card(make), make(Path()))


def test_a_page_has_the_numbers_and_pictures_of_its_card() -> None:
    def make(_: Path) -> Shown:
        return Shown([Picture(Figure(), "It is {number} % full.")], {"number": 37})

    text = page("moonlight", a_card(make), make(Path()))
    assert "- **1** 37 %." in text
    assert "![It is 37 % full.](images/moonlight-1.png)\n\n*It is 37 % full.*" in text
    assert "No rule looks for it." in text


def test_what_recording_cost_is_in_no_picture(tmp_path: Path) -> None:
    figure = Figure()
    alone, beside = figure.text(0, 0, "recording took 3 %"), figure.text(0, 1, "row: 1  ·  recording took 3 %")
    save(figure, tmp_path / "picture.png")
    assert (alone.get_text(), beside.get_text()) == ("", "row: 1")
