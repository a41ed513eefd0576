"""How the training went, by its loss: what decides whether a symptom does harm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence

__all__ = ["Course", "course_of", "smoothed"]


@dataclass(frozen=True)
class Course:
    """The training loss of a run.

    Attributes
    ----------
    known : bool
        Whether it was logged in enough batches to be judged.
    start, now, best : float
        Its first value, its mean over the last batches, and the least such mean so far.
    guess : float
        The loss of guessing, ln K of K classes, if the first value fits a cross-entropy; else NaN.
    worst : float
        The largest loss of any batch after the first.
    lost : bool
        Whether the outputs have ended as NaN or infinities.
    """

    known: bool
    start: float = math.nan
    now: float = math.nan
    best: float = math.nan
    guess: float = math.nan
    worst: float = math.nan
    lost: bool = False

    @property
    def base(self) -> float:
        """What a model that has learnt nothing would have: the loss of guessing, or that of the first batches."""
        return min(self.start, self.guess) if math.isfinite(self.guess) else self.start

    @property
    def left(self) -> float:
        """The share of that loss that is left; NaN where it is not known."""
        return self.now / self.base if self.known and self.base > 0 else math.nan

    @property
    def learnt(self) -> bool:
        """Whether at least half of it is gone."""
        return self.known and not self.lost and self.left < 0.5

    @property
    def stuck(self) -> bool:
        """Whether less than a tenth of it is gone."""
        return self.known and (self.lost or not self.left < 0.9)


def smoothed(values: npt.NDArray[np.float64], width: int) -> npt.NDArray[np.float64]:
    """Return the mean of the last `width` values at each place, of fewer at the beginning."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    stop = np.arange(1, values.size + 1)
    start = np.maximum(stop - width, 0)
    return np.asarray((total[stop] - total[start]) / (stop - start), np.float64)


def course_of(evidence: Evidence) -> Course:
    """Return the course of a run's training loss; that ends where the loss is not finite any more."""
    loss = evidence.loss
    place = np.flatnonzero(np.isfinite(loss))
    if place.size < 3:
        return Course(False)
    values = loss[place]
    width = int(np.clip(values.size // 20, 3, 50))
    means = smoothed(values, width)[width - 1 :]
    start = float(values[0])
    number = layers.classes(evidence)
    guess = math.log(number) if number and start > 0.5 * math.log(number) else math.nan
    last = layers.output(evidence)
    lost = last is not None and bool(last.nan[-1] + last.inf[-1])
    return Course(True, start, float(means[-1]), float(means.min()), guess, float(values[1:].max()), lost)
