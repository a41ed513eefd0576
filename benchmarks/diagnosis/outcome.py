"""What came of a training, against the architecture's base runs: the third axis of labels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from benchmarks.diagnosis.train import Truth

__all__ = ["HARM", "NEAR", "REFERENCE", "SLOW", "Outcome", "Reference", "judge", "read_references", "write_references"]

HARM = 0.05  # accuracy, or R^2, below the reference that is harmful
NEAR = 0.03  # at most so far below it is verified healthy; between the two is grey
SLOW = 3.0  # times as many epochs to 90 % of the reference is harmful
REFERENCE = Path(__file__).with_name("reference.json")

Outcome = Literal["harmful", "grey", "fine"]


@dataclass(frozen=True)
class Reference:
    """What the base training of an architecture achieves: medians over its seeds.

    Attributes
    ----------
    score : float
        Final validation score.
    epochs : float
        Epochs to 90 % of `score`.
    scores : tuple of float
        The final scores themselves.
    """

    score: float
    epochs: float
    scores: tuple[float, ...]


def judge(truth: Truth, reference: Reference) -> Outcome:
    """Return "harmful", "fine" (verified: within 0.03 of the reference, or above) or "grey"."""
    final = truth.scores[-1][1]
    if truth.nan or not math.isfinite(final) or final < reference.score - HARM:
        return "harmful"
    if _epochs_to(truth, 0.9 * reference.score) > SLOW * reference.epochs:
        return "harmful"
    return "fine" if final >= reference.score - NEAR else "grey"


def write_references(truths: Iterable[Truth]) -> None:
    """Write the medians of base runs, by architecture, beside this module."""
    grouped: dict[str, list[Truth]] = {}
    for truth in truths:
        grouped.setdefault(truth.spec["arch"], []).append(truth)
    rows = {}
    for arch, several in sorted(grouped.items()):
        scores = sorted(each.scores[-1][1] for each in several)
        target = 0.9 * median(scores)
        rows[arch] = {
            "score": median(scores),
            "epochs": median(_epochs_to(each, target) for each in several),
            "scores": scores,
            "seeds": sorted(each.spec["seed"] for each in several),
            "recipe": several[0].spec["recipe"],
        }
    REFERENCE.write_text(json.dumps(rows, indent=1) + "\n")


def read_references() -> dict[str, Reference]:
    """Return the reference of each architecture."""
    rows = json.loads(REFERENCE.read_text())
    return {arch: Reference(row["score"], row["epochs"], tuple(row["scores"])) for arch, row in rows.items()}


def _epochs_to(truth: Truth, score: float) -> float:
    return next((number + 1.0 for number, (_, valid) in enumerate(truth.scores) if valid >= score), math.inf)
