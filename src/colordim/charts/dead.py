"""Dead and near-dead: the share of a layer's values that are zero, or close to it, over the batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import StepPatch

from colordim.axis import Axis
from colordim.charts.columns import Columns
from colordim.charts.frame import Panel, framed
from colordim.charts.labels import tick_text
from colordim.charts.layout import Grid, Margins, plan
from colordim.charts.marks import batch_axis, epoch_marks, not_finite_marks, value_ticks
from colordim.charts.style import DPI, LINE_COLORS, RULE, ChartFigure, settings
from colordim.charts.titles import WIDE, draw_title, title_height
from colordim.statistics import near_zero, ratio

__all__ = ["Dead", "dead", "dead_grid", "grid_of"]

_EXACT, _NEAR = LINE_COLORS[0], LINE_COLORS[4]


@dataclass(frozen=True)
class Dead:
    """The artists of one panel: the shares as steps, NaN where the layer did not run, and the marks."""

    near: StepPatch
    exact: StepPatch
    not_finite: LineCollection | None


def dead(ax: Axes, columns: Columns, axis: Axis, threshold: float = 0.05) -> Dead:
    """Draw the share of exact zeros, and of ``|x| <= threshold``, in each column.

    Parameters
    ----------
    ax : Axes
    columns : Columns
    axis : Axis
        Of the columns' bins.
    threshold : float
        At least 0; a bin that it cuts is split in proportion.

    Returns
    -------
    Dead
        Shares of all values of a column, from 0 to 1; NaN where there are none.
    """
    size, zeros = columns.counter("size"), columns.counter("zeros")
    last = columns.first_bin + columns.counts.shape[1]
    counts = np.zeros((len(columns), axis.bins))
    counts[:, columns.first_bin : last] = columns.counts
    near = ratio(near_zero(counts, axis.edges, threshold, zeros), size)
    exact = ratio(zeros, size)
    light = ax.stairs(near, columns.edges, fill=True, color=_NEAR, alpha=0.5, linewidth=0.0, zorder=1)
    dark = ax.stairs(exact, columns.edges, fill=True, color=_EXACT, alpha=0.9, linewidth=0.0, zorder=1.5)
    ax.set_ylim(0.0, 1.0)
    return Dead(light, dark, not_finite_marks(ax, columns.edges, columns.not_finite > 0))


def grid_of(panels: int, *, rows: int | None, cols: int | None, figsize: tuple[float, float] | None) -> Grid:
    """Lay out a figure of so many panels."""
    margins = Margins(top=0.3, bottom=0.62)
    grid = plan(panels, margins, rows=rows, cols=cols, figsize=figsize)
    margins = Margins(top=0.3, bottom=0.62, head=title_height(grid.panel_width))
    grid = plan(panels, margins, rows=rows, cols=cols, figsize=figsize)
    if figsize is None:  # a share needs less height than a distribution
        height = 0.72 * grid.panel_height
        lower = grid.height - grid.rows * (grid.panel_height - height)
        grid = plan(panels, margins, rows=grid.rows, cols=grid.cols, figsize=(grid.width, lower))
    return grid


def dead_grid(panels: Sequence[Panel], grid: Grid, *, threshold: float = 0.05, title: str = "") -> ChartFigure:
    """Draw all panels.

    Parameters
    ----------
    panels : sequence of Panel
        At least one, in call order.
    grid : Grid
    threshold : float
    title : str

    Returns
    -------
    ChartFigure
    """
    wide = grid.panel_width >= WIDE
    with settings():
        figure = framed(grid, title, f"batch ({panels[0].phase})", "share of the layer's values")
        for i, (ax, panel) in enumerate(zip(grid.add_panels(figure), panels, strict=True)):
            drawn = dead(ax, panel.columns, panel.axis, threshold)
            pixels = int(grid.panel_width * DPI)
            epoch_marks(ax, panel.epochs, panel.epoch_numbers, panel.start, panel.stop, pixels, label=wide)
            batch_axis(ax, panel.start, panel.stop, grid.panel_width, labels=grid.lowest(i))
            value_ticks(ax, [0.0, 0.5, 1.0], labels=grid.leftmost(i), text=lambda share: f"{100 * share:.0f} %")
            ax.axhline(0.5, color=RULE, linewidth=0.5, zorder=0.8)
            draw_title(ax, panel.caption, grid.panel_width, grid.panel_height)
            if i == 0:
                figure.legend(
                    [drawn.exact, drawn.near], ["exactly zero", f"|x| ≤ {tick_text(threshold)}"],
                    loc="lower right", bbox_to_anchor=(1 - grid.margins.right / grid.width, 0.0), ncols=2,
                    frameon=False, fontsize=7.5, handlelength=1.2, borderaxespad=0.3,
                )  # fmt: skip
    return figure
