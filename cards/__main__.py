"""Make cards: all of them, or those that are named: ``python -m cards [SLUG ...] [--out docs/cards]``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from cards.card import CardError
from cards.deck import GROUPS, card, index
from cards.guide import GUIDE, pictures
from cards.page import page, save, thumbnail

HERE = Path(__file__).parents[1] / "docs" / "cards"


def make(slug: str, out: Path, runs: Path) -> None:
    """Train for one card, check its claims, and write its page and pictures below `out`.

    Raises
    ------
    CardError
        If a training does not show what the card says.
    """
    this = card(slug)
    shown = this.make(runs)
    shown.check(slug)
    (out / "images").mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(shown.pictures, 1):
        save(picture.figure, out / "images" / f"{slug}-{number}.png")
    (out / f"{slug}.md").write_text(page(slug, this, shown), encoding="utf-8")


def make_guide(out: Path, runs: Path) -> None:
    """Train for the pictures of the reading guide, and write them below `out`; its text is ``docs/reading.md``."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    for number, figure in enumerate(pictures(runs), 1):
        save(figure, out / "images" / f"{GUIDE}-{number}.png")


def main() -> int:
    """Make what the command line names."""
    every = [GUIDE, *(slug for slugs in GROUPS.values() for slug in slugs)]
    parser = argparse.ArgumentParser(prog="python -m cards", description=__doc__)
    parser.add_argument(
        "slugs", nargs="*", metavar="SLUG", help="a card, or the pictures of the reading guide; all by default"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pages")
    asked = parser.parse_args()
    if unknown := set(asked.slugs) - set(every):
        parser.error(f"there is no card {', '.join(sorted(unknown))}: there are {', '.join(every)}.")
    failed = []
    for slug in asked.slugs or every:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as runs:
            try:
                if slug == GUIDE:
                    make_guide(asked.out, Path(runs))
                else:
                    make(slug, asked.out, Path(runs))
            except CardError as error:
                failed.append(slug)
                print(f"  {error}", file=sys.stderr)
                continue
        print(f"  {slug}: {time.perf_counter() - began:.0f} s", flush=True)
    for slug in every[1:]:
        if (picture := asked.out / "images" / f"{slug}-1.png").exists():
            thumbnail(picture, picture.with_name(f"{slug}-small.png"))
    (asked.out / "index.md").write_text(index(), encoding="utf-8")
    print(f"The cards are in {asked.out}; index.md lists them.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
