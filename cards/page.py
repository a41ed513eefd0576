"""A card as a page of the manual: Markdown beside its pictures."""

from __future__ import annotations

import io
import re
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from cards.card import Card, Shown
from colordim import Run
from colordim.diagnosis.text import as_text

__all__ = ["page", "save", "thumbnail"]

RESOLUTION = 120
"""Dots per inch: a panel is then as wide as a column of text."""
_CONSEQUENCES = "\n  leads to"
"""How the lines begin that say what a finding leads to."""
THUMBNAIL = 240
"""Pixels of a thumbnail, at most, either way."""


def page(slug: str, card: Card, shown: Shown) -> str:
    """Return the page of a card; its pictures are ``images/<slug>-<number>.png``.

    Parameters
    ----------
    slug : str
        Name of the module and of the page.
    card : Card
    shown : Shown

    Returns
    -------
    str
        Markdown.

    Raises
    ------
    KeyError
        If a text refers to a number that was not measured.
    """

    def text(template: str) -> str:
        return template.strip().format(**shown.numbers)

    parts = [f"# {card.title}", text(card.summary)]
    for number, picture in enumerate(shown.pictures, 1):
        caption = text(picture.caption)
        parts.append(f"![{caption}](images/{slug}-{number}.png)\n\n*{caption}*")
    parts += [
        f"## What you see\n\n{text(card.see)}",
        f"## What it means\n\n{text(card.meaning)}",
        f"## What looks like it\n\n{text(card.look_alike)}",
        f"## What to try\n\n{text(card.remedy)}",
        f"## What finds it\n\n{_rule(card, text(card.rule))}",
    ]
    if shown.run is not None:
        said = as_text(shown.run.diagnose(), width=96).strip()
        parts.append(
            f"`colordim diagnose` says of this run:\n\n```text\n{_first_finding(said, card.symptom, shown.run)}\n```"
        )
    parts.append(f"*The training:* {text(card.training)} Made by [`cards/{slug}.py`](../../cards/{slug}.py).")
    return "\n\n".join(parts) + "\n"


def save(figure: Figure, path: Path) -> None:
    """Write a picture, in 256 colours: a chart has no more, and takes a third of the bytes."""
    for text in figure.texts:  # the one thing in a chart that differs from machine to machine
        text.set_text(re.sub(r"(^|\s*·\s*)recording took.*$", "", text.get_text()))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    image = Image.open(buffer).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def thumbnail(picture: Path, path: Path) -> None:
    """Write a small picture of a picture, for the page that lists all cards."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def _rule(card: Card, text: str) -> str:
    link = f"The rule [{card.symptom}](../diagnosis.md#{card.symptom})." if card.symptom else "No rule looks for it."
    return f"{link} {text}".strip()


def _first_finding(said: str, symptom: str, run: Run) -> str:
    """Leave out further findings, what the card says itself (why, and what to try), and a sentence that the finding repeats.

    Where the card's pattern is a consequence of something else, what the finding leads to is kept.
    """
    parts = said.split("\n\n")[:2]
    findings = run.diagnose().findings
    if findings and not parts[0].startswith("Nothing is wrong"):
        del parts[0]
    shown, _, rest = "\n\n".join(parts).partition("\n  why")
    if not findings or findings[0].symptom == symptom or not findings[0].consequences:
        return shown
    return shown + _CONSEQUENCES + rest.split(_CONSEQUENCES)[1].split("\n  more")[0]
