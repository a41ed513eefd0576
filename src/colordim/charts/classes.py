"""One layer by class: its colorful panel, and beside its average histogram that of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch

from colordim.axis import Axis
from colordim.charts.colorbar import Color, color_bar, color_scale
from colordim.charts.colorful import cells, colorful, outside, superimpose_mean
from colordim.charts.colorful_grid import WindowChoice, choose_windows, window_ticks
from colordim.charts.columns import to_rows
from colordim.charts.frame import Panel, heading, lines_of
from colordim.charts.labels import elide
from colordim.charts.marks import batch_axis, epoch_marks, value_ticks
from colordim.charts.style import DPI, INK, LINE_COLORS, MUTED, RULE, ChartFigure, new_figure, settings
from colordim.charts.titles import draw_title, title_height
from colordim.charts.window import Window

__all__ = ["FEW", "PANEL_WIDTH", "ClassCounts", "class_profile", "classes_figure", "superimpose_classes"]

FloatArray = npt.NDArray[np.float64]

#: Up to this many classes have colours of their own, and lines over the panel.
FEW = 10
#: Of more epochs the lines over the panel would be too narrow to be read.
_EPOCHS = 12
#: Width of the panel, in inches.
PANEL_WIDTH = 8.6
_PANEL_HEIGHT = 3.9
_ROWS, _CLASS_ROWS = 240, 64
_ACROSS = 16
_LEFT, _RIGHT = 0.75, 1.6


@dataclass(frozen=True)
class ClassCounts:
    """What the last quarter of an epoch's batches adds up to.

    Attributes
    ----------
    start, stop : int
        Batches of the epoch.
    epoch : int
        Its number.
    labels : sequence of str
        Of the classes.
    counts : ndarray of int64, shape ``[classes + 1, bins]``
        Of the layer, then of each class.
    sizes : ndarray of int64, shape ``[classes + 1]``
        How many values each has, those in no bin among them.
    """

    start: int
    stop: int
    epoch: int
    labels: Sequence[str]
    counts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    def shares(self, axis: Axis, window: Window, rows: int) -> FloatArray:
        """Return the share of each one's values in each row, shape ``[classes + 1, rows]``."""
        matrix = axis.project(window.edges(rows))[1:-1]
        share: FloatArray = (self.counts @ matrix.T) / np.maximum(self.sizes, 1)[:, None]
        return share


def superimpose_classes(
    ax: Axes, epochs: Sequence[ClassCounts], axis: Axis, window: Window, colors: Sequence[str]
) -> list[Line2D]:
    """Draw, where each epoch begins, the average histogram of the layer (black) and of each class.

    The fullest row but that of zero reaches over nine tenths of the epoch; a row of zeros that is fuller is
    cut off there. All are shares, so that the layer is the mean of its classes.

    Returns
    -------
    list of Line2D
        The layer and its classes, epoch by epoch.
    """
    edges = window.edges(_CLASS_ROWS)
    places = window.forward(edges)
    centers = window.inverse((places[:-1] + places[1:]) / 2)
    lines = []
    for epoch in epochs:
        shares = epoch.shares(axis, window, _CLASS_ROWS)
        highest = _highest(shares, edges)
        for values, color, wide in zip(shares, ("black", *colors), (1.5, *[0.9] * len(colors)), strict=False):
            reach = np.where(values > 0, np.minimum(values / highest, 1.0), np.nan)
            x = epoch.start + 0.9 * (epoch.stop - epoch.start) * reach
            lines += ax.plot(x, centers, color=color, linewidth=wide, zorder=3.2 if color == "black" else 3.1)
    return lines


def class_profile(
    ax: Axes, values: FloatArray, layer: FloatArray, row_edges: FloatArray, highest: float, color: str
) -> tuple[StepPatch, StepPatch]:
    """Draw the histogram of one class, filled, and that of its layer as a line; the share grows to the right."""
    own = ax.stairs(values, row_edges, orientation="horizontal", fill=True, color=color, alpha=0.75, linewidth=0)
    whole = ax.stairs(layer, row_edges, orientation="horizontal", baseline=None, color=INK, linewidth=0.7)
    ax.set_xlim(0.0, 1.05 * highest)
    ax.set_xticks([])
    return own, whole


