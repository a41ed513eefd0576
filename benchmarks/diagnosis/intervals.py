"""Shares with exact intervals, and bootstrap intervals of what is computed from the four cells of a detection table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

__all__ = ["Estimate", "Share", "balanced_accuracy", "bootstrap", "f1", "f1_margin"]

FloatArray = npt.NDArray[np.float64]
DRAWS = 20_000


@dataclass(frozen=True)
class Share:
    """Some of several independent runs."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share; NaN of none."""
        return self.count / self.of if self.of else math.nan

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the exact two-sided interval (Clopper and Pearson, Biometrika 1934); all that is possible for none."""
        if not self.of:
            return 0.0, 1.0
        found = binomtest(self.count, self.of).proportion_ci(level, "exact")
        return float(found.low), float(found.high)

    def upper(self, level: float = 0.95) -> float:
        """Return what the true share is below, one-sided: what a sample of this size can prove."""
        return self.interval(2 * level - 1)[1]

    def __str__(self) -> str:
        if not self.of:
            return "none"
        low, high = self.interval()
        return f"{self.count}/{self.of} = {100 * self.value:.3g} % [{100 * low:.3g}, {100 * high:.3g}]"


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % bootstrap interval over runs (percentiles)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return "none" if math.isnan(self.value) else f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def f1(cells: FloatArray) -> FloatArray:
    """Return F1 of cells (true positive, false positive, false negative, true negative), shape ``[..., 4]``."""
    hit, false, missed = cells[..., 0], cells[..., 1], cells[..., 2]
    return _ratio(2 * hit, 2 * hit + false + missed)


def balanced_accuracy(cells: FloatArray) -> FloatArray:
    """Return the mean of the shares found right among the positive and the negative runs, shape as of :func:`f1`."""
    hit, false, missed, right = (cells[..., place] for place in range(4))
    return (_ratio(hit, hit + missed) + _ratio(right, right + false)) / 2


def f1_margin(cells: FloatArray) -> FloatArray:
    """Return F1 of the first minus F1 of the second, of paired cells ``[..., 2, 2, 2]``: faulty, first alarms, second alarms."""
    first, second = cells.sum(-1), cells.sum(-2)  # [..., faulty, alarm]

    def rates(table: FloatArray) -> FloatArray:
        return f1(np.stack([table[..., 1, 1], table[..., 0, 1], table[..., 1, 0], table[..., 0, 0]], -1))

    return rates(first) - rates(second)


def bootstrap(cells: npt.ArrayLike, figure: Callable[[FloatArray], FloatArray]) -> Estimate:
    """Estimate a figure that depends on counts alone.

    Runs drawn with replacement fall into the cells by the multinomial distribution, so that counts are drawn, not runs.
    """
    counts = np.asarray(cells, np.float64)
    total = int(counts.sum())
    if not total:
        return Estimate(math.nan, math.nan, math.nan)
    drawn = np.random.default_rng(0).multinomial(total, counts.ravel() / total, DRAWS).astype(np.float64)
    figures = figure(drawn.reshape(-1, *counts.shape))
    low, high = np.nanpercentile(figures, [2.5, 97.5]) if np.isfinite(figures).any() else (math.nan, math.nan)
    return Estimate(float(figure(counts)), float(low), float(high))


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    ratio = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=ratio, where=np.asarray(whole) > 0)
    return ratio
