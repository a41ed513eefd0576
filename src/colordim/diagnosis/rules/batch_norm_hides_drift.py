"""A normalisation that saves the day: what comes in drifts, what goes out stays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: How many times as large as at the start the input of the normalisation has become, and its output may have.
_DRIFT, _STEADY = 10.0, 3.0
_FEWEST = 20
_WHY = (
    "What this layer returns has drifted far from where it began, and the normalisation after it brings it back to unit size each time. "
    "That is what it is for; without it, this training would have gone wrong."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers whose output has grown tenfold in front of a normalisation whose output has not."""
    outputs = evidence.of("activation")
    pairs = [
        (before, after)
        for before, after in itertools.pairwise(outputs)
        if layers.is_norm(after) and not layers.is_norm(before)
    ]
    if not pairs:
        raise TooThin("the model has no normalisation that is a module.")
    found = []
    for before, after in pairs:
        if before.stream.shape != after.stream.shape:
            continue
        drift, steady = _grown(before.rms), _grown(after.rms)
        if drift > _DRIFT and 1 / _STEADY < steady < _STEADY:
            found.append((drift, before, after))
    if not found:
        return []
    drift, before, after = max(found, key=lambda each: each[0])
    start = float(np.nanmedian(before.rms[:3]))
    over = np.flatnonzero(before.rms > _DRIFT * start)
    return [
        Finding(
            "batch-norm-hides-drift",
            "note",
            f"{after.name} hides that {before.name} has grown {drift:.2g} times",
            tuple(each.name for _, each, _ in sorted(found, key=lambda each: -each[0])),
            int(before.first[over[0]]) if over.size else 0,
            int(before.last[-1]),
            (
                Number(f"{before.name} relative to its first batches", drift, _DRIFT, "above", "times"),
                Number(f"{after.name} relative to its own", _grown(after.rms), _STEADY, "below", "times"),
            ),
            _WHY,
            (lower_lr(evidence), remedy("kaiming-init")),
        )
    ]


def _grown(
    rms: np.ndarray[tuple[int], np.dtype[np.float64]] | np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> float:
    known = rms[np.isfinite(rms)]
    if known.size < _FEWEST:
        return 1.0
    return float(np.median(known[-5:]) / max(np.median(known[:3]), 1e-12))


RULE = Rule("batch-norm-hides-drift", "Batch norm hides a drift", find)
