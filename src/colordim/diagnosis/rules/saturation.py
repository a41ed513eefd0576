"""Bounded activation functions that sit at their ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence, Series
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.layers import SQUASHING
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Of the way from the middle to an end: Karpathy prints the share of tanh beyond 0.97 (makemore 3), where the slope is 0.06.
_END = 0.97
#: Share of the values. SageMaker Debugger and DeepDiagnosis take half.
_SHARE = 0.5
_RECURRENT = ("GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell")
_FEWEST = 8
_WHY = (
    "Far from its middle a bounded function is flat: whatever its input does, its output stays at the end, and its gradient is "
    "almost zero. A layer that sits there passes hardly any signal forward and hardly any gradient back."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers of which most values lie at the ends of their activation function."""
    bounded = [series for series in evidence.of("activation") if _ends(series) is not None]
    if not bounded:
        raise TooThin("no layer has a bounded activation function that is a module, such as nn.Tanh().")
    course = course_of(evidence)
    found = []
    for series in bounded:
        share = _at_ends(series)
        known = np.flatnonzero(np.isfinite(share))
        if known.size < _FEWEST or _is_output(evidence, series):
            continue
        recent = float(np.mean(share[known[-max(_FEWEST, known.size // 10) :]]))
        if not recent > _SHARE:
            continue
        below = np.flatnonzero(share[known] <= _SHARE)
        since = known[int(below[-1]) + 1] if below.size and below[-1] + 1 < known.size else known[0]
        found.append((series, recent, int(series.first[since])))
    if not found:
        return []
    found.sort(key=lambda each: (each[2], each[0].stream.order))
    severity: Severity = "warning" if course.learnt else "problem"
    worst = max(share for _, share, _ in found)
    first = found[0]
    return [
        Finding(
            "saturation",
            severity,
            f"{100 * first[1]:.0f} % of {first[0].name} ({first[0].stream.module}) sits at the ends"
            + (f", and {len(found) - 1} more layers do" if len(found) > 1 else ""),
            tuple(series.name for series, _, _ in found),
            first[2],
            int(first[0].last[-1]),
            (
                Number(f"values of {first[0].name} within 3 % of the ends", first[1], _SHARE, "above", "%"),
                Number("share in the worst layer", worst, None, "", "%"),
            ),
            _WHY,
            (
                remedy("kaiming-init"),
                remedy("standardise-input"),
                lower_lr(evidence),
                remedy("batch-norm"),
                remedy("relu-instead"),
            ),
        )
    ]


def _ends(series: Series) -> tuple[float, float] | None:
    if series.stream.module in _RECURRENT:
        return (-1.0, 1.0) if series.max.size and np.nanmax(np.abs([series.min, series.max])) <= 1.0 else None
    return SQUASHING.get(series.stream.module)


def _at_ends(series: Series) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    low, high = _ends(series) or (0.0, 0.0)
    middle, half = (low + high) / 2, (high - low) / 2
    return np.asarray(series.above(middle + _END * half) + 1.0 - series.above(middle - _END * half), np.float64)


def _is_output(evidence: Evidence, series: Series) -> bool:
    """Return whether nothing comes after it: an output is meant to decide."""
    return series is evidence.of("activation")[-1]


RULE = Rule("saturation", "Saturation", find)
