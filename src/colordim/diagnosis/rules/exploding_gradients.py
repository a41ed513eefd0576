"""Gradients that are suddenly, or always, far too large."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Norm of all gradients relative to its median over so many batches before.
_JUMP, _BEFORE = 30.0, 50
_FEWEST = 5
_WHY = (
    "One batch brought gradients many times as large as all before, and the step that follows throws the weights far away. "
    "It happens where a value is divided by something small, in recurrent networks, and where the values themselves had grown."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find batches whose gradients are a hundred times as large as the median of those before."""
    norm, batch = _norm(evidence)
    if not norm.size:
        raise TooThin('gradients were not recorded: colordim.record(model, kinds="all", optimizer=optimizer).')
    course = course_of(evidence)
    if norm.size <= _FEWEST or course.learnt:
        return []
    padded = np.concatenate([np.full(_BEFORE, np.nan), norm])
    before = np.sort(np.lib.stride_tricks.sliding_window_view(padded, _BEFORE)[:-1], axis=1)  # NaN comes last
    middle = before[np.arange(norm.size), (np.minimum(np.arange(norm.size), _BEFORE) - 1).clip(0) // 2]
    jump = norm[_FEWEST:] / np.maximum(middle[_FEWEST:], 1e-30)
    over = np.flatnonzero(jump > _JUMP)
    if not over.size:
        return []
    severity: Severity = "problem" if course.stuck else "warning"
    names = _largest(evidence, int(batch[_FEWEST + over[0]]))
    return [
        Finding(
            "exploding-gradients",
            severity,
            f"the gradients explode: {jump[over[0]]:.2g} times as large as before",
            names,
            int(batch[_FEWEST + over[0]]),
            int(batch[_FEWEST + over[-1]]),
            (
                Number(
                    "norm of all gradients relative to its median before", float(jump[over[0]]), _JUMP, "above", "times"
                ),
            ),
            _WHY,
            (remedy("clip-gradients"), lower_lr(evidence), remedy("kaiming-init"), remedy("batch-norm")),
        )
    ]


def _norm(evidence: Evidence) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    series = [each for each in evidence.of("weight_gradient") if len(each)]
    if not series:
        return np.zeros(0), np.zeros(0, np.int64)
    longest = max(len(each) for each in series)
    mine = [each for each in series if len(each) == longest]
    with np.errstate(over="ignore", invalid="ignore"):
        power = np.sum([np.nan_to_num(each.rms**2 * each.size, nan=0.0, posinf=1e300) for each in mine], axis=0)
    known = power > 0
    return np.sqrt(power[known]), mine[0].first[known]


def _largest(evidence: Evidence, batch: int) -> tuple[str, ...]:
    """Return the layers whose gradients have grown most in a batch."""
    grown: dict[str, float] = {}
    for row in layers.matrices(evidence):
        series = evidence.get("weight_gradient", row["path"])
        if series is None:
            continue
        at = np.flatnonzero(series.first == batch)
        before = series.rms[(series.first < batch) & series.fired]
        if at.size and before.size and np.isfinite(series.rms[at[0]]):
            grown[row["module"]] = float(series.rms[at[0]] / max(np.nanmedian(before), 1e-30))
    return tuple(sorted(grown, key=lambda name: -grown[name]))


RULE = Rule("exploding-gradients", "Exploding gradients", find)
