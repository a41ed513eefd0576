"""A learning rate that is too low: steps that hardly move any weight, and a loss that hardly falls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import raise_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin
from colordim.diagnosis.steps import steps_of

__all__ = ["RULE"]

#: log10 of the largest steps relative to the weights. TheDeepChecker calls below -4 too slow; healthy first epochs have -2.95 to
#: -1.84 (5 % and 95 %, docs/diagnosis.md). Schedules fade out, so that the largest of the run is judged, and never the last.
_SMALL = -4.0
#: Batches before anything is said: warm-ups begin with small steps.
_FEWEST = 20
_WHY = (
    "The optimiser moves the weights by so little that it would take many times as many batches to get anywhere. "
    "The loss falls slowly and steadily, without any noise from the steps."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find runs in which even the largest steps of the fastest matrices are small."""
    steps, course = steps_of(evidence), course_of(evidence)
    if steps is None:
        raise TooThin('updates were not recorded: colordim.record(model, kinds="all", optimizer=optimizer).')
    if not course.known:
        raise TooThin("the loss was not logged: rec.log(loss=loss) in each batch.")
    high = steps.high
    known = high[np.isfinite(high) & (high > -300)]
    if known.size < _FEWEST or evidence.length < max(_FEWEST, evidence.epoch_length):
        return []
    size = float(np.percentile(known, 95))
    if size > _SMALL or course.learnt:
        return []
    severity: Severity = "problem" if course.left > 0.7 else "warning"
    return [
        Finding(
            "learning-rate-too-low",
            severity,
            f"the learning rate is too low: a step changes the weights by 10^{size:.1f} of their size at most",
            (),
            0,
            evidence.length - 1,
            (
                Number("largest steps relative to the weights", size, _SMALL, "below", "log10"),
                Number("loss that is left, of that of guessing", course.left, 0.7, "above", "%"),
            ),
            _WHY,
            (raise_lr(evidence, size), remedy("train-longer")),
        )
    ]


RULE = Rule("learning-rate-too-low", "Learning rate too low", find)
