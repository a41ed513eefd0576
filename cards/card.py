"""What a flash card is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from colordim import Run

__all__ = ["Card", "CardError", "Picture", "Shown"]


class CardError(Exception):
    """A training did not show what its card says; the message names both."""


@dataclass(frozen=True)
class Picture:
    """A figure and the sentence below it, which also serves those who cannot see it."""

    figure: Figure
    caption: str


@dataclass
class Shown:
    """What the trainings of a card have shown.

    Attributes
    ----------
    pictures : list of Picture
        One or two.
    numbers : dict
        What the texts of the card refer to in braces: ``{batch}``. Measured, never typed.
    claims : dict of str to bool
        What the texts say, and whether these trainings bear it out.
    run : Run or None
        The one that the diagnosis is asked about.
    """

    pictures: Sequence[Picture]
    numbers: Mapping[str, object] = field(default_factory=dict)
    claims: Mapping[str, bool] = field(default_factory=dict)
    run: Run | None = None

    def check(self, slug: str) -> None:
        """Raise if a claim does not hold.

        Raises
        ------
        CardError
            Naming the card and the first such claim.
        """
        for claim, holds in self.claims.items():
            if not holds:
                raise CardError(f"{slug}: it is no longer true that {claim}; mend the training or the text.")


@dataclass(frozen=True)
class Card:
    """A flash card: the pattern, in words, and what makes its picture.

    Attributes
    ----------
    title : str
    summary : str
        One sentence: the pattern and its meaning.
    training : str
        What was trained, on what, how.
    make : callable
        ``make(folder)`` trains below `folder` and returns what was shown.
    see, meaning, look_alike, remedy : str
        Markdown with ``{numbers}``: the marks on the picture, what they mean, how to tell the pattern from one that
        looks like it, and what to do. Other cards are linked as ``[text](slug.md)``.
    symptom : str
        The rule that finds it, or "" if none does.
    rule : str
        What that rule does with this run, or why there is none.
    """

    title: str
    summary: str
    training: str
    make: Callable[[Path], Shown]
    see: str
    meaning: str
    look_alike: str
    remedy: str
    symptom: str = ""
    rule: str = ""
