"""What can be said of columns without seeing the values: pure functions of counts and moments.

Counts are those of the bins of one axis, edges those of :attr:`colordim.axis.Axis.edges`. Wherever
a value between two edges is asked for, its bin is taken as evenly filled; a bin without width (the
zero of the signed-log axis) is a point.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Peaks",
    "change",
    "finite",
    "half_width",
    "log_ratio",
    "mean",
    "near_zero",
    "peaks",
    "quantiles",
    "ratio",
    "smooth",
    "std",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Share of a bin below which an overlap is the rounding of its edges.
_ROUNDING = 1e-9


class Peaks(NamedTuple):
    """Peaks of a profile, the most prominent first.

    Attributes
    ----------
    position : ndarray of int64, shape ``[n]``
        Where the peaks are.
    prominence : ndarray of float64, shape ``[n]``
        How far each rises above the higher of the two valleys that part it from a higher peak.
    """

    position: IntArray
    prominence: FloatArray


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> FloatArray:
    """Return ``part / whole`` in float64, NaN where `whole` is zero."""
    above, below = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    result: FloatArray = np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
    return result


def finite(size: npt.ArrayLike, nan: npt.ArrayLike, pos_inf: npt.ArrayLike, neg_inf: npt.ArrayLike) -> IntArray:
    """Return how many of `size` values are finite, given the counters of those that are not; int64."""
    left = np.asarray(size, np.int64) - np.asarray(nan) - np.asarray(pos_inf) - np.asarray(neg_inf)
    return np.asarray(left, np.int64)


def mean(total: npt.ArrayLike, number: npt.ArrayLike) -> FloatArray:
    """Return the mean of `number` finite values whose sum is `total`, NaN where there are none."""
    return ratio(total, number)


def std(total: npt.ArrayLike, total_sq: npt.ArrayLike, number: npt.ArrayLike) -> FloatArray:
    """Return the standard deviation of `number` finite values, NaN where there are none.

    It is that of the population, ``sqrt(E[x^2] - E[x]^2)``, as ``numpy.std`` has it by default. The
    difference cancels where the mean is many times the deviation: of the 16 digits of float64, twice
    the digits of ``mean / std`` are lost.

    Parameters
    ----------
    total, total_sq : array_like of float
        Sum of the values and of their squares.
    number : array_like of int
        How many there are.
    """
    average = ratio(total, number)
    with np.errstate(over="ignore", invalid="ignore"):  # sums that left float64 give NaN: nothing is known
        variance = ratio(total_sq, number) - average**2
    return np.sqrt(np.maximum(variance, 0.0))


def log_ratio(update: npt.ArrayLike, weight: npt.ArrayLike) -> FloatArray:
    """Return the decimal logarithm of ``update / weight``, two standard deviations; NaN where either is not positive.

    About -3 is the rule of thumb for a step of the optimiser (CS231n notes 3, "Ratio of weights:updates").
    """
    quotient = ratio(update, weight)
    known = quotient > 0
    return np.where(known, np.log10(np.where(known, quotient, 1.0)), np.nan)


def quantiles(
    counts: npt.ArrayLike, edges: npt.ArrayLike, q: npt.ArrayLike, under: npt.ArrayLike = 0, over: npt.ArrayLike = 0
) -> FloatArray:
    """Return quantiles of each column, interpolated inside the bins.

    The inverse of the cumulative distribution, linear within a bin: at most the width of a bin from
    the quantile of the values.

    Parameters
    ----------
    counts : array_like of int, shape ``[..., bins]``
    edges : array_like of float, shape ``[bins + 1]``
    q : array_like of float, shape ``[n]``
        Between 0 and 1.
    under, over : array_like of int, shape ``[...]``
        Underflow and overflow of each column.

    Returns
    -------
    ndarray of float64, shape ``[..., n]``
        -inf or +inf where the quantile lies in under- or overflow, NaN for a column without values.
    """
    borders, shares = np.asarray(edges, np.float64), np.atleast_1d(np.asarray(q, np.float64))
    columns = np.asarray(counts, np.float64)
    shape = columns.shape[:-1]
    columns = columns.reshape(-1, columns.shape[-1])
    below = np.broadcast_to(np.asarray(under, np.float64), shape).reshape(-1)
    above = np.broadcast_to(np.asarray(over, np.float64), shape).reshape(-1)
    result = np.full((len(columns), shares.size), np.nan)
    for row, column in enumerate(columns):
        filled = np.flatnonzero(column)
        inside = column.sum()
        rank = shares * (below[row] + inside + above[row]) - below[row]
        if below[row] + inside + above[row] == 0:
            continue
        if filled.size:
            ends = np.cumsum(column[filled])
            place = np.minimum(np.searchsorted(ends, rank, side="left"), filled.size - 1)
            depth = np.clip((rank - (ends - column[filled])[place]) / column[filled][place], 0.0, 1.0)
            lower, upper = borders[:-1][filled][place], borders[1:][filled][place]
            result[row] = lower + depth * (upper - lower)
        outside_low = (rank < 0) if inside or above[row] else np.ones_like(rank, bool)
        outside_high = (rank > inside) if inside or below[row] else np.ones_like(rank, bool)
        result[row] = np.where(outside_high, np.inf, np.where(outside_low, -np.inf, result[row]))
    return result.reshape(*shape, shares.size)


def near_zero(counts: npt.ArrayLike, edges: npt.ArrayLike, threshold: float, zeros: npt.ArrayLike = 0) -> FloatArray:
    """Return how many values of each column have ``|x| <= threshold``.

    Exact zeros are known and counted whole; the rest of a bin that `threshold` cuts is split in
    proportion. fastai's ``ActivationStats`` asks the same of ``|x| <= 0.05``.

    Parameters
    ----------
    counts : array_like of int, shape ``[..., bins]``
    edges : array_like of float, shape ``[bins + 1]``
    threshold : float
        At least 0.
    zeros : array_like of int, shape ``[...]``
        The counter of exact zeros, which are also in their bin.

    Returns
    -------
    ndarray of float64, shape ``[...]``
    """
    borders = np.asarray(edges, np.float64)
    columns = np.array(counts, np.float64)
    exact = np.broadcast_to(np.asarray(zeros, np.float64), columns.shape[:-1])
    if borders[0] <= 0 <= borders[-1]:
        first = int(np.searchsorted(borders, 0.0))  # of two edges at zero the first: it begins the bin of zero alone
        zero = min(first if borders[first] == 0 else first - 1, borders.size - 2)
        columns[..., zero] = np.maximum(columns[..., zero] - exact, 0.0)
    return np.asarray(exact + columns @ _overlap(borders, -threshold, threshold), np.float64)


def half_width(counts: npt.ArrayLike, edges: npt.ArrayLike, share: float, under: float = 0, over: float = 0) -> float:
    """Return the smallest w such that ``-w <= x <= w`` holds the given share of the values.

    Parameters
    ----------
    counts : array_like of int, shape ``[bins]``
    edges : array_like of float, shape ``[bins + 1]``
    share : float
        Between 0 and 1.
    under, over : float
        Underflow and overflow: values that no w of the axis reaches.

    Returns
    -------
    float
        NaN without values, inf if too many of them are in under- or overflow.
    """
    borders, column = np.asarray(edges, np.float64), np.asarray(counts, np.float64)
    total = column.sum() + under + over
    if total == 0:
        return float("nan")
    widths = np.unique(np.abs(borders))
    if widths[0] > 0:
        widths = np.insert(widths, 0, 0.0)
    below = np.insert(np.cumsum(column), 0, 0.0)
    # np.interp is ambiguous only at the repeated edge of a point, which is zero: that one is set apart
    held = np.interp(widths, borders, below) - np.interp(-widths, borders, below)
    held[0] = column[(borders[:-1] == 0) & (borders[1:] == 0)].sum()
    target = share * total * (1 - 1e-12)  # rounding of the product must not ask for one value more
    if held[-1] < target:
        return float("inf")
    at = int(np.argmax(held >= target))
    if at == 0:
        return 0.0
    part = (target - held[at - 1]) / (held[at] - held[at - 1])
    return float(widths[at - 1] + part * (widths[at] - widths[at - 1]))


def smooth(profile: npt.ArrayLike, sigma: float) -> FloatArray:
    """Return the profile convolved with a Gaussian of `sigma` elements, renormalised at the ends."""
    values = np.asarray(profile, np.float64)
    if sigma <= 0 or values.size < 2:
        return values.copy()
    reach = min(int(np.ceil(4 * sigma)), values.size - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)

    def same(x: FloatArray) -> FloatArray:
        return np.convolve(x, kernel)[reach : reach + x.size]

    return same(values) / same(np.ones_like(values))


def peaks(profile: npt.ArrayLike, *, sigma: float = 2.0, prominence: float = 0.1, own: float = 0.0) -> Peaks:
    """Return the peaks of a profile after smoothing, the most prominent first.

    A peak is a local maximum (the middle of a plateau; ends count). Its prominence is its height
    above the higher of the two lowest points between it and the next higher ground on either side
    (or the ends), as in topography and in ``scipy.signal.peak_prominences``; here what lies outside
    the profile is taken as zero, since a histogram that breaks off at its border peaks there.

    Parameters
    ----------
    profile : array_like of float, shape ``[n]``
        Not negative.
    sigma : float
        Width of the Gaussian that smoothes it, in elements.
    prominence : float
        Least prominence, as a share of the smoothed profile's maximum.
    own : float
        Least prominence, as a share of the peak's own height.

    Returns
    -------
    Peaks
        Without peaks for a profile of nothing but zeros.
    """
    height = np.concatenate([[0.0], smooth(profile, sigma), [0.0]])
    if not height.max() > 0:
        return Peaks(np.zeros(0, np.int64), np.zeros(0))
    starts = np.flatnonzero(np.diff(height, prepend=-1.0))  # plateaus count once
    level = height[starts]
    ends = np.append(starts[1:], height.size)
    found: list[tuple[int, float]] = []
    for i in range(1, len(level) - 1):
        if level[i - 1] < level[i] > level[i + 1]:
            left = _valley(level[i - 1 :: -1], level[i])
            right = _valley(level[i + 1 :], level[i])
            stands_out = float(level[i] - max(left, right))
            if stands_out >= max(prominence * height.max(), own * level[i]):
                found.append((int(starts[i] + ends[i] - 1) // 2 - 1, stands_out))
    found.sort(key=lambda peak: -peak[1])
    return Peaks(np.array([i for i, _ in found], np.int64), np.array([p for _, p in found], np.float64))


def change(counts: npt.ArrayLike, parts: int = 8) -> float:
    """Return how much the distribution of a stream changed over the run, in bits.

    The run is cut into `parts` pieces of equally many columns, and their generalised Jensen-Shannon
    divergence is taken: the bits that knowing the piece tells of a value's bin (Lin 1991, "Divergence
    measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1), eq. 5.1), zero for pieces
    that are alike, at most ``log2(parts)``. Few values look different by chance; the first-order bias,
    ``(bins - 1) (parts - 1) / (2 N ln 2)`` (Miller 1955), is taken off, down to zero.

    Parameters
    ----------
    counts : array_like of int, shape ``[columns, bins]``
        In order of time; columns without values are left out.
    parts : int
        At least 2.

    Returns
    -------
    float
        0 if fewer than two columns have values.
    """
    columns = np.asarray(counts, np.float64)
    columns = columns[columns.sum(axis=1) > 0]
    pieces = [piece.sum(axis=0) for piece in np.array_split(columns, min(parts, len(columns)) or 1)]
    if len(pieces) < 2:
        return 0.0
    table = np.stack(pieces)
    table = table[:, table.sum(axis=0) > 0]
    number = table.sum()
    weight = table.sum(axis=1) / number
    bits = _entropy(table.sum(axis=0) / number) - float(weight @ [_entropy(row / row.sum()) for row in table])
    bias = (table.shape[1] - 1) * (len(table) - 1) / (2 * number * np.log(2))
    return float(max(bits - bias, 0.0))


def _overlap(edges: FloatArray, lo: float, hi: float) -> FloatArray:
    """Share of each bin that lies in ``lo <= x <= hi``."""
    lower, upper = edges[:-1], edges[1:]
    point = lower == upper
    width = np.where(point, 1.0, upper - lower)
    part = np.clip((np.minimum(upper, hi) - np.maximum(lower, lo)) / width, 0.0, 1.0)
    part[part < _ROUNDING] = 0.0
    part[part > 1.0 - _ROUNDING] = 1.0
    return np.where(point, (lo <= lower) & (lower <= hi), part)


def _valley(side: FloatArray, height: float) -> float:
    """Lowest level on the way to ground higher than `height`, or to the end."""
    higher = np.flatnonzero(side > height)
    return float(side[: higher[0]].min() if higher.size else side.min())


def _entropy(p: FloatArray) -> float:
    filled = p[p > 0]
    return float(-np.sum(filled * np.log2(filled)))
