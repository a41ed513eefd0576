"""The manual: the pages of docs/ as they were installed with colordim, and where in them something is explained.

The form of an address is ``page`` or ``page#heading``, such as ``resume`` or ``diagnosis#dead-units``: that of ``colordim docs``,
of the page of an error, and of a finding. Headings go by the names that GitHub gives them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from colordim.errors import ArgumentError

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

__all__ = [
    "Heading",
    "as_html",
    "as_paragraphs",
    "find",
    "headings",
    "linked",
    "names",
    "parse",
    "read",
    "relinked",
    "section",
    "title",
]

_PACKED = Path(__file__).with_name("pages")
#: Folder of the pages: in the wheel, or that of the checkout from which colordim was installed.
FOLDER = _PACKED if _PACKED.is_dir() else Path(__file__).parents[2] / "docs"

#: What only the generator of the web site can read, as it is put together there.
_ELSEWHERE = frozenset({"index", "reference", "changelog", "contributing"})
_PICTURE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
#: Where the command that reads these pages is described.
_PAGE = "commands#colordim-docs"
#: The page whose headings are looked up first, so that the name of a symptom always leads to it.
_SYMPTOMS = "diagnosis"


@dataclass(frozen=True)
class Heading:
    """A heading of a page.

    Attributes
    ----------
    level : int
        1 for the title.
    text : str
        Without marks.
    slug : str
        Its name in addresses.
    line : int
        Of the page, from 0.
    """

    level: int
    text: str
    slug: str
    line: int


@cache
def names() -> tuple[str, ...]:
    """Return the names of all pages, those of folders last."""
    found = (path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.md"))
    pages = (name for name in found if name not in _ELSEWHERE and not name.startswith("_"))
    return tuple(sorted(pages, key=lambda name: ("/" in name, name)))


@cache
def read(page: str) -> str:
    """Return the text of a page.

    Raises
    ------
    ArgumentError
        If there is no such page.
    """
    if page not in names():  # also: what is no page is no file
        raise ArgumentError(f"the manual has no page {page!r}; {_nearest(page, names())}.", page=_PAGE)
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


def title(page: str) -> str:
    """Return the title of a page."""
    return next((heading.text for heading in headings(page)), page)


@cache
def headings(page: str) -> tuple[Heading, ...]:
    """Return the headings of a page."""
    return tuple(_headings(parse(read(page))))


def find(address: str) -> tuple[str, str]:
    """Return the page and the heading that an address names; the heading is empty for a whole page.

    Parameters
    ----------
    address : str
        ``page``, ``page#heading``, or a heading alone if it is in one page only; the last part of a page's name will do.

    Raises
    ------
    ArgumentError
        If there is no such page or heading, or several.
    """
    page, _, slug = address.strip().removeprefix("docs/").partition("#")
    page = page.removesuffix(".md")
    if page not in names() and not slug:
        return _found(page)
    slugs = [each.slug for each in headings(page)]
    if slug and slug not in slugs:
        raise ArgumentError(f"the page {page!r} has no heading {slug!r}; {_nearest(slug, slugs)}.", page=_PAGE)
    return page, "" if slug in slugs[:1] else slug


def _found(name: str) -> tuple[str, str]:
    """Return where a heading is, or a page that goes by the last part of its name."""
    places = [(page, "") for page in names() if page.endswith(f"/{name}") or page == f"{name}/index"]
    places = places or [(page, name) for page in names() if any(each.slug == name for each in headings(page)[1:])]
    places = [each for each in places if each[0] == _SYMPTOMS] or places
    if len(places) == 1:
        return places[0]
    if places:
        known = " and ".join(f"{page}#{slug}".removesuffix("#") for page, slug in places[:4])
        raise ArgumentError(f"{name!r} is in several places: name one, such as {known}.", page=_PAGE)
    symptoms = [each.slug for each in headings(_SYMPTOMS)] if _SYMPTOMS in names() else []
    raise ArgumentError(f"the manual has no page {name!r}; {_nearest(name, [*names(), *symptoms])}.", page=_PAGE)


def section(page: str, slug: str = "") -> str:
    """Return a heading's section as Markdown, with the sections below it and without pictures; without a heading the whole page.

    Raises
    ------
    ArgumentError
        If there is no such page or heading.
    """
    page, slug = find(f"{page}#{slug}")
    text, known = _PICTURE.sub(r"\1", read(page)), headings(page)
    lines = text.splitlines()
    if not slug:
        return text
    here = next(each for each in known if each.slug == slug)
    end = next((each.line for each in known if each.line > here.line and each.level <= here.level), len(lines))
    return "\n".join(lines[here.line : end]).rstrip() + "\n"


def linked(page: str, href: str) -> str | None:
    """Return where a link of a page leads: an address of the manual, one of the web as it is, or None for anything else."""
    parts = urlsplit(href)
    if parts.scheme or parts.netloc:
        return href if parts.scheme in ("http", "https") else None
    target = page
    if parts.path:
        steps: list[str] = []
        for step in (PurePosixPath(page).parent / parts.path).parts:
            if step != "..":
                steps.append(step)
            elif steps:
                steps.pop()
            else:
                return None
        target = "/".join(steps).removesuffix(".md")
    if target not in names():
        return None
    return f"{target}#{parts.fragment}" if parts.fragment else target


def as_html(page: str, slug: str = "", link: Callable[[str], str | None] = lambda href: None) -> str:
    """Return a page or a section as HTML without scripts, styles and pictures.

    Parameters
    ----------
    page, slug : str
    link : function of str
        Given the ``href`` of a link, returns that of the answer; None leaves the text alone.
    """
    tokens = parse(section(page, slug))
    for opening, heading in zip(_openings(tokens), _headings(tokens), strict=True):
        opening.attrSet("id", heading.slug)
    html: str = _parser().renderer.render(relinked(tokens, link), _parser().options, {})
    return html.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")


def as_paragraphs(page: str, slug: str) -> list[str]:
    """Return a section as plain text, without its heading."""
    tokens = parse(section(page, slug))
    return [
        _text(token) if token.children else token.content.rstrip()
        for before, token in zip([None, *tokens], tokens, strict=False)
        if token.type in ("inline", "fence", "code_block") and (before is None or before.type != "heading_open")
    ]


def parse(text: str) -> list[Token]:
    """Return the tokens of Markdown as GitHub reads it; HTML in it is text."""
    return _parser().parse(text)


def relinked(tokens: Sequence[Token], link: Callable[[str], str | None]) -> list[Token]:
    """Return tokens with other links, those without one as their text."""
    for token in tokens:
        if token.children:
            token.children = list(_relinked(token.children, link))
    return list(tokens)


def _relinked(tokens: Sequence[Token], link: Callable[[str], str | None]) -> Iterator[Token]:
    kept = True  # there are no links in links
    for token in tokens:
        if token.type == "link_open":
            href = link(str(token.attrs.get("href", "")))
            kept = href is not None
            token.attrs = {"href": href} if href is not None else {}
        if kept or token.type not in ("link_open", "link_close"):
            yield token


def _headings(tokens: Sequence[Token]) -> Iterator[Heading]:
    seen: dict[str, int] = {}
    for opening, inline in pairwise(tokens):
        if opening.type != "heading_open":
            continue
        text = _text(inline)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        again = seen[slug] = seen.get(slug, -1) + 1
        yield Heading(int(opening.tag[1]), text, f"{slug}-{again}" if again else slug, (opening.map or [0])[0])


def _openings(tokens: Sequence[Token]) -> Iterator[Token]:
    return (token for token in tokens if token.type == "heading_open")


def _text(inline: Token) -> str:
    breaks = {"softbreak": " ", "hardbreak": "\n"}
    return "".join(breaks.get(token.type, token.content) for token in inline.children or ())


@cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 3)
    return f"the nearest is {' or '.join(map(repr, near))}" if near else "colordim docs lists what there is"
