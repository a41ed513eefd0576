"""A learning rate that is too high: steps that are large beside the weights, and a loss that suffers from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.course import Course, course_of, smoothed
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number, Remedy, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin
from colordim.diagnosis.steps import Steps, steps_of

__all__ = ["RULE"]

#: log10 of the step relative to the weights. The rule of thumb is -3 (CS231n notes 3); above -1 TheDeepChecker calls it too fast.
#: In healthy trainings 95 % of the first epochs' medians lie below -1.84 (docs/diagnosis.md).
_LARGE, _HUGE = -1.2, -0.5
#: Batches over which the steps are averaged.
_WIDTH = 3
#: A loss so many times that of guessing suffers from the steps; and batches (or an epoch) before one that does not is judged.
_HURT, _SETTLED = 1.5, 20
#: Without updates: a loss that rises to so many times that of guessing, while the outputs of layers grow so many times.
_RISE, _GROWTH = 3.0, 10.0
#: A jump of the learning rate: by this factor within a few batches, after so many.
_JUMP, _JUMP_AFTER = 3.0, 10
_WHY = (
    "Each step moves the weights so far that what the last batches taught is overwritten by the next. "
    "The loss jumps or stays where it was, and layers may be thrown to where they cannot come back from."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find steps that are too large while the loss does not fall, or rises."""
    steps, course = steps_of(evidence), course_of(evidence)
    if not course.known:
        raise TooThin("the loss was not logged: rec.log(loss=loss) in each batch.")
    finding = _by_growth(evidence, course) if steps is None else _by_steps(evidence, steps, course)
    return [finding] if finding is not None else []


def _by_steps(evidence: Evidence, steps: Steps, course: Course) -> Finding | None:
    middle = steps.middle
    known = np.flatnonzero(np.isfinite(middle) & (middle > -300))
    if known.size < _WIDTH:
        return None
    size = smoothed(middle[known], _WIDTH)[_WIDTH - 1 :]
    batch = steps.batch[known][_WIDTH - 1 :]
    peak = int(np.argmax(size))
    limit = _HUGE if course.learnt else _LARGE
    if not size[peak] > limit:
        return None
    since = int(steps.batch[known][max(int(np.argmax(size > limit)) + 1 - _WIDTH, 0)])
    # The first steps of a training are large in good health: they are judged by what they do to the loss, or once there was time to learn.
    if course.worst < _HURT * course.base and evidence.length < _SETTLED and len(evidence.epochs) < 2:
        return None
    last = int(batch[np.flatnonzero(size > limit)[-1]])
    settled = course.lost or course.worst >= _HURT * course.base or len(evidence.epochs) > 2
    severity: Severity = "problem" if settled and not course.learnt else "warning"
    return _finding(
        severity,
        f"steps of the optimiser change the weights by {100 * 10 ** size[peak]:.0f} % at once",
        since,
        last,
        Number("a step relative to the weights, median of all matrices", float(size[peak]), limit, "above", "log10"),
        course,
        _remedies(evidence, middle[known], int(np.flatnonzero(size > limit)[0]), since),
    )


def _remedies(evidence: Evidence, sizes: npt.NDArray[np.float64], since: int, batch: int) -> tuple[Remedy, ...]:
    """Return what to do, by the size of the steps and by whether the learning rate has jumped to where they became so large."""
    rest = (remedy("warm-up"), remedy("clip-gradients"), remedy("batch-norm"))
    if since > _JUMP_AFTER:
        rate = evidence.logged.get("lr", np.full(evidence.length, np.nan))
        before, after = rate[max(batch - _JUMP_AFTER, 0) : batch], rate[batch : batch + 2 * _WIDTH]
        known = np.isfinite(before).any() and np.isfinite(after).any()
        # Steps also grow by themselves, when what the layers return does.
        if known and np.nanmax(after) > _JUMP * np.nanmedian(before):
            return remedy("steady-lr"), lower_lr(evidence), *rest
        return lower_lr(evidence), *rest
    return lower_lr(evidence, float(np.median(sizes[:_WIDTH]))), *rest


def _by_growth(evidence: Evidence, course: Course) -> Finding | None:
    loss = evidence.loss
    if not course.worst > _RISE * course.base:
        return None
    high = np.flatnonzero(np.nan_to_num(loss, nan=0.0) > _RISE * course.base)
    high = high[high > 0]
    outputs = layers.weighted(evidence)
    grown = []
    for series in outputs:
        known = series.fired & np.isfinite(series.rms)
        if known.any() and np.nanmax(series.rms) > _GROWTH * series.rms[known][0]:
            grown.append(float(np.nanmax(series.rms) / max(series.rms[known][0], 1e-30)))
    if not high.size or 2 * len(grown) < len(outputs):
        return None
    severity: Severity = "warning" if course.learnt else "problem"
    return _finding(
        severity,
        f"the loss jumps to {course.worst:.3g}, and what layers return grows with it",
        int(high[0]),
        int(high[-1]),
        Number("largest loss beside that of guessing", course.worst / course.base, _RISE, "above", "times"),
        course,
        (lower_lr(evidence), remedy("warm-up"), remedy("clip-gradients"), remedy("zero-grad"), remedy("record-more")),
    )


def _finding(
    severity: Severity, title: str, first: int, last: int, number: Number, course: Course, remedies: tuple[Remedy, ...]
) -> Finding:
    return Finding(
        "learning-rate-too-high",
        severity,
        f"the learning rate is too high: {title}",
        (),
        first,
        last,
        (number, Number("loss that is left, of that of guessing", course.left, None, "", "%")),
        _WHY,
        remedies,
    )


RULE = Rule("learning-rate-too-high", "Learning rate too high", find)
