"""The manual: pages, the names that GitHub gives to headings, sections, and what the code refers to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from colordim import manual
from colordim.diagnosis import SYMPTOMS
from colordim.errors import ArgumentError

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "colordim"

PAGE = """\
# The `first` page

Begin[ning](second.md#a-b), with ![a picture](images/x.png).

## It's *A* & b_c: 1.5-2?

| a | b |
|---|---|
| `x` | <script>alert(1)</script> |

```sh
# no heading
```

### below

Deep.

## Twice

one

## Twice

two [web](https://example.org), [out](../README.md), [here](#below), [bad](javascript:alert(1)).
"""


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(manual, "FOLDER", tmp_path)
    (tmp_path / "cards").mkdir()
    (tmp_path / "first.md").write_text(PAGE)
    (tmp_path / "second.md").write_text("# Second\n\n## A b\n\n## Common\n")
    (tmp_path / "cards" / "third.md").write_text("# Third\n\n[up](../first.md#below)\n\n## Common\n")
    (tmp_path / "diagnosis.md").write_text("# Diagnosis\n\n### dead-units\n\nGone.\n")
    (tmp_path / "index.md").write_text("# Only for the web site\n")
    forget()
    yield
    forget()


def forget() -> None:
    for kept in (manual.names, manual.read, manual.headings):
        kept.cache_clear()


@pytest.mark.usefixtures("book")
def test_pages_have_names_and_titles() -> None:
    assert manual.names() == ("diagnosis", "first", "second", "cards/third")
    assert manual.title("first") == "The first page"


@pytest.mark.usefixtures("book")
def test_headings_go_by_the_names_that_github_gives_them() -> None:
    # as github-slugger does: lower case, no punctuation but - and _, spaces become hyphens, repeats are numbered
    assert [each.slug for each in manual.headings("first")] == [
        "the-first-page", "its-a--b_c-15-2", "below", "twice", "twice-1",
    ]  # fmt: skip
    assert [each.level for each in manual.headings("first")] == [1, 2, 3, 2, 2]


@pytest.mark.usefixtures("book")
def test_a_section_ends_where_the_next_of_its_level_begins() -> None:
    assert manual.section("first", "twice") == "## Twice\n\none\n"
    assert manual.section("first", "below") == "### below\n\nDeep.\n"
    section = manual.section("first", "its-a--b_c-15-2")
    assert section.startswith("## It's *A*")
    assert section.endswith("# no heading\n```\n\n### below\n\nDeep.\n")
    assert manual.section("first") == PAGE.replace("![a picture](images/x.png)", "a picture")


@pytest.mark.usefixtures("book")
@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("first", ("first", "")), ("docs/first.md#below", ("first", "below")), ("below", ("first", "below")),
        ("third", ("cards/third", "")), ("cards/third#common", ("cards/third", "common")),
        ("first#the-first-page", ("first", "")), ("dead-units", ("diagnosis", "dead-units")),
    ],
)  # fmt: skip
def test_an_address_is_found(address: str, found: tuple[str, str]) -> None:
    assert manual.find(address) == found


@pytest.mark.usefixtures("book")
@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("frist", "no page 'frist'; the nearest is 'first'."),
        ("dead-unit", "the nearest is 'dead-units'."),
        ("first#belwo", "the page 'first' has no heading 'belwo'; the nearest is 'below'."),
        ("common", "in several places: name one, such as second#common and cards/third#common."),
        ("qqqqqq", "no page 'qqqqqq'; colordim docs lists what there is."),
        ("../README", "no page '../README'"), ("index", "no page 'index'"), ("", "no page ''"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_a_sentence_with_the_nearest(address: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(said)):
        manual.find(address)


@pytest.mark.usefixtures("book")
def test_symptoms_come_before_headings_of_the_same_name() -> None:
    (manual.FOLDER / "second.md").write_text("# Second\n\n## dead-units\n")
    forget()
    assert manual.find("dead-units") == ("diagnosis", "dead-units")


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.usefixtures("book")
def test_html_has_ids_tables_and_links_but_no_markup_of_its_own() -> None:
    text = manual.as_html("first", link=lambda href: manual.linked("first", href))
    found = Elements(text).found
    assert [each["id"] for tag, each in found if re.fullmatch("h[1-6]", tag)] == [
        each.slug for each in manual.headings("first")
    ]
    assert [each["href"] for tag, each in found if tag == "a"] == ["second#a-b", "https://example.org", "first#below"]
    tags = {tag for tag, _ in found}
    assert {"table", "td", "pre"} <= tags
    assert tags.isdisjoint({"script", "img"})
    assert "&lt;script&gt;" in text
    assert manual.linked("cards/third", "../first.md#below") == "first#below"
    assert manual.linked("first", "../../etc/passwd") is None


@pytest.mark.usefixtures("book")
def test_a_section_as_paragraphs_has_neither_heading_nor_marks() -> None:
    assert manual.as_paragraphs("first", "below") == ["Deep."]
    assert manual.as_paragraphs("first", "its-a--b_c-15-2")[-2:] == ["# no heading", "Deep."]
    assert manual.as_paragraphs("first", "twice-1")[0].startswith("two web, out, here, [bad]")


# What the code refers to.


def addresses() -> Iterator[tuple[str, str]]:
    """Yield where the code names a page, and which: `page=`, class attributes, and the last argument of what says and warns."""
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(SOURCE).as_posix()
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            given: list[ast.expr] = []
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                given = [each.value for each in node.keywords if each.arg == "page"]
                if name in ("say", "_say", "with_page", "warn", "_tell"):
                    given += node.args[2:] if name in ("say", "_say") else node.args[1:]
                if name in ("taught", "taught_group"):
                    given += node.args[:1]
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("page", "_PAGE"):
                given = [node.value] if isinstance(node.value, ast.Constant) else []
            for each in given:
                for value in ast.walk(each):
                    if isinstance(value, ast.Constant) and isinstance(value.value, str) and value.value != "rank ":
                        yield f"{where}:{value.lineno}", value.value


def test_each_page_that_the_code_refers_to_is_there_with_its_heading() -> None:
    found = [(where, page) for where, page in addresses() if page and "\n" not in page]  # which is a template
    assert len(found) > 150
    missing = []
    for where, page in found:
        try:
            manual.find(page)
        except ArgumentError as error:
            missing.append(f"{where}: {error}")
    assert missing == []


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_each_symptom_leads_to_its_explanation(symptom: str) -> None:
    assert manual.find(symptom) == ("diagnosis", symptom)
    assert len(" ".join(manual.as_paragraphs("diagnosis", symptom))) > 50


def test_links_between_pages_lead_to_pages_and_headings() -> None:
    missing = []
    for page in manual.names():
        for href in re.findall(r"\]\(([^)\s]+)\)", manual.read(page)):
            address = manual.linked(page, href)
            if address and not address.startswith("http"):
                try:
                    manual.find(address)
                except ArgumentError as error:
                    missing.append(f"{page}: {error}")
    assert missing == []


def test_the_pages_are_packed_into_wheels() -> None:
    hook = {"__name__": "hatch_build"}
    exec(compile((ROOT / "hatch_build.py").read_text("utf-8"), "hatch_build.py", "exec"), hook)
    packed = hook["pages"](ROOT / "docs")  # type: ignore[operator]
    assert {f"colordim/pages/{name}.md" for name in manual.names()} <= set(packed.values())
    assert all(Path(path).is_file() for path in packed)
