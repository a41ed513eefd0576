"""The window: which values a panel shows, and on what scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.scale import SymmetricalLogTransform

from colordim.errors import AxisError

__all__ = [
    "SHARE",
    "SHARE_OF_LAYERS",
    "Window",
    "round_up",
    "shared_half_width",
    "symlog_window",
    "symmetric",
    "window_from",
]

FloatArray = npt.NDArray[np.float64]

#: A shared window holds this share of the values of this share of the layers.
SHARE = 0.995
SHARE_OF_LAYERS = 0.9

_STEPS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True)
class Window:
    """The values between `lo` and `hi`.

    Attributes
    ----------
    lo, hi : float
        Finite, ``lo < hi``.
    scale : {"linear", "symlog"}
    linthresh : float
        For symlog: magnitude below which the scale is linear.
    """

    lo: float
    hi: float
    scale: Literal["linear", "symlog"] = "linear"
    linthresh: float = 1.0

    def forward(self, values: npt.ArrayLike) -> FloatArray:
        """Return where values lie on the drawn axis."""
        array = np.asarray(values, np.float64)
        if self.scale == "linear":
            return array
        return np.asarray(SymmetricalLogTransform(10, self.linthresh, 1).transform(array), np.float64)

    def inverse(self, positions: npt.ArrayLike) -> FloatArray:
        """Return the values at positions on the drawn axis."""
        array = np.asarray(positions, np.float64)
        if self.scale == "linear":
            return array
        return np.asarray(SymmetricalLogTransform(10, self.linthresh, 1).inverted().transform(array), np.float64)

    def edges(self, rows: int) -> FloatArray:
        """Return the values at the edges of `rows` rows of equal height, shape ``[rows + 1]``.

        In a symmetric window with an even number of rows one edge is exactly zero, so that no zero falls into
        the row below it.
        """
        low, high = self.forward([self.lo, self.hi])
        positions = np.linspace(low, high, rows + 1)
        edges = self.inverse(positions)
        edges[0], edges[-1] = self.lo, self.hi
        if self.lo == -self.hi:
            edges = (edges - edges[::-1]) / 2
        return edges

    def beyond(self, share: float) -> tuple[float, float]:
        """Return the limits of an axis that shows `share` of the window's height more at either side."""
        low, high = self.forward([self.lo, self.hi])
        more = share * (high - low)
        limits = self.inverse([low - more, high + more])
        return float(limits[0]), float(limits[1])


def window_from(window: tuple[float, float]) -> Window:
    """Return the window that the user gave as ``(lo, hi)``.

    Raises
    ------
    AxisError
        If these are not two finite numbers with ``lo < hi``.
    """
    try:
        lo, hi = (float(value) for value in window)
    except (TypeError, ValueError):
        raise AxisError(
            f'window={window!r} is no window: take "shared", "own", "symlog" or two numbers (lo, hi).'
        ) from None
    if not (math.isfinite(lo) and math.isfinite(hi) and lo < hi):
        raise AxisError(f"the window ({lo:g}, {hi:g}) is empty: its first value must be below its second.")
    return Window(lo, hi)


def symmetric(half_width: float) -> Window:
    """Return the window of at least `half_width` around zero; of 1 if that is zero or NaN."""
    half = round_up(half_width) if math.isfinite(half_width) and half_width > 0 else 1.0
    return Window(-half, half)


def shared_half_width(half_widths: Sequence[float], share: float = SHARE_OF_LAYERS) -> float:
    """Return the smallest half width that is wide enough for the given share of the layers.

    Parameters
    ----------
    half_widths : sequence of float
        What each layer needs (:func:`colordim.statistics.half_width`); layers without values, NaN, are left out.

    Returns
    -------
    float
        NaN if no layer has values.
    """
    known = sorted(width for width in half_widths if not math.isnan(width))
    if not known:
        return float("nan")
    return known[max(math.ceil(share * len(known) - 1e-9), 1) - 1]


def symlog_window(half_widths: Sequence[float], largest: float) -> Window:
    """Return a window on the symmetric logarithmic scale that shows everything up to `largest`.

    It is linear up to a tenth of what the narrowest layer needs, at most nine decades below `largest`.
    """
    if not (math.isfinite(largest) and largest > 0):
        largest = 1.0
    hi = round_up(largest)
    narrow = min((w for w in half_widths if w > 0), default=hi)
    return Window(-hi, hi, "symlog", float(10.0 ** math.floor(math.log10(max(min(narrow, hi) / 10, hi * 1e-9)))))


def round_up(value: float) -> float:
    """Return the next number of one or two digits, so that the window's ends can be read."""
    decade = 10.0 ** math.floor(math.log10(value))
    for step in _STEPS:
        if step * decade >= value * (1 - 1e-9):
            return float(f"{step * decade:.3g}")
    return 10.0 * decade
