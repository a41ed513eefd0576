"""Evenly spaced columns: what one panel shows, no more of them than it has pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from colordim.axis import Axis
from colordim.column import COUNTERS

__all__ = ["Columns", "column_width", "regular", "to_rows"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """Adjacent columns of one stream, each the exact sum of the batches in `width` batches of the phase.

    Attributes
    ----------
    start : int
        Batch at the left edge of the first column, a multiple of `width`, so that zooming regroups nothing.
    width : int
        Batches from one column to the next.
    number : ndarray of int64, shape ``[n]``
        Batches of the column in which the stream fired.
    counts : ndarray of int64, shape ``[n, last_bin - first_bin]``
        Of the bins ``first_bin`` to ``last_bin``, outside of which all are empty.
    first_bin : int
    counters : ndarray of int64, shape ``[n, 8]``
        In the order of :data:`colordim.column.COUNTERS`.
    moments : ndarray of float64, shape ``[n, 4]``
    held : ndarray of bool, shape ``[n]``
        Columns of batches that were not recorded (``every=``): they repeat the one before.
    """

    start: int
    width: int
    number: IntArray
    counts: IntArray
    first_bin: int
    counters: IntArray
    moments: FloatArray
    held: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.number)

    def counter(self, name: str) -> IntArray:
        """Return one of the counters of every column."""
        values: IntArray = self.counters[:, COUNTERS.index(name)]
        return values

    def total(self, name: str) -> int:
        """Return one of the counters over all columns that were recorded."""
        return int(self.counter(name)[~self.held].sum())

    @cached_property
    def not_finite(self) -> IntArray:
        """How many NaN and infinities each column has."""
        return self.counter("nan") + self.counter("pos_inf") + self.counter("neg_inf")

    @cached_property
    def edges(self) -> FloatArray:
        """Batches at the edges of the columns, shape ``[n + 1]``."""
        return self.start + self.width * np.arange(len(self) + 1, dtype=np.float64)

    @property
    def centers(self) -> FloatArray:
        """Batches at the middle of the columns."""
        return (self.edges[:-1] + self.edges[1:]) / 2

    def whole(self, axis: Axis) -> IntArray:
        """Return the histogram over all columns that were recorded, shape ``[axis.bins]``."""
        result = np.zeros(axis.bins, np.int64)
        result[self.first_bin : self.first_bin + self.counts.shape[1]] = self.counts[~self.held].sum(axis=0)
        return result


def column_width(batches: int, pixels: int, finest: int = 0) -> tuple[int, int]:
    """Return how many batches a drawn column adds up, and the level to read it from, `finest` or a coarser one.

    The width is a multiple of ``4**level`` that gives at most `pixels` columns; the level is as coarse
    as it can be with at least four columns of it to one that is drawn, so that rounding the width up
    loses less than a quarter of the resolution.
    """
    least = max(-(-batches // max(pixels, 1)), 1)
    level = finest
    while 4 ** (level + 2) <= least:
        level += 1
    unit: int = 4**level
    return -(-least // unit) * unit, level


def regular(
    first: IntArray,
    number: IntArray,
    counts: IntArray,
    counters: IntArray,
    moments: FloatArray,
    *,
    width: int,
    start: int,
    stop: int,
) -> Columns:
    """Add recorded columns up to evenly spaced ones.

    Parameters
    ----------
    first, number : ndarray of int64, shape ``[m]``
        First batch of each recorded column, ascending, and how many batches it is the sum of.
    counts : ndarray of int64, shape ``[m, bins]``
    counters : ndarray of int64, shape ``[m, 8]``
    moments : ndarray of float64, shape ``[m, 4]``
    width : int
        Batches a column; a multiple of what the recorded ones are sums of.
    start, stop : int
        Batches to show.

    Returns
    -------
    Columns
        Those that cover ``start <= batch < stop``. A stream that did not fire in a recorded batch leaves a
        gap; a batch that was not recorded is shown as the last one that was.
    """
    origin = start // width
    n = max(-(-stop // width) - origin, 0)
    filled = np.flatnonzero(counts.any(axis=0))
    low, high = (int(filled[0]), int(filled[-1]) + 1) if filled.size else (0, 1)
    counts = counts[:, low:high]
    calls = counters[:, COUNTERS.index("calls")]
    fired = np.minimum(number, calls)  # exact unless a module runs several times a batch, and not in all of them
    cell = first // width - origin
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    if not starts.size:
        none = np.zeros(n, np.int64)
        return Columns(
            origin * width, width, none, np.zeros((n, high - low), np.int64), low,
            np.zeros((n, counters.shape[1]), np.int64), np.tile([0.0, 0.0, np.inf, -np.inf], (n, 1)), none > 0,
        )  # fmt: skip
    if len(cell) == n and len(starts) == n and cell[0] == 0:  # one recorded column to each: nothing to add up
        return Columns(
            origin * width, width, fired, counts, low, counters, np.array(moments, np.float64), np.zeros(n, np.bool_)
        )
    present = cell[starts]
    source = np.searchsorted(present, np.arange(n), side="right") - 1
    before = source < 0

    def spread(sums: npt.NDArray[np.generic], neutral: float = 0) -> npt.NDArray[np.generic]:
        values = sums[np.maximum(source, 0)]
        values[before] = neutral
        return values

    total = [np.add, np.add, np.minimum, np.maximum]
    neutral = [0.0, 0.0, np.inf, -np.inf]
    parts = [spread(f.reduceat(moments[:, i], starts), neutral[i]) for i, f in enumerate(total)]
    return Columns(
        start=origin * width,
        width=width,
        number=np.asarray(spread(np.add.reduceat(fired, starts)), np.int64),
        counts=np.asarray(spread(np.add.reduceat(counts, starts, axis=0)), np.int64),
        first_bin=low,
        counters=np.asarray(spread(np.add.reduceat(counters, starts, axis=0)), np.int64),
        moments=np.asarray(np.column_stack(parts), np.float64),
        held=before | (present[np.maximum(source, 0)] != np.arange(n)),
    )


def to_rows(columns: Columns, matrix: FloatArray) -> FloatArray:
    """Return the counts of each row of a picture, underflow in the first and overflow in the last row.

    Parameters
    ----------
    columns : Columns
    matrix : ndarray of float64, shape ``[rows + 2, axis.bins]``
        As :meth:`colordim.axis.Axis.project` returns it.

    Returns
    -------
    ndarray of float64, shape ``[rows + 2, n]``
        Each column's finite values, all of them.
    """
    part = matrix[:, columns.first_bin : columns.first_bin + columns.counts.shape[1]]
    # most bins lie in one row or two: adding up what is not zero takes a tenth of a product of full matrices
    row, bin_ = np.nonzero(part)
    starts = np.flatnonzero(np.diff(row, prepend=-1))
    rows = np.zeros((len(matrix), len(columns)))
    if len(columns):
        rows[row[starts]] = np.add.reduceat(part[row, bin_, None] * columns.counts.T[bin_], starts, axis=0)
    rows[0] += columns.counter("under")
    rows[-1] += columns.counter("over")
    return rows
