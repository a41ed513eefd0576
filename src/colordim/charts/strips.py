"""Strips: one row a layer, one colour a column, where a line for each layer could not be told apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.image import AxesImage

from colordim.charts.labels import elide_apart, text_width
from colordim.charts.style import INK, MUTED, NOT_FINITE

__all__ = ["NOT_FINITE_CELL", "ZERO_CELL", "Strips", "names_width", "row_height", "strips"]

#: Points that the names beside the rows have at most.
_NAME_WIDTH = 150.0
_NAME_SIZE = 6.5

#: What a cell says instead of a value: that something is exactly zero, or that it is NaN or Inf.
ZERO_CELL, NOT_FINITE_CELL = 1, 2


@dataclass(frozen=True)
class Strips:
    """The artists: the values, masked where none is known, and the flags over them, masked where there is none."""

    values: AxesImage
    flags: AxesImage | None


def row_height(rows: int) -> float:
    """Return the height of a row in inches: readable for a few dozen, and a page for hundreds."""
    return min(max(11.0 / max(rows, 1), 0.04), 0.22)


def names_width(names: Sequence[str]) -> float:
    """Return the inches that the names beside the rows need, their distance included."""
    return max(min(max(text_width(name, _NAME_SIZE) for name in names), _NAME_WIDTH) / 72 + 0.15, 0.75)


def strips(
    ax: Axes,
    values: npt.NDArray[np.float64],
    edges: npt.NDArray[np.float64],
    names: Sequence[str],
    *,
    norm: Normalize,
    cmap: Colormap,
    flags: npt.NDArray[np.int8] | None = None,
    labels: bool = True,
) -> Strips:
    """Draw a row for each layer, the first at the top.

    Parameters
    ----------
    ax : Axes
    values : ndarray of float64, shape ``[rows, n]``
        Blank where not finite.
    edges : ndarray of float64, shape ``[n + 1]``
        Batches at the edges of the columns.
    names : sequence of str, length rows
    norm, cmap : Normalize, Colormap
        From values to colours.
    flags : ndarray of int8, shape ``[rows, n]``, optional
        Zero, or one of :data:`ZERO_CELL` and :data:`NOT_FINITE_CELL`, which cover the value.
    labels : bool
        Whether the names are written; of more rows than have room every 2nd, 3rd, ... is named.

    Returns
    -------
    Strips
    """
    rows = len(values)
    extent = (edges[0], edges[-1], rows, 0)
    drawn = ax.imshow(
        np.ma.masked_invalid(values), norm=norm, cmap=cmap, extent=extent, origin="upper", aspect="auto", interpolation="nearest"
    )  # fmt: skip
    over = None
    if flags is not None and flags.any():
        over = ax.imshow(
            np.ma.masked_equal(flags, 0), cmap=ListedColormap([INK, NOT_FINITE]), vmin=ZERO_CELL, vmax=NOT_FINITE_CELL,
            extent=extent, origin="upper", aspect="auto", interpolation="nearest", zorder=1.5,
        )  # fmt: skip
    ax.set_ylim(rows, 0)
    height = ax.get_window_extent().height / ax.figure.dpi * 72 / max(rows, 1)
    every = max(math.ceil((_NAME_SIZE + 1.5) / height), 1)
    shown = range(0, rows, every) if labels else range(0)
    short = elide_apart(names, _NAME_WIDTH, _NAME_SIZE)
    drawn_ticks = ax.set_yticks([i + 0.5 for i in shown], [short[i] for i in shown], fontsize=_NAME_SIZE, color=MUTED)
    for tick in drawn_ticks:
        tick.label1.set_parse_math(False)
    ax.tick_params(axis="y", length=0, pad=2)
    return Strips(drawn, over)
