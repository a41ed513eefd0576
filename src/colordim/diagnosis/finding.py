"""What a diagnosis says: findings, the numbers that speak for them, and what to try."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

__all__ = ["SEVERITIES", "Declined", "Diagnosis", "Finding", "Number", "Remedy", "Severity"]

Severity = Literal["problem", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True)
class Number:
    """A measured number beside the threshold that it was compared with.

    Attributes
    ----------
    name : str
        What was measured, as a phrase.
    value : float
    threshold : float or None
        None for a number that explains and decides nothing.
    relation : {"above", "below", ""}
        On which side of the threshold the value lies.
    unit : str
        ``"%"`` for shares (the value is between 0 and 1), ``"log10"`` for logarithms, else what follows the number.
    """

    name: str
    value: float
    threshold: float | None = None
    relation: Literal["above", "below", ""] = ""
    unit: str = ""

    def __str__(self) -> str:
        text = f"{self.name}: {_text(self.value, self.unit)}"
        if self.threshold is None:
            return text
        unit = "" if self.unit.startswith("of ") else self.unit  # which says of how many, and is said once
        return f"{text} ({self.relation or 'against'} {_text(self.threshold, unit)})"


@dataclass(frozen=True)
class Remedy:
    """One thing to try.

    Attributes
    ----------
    key : str
        Short name, such as ``lower-lr``: the same in every finding that suggests it.
    text : str
        A sentence that says what to do, with the numbers of this run where they are known.
    factor : float
        What the learning rate is to be multiplied by; 1 where it is to stay.
    """

    key: str
    text: str
    factor: float = 1.0


@dataclass(frozen=True)
class Finding:
    """Something that a rule has read from a run.

    Attributes
    ----------
    symptom : str
        Key of the symptom, such as ``dead-units``; that of the rule that found it.
    severity : {"problem", "warning", "note"}
        A problem harms this training; a warning may; a note is worth knowing.
    title : str
        What is wrong and where, in one line.
    layers : tuple of str
        Names of layers or parameters, the first cause first; empty where it concerns the whole model.
    first, last : int
        Training batches from which to which it holds, by their index, both included.
    numbers : tuple of Number
        What speaks for it, the decisive one first.
    why : str
        Two sentences for a beginner.
    remedies : tuple of Remedy
        What to try, in this order.
    page : str
        Where the manual explains it: ``colordim docs PAGE`` shows that.
    consequences : tuple of Finding
        What this explains.
    """

    symptom: str
    severity: Severity
    title: str
    layers: tuple[str, ...]
    first: int
    last: int
    numbers: tuple[Number, ...]
    why: str
    remedies: tuple[Remedy, ...] = ()
    consequences: tuple[Finding, ...] = ()

    @property
    def page(self) -> str:
        return f"diagnosis#{self.symptom}"

    def walk(self) -> Iterator[Finding]:
        """Yield the finding, then what it explains."""
        yield self
        for consequence in self.consequences:
            yield from consequence.walk()

    def to_dict(self) -> dict[str, Any]:
        """Describe the finding in JSON types."""
        return {
            "symptom": self.symptom,
            "severity": self.severity,
            "title": self.title,
            "layers": list(self.layers),
            "first": self.first,
            "last": self.last,
            "numbers": [{**vars(number), "text": str(number)} for number in self.numbers],
            "why": self.why,
            "remedies": [vars(remedy) for remedy in self.remedies],
            "page": self.page,
            "consequences": [consequence.to_dict() for consequence in self.consequences],
        }

    def with_consequences(self, consequences: tuple[Finding, ...]) -> Finding:
        """Return the finding as the explanation of others; it is at least as severe as they are."""
        worst = min((self.severity, *(each.severity for each in consequences)), key=SEVERITIES.index)
        return replace(self, consequences=consequences, severity=worst)


@dataclass(frozen=True)
class Declined:
    """Why a rule says nothing of a run.

    Attributes
    ----------
    symptom : str
    why : str
        A sentence: what is missing, and how to record it.
    """

    symptom: str
    why: str


@dataclass(frozen=True)
class Diagnosis:
    """What was read from a run.

    Attributes
    ----------
    findings : tuple of Finding
        Root causes, the worst and earliest first.
    sentence : str
        The whole in one sentence: the first finding, or that the run is healthy, with the evidence.
    declined : tuple of Declined
        Rules that had too little to go by.
    batches : int
        Training batches that were looked at.
    name : str
        Of the run.
    muted : tuple of str
        What was not to be looked for.
    epochs : tuple of int
        First training batch of each epoch.
    """

    findings: tuple[Finding, ...]
    sentence: str
    declined: tuple[Declined, ...] = ()
    batches: int = 0
    name: str = ""
    muted: tuple[str, ...] = field(default=())
    epochs: tuple[int, ...] = ()

    def __str__(self) -> str:
        """Return the diagnosis as text; :func:`colordim.diagnosis.text.as_text` has options."""
        from colordim.diagnosis.text import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        """Return the diagnosis for a notebook."""
        from colordim.diagnosis.text import as_html

        return as_html(self)

    @property
    def severity(self) -> Severity | None:
        """The worst severity among the findings; None without any."""
        return min((finding.severity for finding in self.findings), key=SEVERITIES.index, default=None)

    @property
    def healthy(self) -> bool:
        """Whether there is neither a problem nor a warning."""
        return self.severity in (None, "note")

    def to_dict(self) -> dict[str, Any]:
        """Describe the diagnosis in JSON types."""
        return {
            "run": self.name,
            "batches": self.batches,
            "healthy": self.healthy,
            "severity": self.severity,
            "sentence": self.sentence,
            "findings": [finding.to_dict() for finding in self.findings],
            "declined": [vars(each) for each in self.declined],
            "muted": list(self.muted),
            "epochs": list(self.epochs),
        }


def _text(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.3g} %"
    if unit == "log10":
        return f"10^{value:.2f}"
    text = f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    return f"{text}{' ' if unit else ''}{unit}"
