"""The value axes of the histograms: equal bins over a range, or buckets over every magnitude.

An axis is only a description. Counting is done in :mod:`colordim.binning`; here are its edges,
the merging of its counts into a coarser axis, and the matrix that turns its counts into the rows
of a picture.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.errors import AxisError

__all__ = ["Axis", "LinearAxis", "SignedLogAxis", "axis_from_dict", "common_axis"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Bins of an axis at most: a column of more takes longer to write than a batch to train.
MOST_BINS = 1 << 22

#: Share of a bin below which an overlap with a row is the rounding of their edges.
_ROUNDING = 1e-9


class Axis(ABC):
    """What the two axes share; ``bins`` counts exclude under- and overflow."""

    @property
    @abstractmethod
    def bins(self) -> int:
        """Number of bins, without under- and overflow."""

    @cached_property
    @abstractmethod
    def edges(self) -> FloatArray:
        """Edges of the bins, float64 of shape ``[bins + 1]``, ascending, read-only."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Describe the axis in JSON types; :func:`axis_from_dict` reads it back."""

    @abstractmethod
    def _bins_into(self, into: Axis) -> IntArray | None:
        """Return for each bin the bin of `into` that contains it, or None if one straddles."""

    @property
    def zero_bin(self) -> int:
        """Bin in which a zero is counted; -1 if it is underflow, ``bins`` if it is overflow."""
        edges = self.edges
        if edges[0] > 0:
            return -1
        if edges[-1] < 0:
            return self.bins
        first = int(np.searchsorted(edges, 0.0))  # of two edges at zero the first: it begins the bin of zero alone
        return min(first if edges[first] == 0 else first - 1, self.bins - 1)

    def project(self, row_edges: npt.ArrayLike) -> FloatArray:
        """Return the matrix that redistributes bin counts over the rows between `row_edges`.

        A bin is taken as evenly filled and split in proportion to its overlap with each row; a
        bin without width (the zero of :class:`SignedLogAxis`) goes whole to the row that holds
        it, where the last row includes its upper edge.

        Parameters
        ----------
        row_edges : array_like of float, shape ``[rows + 1]``
            Strictly ascending edges of the rows.

        Returns
        -------
        ndarray of float64, shape ``[rows + 2, bins]``
            Row 0 is what lies below the first edge, row ``rows + 1`` what lies above the last;
            every column sums to one. Underflow and overflow counters are not bins: add them to
            the first and to the last row.

        Raises
        ------
        AxisError
            If the edges do not ascend strictly.
        """
        rows = np.asarray(row_edges, dtype=np.float64)
        if rows.ndim != 1 or rows.size < 2 or not np.all(np.diff(rows) > 0):
            raise AxisError(f"row edges must ascend strictly, not {row_edges!r}: sort them and remove repeats.")
        lower, upper = self.edges[:-1], self.edges[1:]
        width = upper - lower
        point = width == 0
        below = np.clip((rows[:, None] - lower) / np.where(point, 1.0, width), 0.0, 1.0)
        # an edge that misses a bin's own only by rounding must not put a value where there is none
        below[below < _ROUNDING] = 0.0
        below[below > 1.0 - _ROUNDING] = 1.0
        below[:, point] = rows[:, None] > lower[point]
        below[-1, point] = rows[-1] >= lower[point]
        cumulative = np.vstack([np.zeros(self.bins), below, np.ones(self.bins)])
        return np.diff(cumulative, axis=0)

    def window(self, lo: float, hi: float, rows: int) -> FloatArray:
        """Return the matrix that turns bin counts into `rows` equal rows of a linear picture.

        Parameters
        ----------
        lo, hi : float
            Values at the lower and upper border of the picture, ``lo < hi``.
        rows : int
            Number of rows, at least one.

        Returns
        -------
        ndarray of float64, shape ``[rows + 2, bins]``
            As :meth:`project` returns it for the edges ``linspace(lo, hi, rows + 1)``.

        Raises
        ------
        AxisError
            If ``lo >= hi``, a border is not finite, or `rows` is not positive.
        """
        _check_range(lo, hi, rows, "rows")
        return self.project(np.linspace(lo, hi, rows + 1))

    def merge(self, counts: npt.ArrayLike, into: Axis) -> IntArray:
        """Add counts of this axis up to counts of the coarser axis `into`, exactly.

        Parameters
        ----------
        counts : array_like of int, shape ``[..., bins]``
        into : Axis
            An axis each of whose bins is made of whole bins of this one.

        Returns
        -------
        ndarray of int64, shape ``[..., into.bins]``

        Raises
        ------
        AxisError
            If a bin of this axis does not lie within one bin of `into`.
        """
        target = self._bins_into(into)
        if target is None:
            raise AxisError(
                f"{self} does not merge into {into}: take an axis of the same kind and range whose bins are unions of these."
            )
        values = np.asarray(counts, dtype=np.int64)
        starts = np.flatnonzero(np.diff(target, prepend=-1))
        return np.add.reduceat(values, starts, axis=-1)