def classes_figure(
    panel: Panel,
    epochs: Sequence[ClassCounts],
    *,
    window: WindowChoice = "own",
    color: Color = "share",
    mean: bool = False,
    value_name: str = "activation",
    figsize: tuple[float, float] | None = None,
    title: str = "",
    note: str = "",
) -> ChartFigure:
    """Draw the layer's panel and, below it, the histogram of each class at the end of the last epoch.

    Parameters
    ----------
    panel : Panel
        Of the whole layer.
    epochs : sequence of ClassCounts
        Of each epoch on show, the last at least; the lines over the panel are drawn for all of them.
    window, color, mean, value_name, title, note
        As :func:`colordim.charts.colorful_grid.colorful_grid` takes them.
    figsize : (float, float), optional
        Inches.

    Returns
    -------
    ChartFigure
    """
    last = epochs[-1]
    number = len(last.labels)
    few = number <= FEW
    hues = [mpl.colors.to_hex(c) for c in mpl.colormaps["tab10"].colors] if few else [LINE_COLORS[0]] * number  # type: ignore[attr-defined]
    across = number if few else _ACROSS
    down = -(-number // across)
    each = 2.2 if few else 1.15
    width = figsize[0] if figsize else _LEFT + PANEL_WIDTH + _RIGHT
    inner = width - _LEFT - _RIGHT
    above = 0.35 + title_height(inner)
    height = figsize[1] if figsize else above + _PANEL_HEIGHT + 0.72 + down * (each + 0.24) + 0.36
    scale_down = (height - above - 0.72 - 0.36 - 0.24 * down) / (_PANEL_HEIGHT + down * each)
    tall, each = _PANEL_HEIGHT * scale_down, each * scale_down
    own = choose_windows([panel], window)[0]
    rows = max(2 * (min(int(tall * DPI / 1.12), _ROWS) // 2), 2)
    filled = to_rows(panel.columns, panel.axis.project(own.edges(rows)))
    values = cells(filled, panel.columns, color)
    scale = color_scale([values], color)
    with settings():
        figure = new_figure(width, height)
        heading(figure, _LEFT, title)
        bottom = height - above - tall
        ax = figure.add_axes((_LEFT / width, bottom / height, inner / width, tall / height))
        colorful(
            ax, panel.columns, values, own, scale,
            shares_outside=outside(filled, panel.columns), not_finite=panel.not_finite, font=6.5,
        )  # fmt: skip
        epoch_marks(ax, panel.epochs, panel.epoch_numbers, panel.start, panel.stop, int(inner * DPI), label=True)
        lines = superimpose_classes(ax, epochs, panel.axis, own, hues) if few and len(epochs) <= _EPOCHS else []
        if mean:
            superimpose_mean(ax, panel.columns)
        batch_axis(ax, panel.start, panel.stop, inner)
        ticks = window_ticks(own, tall)
        value_ticks(ax, ticks)
        ax.set_xlabel(f"batch ({panel.phase})", fontsize=8)
        ax.set_ylabel(value_name, fontsize=8)
        draw_title(ax, panel.caption, inner, tall)
        bar = figure.add_axes(((_LEFT + inner + 0.6) / width, bottom / height, 0.1 / width, (tall - 0.15) / height))
        color_bar(bar, scale, [("count", panel.batch_size)] if panel.batch_size else [], size=6.2)
        top = bottom - 0.62
        figure.text(
            _LEFT / width, (top + 0.03) / height, f"each class, last quarter of epoch {last.epoch}",
            fontsize=8.5, fontweight="bold", va="bottom",
        )  # fmt: skip
        shares = last.shares(panel.axis, own, _CLASS_ROWS)
        edges = own.edges(_CLASS_ROWS)
        highest = _highest(shares, edges)
        names = _short(last.labels, 72 * (inner / across - 0.06))
        for i in range(number):
            row, col = divmod(i, across)
            box = (
                (_LEFT + col * inner / across) / width,
                (top - (row + 1) * (each + 0.24)) / height,
                (inner / across - 0.06) / width,
                each / height,
            )
            small = figure.add_axes(box)
            if own.scale == "symlog":
                small.set_yscale("symlog", linthresh=own.linthresh, linscale=1)
            class_profile(small, shares[i + 1], shares[0], edges, highest, hues[i])
            small.set_ylim(own.lo, own.hi)
            small.axhline(0.0, color=RULE, linewidth=0.6, zorder=0.5)
            value_ticks(small, ticks if few else [own.lo, 0.0, own.hi], labels=col == 0)
            small.annotate(
                names[i], (0.0, 1.0), xycoords="axes fraction", xytext=(0, 2), textcoords="offset points",
                fontsize=7.0, color=INK, parse_math=False,
            )  # fmt: skip
        parts = [
            "filled: share of the class's values in a row, to the right, on one scale",
            "line: the whole layer",
            "panel: black the layer, coloured its classes, last quarter of each epoch" if lines else "",
            "NaN or Inf are in no row" if panel.columns.not_finite.any() else "",
            note,
        ]
        for n, text in enumerate(reversed(lines_of([p for p in parts if p], 72 * (width - _LEFT - 0.1), 6.2))):
            figure.text(_LEFT / width, (0.07 + 0.1 * n) / height, text, fontsize=6.2, color=MUTED, va="bottom", parse_math=False)  # fmt: skip
    return figure


def _short(labels: Sequence[str], room: float) -> list[str]:
    """Shorten the labels of classes; where that makes two the same, put their numbers before them."""
    short = [elide(label, room, 7.0) for label in labels]
    if len(set(short)) < len(set(labels)):
        short = [elide(f"{i} {label}", room, 7.0) for i, label in enumerate(labels)]
    return short


def _highest(shares: FloatArray, edges: FloatArray) -> float:
    """Return the fullest row but that of zero, or of all if no other holds a value."""
    other = ~((edges[:-1] <= 0) & (edges[1:] > 0))
    return float(shares[:, other].max(initial=0.0)) or float(shares.max(initial=0.0)) or 1.0
