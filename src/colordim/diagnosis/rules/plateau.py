"""A loss that does not move."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
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
_FLAT = 0.01
_WHY = (
    "After all these batches the loss is where it would be without having learnt anything. "
    "Either no signal gets from the inputs to the outputs, or none gets back, or the labels have nothing to do with the inputs."
)
_WHY_SOFTMAX = (
    "With a softmax in the model and another one in the loss, the loss cannot fall below this value even if every answer is right. "
    "nn.CrossEntropyLoss computes the softmax itself, and wants the plain outputs."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find losses that have stayed at that of guessing, or at the least that a softmax applied twice allows."""
    course = course_of(evidence)
    if not course.known:
        raise TooThin("the loss was not logged: rec.log(loss=loss) in each batch.")
    if evidence.length < max(_FEWEST, _EPOCHS * evidence.epoch_length):
        return []
    number = layers.classes(evidence)
    last = evidence.of("activation")[-1:]
    least = math.log(math.e + number - 1) - 1 if number else math.nan
    twice = (
        bool(last)
        and last[0].stream.module == "Softmax"
        and course.best >= least - 1e-3
        and math.isfinite(course.guess)
    )
    loss = evidence.loss[np.isfinite(evidence.loss)]
    means = smoothed(loss, max(loss.size // 10, 5))
    fallen = float(means[loss.size // 2] - means[-1]) / course.base
    if not twice and (course.lost or course.left < _LEFT or fallen > _FLAT * 5):
        return []
    return [
        Finding(
            "plateau",
            "problem" if not twice or course.left > 0.7 else "warning",
            "the softmax is applied twice: the loss cannot fall any further" if twice else "the loss does not move: nothing was learnt",
            (last[0].name,) if twice else (),
            0,
            evidence.length - 1,
            (
                Number("loss that is left, of that of guessing", course.left, _LEFT, "above", "%"),
                *([Number("loss", course.now), Number("least loss that two softmaxes allow", least)] if twice else []),
            ),
            _WHY_SOFTMAX if twice else _WHY,
            (remedy("remove-softmax"),) if twice else (raise_lr(evidence), lower_lr(evidence), remedy("kaiming-init"), remedy("standardise-input")),
        )
    ]  # fmt: skip


RULE = Rule("plateau", "Plateau", find)
