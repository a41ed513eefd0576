"""Twin peaks: what a layer says at the end of an epoch's training, against its validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch
from matplotlib.text import Text

from colordim import statistics
from colordim.axis import Axis
from colordim.charts.frame import heading
from colordim.charts.labels import elide, percent, shape_names, shape_text, text_width, tick_text
from colordim.charts.marks import zero_line
from colordim.charts.style import INK, LINE_COLORS, MUTED, ChartFigure, new_figure, settings
from colordim.charts.titles import Caption
from colordim.charts.window import SHARE, Window, symmetric
from colordim.column import COUNTERS

__all__ = ["Side", "TwinPeaks", "find_peaks", "twin_peaks", "twin_peaks_figure"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
#: Counts, batches in which the stream fired, and counters, added up over one side's batches.
Side = tuple[IntArray, int, IntArray]

_COLORS = {"train": LINE_COLORS[0], "valid": LINE_COLORS[1]}
_WHAT = {"train": "training, last quarter of the epoch", "valid": "validation, the whole pass"}
#: Rows of the window, of many values; of few each has several, so that the curves are no comb.
_ROWS, _FEWEST_ROWS = 160, 40
#: Smoothing before peaks are looked for, as a share of the window's rows, and in rows at least.
_SMOOTHING, _LEAST_SMOOTHING = 0.02, 1.6


@dataclass(frozen=True)
class TwinPeaks:
    """The artists: a curve for each side that has values, and the words at the peaks, by side."""

    curves: dict[str, StepPatch] = field(default_factory=dict)
    labels: dict[str, list[Text]] = field(default_factory=dict)


def find_peaks(profile: FloatArray, row_edges: FloatArray) -> FloatArray:
    """Return the values at the (at most) two most prominent peaks of a profile, ascending."""
    # Of ten classes nine say no: the peak of the yes is small, but stands clear of the valley before it.
    found = statistics.peaks(
        profile, sigma=max(_SMOOTHING * len(profile), _LEAST_SMOOTHING), prominence=0.02, own=0.25
    ).position[:2]
    centers = (row_edges[:-1] + row_edges[1:]) / 2
    return np.sort(centers[found])


def twin_peaks(ax: Axes, profiles: Mapping[str, FloatArray], row_edges: FloatArray) -> TwinPeaks:
    """Draw the histograms with values on the y axis, and label their peaks.

    Parameters
    ----------
    ax : Axes
    profiles : mapping of {"train", "valid"} to ndarray of float64, shape ``[rows]``
        Share of the values in each row.
    row_edges : ndarray of float64, shape ``[rows + 1]``
        Values at the edges of the rows.

    Returns
    -------
    TwinPeaks
    """
    drawn = TwinPeaks()
    highest = max((float(profile.max(initial=0.0)) for profile in profiles.values()), default=0.0) or 1.0
    for side, profile in profiles.items():
        color = _COLORS[side]
        ax.stairs(profile, row_edges, orientation="horizontal", fill=True, color=color, alpha=0.14, linewidth=0)
        drawn.curves[side] = ax.stairs(
            profile, row_edges, orientation="horizontal", baseline=None, color=color, linewidth=1.3, label=_WHAT[side]
        )
    ax.set_ylim(row_edges[0], row_edges[-1])
    ax.set_xlim(0.0, 1.45 * highest)
    zero_line(ax)
    nearest = (row_edges[-1] - row_edges[0]) / 18
    for number, (side, profile) in enumerate(profiles.items()):
        values = find_peaks(profile, row_edges)
        x = (1.1 + 0.18 * number) * highest
        labels = drawn.labels.setdefault(side, [])
        for value in values:
            ax.plot([0.0, x], [value, value], color=_COLORS[side], linewidth=0.8, linestyle=":", zorder=2.5)
            labels.append(
                ax.text(x, value, _signed(value), color=INK, fontsize=8, fontweight="bold", ha="left", va="center", zorder=4,
                    bbox={"facecolor": "white", "edgecolor": _COLORS[side], "linewidth": 0.8, "pad": 1.6})
            )  # fmt: skip
        if len(values) == 2 and values[1] - values[0] > 3 * nearest:
            low, high = values + np.array([0.6, -0.6]) * nearest
            ax.annotate("", (x + 0.05 * highest, high), (x + 0.05 * highest, low),
                arrowprops={"arrowstyle": "<->", "color": _COLORS[side], "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0})  # fmt: skip
            # off the zero line, if that leaves it clear of the peaks' own labels
            at_zero = abs(values.mean()) < nearest and values[1] - values[0] > 5 * nearest
            middle = values.mean() + (nearest if at_zero else 0.0)
            labels.append(
                ax.text(x + 0.05 * highest, middle, f"{tick_text(float(f'{np.ptp(values):.3g}'))}", fontsize=7.5, color=INK,
                    ha="center", va="center", zorder=4, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0})
            )  # fmt: skip
    return drawn


def twin_peaks_figure(
    sides: Mapping[str, Side],
    axis: Axis,
    caption: Caption,
    epoch: int,
    *,
    window: Window | None = None,
    value_name: str = "activation",
    figsize: tuple[float, float] | None = None,
    title: str = "",
) -> ChartFigure:
    """Draw the chart with what it is of, and say what is missing.

    Parameters
    ----------
    sides : mapping of {"train", "valid"} to Side
    axis : Axis
        Of the counts' bins.
    caption : Caption
        Of the layer.
    epoch : int
        Number of the epoch.
    window : Window, optional
        By default symmetric about zero, with 99.5 % of both sides' values.
    value_name : str
        What the y axis is.
    figsize : (float, float), optional
        Inches.
    title : str

    Returns
    -------
    ChartFigure
    """
    width, height = figsize or (7.6, 5.6)
    size = {side: int(counters[COUNTERS.index("size")]) for side, (_, _, counters) in sides.items()}
    there = [side for side in sides if size[side]]
    window = window or symmetric(max((_half_width(sides[side], axis) for side in there), default=1.0))
    edges = window.edges(_rows(min((size[side] for side in there), default=0)))
    matrix = axis.project(edges)
    rows = {side: matrix @ sides[side][0] / size[side] for side in there}
    notes = [
        f"No {word} in epoch {epoch}."
        for side, word in (("train", "training"), ("valid", "validation"))
        if side not in there
    ]
    notes += [note for side in there if (note := _beyond(side, sides[side], rows[side], size[side]))]
    with settings():
        figure = new_figure(width, height)
        ax = figure.add_axes((0.75 / width, 0.62 / height, 1 - 0.95 / width, 1 - 1.5 / height))
        twin_peaks(ax, {side: rows[side][1:-1] for side in there}, edges)
        ax.xaxis.set_major_formatter(lambda value, _: f"{tick_text(100 * value)} %")
        ax.yaxis.set_major_formatter(lambda value, _: tick_text(value))
        ax.tick_params(labelsize=7)
        step = tick_text(float(f"{edges[1] - edges[0]:.2g}"))
        ax.set_xlabel(f"share of the values in a row of {step}", fontsize=8)
        ax.set_ylabel(value_name, fontsize=8)
        if there:
            ax.legend(loc="upper right", fontsize=7, frameon=False)
        left = 0.75 / width
        heading(figure, 0.75, title)
        names = shape_names(caption.shape, caption.module, caption.arguments) if caption.names_apply else ()
        room = 72 * (width - 0.85)
        name = elide(caption.name, 0.6 * room, 8, keep="end")  # the end of a path tells more, and of the rest the begin
        rest = "  ".join(p for p in (caption.module, shape_text(caption.shape, names), caption.arguments) if p)
        layer = f"{name}  {elide(rest, room - text_width(name, 8) - 6, 8)}".rstrip()
        figure.text(left, 1 - 0.4 / height, layer, fontsize=8, color=INK, va="top", parse_math=False)
        batches = "; ".join(f"{sides[side][1]} {side} batches" for side in there)
        said = elide("  ".join([batches, *notes]).strip(), room, 7.5)
        figure.text(left, 1 - 0.58 / height, said, fontsize=7.5, color=MUTED, va="top")
    return figure


def _rows(values: int) -> int:
    """Return an even number of rows for so many values: as the Rice rule, 2 n**(1/3), for the width of a peak, not of all."""
    return int(np.clip(2 * round(2 * values ** (1 / 3)), _FEWEST_ROWS, _ROWS))


def _half_width(side: Side, axis: Axis) -> float:
    counts, _, counters = side
    under, over = (float(counters[COUNTERS.index(name)]) for name in ("under", "over"))
    width = statistics.half_width(counts, axis.edges, SHARE, under, over)
    return 0.0 if np.isnan(width) else float(np.abs(axis.edges).max()) if np.isinf(width) else width


def _beyond(side: str, counted: Side, rows: FloatArray, size: int) -> str:
    """Say what of a side the chart does not show."""
    counters = counted[2]
    outside = rows[0] + rows[-1] + sum(counters[COUNTERS.index(name)] for name in ("under", "over")) / size
    broken = sum(int(counters[COUNTERS.index(name)]) for name in ("nan", "pos_inf", "neg_inf"))
    parts = [f"{percent(float(outside))} beyond the window"] if outside > 0 else []
    if broken:
        parts.append(f"{percent(broken / size)} NaN or Inf")
    return f"{side}: {', '.join(parts)}." if parts else ""


def _signed(value: float) -> str:
    text = tick_text(float(f"{value:.3g}"))
    return f"+{text}" if value > 0 else text
