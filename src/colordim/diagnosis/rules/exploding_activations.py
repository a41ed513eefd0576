"""Values that grow without bound, over the batches or from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule

__all__ = ["RULE"]

#: How many times as large as in its first batches a layer has become. Layers of healthy trainings grow up to some ten times.
_GROWTH = 100.0
#: How many times as large as the first layer's another one is, in the first batches: without a normalisation each layer adds to it.
_DEPTH = 100.0
_LARGE = 10.0
_WHY = (
    "Each step makes the values larger, and larger values make larger gradients and so larger steps. "
    "It ends in infinities, or in a network whose outputs no loss can be read from."
)
_WHY_DEPTH = (
    "Each layer multiplies what it gets, and nothing brings it back to unit size, so that the last layers see enormous values. "
    "Their gradients are as large, and no learning rate suits both ends."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers that have grown a hundredfold, or that begin a hundred times as large as the first one."""
    course = course_of(evidence)
    if course.learnt:
        return []
    outputs = layers.weighted(evidence)
    grown: list[tuple[int, float, str]] = []
    begin: dict[str, float] = {}
    for series in outputs:
        known = np.flatnonzero(series.fired & np.isfinite(series.rms))
        if not known.size:
            continue
        start = float(np.median(series.rms[known[:3]]))
        begin[series.name] = start
        ratio = series.rms[known] / max(start, 1e-12)
        over = np.flatnonzero((ratio > _GROWTH) & (series.rms[known] > _LARGE))
        if over.size:
            grown.append((int(series.first[known[over[0]]]), float(ratio.max()), series.name))
    severity: Severity = "problem" if course.stuck else "warning"
    last = max(evidence.length - 1, 0)
    if grown:
        grown.sort()
        names = tuple(name for _, _, name in grown)
        return [
            Finding(
                "exploding-activations",
                severity,
                f"the values of {names[0]} explode: {grown[0][1]:.2g} times as large as at the start",
                names,
                grown[0][0],
                last,
                (Number(f"growth of {names[0]} since its first batches", grown[0][1], _GROWTH, "above", "times"),),
                _WHY,
                (
                    lower_lr(evidence),
                    remedy("clip-gradients"),
                    remedy("batch-norm"),
                    remedy("kaiming-init"),
                ),
            )
        ]
    if outputs:
        begin.pop(outputs[-1].name, None)  # an output may be of any scale
    if len(begin) < 3:
        return []
    first = next(iter(begin.values()))
    deep = [(name, size / max(first, 1e-12)) for name, size in begin.items() if size > _DEPTH * first and size > _LARGE]
    if not deep:
        return []
    return [
        Finding(
            "exploding-activations",
            severity,
            f"the values grow from layer to layer: {deep[0][0]} returns {deep[0][1]:.2g} times what the first layer does",
            tuple(name for name, _ in deep),
            0,
            last,
            (Number(f"{deep[0][0]} relative to the first layer", deep[0][1], _DEPTH, "above", "times"),),
            _WHY_DEPTH,
            (remedy("batch-norm"), remedy("kaiming-init"), lower_lr(evidence)),
        )
    ]


RULE = Rule("exploding-activations", "Exploding activations", find)
