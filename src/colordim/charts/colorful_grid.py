"""A whole figure of colorful panels: one window and one scale of colours for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from colordim import statistics
from colordim.axis import LinearAxis
from colordim.charts.colorbar import Color, ColorScale, color_bar, color_scale
from colordim.charts.colorful import (
    Colorful,
    EpochProfile,
    cells,
    colorful,
    outside,
    superimpose_mean,
    superimpose_profiles,
)
from colordim.charts.columns import Columns, to_rows
from colordim.charts.frame import FOOTNOTES, Panel, framed
from colordim.charts.labels import compact, percent, tick_text
from colordim.charts.layout import Grid, Margins, plan
from colordim.charts.marks import batch_axis, epoch_marks, value_ticks
from colordim.charts.style import DPI, ChartFigure, settings
from colordim.charts.titles import WIDE, draw_title, tell_apart, title_height
from colordim.charts.window import SHARE, Window, shared_half_width, symlog_window, symmetric, window_from

__all__ = [
    "Bar",
    "EpochCounts",
    "WindowChoice",
    "choose_windows",
    "colorful_grid",
    "colorful_in",
    "grid_of",
    "window_ticks",
]

Bar = Literal["each", "shared"]
WindowChoice = Literal["shared", "own", "symlog"] | tuple[float, float]

#: Up to this many panels each has a colour bar of its own.
_FEW = 6
#: Most rows of a panel: finer ones than this are noise, not information.
_ROWS = 240


@dataclass(frozen=True)
class EpochCounts:
    """The histogram of an epoch and that of its last quarter, and of how many batches each is the sum."""

    start: int
    stop: int
    whole: npt.NDArray[np.int64]
    whole_batches: int
    last: npt.NDArray[np.int64]
    last_batches: int


@dataclass
class _Matrices:
    """The matrices from bins to rows, each made once: most layers share an axis, and often a window."""

    rows: int
    made: dict[tuple[object, Window], npt.NDArray[np.float64]] = field(default_factory=dict)

    def of(self, panel: Panel, window: Window) -> npt.NDArray[np.float64]:
        key = (panel.axis, window)
        if key not in self.made:
            self.made[key] = panel.axis.project(window.edges(self.rows))
        return self.made[key]


def grid_of(
    panels: int,
    *,
    window: WindowChoice = "shared",
    bar: Bar | Literal["auto"] | None = "auto",
    rows: int | None = None,
    cols: int | None = None,
    figsize: tuple[float, float] | None = None,
    multiple: int = 1,
) -> tuple[Grid, Bar | None]:
    """Lay out a figure of so many panels, and choose its colour bars; parameters as :func:`colorful_grid`."""
    if bar == "auto":
        bar = "each" if panels <= _FEW else "shared"
    gap = 1.55 if bar == "each" else 0.56 if window == "own" else 0.14
    right = {"each": 1.5, "shared": 1.95, None: 0.2}[bar]
    margins = Margins(gap=gap, right=right, top=0.3, bottom=0.62)
    for _ in range(2):  # the height of the titles depends on the width of the panels, and that on nothing of theirs
        grid = plan(panels, margins, rows=rows, cols=cols, figsize=figsize, multiple=multiple)
        margins = Margins(gap=gap, right=right, top=0.3, bottom=0.62, head=title_height(grid.panel_width))
    return grid, bar


def choose_windows(panels: Sequence[Panel], window: WindowChoice) -> list[Window]:
    """Return the window of each panel.

    Parameters
    ----------
    panels : sequence of Panel
    window : {"shared", "own", "symlog"} or (float, float)
        "shared": linear and symmetric about zero, wide enough for 99.5 % of the values of nine layers in
        ten; "own": the same for each layer (the phases of a layer share theirs); "symlog": everything;
        or the two ends.

    Raises
    ------
    AxisError
        If it is none of these, or its first end is not below the second.
    """
    if not isinstance(window, str) or window not in ("shared", "own", "symlog"):
        return [window_from(window)] * len(panels)  # type: ignore[arg-type]
    wholes: dict[str, list[Panel]] = {}
    for panel in panels:
        wholes.setdefault(panel.caption.name, []).append(panel)
    needed = {name: _half_width(group, SHARE) for name, group in wholes.items()}
    if window == "own":
        return [symmetric(needed[panel.caption.name]) for panel in panels]
    if window == "symlog":
        largest = max((_half_width(group, 1.0) for group in wholes.values()), default=0.0)
        return [symlog_window(list(needed.values()), largest)] * len(panels)
    return [symmetric(shared_half_width(list(needed.values())))] * len(panels)


def colorful_grid(
    panels: Sequence[Panel],
    grid: Grid,
    *,
    window: WindowChoice = "shared",
    color: Color = "share",
    bar: Bar | None = "shared",
    mean: bool = False,
    profiles: Mapping[int, Sequence[EpochCounts]] | None = None,
    value_name: str = "activation",
    title: str = "",
    note: str = "",
) -> ChartFigure:
    """Draw all panels.

    Parameters
    ----------
    panels : sequence of Panel
        At least one, in call order.
    grid : Grid
        As :func:`grid_of` laid it out.
    window : {"shared", "own", "symlog"} or (float, float)
    color : {"share", "count"}
    bar : {"each", "shared"}, optional
    mean : bool
        Whether mean and mean +- std are superimposed.
    profiles : mapping of int to sequence of EpochCounts, optional
        Epochs whose average histograms are superimposed, for the panels of these positions.
    value_name : str
        What the y axis is.
    title : str
    note : str
        Ends the line below the panels.

    Returns
    -------
    ChartFigure
    """
    rows = _rows(grid.panel_height)
    windows = choose_windows(panels, window)
    matrices = _Matrices(rows)
    filled = [to_rows(p.columns, matrices.of(p, w)) for p, w in zip(panels, windows, strict=True)]
    values = [cells(f, p.columns, color) for f, p in zip(filled, panels, strict=True)]
    scale = color_scale(values, color)
    phases = list(dict.fromkeys(panel.phase for panel in panels))
    same = window != "own"
    with settings():
        figure = framed(
            grid,
            title,
            f"batch ({' | '.join(phases)})",
            value_name,
            _footer(panels, windows, rows, mean, profiles is not None, note),
        )
        captions = tell_apart([panel.caption for panel in panels], grid.panel_width)
        for i, (ax, panel, own) in enumerate(zip(grid.add_panels(figure), panels, windows, strict=True)):
            colorful(
                ax, panel.columns, values[i], own, scale,
                shares_outside=outside(filled[i], panel.columns), not_finite=panel.not_finite,
                font=6.5 if grid.panel_width >= WIDE else 5.4,
            )  # fmt: skip
            pixels = int(grid.panel_width * DPI)
            epoch_marks(
                ax, panel.epochs, panel.epoch_numbers, panel.start, panel.stop, pixels, label=grid.panel_width >= WIDE
            )
            batch_axis(ax, panel.start, panel.stop, grid.panel_width, labels=grid.lowest(i))
            value_ticks(ax, window_ticks(own, grid.panel_height), labels=not same or grid.leftmost(i) or bar == "each")
            draw_title(ax, captions[i], grid.panel_width, grid.panel_height)
            if mean:
                superimpose_mean(ax, panel.columns)
            if profiles and i in profiles:
                averages = [_profile(epoch, matrices.of(panel, own)) for epoch in profiles[i]]
                superimpose_profiles(ax, averages, own.edges(rows), own)
            if bar == "each":
                _bar_beside(ax, grid, i, scale, panel)
        if bar == "shared":
            _bar_for_all(figure, grid, scale, panels)
    return figure


def colorful_in(ax: Axes, panel: Panel, *, window: WindowChoice = "own", color: Color = "share") -> Colorful:
    """Draw one panel, with its title and ticks, into axes that someone else has laid out.

    Parameters
    ----------
    ax : Axes
        Empty.
    panel : Panel
    window, color
        As in :func:`colorful_grid`.

    Returns
    -------
    Colorful
    """
    box = ax.get_window_extent()
    width, height = box.width / ax.figure.dpi, box.height / ax.figure.dpi
    rows = _rows(height)
    (own,) = choose_windows([panel], window)
    filled = to_rows(panel.columns, panel.axis.project(own.edges(rows)))
    values = cells(filled, panel.columns, color)
    with settings():
        drawn = colorful(
            ax, panel.columns, values, own, color_scale([values], color),
            shares_outside=outside(filled, panel.columns), not_finite=panel.not_finite,
        )  # fmt: skip
        epoch_marks(ax, panel.epochs, panel.epoch_numbers, panel.start, panel.stop, int(width * DPI))
        batch_axis(ax, panel.start, panel.stop, width)
        value_ticks(ax, window_ticks(own, height))
        draw_title(ax, panel.caption, width, height)
    return drawn


def _rows(height: float) -> int:
    """Return how many rows a panel of `height` inches has: an even number."""
    return max(2 * (min(int(height * DPI / 1.12), _ROWS) // 2), 2)


def _half_width(panels: Sequence[Panel], share: float) -> float:
    """Return what the panels of one layer need; where that lies beyond the axis, what can be shown."""
    axis = panels[0].axis
    whole = np.sum([panel.columns.whole(axis) for panel in panels], axis=0)
    under, over = (sum(panel.columns.total(name) for panel in panels) for name in ("under", "over"))
    width = statistics.half_width(whole, axis.edges, share, under, over)
    if not np.isinf(width):
        return width
    if isinstance(axis, LinearAxis):
        return float(np.abs(axis.edges).max())
    # nobody wants to see up to the millions at which that axis ends: the strips show that there is more
    return statistics.half_width(whole, axis.edges, share)


def _profile(epoch: EpochCounts, matrix: npt.NDArray[np.float64]) -> EpochProfile:
    whole, last = (
        (matrix @ counts)[1:-1] / max(batches, 1)
        for counts, batches in ((epoch.whole, epoch.whole_batches), (epoch.last, epoch.last_batches))
    )
    return EpochProfile(epoch.start, epoch.stop, whole, last)


def window_ticks(window: Window, height: float) -> list[float]:
    """Return the values that the y axis of a panel of `height` inches is marked with."""
    if window.scale == "symlog":
        low, high = np.log10(window.linthresh), np.log10(window.hi)
        step = max(1, int(np.ceil((high - low) / (2 if height < 1.6 else 4))))
        decades = 10.0 ** np.arange(np.floor(high), low - 0.5, -step)
        return [*(-decades), 0.0, *decades[::-1]]
    if window.lo == -window.hi:
        half = window.hi / 2
        return [window.lo, 0.0, window.hi] if height < 1.6 else [window.lo, -half, 0.0, half, window.hi]
    ticks = MaxNLocator(3 if height < 1.6 else 6).tick_values(window.lo, window.hi)
    return [float(tick) for tick in ticks if window.lo <= tick <= window.hi]


def _bar_beside(ax: Axes, grid: Grid, i: int, scale: ColorScale, panel: Panel) -> None:
    left, bottom, width, height = grid.rectangle(i)
    bar = ax.figure.add_axes((left + width + 0.52 / grid.width, bottom, 0.1 / grid.width, height - 0.12 / grid.height))
    color_bar(bar, scale, [("count", panel.batch_size)] if panel.batch_size else [], size=6.2)


def _bar_for_all(figure: ChartFigure, grid: Grid, scale: ColorScale, panels: Sequence[Panel]) -> None:
    height = min(3.4, grid.height - grid.margins.top - grid.margins.bottom - 0.7)
    right = grid.width - grid.margins.right
    top = grid.height - grid.margins.top - grid.margins.head - 0.1
    bar = figure.add_axes(
        ((right + 0.68) / grid.width, (top - height) / grid.height, 0.12 / grid.width, height / grid.height)
    )
    sized = sorted((panel for panel in panels if panel.batch_size), key=lambda panel: panel.batch_size)
    ends = [sized[0], sized[-1]] if sized and sized[0].batch_size < sized[-1].batch_size else sized[:1]
    words = ("count of", "count of")
    counts = [
        (f"{word}\n{compact(panel.batch_size)} in\n{panel.caption.name}", panel.batch_size)
        for word, panel in zip(words, ends, strict=False)
    ]
    color_bar(bar, scale, counts, size=6.2, apart=0.56)


def _footer(
    panels: Sequence[Panel], windows: Sequence[Window], rows: int, mean: bool, profiles: bool, note: str
) -> str:
    widths = sorted({panel.columns.width for panel in panels})
    column = " or ".join(f"{w} batches (their mean)" if w > 1 else "1 batch" for w in widths)
    parts = [f"column: {column}"]
    if len(set(windows)) > 1:
        parts.append(f"row: 1/{rows} of the panel's own window")
    elif windows[0].scale == "linear":
        parts.append(f"row: {tick_text(float(f'{(windows[0].hi - windows[0].lo) / rows:.2g}'))}")
    else:  # rows are equally high on screen: by values up to linthresh, by their logarithm beyond
        edges, linthresh = windows[0].edges(rows), windows[0].linthresh
        inner = tick_text(float(f"{edges[rows // 2 + 1] - edges[rows // 2]:.2g}"))
        parts.append(
            f"row: {inner} within ±{tick_text(linthresh)}, beyond {percent(edges[-1] / edges[-2] - 1)} of the value"
        )
    parts += ["blank: no value", "strips: all beyond the window", "red: zero", "blue: epoch begins"]
    if any(panel.columns.held.any() for panel in panels):
        parts.append("what was not recorded repeats the column before")
    if any(_marked(panel.columns) for panel in panels):
        parts.append("pink: NaN or Inf")
    if mean:
        parts.append("white: mean, dashed: mean ± std")
    if profiles:
        parts.append("black: average of the epoch, grey: of its last quarter")
    if note:
        parts.append(note)
    return FOOTNOTES.join(parts)


def _marked(columns: Columns) -> bool:
    return bool(columns.not_finite.any())
