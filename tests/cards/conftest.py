"""What pages of cards are compared with."""

from __future__ import annotations

import re
from collections.abc import Callable
from string import Formatter

import pytest
from cards.deck import card


@pytest.fixture
def differs() -> Callable[[str, str], str]:
    """Compare a page with its card: ``differs(slug, page)`` names the first section that is not as it should be."""
    return _differs


def template(text: str) -> str:
    """Return a regular expression for a text of a card, in which any number may stand in the place of each ``{name}``."""
    parts = []
    for said, name, _, _ in Formatter().parse(text.strip()):
        parts.append(re.escape(said))
        if name is not None:
            parts.append(r"[^\n]+?")
    return "".join(parts)


def _differs(slug: str, page: str) -> str:
    """Return the heading of the first section of a page that is not what the card says; "" if there is none."""
    this = card(slug)
    pictures = "".join(
        rf"!\[(?P<caption{n}>[^\]\n]+)\]\(images/{slug}-{n}\.png\)\n\n\*(?P=caption{n})\*\n\n"
        for n in range(1, page.count(f"](images/{slug}-") + 1)
    )
    rule = (
        rf"The rule \[{this.symptom}\]\(\.\./diagnosis\.md#{this.symptom}\)\."
        if this.symptom
        else r"No rule looks for it\."
    )
    end = (
        rf"\*The training:\* {template(this.training)} Made by \[`cards/{slug}\.py`\]\(\.\./\.\./cards/{slug}\.py\)\.\n"
    )
    said = r"(`colordim diagnose` says of this run:\n\n```text\n[^`]+\n```\n\n)?"
    rest = rf" {template(this.rule)}" if this.rule.strip() else ""
    sections = {
        "": rf"# {re.escape(this.title)}\n\n{template(this.summary)}\n\n{pictures}",
        "What you see": rf"\n\n{template(this.see)}\n\n",
        "What it means": rf"\n\n{template(this.meaning)}\n\n",
        "What looks like it": rf"\n\n{template(this.look_alike)}\n\n",
        "What to try": rf"\n\n{template(this.remedy)}\n\n",
        "What finds it": rf"\n\n{rule}{rest}\n\n{said}{end}",
    }
    head, *parts = re.split(r"^## ", page, flags=re.MULTILINE)
    there = {"": head} | {name: rest for name, _, rest in (part.partition("\n") for part in parts)}
    if list(there) != list(sections):
        return f"headings: {list(there)}"
    return next(
        (name or "title" for name in sections if not re.fullmatch(sections[name].removeprefix(r"\n"), there[name])), ""
    )
