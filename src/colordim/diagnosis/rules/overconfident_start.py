"""Outputs that are sure of themselves before anything was learnt."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: The first loss relative to ln K, which is that of saying nothing about K classes (CS231n notes 3; Karpathy, makemore 3: "fix softmax
#: confidently wrong"). TheDeepChecker allows twice ln K.
_TIMES, _FAR = 2.0, 5.0
#: Root mean square of the first outputs.
_SIZE = 3.0
#: The same beside that of the layer before.
_BESIDE = 2.0
_WHY = (
    "Before training every class should get about the same probability, and the loss should be ln K for K classes; here the outputs "
    "are so large that the model is sure, and mostly wrong. The first batches are spent on unlearning that."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find a first loss far above that of guessing, beside large outputs."""
    number = layers.classes(evidence)
    course = course_of(evidence)
    last = layers.output(evidence)
    if not number or last is None:
        return []
    if not course.known:
        raise TooThin("the loss was not logged: rec.log(loss=loss) in each batch.")
    fired = np.flatnonzero(last.fired & np.isfinite(last.rms))
    if not fired.size or last.first[fired[0]] > 0:
        return []
    size, guess = float(last.rms[fired[0]]), math.log(number)
    before = [each.rms[0] for each in layers.weighted(evidence)[-2:-1] if each.fired[0] and np.isfinite(each.rms[0])]
    # Where the layers before are as large, it is not the output that began wrong.
    if not (course.start > _TIMES * guess and size > _SIZE and size > _BESIDE * max(before, default=0.0)):
        return []
    severity: Severity = "warning" if course.learnt and course.start < _FAR * guess else "problem"
    return [
        Finding(
            "overconfident-start",
            severity,
            f"the outputs are over-confident from the start: a loss of {course.start:.3g}, where guessing has {guess:.3g}",
            (last.name,),
            0,
            max(evidence.epoch_length - 1, 0),
            (
                Number("first loss relative to that of guessing", course.start / guess, _TIMES, "above", "times"),
                Number(f"root mean square of {last.name} in the first batch", size, _SIZE, "above"),
            ),
            _WHY,
            (remedy("scale-output-init"), remedy("kaiming-init"), remedy("warm-up")),
        )
    ]


RULE = Rule("overconfident-start", "Over-confident start", find)
