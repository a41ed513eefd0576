"""The colorful dimension: the histogram of every batch as a column of colours, one panel a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib.patheffects as patheffects
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from colordim.charts.colorbar import Color, ColorScale
from colordim.charts.columns import Columns
from colordim.charts.labels import percent
from colordim.charts.marks import not_finite_marks, zero_line
from colordim.charts.style import INK, NOT_FINITE, RULE, colormap
from colordim.charts.window import Window
from colordim.statistics import finite, mean, ratio, std

__all__ = [
    "MARGIN",
    "Colorful",
    "EpochProfile",
    "cells",
    "colorful",
    "outside",
    "superimpose_mean",
    "superimpose_profiles",
]

#: A strip, and the gap between it and the window, as shares of the window's height.
STRIP, GAP = 0.045, 0.012
MARGIN = STRIP + GAP


@dataclass(frozen=True)
class Colorful:
    """The artists of one panel.

    Attributes
    ----------
    image, under, over : AxesImage
        The window, and the strips of what lies below and above it (None where nothing does); arrays masked
        where cells are empty.
    zero : Line2D
    not_finite : LineCollection or None
        The marks over columns with NaN or Inf.
    texts : list of Text
        The share of the values in each strip, and how many batches had NaN or Inf.
    """

    image: AxesImage
    under: AxesImage | None
    over: AxesImage | None
    zero: Line2D | None
    not_finite: LineCollection | None
    texts: list[Text] = field(default_factory=list)


@dataclass(frozen=True)
class EpochProfile:
    """The average histogram of one epoch, and that of its last quarter, in values a row and batch.

    Attributes
    ----------
    start, stop : int
        Batches of the epoch.
    whole, last : ndarray of float64, shape ``[rows]``
    """

    start: int
    stop: int
    whole: npt.NDArray[np.float64]
    last: npt.NDArray[np.float64]


def cells(rows: npt.NDArray[np.float64], columns: Columns, color: Color = "share") -> np.ma.MaskedArray:
    """Return what each cell of a panel is coloured by, masked if and only if no value is in it.

    Parameters
    ----------
    rows : ndarray of float64, shape ``[rows + 2, n]``
        As :func:`colordim.charts.columns.to_rows` returns it.
    columns : Columns
    color : {"share", "count"}
        Share of the column's values (NaN and Inf among them), or count a batch. Both are means over the
        batches of the column, so that merging columns does not brighten them.

    Returns
    -------
    masked array of float64, shape ``[rows + 2, n]``
        The first row is what lies below the window, the last what lies above.
    """
    whole = columns.counter("size") if color == "share" else columns.number
    return np.ma.masked_equal(rows / np.maximum(whole, 1), 0.0)


def outside(rows: npt.NDArray[np.float64], columns: Columns) -> tuple[float, float]:
    """Return the shares of all values of the panel that lie below and above its window; NaN without values.

    Parameters are the first two of :func:`cells`.
    """
    below, above = rows[0, ~columns.held].sum(), rows[-1, ~columns.held].sum()
    size = columns.total("size")
    return float(ratio(below, size)), float(ratio(above, size))


def colorful(
    ax: Axes,
    columns: Columns,
    values: np.ma.MaskedArray,
    window: Window,
    scale: ColorScale,
    *,
    shares_outside: tuple[float, float] = (0.0, 0.0),
    not_finite: str = "",
    font: float = 6.0,
) -> Colorful:
    """Draw the columns of one stream.

    Parameters
    ----------
    ax : Axes
        Empty axes; the limits of y are set, those of x are left to the caller.
    columns : Columns
    values : masked array of float64, shape ``[rows + 2, n]``
        What :func:`cells` returned.
    window : Window
    scale : ColorScale
    shares_outside : (float, float)
        What :func:`outside` returned; written beside the strips unless it is zero.
    not_finite : str
        What is written if columns are marked for NaN or Inf.
    font : float
        Points.

    Returns
    -------
    Colorful
    """
    if window.scale == "symlog":
        ax.set_yscale("symlog", linthresh=window.linthresh, linscale=1)
    ax.set_ylim(window.beyond(MARGIN))
    left, right = columns.edges[0], columns.edges[-1]
    height = 1 + 2 * MARGIN
    across = ax.get_xaxis_transform()
    norm, cmap = scale.norm(), colormap()

    def picture(rows: np.ma.MaskedArray, low: float, high: float) -> AxesImage:
        # placed by shares of the axes' height, since rows have equal heights on screen, whatever the scale
        image = AxesImage(ax, cmap=cmap, norm=norm, interpolation="nearest", origin="lower", transform=across)
        image.set_extent((left, right, low / height, high / height))
        image.set_data(rows)
        ax.add_image(image)
        image.set_clip_path(ax.patch)
        return image

    image = picture(values[1:-1], MARGIN, MARGIN + 1)
    under = picture(values[:1], 0, STRIP) if values[0].count() else None
    over = picture(values[-1:], height - STRIP, height) if values[-1].count() else None
    borders = [[(0, y / height), (1, y / height)] for y in (MARGIN, MARGIN + 1)]
    ax.add_collection(
        LineCollection(borders, colors=RULE, linewidths=0.5, transform=ax.transAxes, zorder=2), autolim=False
    )
    zero = zero_line(ax) if window.lo <= 0 <= window.hi else None
    marks = not_finite_marks(ax, columns.edges, columns.not_finite > 0)
    texts = []
    inset = (MARGIN + 0.02) / (1 + 2 * MARGIN)
    for share, y, va, word in (
        (shares_outside[0], inset, "bottom", "below"),
        (shares_outside[1], 1 - inset, "top", "above"),
    ):
        if share > 0:
            texts.append(_note(ax, 0.985, y, f"{percent(share)} {word}", "right", va, font, INK))
    if marks is not None and not_finite:
        texts.append(_note(ax, 0.015, 1 - inset, not_finite, "left", "top", font, NOT_FINITE))
        if shares_outside[1] > 0:  # in a narrow panel the two would be in each other's place
            down = ScaledTranslation(0, -(font + 4) / 72, ax.figure.dpi_scale_trans)
            texts[-1].set_transform(ax.transAxes + down)
    return Colorful(image, under, over, zero, marks, texts)


def superimpose_mean(ax: Axes, columns: Columns) -> list[Line2D]:
    """Draw the mean of each column and, dashed, mean +- std, over the finite values; gaps where there are none."""
    number = finite(*(columns.counter(name) for name in ("size", "nan", "pos_inf", "neg_inf")))
    average = mean(columns.moments[:, 0], number)
    deviation = std(columns.moments[:, 0], columns.moments[:, 1], number)
    lines = []
    for values, width, style in (
        (average, 1.2, "-"),
        (average - deviation, 0.8, "--"),
        (average + deviation, 0.8, "--"),
    ):
        (line,) = ax.plot(columns.centers, values, color="white", linewidth=width, linestyle=style, zorder=3.2)
        line.set_path_effects([patheffects.withStroke(linewidth=width + 1.1, foreground=INK)])
        lines.append(line)
    return lines


def superimpose_profiles(
    ax: Axes, profiles: Sequence[EpochProfile], row_edges: npt.NDArray[np.float64], window: Window
) -> list[Line2D]:
    """Draw the average histogram of each epoch (black) and of its last quarter (grey) where the epoch begins.

    The fullest row but that of zero reaches over nine tenths of the epoch, since it is the shape that
    is to be compared. A row of zeros that is fuller is cut off there: else a ReLU would show nothing
    besides. Where no value is, no line is.

    Returns
    -------
    list of Line2D
        Grey and black of each epoch, in turn.
    """
    rows = window.forward(row_edges)
    centers = window.inverse((rows[:-1] + rows[1:]) / 2)
    other = ~((row_edges[:-1] <= 0) & (row_edges[1:] > 0))
    lines = []
    for profile in profiles:
        both = (profile.last, profile.whole)
        highest = max(float(v[other].max(initial=0.0)) for v in both) or max(float(v.max(initial=0.0)) for v in both)
        for values, color in zip(both, ("#8a8a8a", "black"), strict=True):
            reach = np.minimum(values / (highest or 1.0), 1.0)
            x = profile.start + 0.9 * (profile.stop - profile.start) * np.where(values > 0, reach, np.nan)
            lines += ax.plot(x, centers, color=color, linewidth=0.9, zorder=3.1)
    return lines


def _note(ax: Axes, x: float, y: float, text: str, ha: str, va: str, size: float, color: str) -> Text:
    return ax.text(
        x, y, text, transform=ax.transAxes, ha=ha, va=va, fontsize=size, color=color, zorder=4,
        bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8},
    )  # fmt: skip
