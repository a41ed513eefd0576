"""Mean and standard deviation of every layer over the batches: a line each, or of many a strip each."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, SymLogNorm
from matplotlib.lines import Line2D

from colordim.charts.columns import Columns
from colordim.charts.frame import Panel, heading, lines_of
from colordim.charts.labels import elide, elide_apart, tick_text
from colordim.charts.marks import batch_axis, epoch_marks, not_finite_marks, zero_line
from colordim.charts.strips import NOT_FINITE_CELL, names_width, row_height, strips
from colordim.charts.style import DPI, LINE_COLORS, MUTED, RULE, ChartFigure, new_figure, settings
from colordim.statistics import finite, mean, std

__all__ = ["PANEL_WIDTH", "moments_of", "profile", "profile_figure"]

#: Width of the two panels, in inches.
PANEL_WIDTH = 8.2
#: Up to this many layers have a line each, in colours that the eye tells apart; more have a strip each.
_LINES = len(LINE_COLORS)
#: A range of so many times its typical magnitude needs a logarithmic scale.
_WIDE_RANGE = 100.0


def moments_of(columns: Columns) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of each column's finite values, NaN where there are none."""
    number = finite(*(columns.counter(name) for name in ("size", "nan", "pos_inf", "neg_inf")))
    return mean(columns.moments[:, 0], number), std(columns.moments[:, 0], columns.moments[:, 1], number)


def profile(ax: Axes, columns: Sequence[Columns], values: Sequence[npt.NDArray[np.float64]]) -> list[Line2D]:
    """Draw one line a layer over the batches.

    Parameters
    ----------
    ax : Axes
    columns : sequence of Columns
        Of each layer, in call order.
    values : sequence of ndarray of float64, each of shape ``[n]``
        One value a column; a gap where it is not finite.

    Returns
    -------
    list of Line2D
        Each in a colour of its own; at most eight are drawn.
    """
    lines = []
    for own, value, color in zip(columns, values, LINE_COLORS, strict=False):
        y = np.where(np.isfinite(value), value, np.nan)
        known = np.concatenate([[False], np.isfinite(y), [False]])
        alone = known[1:-1] & ~known[:-2] & ~known[2:]
        lines += ax.plot(own.centers, y, color=color, linewidth=1.0)
        if alone.any():  # a value between gaps has no line to be part of
            lines[-1].set(marker=".", markersize=4, markevery=np.flatnonzero(alone).tolist())
    return lines


def profile_figure(
    panels: Sequence[Panel], *, figsize: tuple[float, float] | None = None, title: str = ""
) -> ChartFigure:
    """Draw the means of all layers above their standard deviations.

    Parameters
    ----------
    panels : sequence of Panel
        At least one, in call order.
    figsize : (float, float), optional
        Inches.
    title : str

    Returns
    -------
    ChartFigure
    """
    return _lines(panels, figsize, title) if len(panels) <= _LINES else _many(panels, figsize, title)


def _lines(panels: Sequence[Panel], figsize: tuple[float, float] | None, title: str) -> ChartFigure:
    width, height = figsize or (PANEL_WIDTH + 2.9, 6.2)
    moments = [moments_of(panel.columns) for panel in panels]
    columns = [panel.columns for panel in panels]
    first = panels[0]
    with settings():
        figure = new_figure(width, height)
        left, inner = 0.75 / width, 1 - 2.9 / width
        half = (height - 1.5) / 2 / height
        means = figure.add_axes((left, 0.6 / height + half + 0.25 / height, inner, half))
        stds = figure.add_axes((left, 0.6 / height, inner, half))
        lines = profile(means, columns, [m for m, _ in moments])
        profile(stds, columns, [s for _, s in moments])
        _value_scale(means, [m for m, _ in moments])
        _value_scale(stds, [s for _, s in moments])
        zero_line(means)
        bad = np.any([own.not_finite > 0 for own in columns], axis=0)
        for ax, name in ((means, "mean"), (stds, "standard deviation")):
            not_finite_marks(ax, columns[0].edges, bad)
            pixels = int(inner * width * DPI)
            epoch_marks(ax, first.epochs, first.epoch_numbers, first.start, first.stop, pixels, label=ax is means)
            batch_axis(ax, first.start, first.stop, inner * width, labels=ax is stds)
            ax.set_ylabel(name, fontsize=8)
            ax.grid(axis="y", color=RULE, linewidth=0.4, alpha=0.6)
            ax.set_axisbelow(True)
            ax.tick_params(axis="y", labelsize=6.5)
        stds.set_xlabel(f"batch ({first.phase})", fontsize=8)
        heading(figure, 0.75, title)
        _footer(figure, 0.75, ["of the finite values", "pink: NaN or Inf in a layer"] if bad.any() else [])
        _legend(figure, lines, panels, left + inner + 0.12 / width)
    return figure


