"""How far each step of the optimiser moves the weights, relative to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence

__all__ = ["Steps", "steps_of"]


@dataclass(frozen=True)
class Steps:
    """Decimal logarithm of ``std(update) / std(weight)`` of k matrices in n batches with a step.

    The ratio is the one of CS231n (notes 3, "Ratio of weights:updates") and of Karpathy's makemore 3.

    Attributes
    ----------
    names : tuple of str
    batch : ndarray of int64, shape ``[n]``
        First batch of each column.
    ratio : ndarray of float64, shape ``[k, n]``
        NaN where there was no step, -inf where it changed nothing.
    """

    names: tuple[str, ...]
    batch: npt.NDArray[np.int64]
    ratio: npt.NDArray[np.float64]

    @property
    def middle(self) -> npt.NDArray[np.float64]:
        """Median over the matrices, shape ``[n]``; NaN where none is known."""
        return _over(self.ratio, 50)

    @property
    def high(self) -> npt.NDArray[np.float64]:
        """The ratio that a tenth of the matrices exceeds, shape ``[n]``."""
        return _over(self.ratio, 90)


def steps_of(evidence: Evidence) -> Steps | None:
    """Return the steps of the matrices that are trained; None if updates or weights were not recorded."""
    rows: list[npt.NDArray[np.float64]] = []
    names: list[str] = []
    batch = np.zeros(0, np.int64)
    for row in layers.matrices(evidence):
        if not row["requires_grad"] or row.get("in_optimizer") is False:
            continue
        update, weight = evidence.get("update", row["path"]), evidence.get("weight", row["path"])
        if update is None or weight is None or min(row["shape"]) < 2:
            continue
        if not rows:
            batch = update.first
        if not np.array_equal(update.first, batch) or not np.array_equal(weight.first, batch):
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log10(update.std / weight.std)
        rows.append(np.where(update.fired & weight.fired & (weight.std > 0), ratio, np.nan))
        names.append(row["path"])
    return Steps(tuple(names), batch, np.array(rows)) if rows else None


def _over(ratio: npt.NDArray[np.float64], percentile: float) -> npt.NDArray[np.float64]:
    """Return a percentile over the rows that takes -inf for what it is, interpolated between the two next to it."""
    ordered = np.sort(np.where(np.isneginf(ratio), -300.0, ratio), axis=0)  # NaN comes last
    number = np.count_nonzero(~np.isnan(ordered), axis=0)
    place = np.maximum(number - 1, 0) * percentile / 100
    low = place.astype(np.int64)
    column = np.arange(ratio.shape[1])
    below, above = ordered[low, column], ordered[np.minimum(low + 1, np.maximum(number - 1, 0)), column]
    return np.asarray(below + (place - low) * (above - below), np.float64)
