"""Gradients that shrink from layer to layer until the first layers learn nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence, Series
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Gradient of the first matrix relative to that of the last, root mean squares. AutoTrainer (ICSE 2021) takes 1e-3 of the norms, and
#: only if the training does not converge: a floor for the gradients themselves would call each training vanishing that is done.
_RATIO = 1e-3
_FEWEST = 10
_WHY = (
    "Going back from the loss, each layer multiplies the gradient by its slope and its weights; if that is below one, "
    "little is left for the first layers. They stay as random as they began, and all later layers build on them."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find gradients that the layers make smaller by a thousand while the training does not converge."""
    gradients = _gradients(evidence)
    if len(gradients) < 3:
        if not evidence.of("weight_gradient") and not evidence.of("gradient"):
            raise TooThin('gradients were not recorded: colordim.record(model, kinds="all", optimizer=optimizer).')
        return []
    course = course_of(evidence)
    first, last = gradients[0], gradients[-1]
    if len(first) != len(last) or course.learnt:
        return []
    both = first.fired & last.fired & (last.rms > 0)
    if np.count_nonzero(both) < _FEWEST:
        return []
    ratio = first.rms[both] / last.rms[both]
    # Also if they came back: what the first layers have missed at the start is missing still.
    if np.count_nonzero(ratio < _RATIO) < _FEWEST:
        return []
    middle = float(np.median(ratio[ratio < _RATIO]))
    both &= first.rms < _RATIO * last.rms
    small = [series.name for series in gradients if _relative(series, last, both) < _RATIO]
    names = tuple(name.rsplit(".", 1)[0] if first.stream.kind == "weight_gradient" else name for name in small)
    since = int(first.first[both][0])
    return [
        Finding(
            "vanishing-gradients",
            "problem",
            f"the gradients vanish on their way back: {names[0]} gets {middle:.1g} of what the last layer gets",
            names,
            since,
            int(first.last[-1]),
            (
                Number("gradient of the first matrix relative to that of the last", middle, _RATIO, "below"),
                Number("loss that is left, of that of guessing", course.left, 0.5, "above", "%"),
            ),
            _WHY,
            (remedy("relu-instead"), remedy("kaiming-init"), remedy("batch-norm")),
        )
    ]


def _relative(series: Series, last: Series, both: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    return float(np.median(series.rms[both] / last.rms[both])) if len(series) == len(last) else 1.0


def _gradients(evidence: Evidence) -> list[Series]:
    """Return the gradients of the matrices in call order; those of the outputs of their layers where they are missing."""
    order = layers.call_order(evidence)
    rows = [row for row in layers.matrices(evidence) if row["requires_grad"] and row["module"] in order]
    rows.sort(key=lambda row: order[row["module"]])
    found = [evidence.get("weight_gradient", row["path"]) for row in rows]
    if any(series is not None for series in found):
        return [series for series in found if series is not None]
    outputs = [evidence.get("gradient", series.name) for series in layers.weighted(evidence)]
    return [series for series in outputs if series is not None]


RULE = Rule("vanishing-gradients", "Vanishing gradients", find)
