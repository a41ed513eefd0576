"""A loss that rises."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis.course import course_of, smoothed
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Share of what had been gained that is lost again, and the loss relative to the best.
_LOST, _TIMES = 0.3, 1.5
_FEWEST = 20
#: Standard errors of the two means by which they have to differ.
_SIGMAS = 3.0
_WHY = (
    "The training loss was lower before than it is now, so that the last steps have made the network worse. "
    "Most often the learning rate is too high for this stretch of the training, or one bad batch has thrown the weights away."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find training losses that have risen far above their best."""
    course = course_of(evidence)
    if not course.known:
        raise TooThin("the loss was not logged: rec.log(loss=loss) in each batch.")
    place = np.flatnonzero(np.isfinite(evidence.loss))
    if place.size < _FEWEST:
        return []
    loss = evidence.loss[place]
    # Means over an epoch, as far as there are some: batches of one epoch differ by what is in them.
    width = max(loss.size // 20, 5, min(evidence.epoch_length, loss.size // 4))
    means = smoothed(loss, width)
    best = int(np.argmin(means[width - 1 :])) + width - 1
    gain = course.base - means[best]
    lost = means[-1] - means[best]
    noise = np.sqrt((loss[-width:].var() + loss[best + 1 - width : best + 1].var()) / width)
    if not lost > _SIGMAS * noise:
        return []
    if not (lost > _LOST * max(gain, 0.05 * course.base) and means[-1] > _TIMES * means[best]):
        return []
    over = np.flatnonzero(means[best:] > _TIMES * means[best])
    severity: Severity = "problem" if means[-1] > 0.5 * course.base else "warning"
    return [
        Finding(
            "divergence",
            severity,
            f"the training loss rises: from {means[best]:.3g} to {means[-1]:.3g}",
            (),
            int(place[best + over[0]]),
            int(place[-1]),
            (
                Number(
                    "loss relative to its best", float(means[-1] / max(means[best], 1e-12)), _TIMES, "above", "times"
                ),
            ),
            _WHY,
            (lower_lr(evidence), remedy("clip-gradients"), remedy("warm-up")),
        )
    ]


RULE = Rule("divergence", "Divergence", find)
