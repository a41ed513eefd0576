"""A softmax in the model, and another one in the loss."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: How near the first loss has to be to that of guessing, ln K: probabilities in the place of logits are all nearly alike. A loss that takes
#: probabilities (nn.NLLLoss of their logarithm) can fall to zero, one that applies a second softmax cannot fall below a limit.
_NEAR = 0.05
_FEWEST = 20
_WHY = (
    "The model ends in a softmax, and the loss applies another one: the probabilities between 0 and 1 are taken for logits, and the loss "
    "cannot fall below {:.3g} even if every answer is right. Gradients are small as well, since both softmaxes flatten them."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find models whose last layer is a softmax, and whose loss behaves as if there were another one."""
    outputs = evidence.of("activation")
    if not outputs or outputs[-1].stream.module != "Softmax":
        return []
    course = course_of(evidence)
    if not course.known:
        raise TooThin("the loss was not logged: rec.log(loss=loss) in each batch.")
    last = outputs[-1]
    number = int(last.stream.shape[-1])
    loss = evidence.loss[np.isfinite(evidence.loss)]
    guess, least = math.log(number), math.log(math.e + number - 1) - 1
    if loss.size < _FEWEST or abs(loss[0] - guess) > _NEAR * guess or loss.min() < least - 1e-3:
        return []
    return [
        Finding(
            "softmax-twice",
            "problem",
            f"the softmax is applied twice: in {last.name}, and in the loss",
            (last.name,),
            0,
            evidence.length - 1,
            (Number("least loss of any batch", float(loss.min()), least, "above"), Number("loss of guessing", guess)),
            _WHY.format(least),
            (remedy("remove-softmax"),),
        )
    ]


RULE = Rule("softmax-twice", "Softmax applied twice", find)
