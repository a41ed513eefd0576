"""Dead and near-dead: the share of a layer's values that are zero, and of its units that never were active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import StepPatch

from colordim.axis import Axis
from colordim.charts.columns import Columns
from colordim.charts.frame import FOOTNOTES, Panel, framed
from colordim.charts.labels import text_width, tick_text
from colordim.charts.layout import Grid, Margins, plan
from colordim.charts.marks import batch_axis, epoch_marks, not_finite_marks, value_ticks
from colordim.charts.style import DPI, LINE_COLORS, RULE, ChartFigure, settings
from colordim.charts.titles import WIDE, Caption, draw_title, tell_apart, title_height
from colordim.statistics import near_zero, ratio

__all__ = ["Dead", "DeadUnits", "dead", "dead_grid", "dead_units", "grid_of"]

#: Points of the legend's texts.
_SIZE = 7.5

_EXACT, _NEAR, _UNITS = LINE_COLORS[0], LINE_COLORS[4], LINE_COLORS[5]


@dataclass(frozen=True)
class Dead:
    """The artists of one panel: the shares as steps, NaN where the layer did not run, and the marks."""

    near: StepPatch
    exact: StepPatch
    not_finite: LineCollection | None


@dataclass(frozen=True)
class DeadUnits:
    """The share of a layer's units that were not active even once, in windows of batches.

    Attributes
    ----------
    first, last : ndarray of int64, shape ``[windows]``
        First and last batch of each window.
    share : ndarray of float64, shape ``[windows]``
    judged_on : str
        Name of the stream on whose values the units were judged.
    """

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]
    judged_on: str


def dead_units(ax: Axes, units: DeadUnits) -> StepPatch:
    """Draw the share of dead units as a step over each window, with a gap where no window is."""
    edges, values = [int(units.first[0])], []
    for first, last, share in zip(units.first.tolist(), units.last.tolist(), units.share.tolist(), strict=True):
        if first > edges[-1]:
            edges.append(first)
            values.append(float("nan"))
        edges.append(last + 1)
        values.append(share)
    # at 0 and at 100 % the line would be cut in half
    return ax.stairs(values, edges, baseline=None, color=_UNITS, linewidth=1.5, zorder=2, clip_on=False)


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


def dead_grid(
    panels: Sequence[Panel],
    grid: Grid,
    *,
    threshold: float = 0.05,
    units: Sequence[DeadUnits | None] = (),
    title: str = "",
    note: str = "",
) -> ChartFigure:
    """Draw all panels.

    Parameters
    ----------
    panels : sequence of Panel
        At least one, in call order.
    grid : Grid
    threshold : float
    units : sequence of DeadUnits or None, optional
        Of each panel's layer, where they were recorded.
    title, note : str
        The note ends the line below the panels.

    Returns
    -------
    ChartFigure
    """
    wide = grid.panel_width >= WIDE
    with settings():
        found = dict(enumerate(units or [None] * len(panels)))
        footer = [_windows([own for own in found.values() if own])]
        footer += ["pink: NaN or Inf"] if any(panel.columns.not_finite.any() for panel in panels) else []
        below = FOOTNOTES.join(part for part in [*footer, note] if part)
        names = {"exact": "exactly zero", "near": f"|x| ≤ {tick_text(threshold)}"}
        if any(found.values()):
            names["units"] = "units never active in a window"
        room = _legend_width(list(names.values()))
        figure = framed(
            grid, title, f"batch ({panels[0].phase})", "share of the layer's values", below, beside=room + 0.1
        )
        captions = [_judged(panel.caption, found[i]) for i, panel in enumerate(panels)]
        captions = tell_apart(captions, grid.panel_width)
        handles: dict[str, Artist] = {}
        for i, (ax, panel) in enumerate(zip(grid.add_panels(figure), panels, strict=True)):
            drawn = dead(ax, panel.columns, panel.axis, threshold)
            handles[names["exact"]] = drawn.exact
            handles[names["near"]] = drawn.near
            if (own := found[i]) is not None:
                handles[names["units"]] = dead_units(ax, own)
            pixels = int(grid.panel_width * DPI)
            epoch_marks(ax, panel.epochs, panel.epoch_numbers, panel.start, panel.stop, pixels, label=wide)
            batch_axis(ax, panel.start, panel.stop, grid.panel_width, labels=grid.lowest(i))
            value_ticks(ax, [0.0, 0.5, 1.0], labels=grid.leftmost(i), text=lambda share: f"{100 * share:.0f} %")
            ax.axhline(0.5, color=RULE, linewidth=0.5, zorder=0.8)
            draw_title(ax, captions[i], grid.panel_width, grid.panel_height)
        figure.legend(
            list(handles.values()), list(handles), loc="lower right", ncols=len(handles), frameon=False, fontsize=_SIZE,
            bbox_to_anchor=(1 - grid.margins.right / grid.width, 0.16 / grid.height), handlelength=1.2, borderaxespad=0.3,
        )  # fmt: skip
    return figure


def _legend_width(texts: Sequence[str]) -> float:
    """Return how wide a legend of one row is, in inches: with each text a handle and the spaces of Matplotlib's defaults."""
    spaces = len(texts) * (1.2 + 0.8) + (len(texts) - 1) * 2.0 + 2 * (0.4 + 0.3)
    return (sum(text_width(text, _SIZE) for text in texts) + spaces * _SIZE) / 72


def _judged(caption: Caption, units: DeadUnits | None) -> Caption:
    """Say in a title on whose values the units were judged, if not on the layer's own."""
    if units is None or units.judged_on == caption.name:
        return caption
    return replace(caption, arguments=f"units judged on {units.judged_on}")


def _windows(units: Sequence[DeadUnits]) -> str:
    """Say how long the windows are; the last of a run may be shorter."""
    if not units:
        return ""
    longest = max(int((one.last - one.first).max()) + 1 for one in units)
    return f"units: those that were not active once in a window of {longest} batches"