@dataclass(frozen=True)
class LinearAxis(Axis):
    """Equal bins over ``lo <= x <= hi``, the right edge inside the last bin.

    A value belongs to bin i if ``edges[i] <= x < edges[i + 1]`` in float64, where `edges` is
    ``numpy.linspace(lo, hi, bins + 1)``: the same as ``numpy.histogram`` of the float64 values.
    These are hMin, hMax and nBins of the original *colorful dimension*.

    Parameters
    ----------
    lo, hi : float
        Finite, ``lo < hi``.
    bins : int
        At least one, at most 2**22.

    Raises
    ------
    AxisError
        If ``lo >= hi``, a border is not finite, there are no bins, or more than that or than float64 tells apart.
    """

    lo: float
    hi: float
    bins: int = 200

    def __post_init__(self) -> None:
        _check_range(self.lo, self.hi, self.bins, "bins")
        if self.bins > MOST_BINS:  # before edges are made of it
            raise AxisError(f"{self.bins} bins are too many: take at most {MOST_BINS}.")
        object.__setattr__(self, "lo", float(self.lo))
        object.__setattr__(self, "hi", float(self.hi))
        object.__setattr__(self, "bins", int(self.bins))
        if not np.all(np.diff(self.edges) > 0):
            raise AxisError(
                f"{self.bins} bins between {self.lo} and {self.hi} are narrower than float64 tells apart: take fewer."
            )

    def __str__(self) -> str:
        return f"LinearAxis({self.lo:g}, {self.hi:g}, {self.bins})"

    @cached_property
    def edges(self) -> FloatArray:
        return _read_only(np.linspace(self.lo, self.hi, self.bins + 1))

    def to_dict(self) -> dict[str, Any]:
        return {"type": "linear", "lo": self.lo, "hi": self.hi, "bins": self.bins}

    def _bins_into(self, into: Axis) -> IntArray | None:
        if not isinstance(into, LinearAxis) or (into.lo, into.hi) != (self.lo, self.hi) or self.bins % into.bins:
            return None
        return np.arange(self.bins, dtype=np.int64) // (self.bins // into.bins)


