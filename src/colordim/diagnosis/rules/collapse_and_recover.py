"""Collapse and recover: values that rise over many batches, crash within a few, and begin again.

The signature of the *colorful dimension* (fast.ai, "it almost looks like training restarts from scratch"). No published
rule finds it. Here a crash is a fall of a layer's root mean square from a peak that it had risen to by at least a factor
R, to at most 1/R of that peak, within w batches. A collapse is a crash of at least two layers in the same w batches in
which the loss gives back at least half of what had been gained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of, smoothed
from colordim.diagnosis.evidence import Evidence, Series
from colordim.diagnosis.finding import Finding, Number, Remedy, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE", "crashes"]

#: R: twice what batches of a healthy training differ by. w: a crash takes one or two batches, its echo in later layers a few more.
_FACTOR, _WITHIN = 2.0, 5
#: Share of what the loss had gained, that it gives back.
_BACK = 0.5
#: Least gain, as a share of the loss of guessing: below that the loss is noise.
_GAIN = 0.02
_WHY = (
    "The steps are too large for how the network began: the values grow from batch to batch, overshoot, and fall back to almost "
    "nothing, as if the training began again. Each time it throws away what it had learnt, and units may never come back."
)


@dataclass(frozen=True)
class _Collapse:
    batch: int
    layers: tuple[tuple[float, str], ...]  # how far each fell, and its name


def crashes(rms: npt.NDArray[np.float64]) -> list[tuple[int, float]]:
    """Return the place after each crash of a series of magnitudes, and by what factor it fell.

    Parameters
    ----------
    rms : ndarray of float64, shape ``[n]``
        Finite and not negative.
    """
    found: list[tuple[int, float]] = []
    low, base, peak, at = np.inf, np.inf, 0.0, 0  # the least so far, the least before the peak, the peak and its place
    for place, value in enumerate(rms.tolist()):
        if value > peak or place - at > _WITHIN:
            # A peak that is not followed by a crash is the way up to the next.
            base, peak, at = low, value, place
        elif peak >= _FACTOR * base and value <= peak / _FACTOR:
            found.append((place, peak / max(value, 1e-30)))
            low, base, peak, at = value, value, value, place
        low = min(low, value)
    return found


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find batches in which several layers crash together, and the loss with them."""
    course = course_of(evidence)
    if not course.known:
        raise TooThin("the loss was not logged: rec.log(loss=loss) in each batch.")
    found = [each for each in _together(evidence) if _gives_back(evidence, each.batch, course.base)]
    if not found:
        return []
    first, last = found[0], found[-1]
    depth: dict[str, float] = {}
    for collapse in found:
        for factor, name in collapse.layers:
            depth[name] = max(depth.get(name, 0.0), factor)
    names = tuple(sorted(depth, key=lambda name: -depth[name]))
    severity: Severity = (
        "problem" if not course.learnt or len(found) > 1 or last.batch > evidence.epoch_length else "warning"
    )
    times = f"{len(found)} times" if len(found) > 1 else "once"
    return [
        Finding(
            "collapse-and-recover",
            severity,
            f"the activations rise and collapse {times}, {names[0]} by a factor of {depth[names[0]]:.2g}",
            names,
            first.batch,
            last.batch,
            (
                Number(f"fall of {names[0]} within {_WITHIN} batches", depth[names[0]], _FACTOR, "above", "times"),
                Number("layers that fall together", len({name for _, name in first.layers}), 1, "above"),
                Number("loss that is left, of that of guessing", course.left, None, "", "%"),
            ),
            _WHY,
            (remedy("batch-norm"), remedy("kaiming-init"), remedy("warm-up"), _lower(evidence)),
        )
    ]


def _together(evidence: Evidence) -> list[_Collapse]:
    events: list[tuple[int, float, str]] = []
    for series in layers.weighted(evidence):
        single = _single(series)
        events += [(int(single.first[place]), factor, series.name) for place, factor in crashes(_steadied(single.rms))]
    events.sort()
    found: list[_Collapse] = []
    while events:
        group = [event for event in events if event[0] - events[0][0] <= _WITHIN]
        events = events[len(group) :]
        if len({name for _, _, name in group}) > 1:
            found.append(_Collapse(group[0][0], tuple((factor, name) for _, factor, name in group)))
    return found


def _steadied(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the median of each value and its two neighbours: of small batches a single one may lie anywhere."""
    if values.size < 3:
        return values
    padded = np.concatenate([values[:1], values, values[-1:]])
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, 3), axis=1), np.float64)


def _single(series: Series) -> Series:
    """Return the columns that are single batches with finite values: in sums a crash is smoothed away."""
    return series[(series.first == series.last) & series.fired & np.isfinite(series.rms)]


def _gives_back(evidence: Evidence, batch: int, base: float) -> bool:
    loss = evidence.loss
    before, after = loss[max(batch - 6 * _WITHIN, 0) : batch], loss[max(batch - 1, 0) : batch + _WITHIN]
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if before.size < 2 or not after.size:
        return False
    best = float(smoothed(before, 3)[min(2, before.size - 1) :].min())
    gain = base - best
    return bool(gain > _GAIN * base and smoothed(after, 3)[min(2, after.size - 1) :].max() >= best + _BACK * gain)


def _lower(evidence: Evidence) -> Remedy:
    """Return the advice to lower the learning rate, which is half of it: a network that began so then learns slowly."""
    lower = lower_lr(evidence)
    return replace(
        lower, text=f"{lower.text.removesuffix('.')}, together with one of these: alone it may take long to learn."
    )


RULE = Rule("collapse-and-recover", "Collapse and recover", find)
