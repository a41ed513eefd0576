"""What a rule is: a symptom and a pure function from the evidence to findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Declined, Finding

__all__ = ["Rule", "TooThin"]


class TooThin(Exception):  # noqa: N818  # not an error: a rule says so when the evidence does not suffice
    """Raised by a rule that has too little to go by; the message is a sentence that says what is missing."""


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes
    ----------
    symptom : str
        Key of what it finds.
    title : str
        What it is called in the documentation.
    find : callable
        Returns findings of that symptom, none if there is nothing; raises :class:`TooThin`.
    """

    symptom: str
    title: str
    find: Callable[[Evidence], Sequence[Finding]]

    def __call__(self, evidence: Evidence) -> Sequence[Finding] | Declined:
        """Return what the rule finds, or why it says nothing."""
        try:
            return self.find(evidence)
        except TooThin as reason:
            return Declined(self.symptom, str(reason))
