"""Bounded activation functions that sit at their ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence, FloatArray, Series
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Magnitude of the input from which on a function is flat, its slope below a tenth of the steepest: tanh(2) = 0.96, sigmoid(4) = 0.98.
#: Karpathy prints the share of tanh beyond 0.97 (makemore 3), DeepDiagnosis takes inputs beyond 5. Powers of two are borders of buckets.
_FLAT = {"Tanh": 2.0, "Sigmoid": 4.0, "Hardtanh": 1.0, "Hardsigmoid": 4.0, "Softsign": 4.0}
#: Where the input was not recorded: of the way from the middle to an end, also borders of buckets.
_END = 0.875
#: Share of the values. SageMaker Debugger and DeepDiagnosis take half.
_SHARE, _ALMOST_ALL = 0.5, 0.8
_RECURRENT = ("GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell")
_FEWEST = 8
_WHY = (
    "Far from its middle a bounded function is flat: whatever its input does, its output stays at the end, and its gradient is "
    "almost zero. A layer that sits there passes hardly any signal forward and hardly any gradient back."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers of which most values lie at the ends of their activation function."""
    bounded = [series for series in evidence.of("activation") if _bounded(series)]
    if not bounded:
        raise TooThin("no layer has a bounded activation function that is a module, such as nn.Tanh().")
    course = course_of(evidence)
    found = []
    for series in bounded:
        share = _at_ends(evidence, series)
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
    worst = max(share for _, share, _ in found)
    severity: Severity = "warning" if course.learnt and worst < _ALMOST_ALL else "problem"
    first = found[0]
    return [
        Finding(
            "saturation",
            severity,
            f"{100 * first[1]:.0f} % of {first[0].name} ({first[0].stream.module}) sits at the ends"
            + (f", and {len(found) - 1} more layer{'s do' if len(found) > 2 else ' does'}" if len(found) > 1 else ""),
            tuple(series.name for series, _, _ in found),
            first[2],
            int(first[0].last[-1]),
            (
                Number(f"values of {first[0].name} where it is flat", first[1], _SHARE, "above", "%"),
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


def _bounded(series: Series) -> bool:
    if series.stream.module in _RECURRENT:
        return bool(len(series)) and bool(np.nanmax(np.abs([series.min, series.max]), initial=0.0) <= 1.0)
    return series.stream.module in _FLAT


def _at_ends(evidence: Evidence, series: Series) -> FloatArray:
    """Return the share of the values at the ends: by what goes in, which the buckets resolve, or by what comes out."""
    outputs = evidence.of("activation")
    place = next(i for i, each in enumerate(outputs) if each is series)
    before = outputs[place - 1] if place else None
    known = series.stream.module in _FLAT and before is not None and before.stream.shape == series.stream.shape
    if known and before is not None and len(before) == len(series):
        return 1.0 - before.below(_FLAT[series.stream.module])
    low, high = (0.0, 1.0) if "igmoid" in series.stream.module else (-1.0, 1.0)
    middle, half = (low + high) / 2, (high - low) / 2
    return series.above(middle + _END * half) + 1.0 - series.above(middle - _END * half)


def _is_output(evidence: Evidence, series: Series) -> bool:
    """Return whether nothing comes after it: an output is meant to decide."""
    return series is evidence.of("activation")[-1]


RULE = Rule("saturation", "Saturation", find)