def _many(panels: Sequence[Panel], figsize: tuple[float, float] | None, title: str) -> ChartFigure:
    """Draw the means of all layers beside their standard deviations, a strip a layer."""
    names = names_width([panel.caption.name for panel in panels])
    width, height = figsize or (names + PANEL_WIDTH + 2.3, 1.45 + row_height(len(panels)) * len(panels))
    inner = (width - names - 2.3) / 2
    first = panels[0]
    moments = np.array([moments_of(panel.columns) for panel in panels])
    flags = np.array([panel.columns.not_finite > 0 for panel in panels]) * np.int8(NOT_FINITE_CELL)
    with settings():
        figure = new_figure(width, height)
        for i, (what, left) in enumerate((("mean", names), ("standard deviation", names + inner + 1.1))):
            box = (left / width, 0.62 / height, inner / width, 1 - 1.25 / height)
            ax = figure.add_axes(box)
            values = moments[:, i]
            norm, cmap = _color_scale(values, signed=i == 0)
            strips(
                ax, values, first.columns.edges, [panel.caption.name for panel in panels],
                norm=norm, cmap=cmap, flags=flags, labels=i == 0,
            )  # fmt: skip
            epoch_marks(ax, first.epochs, first.epoch_numbers, first.start, first.stop, int(inner * DPI), label=True)
            batch_axis(ax, first.start, first.stop, inner)
            ax.set_xlabel(f"batch ({first.phase})", fontsize=8)
            tall = min(box[3], 3.4 / height)
            bar = figure.add_axes(((left + inner + 0.12) / width, box[1] + box[3] - tall, 0.12 / width, tall))
            figure.colorbar(ScalarMappable(norm, cmap), cax=bar, format=lambda value, _: tick_text(value))
            bar.minorticks_off()
            bar.tick_params(labelsize=6.5)
            bar.set_title(what, fontsize=7, color=MUTED, loc="left", pad=4)
        heading(figure, names, title)
        notes = ["a row a layer, in call order", "of the finite values", "blank: did not run"]
        _footer(figure, names, [*notes, "pink: NaN or Inf"] if flags.any() else notes)
    return figure


def _footer(figure: ChartFigure, left: float, parts: Sequence[str]) -> None:
    width, height = figure.get_size_inches()
    for line in lines_of(parts, 72 * (width - left - 0.1), 6.2, most=1):
        figure.text(left / width, 0.06 / height, line, fontsize=6.2, color=MUTED, va="bottom", parse_math=False)


def _color_scale(values: npt.NDArray[np.float64], *, signed: bool) -> tuple[Normalize, Colormap]:
    """Return a scale that is logarithmic where layers differ by orders of magnitude."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    high = float(size.max(initial=0.0)) or 1.0
    wide = size.size and high > _WIDE_RANGE * float(np.quantile(size, 0.1))
    low = float(10.0 ** np.floor(np.log10(max(np.quantile(size, 0.05), high * 1e-9)))) if wide else 0.0
    if signed:
        norm = SymLogNorm(low, vmin=-high, vmax=high) if wide else Normalize(-high, high)
        return norm, mpl.colormaps["RdYlBu_r"]
    # a deviation of zero has the lowest colour: it is not blank
    return SymLogNorm(low, linscale=0.2, vmin=0, vmax=high) if wide else Normalize(0.0, high), mpl.colormaps["viridis"]


def _value_scale(ax: Axes, values: Sequence[npt.NDArray[np.float64]]) -> None:
    """Go logarithmic where a linear scale would show one exploding layer and flatten all others."""
    finite_values = np.concatenate([value[np.isfinite(value)] for value in values])
    size = np.abs(finite_values[finite_values != 0])
    if not size.size:
        ax.set_ylim(-0.05, 1.0)
        return
    if size.max() > _WIDE_RANGE * np.median(size):
        low = 10.0 ** np.floor(np.log10(max(np.quantile(size, 0.1), size.max() * 1e-9)))
        ax.set_yscale("symlog", linthresh=low)
    if np.ptp(finite_values) == 0:
        ax.set_ylim(*sorted((0.0, 2 * float(finite_values[0]))))
    ax.yaxis.set_major_formatter(lambda value, _: tick_text(value))


def _legend(figure: ChartFigure, lines: Sequence[Line2D], panels: Sequence[Panel], left: float) -> None:
    names = elide_apart([panel.caption.name for panel in panels], 128.0, 7.0)
    rest = [", ".join(part for part in (panel.caption.module, panel.not_finite) if part) for panel in panels]
    texts = [
        f"{name}\n{elide(more, 128.0, 7.0)}" if panel.not_finite else elide(f"{name}  {more}", 128.0, 7.0)
        for name, more, panel in zip(names, rest, panels, strict=True)
    ]
    legend = figure.legend(
        lines, texts, loc="upper left", bbox_to_anchor=(left, 1 - 0.62 / figure.get_figheight()), frameon=False,
        fontsize=7, handlelength=1.4, borderaxespad=0.0, labelspacing=0.35,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
