"""Scalars: loss, learning rate and whatever else was logged, on the same batch axis as the histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from colordim.charts.frame import framed
from colordim.charts.labels import tick_text
from colordim.charts.layout import Grid, Margins, plan
from colordim.charts.marks import batch_axis, epoch_marks, not_finite_marks
from colordim.charts.style import DPI, LINE_COLORS, RULE, ChartFigure, settings
from colordim.charts.titles import WIDE, Caption, draw_title, title_height

__all__ = ["Scalars", "Series", "grid_of", "scalars", "scalars_grid"]

FloatArray = npt.NDArray[np.float64]

_COLORS = {"train": LINE_COLORS[0], "valid": LINE_COLORS[5]}
#: Positive values that span more than this many decades are drawn on a logarithmic scale.
_DECADES = 2.0


@dataclass(frozen=True)
class Series:
    """One logged name.

    Attributes
    ----------
    name : str
    points : mapping of {"train", "valid"} to (ndarray of float64, ndarray of float64)
        Batches, and the values logged with them: of training one a batch, of validation one a pass. Ascending.
    note : str
        What is said at the right of the title.
    limits : (float, float), optional
        Of the y axis, which is then linear.
    """

    name: str
    points: Mapping[str, tuple[FloatArray, FloatArray]]
    note: str = ""
    limits: tuple[float, float] | None = None


@dataclass(frozen=True)
class Scalars:
    """The artists of one panel: a line for each phase that has values."""

    lines: dict[str, Line2D] = field(default_factory=dict)


def scalars(ax: Axes, series: Series, start: int, stop: int, pixels: int) -> Scalars:
    """Draw one logged name.

    Where there are more values than pixels the line is their mean and a shade reaches from the smallest to the
    largest. The y axis is logarithmic if the values are positive and span more than two decades.

    Parameters
    ----------
    ax : Axes
    series : Series
    start, stop : int
        Batches on show.
    pixels : int
        Width of the axes.

    Returns
    -------
    Scalars
    """
    drawn = Scalars()
    everything = np.concatenate([values for _, values in series.points.values()] or [np.zeros(0)])
    _scale(ax, everything[np.isfinite(everything)], series.limits)
    width = max(-(-(stop - start) // max(pixels, 1)), 1)
    for phase, (x, y) in series.points.items():
        infinite = np.isinf(y)
        if infinite.any():
            for at in x[infinite]:
                not_finite_marks(ax, np.array([at, at + 1]), np.array([True]))
        x, y = x[np.isfinite(y)], y[np.isfinite(y)]
        if phase == "train":
            x = x + 0.5  # a batch is as wide as its column in the other charts
        if width > 1 and phase == "train" and len(x):
            starts = np.flatnonzero(np.diff(x // width, prepend=-1))
            ends = np.append(starts[1:], len(x)) - 1
            low, high = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
            x, y = (x[starts] + x[ends]) / 2, np.add.reduceat(y, starts) / (ends - starts + 1)
            ax.fill_between(x, low, high, color=_COLORS[phase], alpha=0.18, linewidth=0)
        drawn.lines[phase] = ax.plot(
            x, y, color=_COLORS[phase], linewidth=1.0 if phase == "train" else 1.4,
            marker="." if len(x) < 2 or phase == "valid" else "None", markersize=4, clip_on=False,
        )[0]  # fmt: skip
    return drawn


def grid_of(panels: int, *, rows: int | None, cols: int | None, figsize: tuple[float, float] | None) -> Grid:
    """Lay out a figure of so many panels."""
    margins = Margins(top=0.3, bottom=0.62, gap=0.55)
    for _ in range(2):  # the height of the titles depends on the width of the panels
        grid = plan(panels, margins, rows=rows, cols=cols, figsize=figsize)
        margins = Margins(top=0.3, bottom=0.62, gap=0.55, head=title_height(grid.panel_width))
    if figsize is None:
        lower = grid.height - grid.rows * 0.4 * grid.panel_height
        grid = plan(panels, margins, rows=grid.rows, cols=grid.cols, figsize=(grid.width, lower))
    return grid


def scalars_grid(
    series: Sequence[Series],
    grid: Grid,
    *,
    start: int,
    stop: int,
    epochs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    phase: str = "train",
    title: str = "",
) -> ChartFigure:
    """Draw a panel for each name.

    Parameters
    ----------
    series : sequence of Series
        At least one.
    grid : Grid
    start, stop : int
        Batches on show.
    epochs : (ndarray of int64, ndarray of int64)
        First batch of each epoch, and its number.
    phase : str
        Whose batches the x axis counts.
    title : str

    Returns
    -------
    ChartFigure
    """
    wide = grid.panel_width >= WIDE
    with settings():
        footer = "validation: the mean of each pass, where it ran" if any("valid" in s.points for s in series) else ""
        figure = framed(grid, title, f"batch ({phase})", "", footer)
        handles: dict[str, Line2D] = {}
        for i, (ax, one) in enumerate(zip(grid.add_panels(figure), series, strict=True)):
            pixels = int(grid.panel_width * DPI)
            handles |= scalars(ax, one, start, stop, pixels).lines
            epoch_marks(ax, *epochs, start, stop, pixels, label=wide)
            batch_axis(ax, start, stop, grid.panel_width, labels=grid.lowest(i))
            ax.grid(axis="y", color=RULE, linewidth=0.4, alpha=0.6)
            ax.set_axisbelow(True)
            ax.tick_params(axis="y", labelsize=6.5, pad=1.5)
            draw_title(ax, Caption(one.name, "", "", (), note=one.note), grid.panel_width, grid.panel_height)
        names = [{"train": "training", "valid": "validation"}[key] for key in handles]
        if handles:
            figure.legend(
                list(handles.values()), names, loc="lower right", ncols=2, frameon=False, fontsize=7.5, handlelength=1.2,
                bbox_to_anchor=(1 - grid.margins.right / grid.width, 0.0), borderaxespad=0.3,
            )  # fmt: skip
    return figure


def _scale(ax: Axes, values: FloatArray, limits: tuple[float, float] | None) -> None:
    positive = values[values > 0]
    if limits is not None:
        ax.set_ylim(limits)
    elif positive.size and values.min() >= 0 and positive.max() > 10**_DECADES * positive.min():
        if values.min() > 0:
            ax.set_yscale("log")
        else:  # a warm-up begins at zero
            ax.set_yscale("symlog", linthresh=10.0 ** np.floor(np.log10(positive.min())))
    elif values.size and np.ptp(values) == 0:
        middle, half = float(values[0]), abs(float(values[0])) / 2 or 0.5
        ax.set_ylim(middle - half, middle + half)
    ax.yaxis.set_major_formatter(lambda value, _: tick_text(value))
    ax.minorticks_off()
