"""Updates: how large the optimiser's steps are beside the parameters that they change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from colordim import statistics
from colordim.charts.columns import Columns
from colordim.charts.frame import heading, lines_of
from colordim.charts.labels import elide_apart
from colordim.charts.marks import batch_axis, epoch_marks, not_finite_marks, runs_of
from colordim.charts.strips import NOT_FINITE_CELL, ZERO_CELL, names_width, row_height, strips
from colordim.charts.style import DPI, INK, LINE_COLORS, MUTED, RULE, ChartFigure, new_figure, settings

__all__ = ["HEALTHY", "PANEL_WIDTH", "TARGET", "UpdateRow", "Updates", "ratios", "update_lines", "updates_figure"]

#: log10 of the ratio that the rule of thumb asks for, and the range outside of which steps count as too small
#: or too large; sources in :meth:`colordim.views.Run.updates`.
TARGET = -3.0
HEALTHY = (-4.0, -1.0)

#: Width of the panel, in inches.
PANEL_WIDTH = 8.2
_SIDE = 2.75
#: Up to this many parameters have a line each; more have a strip each.
_LINES = len(LINE_COLORS)
_SPAN = (-6.0, 0.0)
#: What of the panel's height is set aside for updates that are exactly zero.
_FLOOR = 0.14


@dataclass(frozen=True)
class UpdateRow:
    """One parameter.

    Attributes
    ----------
    name : str
    columns : Columns
        Of its updates.
    ratio : ndarray of float64, shape ``[n]``
        log10 of std(update) / std(weight); NaN where it is not known, or not defined.
    zero : ndarray of bool, shape ``[n]``
        Where every element of the update is exactly zero.
    not_finite : ndarray of bool, shape ``[n]``
        Where the update or the weight has NaN or Inf.
    """

    name: str
    columns: Columns
    ratio: npt.NDArray[np.float64]
    zero: npt.NDArray[np.bool_]
    not_finite: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Updates:
    """The artists of :func:`update_lines`, by parameter: its line, and where its updates are zero."""

    lines: list[Line2D]
    zeros: list[LineCollection | None]


def ratios(name: str, updates: Columns, weights: Columns, before: tuple[float, bool]) -> UpdateRow:
    """Compare the updates of a parameter with what it was when they were made.

    Parameters
    ----------
    name : str
    updates, weights : Columns
        Of the same batches. Where no weight was recorded it is taken as it was last seen.
    before : (float, bool)
        Standard deviation of the weight as it was last seen before the first column (NaN if it was not),
        and whether it had NaN or Inf.

    Returns
    -------
    UpdateRow
        Held from one recorded update to the next, but no longer than they usually lie apart.
    """
    known = updates.number > 0
    deviation, broken = _held(
        np.concatenate([[before[0]], _std(weights)]),
        np.concatenate([[before[1]], weights.not_finite > 0]),
        np.concatenate([[True], weights.number > 0]),
        None,
    )
    zero = known & (updates.moments[:, 2] == 0) & (updates.moments[:, 3] == 0) & (updates.not_finite == 0)
    ratio = np.where(known, statistics.log_ratio(_std(updates), deviation[1:]), np.nan)
    bad = known & ((updates.not_finite > 0) | broken[1:])
    at = np.flatnonzero(known)
    apart = int(np.median(np.diff(at))) if at.size > 1 else 1
    held_ratio, held_zero = _held(ratio, zero, known, apart)
    _, held_bad = _held(ratio, bad, known, apart)
    return UpdateRow(name, updates, held_ratio, held_zero, held_bad)


def update_lines(ax: Axes, rows: Sequence[UpdateRow]) -> Updates:
    """Draw a line for each parameter, and below the panel's floor where its updates are zero."""
    low = min([HEALTHY[0] - 0.5, *(float(np.nanmin(r.ratio)) - 0.2 for r in rows if np.isfinite(r.ratio).any())])
    high = max([HEALTHY[1] + 0.5, *(float(np.nanmax(r.ratio)) + 0.2 for r in rows if np.isfinite(r.ratio).any())])
    floor = low - _FLOOR / (1 - _FLOOR) * (high - low)
    ax.set_ylim(floor, high)
    ax.axhspan(*HEALTHY, color="#009E73", alpha=0.10, linewidth=0, zorder=0)
    ax.axhline(TARGET, color="#009E73", linewidth=0.9, linestyle="--", zorder=1)
    ax.axhspan(floor, low, color=RULE, alpha=0.3, linewidth=0, zorder=0)
    drawn = Updates([], [])
    for number, (row, color) in enumerate(zip(rows, LINE_COLORS, strict=False)):
        (line,) = ax.plot(row.columns.centers, row.ratio, color=color, linewidth=1.1, zorder=2)
        known = np.concatenate([[False], np.isfinite(row.ratio), [False]])
        alone = known[1:-1] & ~known[:-2] & ~known[2:]
        if alone.any():  # a value between gaps has no line to be part of
            line.set(marker=".", markersize=4, markevery=np.flatnonzero(alone).tolist())
        drawn.lines.append(line)
        y = low + (floor - low) * (number + 0.7) / (len(rows) + 0.4)
        edges = row.columns.edges
        bars = [[(edges[a], y), (edges[b], y)] for a, b in runs_of(row.zero)]
        zeros = LineCollection(bars, colors=color, linewidths=2.0, capstyle="butt", zorder=2) if bars else None
        if zeros is not None:
            ax.add_collection(zeros, autolim=False)
        drawn.zeros.append(zeros)
    ticks = [float(t) for t in range(int(np.ceil(low)), int(np.floor(high)) + 1)][:: max(int(high - low) // 8, 1)]
    ax.set_yticks([(floor + low) / 2, *ticks], ["no update", *(f"{t:.0f}".replace("-", "\u2212") for t in ticks)])
    ax.tick_params(axis="y", labelsize=6.5)
    return drawn


def updates_figure(
    rows: Sequence[UpdateRow],
    *,
    phase: str,
    start: int,
    stop: int,
    epochs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    figsize: tuple[float, float] | None = None,
    title: str = "",
    note: str = "",
) -> ChartFigure:
    """Draw the chart: lines for up to eight parameters, a strip for each of more.

    Parameters
    ----------
    rows : sequence of UpdateRow
        At least one, in the order of the model.
    phase : str
    start, stop : int
        Batches on show.
    epochs : (ndarray of int64, ndarray of int64)
        First batch of each epoch, and its number.
    figsize : (float, float), optional
        Inches.
    title, note : str
        The note ends the line below the panel.

    Returns
    -------
    ChartFigure
    """
    few = len(rows) <= _LINES
    left = 0.95 if few else names_width([row.name for row in rows])
    inner = PANEL_WIDTH if few else PANEL_WIDTH - 1.4
    default = (left + inner + _SIDE - (0 if few else 1.5), 4.6 if few else 1.5 + row_height(len(rows)) * len(rows))
    width, height = figsize or (default[0], max(default[1], 2.8))
    inner = width - (default[0] - inner)
    with settings():
        figure = new_figure(width, height)
        heading(figure, left, title)
        ax = figure.add_axes((left / width, 0.72 / height, inner / width, 1 - 1.3 / height))
        parts = [f"dashed: {TARGET:.0f}".replace("-", "\u2212")] if few else []
        if few:
            drawn = update_lines(ax, rows)
            ax.set_ylabel("log₁₀ std(update) / std(weight)", fontsize=8)
            bad = np.any([row.not_finite for row in rows], axis=0)
            not_finite_marks(ax, rows[0].columns.edges, bad)
            ax.grid(axis="y", color=RULE, linewidth=0.4, alpha=0.6)
            ax.set_axisbelow(True)
            _legend(figure, rows, drawn, (left + inner + 0.12) / width)
        else:
            bad = np.array([row.not_finite for row in rows])
            _strips(ax, rows)
            _bar(figure, ax, (left + inner + 0.3) / width)
        epoch_marks(ax, *epochs, start, stop, int(inner * DPI), label=True)
        batch_axis(ax, start, stop, inner)
        ax.set_xlabel(f"batch ({phase})", fontsize=8)
        place = "green" if few else "green at the bar"
        parts += [f"{place}: {HEALTHY[0]:.0f} to {HEALTHY[1]:.0f}, rule of thumb".replace("-", "\u2212")]
        parts += ["black: no update (exactly zero)"] if not few and any(row.zero.any() for row in rows) else []
        parts += ["blank: not known, or a weight without spread"] if not few else []
        parts += ["pink: NaN or Inf"] if bad.any() else []
        parts += [note] if note else []
        for n, line in enumerate(reversed(lines_of(parts, 72 * (width - left - 0.1), 6.2))):
            figure.text(left / width, (0.05 + 0.1 * n) / height, line, fontsize=6.2, color=MUTED, va="bottom", parse_math=False)  # fmt: skip
    return figure


def _strips(ax: Axes, rows: Sequence[UpdateRow]) -> None:
    flags = np.zeros((len(rows), len(rows[0].columns)), np.int8)
    for i, row in enumerate(rows):
        flags[i, row.zero] = ZERO_CELL
        flags[i, row.not_finite] = NOT_FINITE_CELL
    strips(
        ax, np.stack([row.ratio for row in rows]), rows[0].columns.edges, [row.name for row in rows],
        norm=_norm(), cmap=mpl.colormaps["RdYlBu_r"], flags=flags,
    )  # fmt: skip


def _norm() -> TwoSlopeNorm:
    return TwoSlopeNorm(TARGET, *_SPAN)


def _bar(figure: ChartFigure, ax: Axes, left: float) -> None:
    box = ax.get_position()
    height = min(box.height, 3.2 / figure.get_figheight())
    cax = figure.add_axes((left, box.y1 - height, 0.13 / figure.get_figwidth(), height))
    figure.colorbar(ScalarMappable(_norm(), mpl.colormaps["RdYlBu_r"]), cax=cax, extend="both", extendfrac=0.03)
    ticks = [float(t) for t in range(int(_SPAN[0]), int(_SPAN[1]) + 1)]
    cax.set_yscale("linear")
    cax.set_yticks(ticks, [f"{t:.0f}".replace("-", "\u2212") for t in ticks], fontsize=6.5)
    cax.set_title("log₁₀ std(update)\n/ std(weight)", fontsize=6.5, color=MUTED, loc="left", pad=10)
    cax.plot([-0.45, -0.45], HEALTHY, color="#009E73", linewidth=2.4, clip_on=False, solid_capstyle="butt")
    cax.set_xlim(0, 1)


def _legend(figure: ChartFigure, rows: Sequence[UpdateRow], drawn: Updates, left: float) -> None:
    room = 72 * (1 - left) * figure.get_figwidth() - 24
    texts = elide_apart([row.name for row in rows], room, 7.0)
    handles = [*drawn.lines, Patch(color="#009E73", alpha=0.2)]
    legend = figure.legend(
        handles, [*texts, "healthy by the rule of thumb"], loc="upper left",
        bbox_to_anchor=(left, 1 - 0.6 / figure.get_figheight()), frameon=False, fontsize=7, handlelength=1.4,
        borderaxespad=0.0, labelspacing=0.4, labelcolor=INK,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _std(columns: Columns) -> npt.NDArray[np.float64]:
    number = statistics.finite(*(columns.counter(name) for name in ("size", "nan", "pos_inf", "neg_inf")))
    return statistics.std(columns.moments[:, 0], columns.moments[:, 1], number)


def _held(
    values: npt.NDArray[np.float64],
    flags: npt.NDArray[np.bool_],
    known: npt.NDArray[np.bool_],
    longest: int | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Hold each known value, and its flag, until the next, at most `longest` columns long."""
    here = np.arange(len(known))
    source = np.maximum.accumulate(np.where(known, here, -1))
    there = (source >= 0) & (True if longest is None else here - source < longest)
    source = np.maximum(source, 0)
    return np.where(there, values[source], np.nan), there & flags[source]