@dataclass(frozen=True)
class SignedLogAxis(Axis):
    """A bucket per sign, power of two and leading mantissa bits: every magnitude, no range to choose.

    The buckets of positive values are ``[2**e * (1 + m / 2**bits), 2**e * (1 + (m + 1) / 2**bits))``
    for exponents e from -40 to 23; those of negative values mirror them; one bucket holds zero of
    either sign. Magnitudes below ``2**-40`` go to the innermost bucket of their sign (which so
    reaches down to zero), magnitudes of ``2**24`` and more to under- or overflow. The bucket of a
    value is a shift of its float64 bits.

    Parameters
    ----------
    bits : int
        Mantissa bits that tell buckets apart, 0 to 8; 3 gives 1,025 buckets, 6 to 12 % wide.

    Raises
    ------
    AxisError
        If `bits` is out of range.
    """

    bits: int = 3

    #: Smallest and largest exponent of two that has buckets of its own.
    MIN_EXPONENT = -40
    MAX_EXPONENT = 23

    def __post_init__(self) -> None:
        if not 0 <= self.bits <= 8:
            raise AxisError(f"a signed-log axis has 0 to 8 mantissa bits, not {self.bits}: 3 is the default.")

    def __str__(self) -> str:
        return f"SignedLogAxis(bits={self.bits})"

    @property
    def per_sign(self) -> int:
        """Number of buckets of either sign; also the index of the bucket of zero."""
        return (self.MAX_EXPONENT - self.MIN_EXPONENT + 1) << self.bits

    @property
    def bins(self) -> int:
        return 2 * self.per_sign + 1

    @property
    def zero_bin(self) -> int:
        return self.per_sign

    @cached_property
    def edges(self) -> FloatArray:
        mantissa = 1 + np.arange(2**self.bits) / 2**self.bits
        exponents = np.arange(self.MIN_EXPONENT, self.MAX_EXPONENT + 1)
        positive = np.append(np.ldexp(mantissa, exponents[:, None]).ravel(), 2.0 ** (self.MAX_EXPONENT + 1))
        positive[0] = 0.0  # the innermost bucket holds everything smaller
        return _read_only(np.concatenate([0.0 - positive[::-1], positive]))

    def to_dict(self) -> dict[str, Any]:
        return {"type": "signed_log", "bits": self.bits}

    def _bins_into(self, into: Axis) -> IntArray | None:
        if not isinstance(into, SignedLogAxis) or into.bits > self.bits:
            return None
        positive = np.arange(self.per_sign, dtype=np.int64) >> (self.bits - into.bits)
        zero = into.per_sign
        return np.concatenate([zero - 1 - positive[::-1], [zero], zero + 1 + positive])


def axis_from_dict(description: Mapping[str, Any]) -> Axis:
    """Return the axis that :meth:`Axis.to_dict` described.

    Raises
    ------
    AxisError
        If the description names no known type of axis.
    """
    kind = description.get("type")
    if kind == "linear":
        return LinearAxis(description["lo"], description["hi"], description["bins"])
    if kind == "signed_log":
        return SignedLogAxis(description["bits"])
    raise AxisError(f"unknown axis type {kind!r}: this run was written by a newer colordim; update it to read the run.")


def common_axis(first: Axis, second: Axis) -> Axis:
    """Return the finest axis into which both merge, to compare runs that were recorded differently.

    Raises
    ------
    AxisError
        If there is none.
    """
    if isinstance(first, SignedLogAxis) and isinstance(second, SignedLogAxis):
        return SignedLogAxis(min(first.bits, second.bits))
    if (
        isinstance(first, LinearAxis)
        and isinstance(second, LinearAxis)
        and (first.lo, first.hi) == (second.lo, second.hi)
    ):
        return LinearAxis(first.lo, first.hi, math.gcd(first.bins, second.bins))
    raise AxisError(f"{first} and {second} have no bins in common: record both on the same kind of axis and range.")


def _check_range(lo: float, hi: float, parts: int, what: str) -> None:
    if not (math.isfinite(lo) and math.isfinite(hi) and math.isfinite(hi - lo)):
        raise AxisError(
            f"a range needs finite borders, not ({lo}, {hi}): leave the range out to count every magnitude."
        )
    if lo >= hi:
        raise AxisError(f"the range ({lo}, {hi}) is empty: its first value must be below its second.")
    if parts != int(parts) or parts < 1:
        raise AxisError(f"{parts} {what} cannot be: take a whole number of at least one.")


def _read_only(array: FloatArray) -> FloatArray:
    array.flags.writeable = False
    return array
