"""A loss that does not move."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis.course import course_of, smoothed
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import lower_lr, raise_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Batches and epochs before anything is said, and the share of the loss of guessing that has to be left.
_FEWEST, _EPOCHS = 60, 2
_LEFT = 0.9
#: How little the loss has fallen over the last half, beside that of guessing.
_FLAT = 0.05
_WHY = (
    "After all these batches the loss is where it would be without having learnt anything. "
    "Either no signal gets from the inputs to the outputs, or none gets back, or the labels have nothing to do with the inputs."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find losses that have stayed at that of guessing."""
    course = course_of(evidence)
    if not course.known:
        raise TooThin("the loss was not logged: rec.log(loss=loss) in each batch.")
    if evidence.length < max(_FEWEST, _EPOCHS * evidence.epoch_length):
        return []
    loss = evidence.loss[np.isfinite(evidence.loss)]
    means = smoothed(loss, max(loss.size // 10, 5))
    fallen = float(means[loss.size // 2] - means[-1]) / course.base
    if course.lost or course.left < _LEFT or fallen > _FLAT:
        return []
    more = () if evidence.of("update") else (remedy("record-more"),)
    return [
        Finding(
            "plateau",
            "problem",
            "the loss does not move: nothing was learnt",
            (),
            0,
            evidence.length - 1,
            (
                Number("loss that is left, of that of guessing", course.left, _LEFT, "above", "%"),
                Number("fall over the last half, of that of guessing", fallen, _FLAT, "below", "%"),
            ),
            _WHY,
            (*more, raise_lr(evidence), lower_lr(evidence), remedy("kaiming-init"), remedy("standardise-input")),
        )
    ]


RULE = Rule("plateau", "Plateau", find)
