"""What every chart over batches is marked with: zero, epochs, NaN and Inf, the batches themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.transforms import Bbox, ScaledTranslation, TransformedBbox

from colordim.charts.labels import tick_text
from colordim.charts.style import EPOCH, NOT_FINITE, RULE, ZERO

__all__ = ["batch_axis", "epoch_marks", "not_finite_marks", "runs_of", "value_ticks", "zero_line"]

#: Fewest pixels between two epoch marks; of more epochs only every 2nd, 5th, 10th, ... is marked.
_EPOCH_PIXELS = 9


def zero_line(ax: Axes) -> Line2D:
    """Draw the line at zero, mostly gaps, so that the row of the zeros themselves can be seen through it."""
    return ax.axhline(0.0, color=ZERO, linewidth=0.7, dashes=(3, 8), zorder=3)


def epoch_marks(
    ax: Axes, starts: npt.ArrayLike, numbers: npt.ArrayLike, start: int, stop: int, pixels: int, *, label: bool = False
) -> LineCollection:
    """Draw a line where each epoch begins.

    Parameters
    ----------
    ax : Axes
    starts : array_like of int
        First batch of each epoch.
    numbers : array_like of int
        Number of each epoch.
    start, stop : int
        Batches on show.
    pixels : int
        Width of the axes.
    label : bool
        Whether the marks are numbered.

    Returns
    -------
    LineCollection
        One segment a mark, x in batches.
    """
    first, number = np.asarray(starts, np.int64), np.asarray(numbers, np.int64)
    inside = np.flatnonzero((first >= start) & (first < stop))
    step, apart = 1, float(pixels)
    if inside.size > 1:
        apart = pixels * np.diff(first[inside]).min() / max(stop - start, 1)
        room = 22 if label else _EPOCH_PIXELS
        step = next(
            s for k in range(12) for s in (10**k, 2 * 10**k, 5 * 10**k) if s * apart >= room or s >= inside.size
        )
    marked = [int(e) for e in inside if number[e] % step == 0]
    lines = LineCollection(
        [[(first[e], 0.0), (first[e], 1.0)] for e in marked],
        colors=EPOCH, linewidths=0.5, alpha=0.55, transform=ax.get_xaxis_transform(), zorder=2.5,
    )  # fmt: skip
    ax.add_collection(lines, autolim=False)
    for e in marked if label else ():
        word = "epoch " if e == marked[0] and (len(marked) < 2 or apart * step > 62) else ""
        ax.annotate(
            f"{word}{number[e]}", (first[e], 1.0), xycoords=ax.get_xaxis_transform(), xytext=(0, 4),
            textcoords="offset points", fontsize=5.6, color=EPOCH, ha="left" if word or first[e] == start else "center",
            annotation_clip=False,
        )  # fmt: skip
    return lines


def runs_of(mask: npt.NDArray[np.bool_]) -> Sequence[tuple[int, int]]:
    """Return begin and end of each run of true elements."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(change[::2], change[1::2], strict=True)]


def not_finite_marks(ax: Axes, edges: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> LineCollection | None:
    """Mark the columns that hold NaN or Inf: a bar over the panel, and a tint where the column is blank.

    Parameters
    ----------
    ax : Axes
    edges : ndarray of float64, shape ``[n + 1]``
        Batches at the edges of the columns.
    mask : ndarray of bool, shape ``[n]``

    Returns
    -------
    LineCollection or None
        One bar for each run of such columns; None without any.
    """
    runs = runs_of(mask)
    if not runs:
        return None
    across = ax.get_xaxis_transform()
    boxes = [[(edges[a], 0), (edges[b], 0), (edges[b], 1), (edges[a], 1)] for a, b in runs]
    tint = PolyCollection(boxes, facecolors=NOT_FINITE, alpha=0.13, linewidths=0, transform=across, zorder=-1)
    ax.add_collection(tint, autolim=False)
    # above the frame, so that it hides nothing; its ends project, else one column of thousands were thinner than a pixel
    above = across + ScaledTranslation(0, 1.9 / 72, ax.figure.dpi_scale_trans)
    mark = LineCollection(
        [[(edges[a], 1.0), (edges[b], 1.0)] for a, b in runs],
        colors=NOT_FINITE,
        linewidths=2.0,
        capstyle="projecting",
        transform=above,
        zorder=3.5,
    )
    ax.add_collection(mark, autolim=False)
    mark.set_clip_box(TransformedBbox(Bbox.from_extents(0, 0, 1, 1.5), ax.transAxes))
    return mark


def batch_axis(ax: Axes, start: int, stop: int, width: float, *, labels: bool = True) -> None:
    """Set limits and ticks of the x axis: batches of the phase.

    Parameters
    ----------
    ax : Axes
    start, stop : int
        Batches on show.
    width : float
        Of the axes, in inches: how many ticks have room.
    labels : bool
        Whether the ticks have numbers.
    """
    stop = max(stop, start + 1)
    ax.set_xlim(start, stop)
    most = int(np.clip(width / (0.11 * len(str(stop)) + 0.25), 1, 8))
    ticks = [
        t for t in MaxNLocator(most, integer=True, steps=[1, 2, 5, 10]).tick_values(start, stop) if start <= t <= stop
    ]
    if not labels:
        _bare_ticks(ax, "x", ticks)
        return
    drawn = ax.set_xticks(ticks, [f"{t:.0f}" for t in ticks], fontsize=6.5)
    ax.tick_params(axis="x", pad=1.5)
    # a number at a corner stays within its panel, clear of the neighbour's
    for tick, place in zip(drawn, ticks, strict=True):
        if place == start and len(ticks) > 1:
            tick.label1.set_horizontalalignment("left")
        elif place > stop - 0.04 * (stop - start):
            tick.label1.set_horizontalalignment("right")


def value_ticks(
    ax: Axes, ticks: Sequence[float], *, labels: bool = True, text: Callable[[float], str] = tick_text
) -> None:
    """Set the ticks of the y axis: values, written by `text`."""
    ax.yaxis.set_minor_locator(NullLocator())
    if not labels:
        _bare_ticks(ax, "y", ticks)
        return
    ax.set_yticks(ticks, [text(t) for t in ticks], fontsize=6.5)
    ax.tick_params(axis="y", pad=1.5)


def _bare_ticks(ax: Axes, axis: Literal["x", "y"], ticks: Sequence[float]) -> None:
    """Draw ticks without numbers as one line of markers: in a grid, Matplotlib's own take a tenth of all time."""
    none = [0.0] * len(ticks)  # markers 3 and 0 are TICKDOWN and TICKLEFT
    if axis == "x":
        ax.set_xticks([])
        line = Line2D(ticks, none, marker=3, transform=ax.get_xaxis_transform())
    else:
        ax.set_yticks([])
        line = Line2D(none, ticks, marker=0, transform=ax.get_yaxis_transform())
    line.set(linestyle="none", color=RULE, markersize=2.5, markeredgewidth=0.6, clip_on=False)
    ax.add_artist(line)
