"""Mean and standard deviation of every layer over the batches, lines coloured by depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.lines import Line2D

from colordim.charts.columns import Columns
from colordim.charts.frame import Panel
from colordim.charts.labels import elide, tick_text
from colordim.charts.marks import batch_axis, epoch_marks, zero_line
from colordim.charts.style import DPI, LINE_COLORS, MUTED, RULE, ChartFigure, depth_colors, new_figure, settings
from colordim.statistics import finite, mean, std

__all__ = ["PANEL_WIDTH", "moments_of", "profile", "profile_figure"]

#: Width of the two panels, in inches.
PANEL_WIDTH = 8.2
#: Up to this many layers each has a colour that the eye tells from all others, and a name in the legend.
_NAMED = 8
_LEGEND = 24
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
        Dark lines are layers near the input; of few layers each has its own hue.
    """
    colors = LINE_COLORS if len(columns) <= _NAMED else depth_colors(len(columns))
    lines = []
    for own, value, color in zip(columns, values, colors, strict=False):
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
    width, height = figsize or (PANEL_WIDTH + 2.9, 6.2)
    moments = [moments_of(panel.columns) for panel in panels]
    columns = [panel.columns for panel in panels]
    names = [panel.caption.name for panel in panels]
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
        for ax, name in ((means, "mean"), (stds, "standard deviation")):
            epoch_marks(
                ax,
                first.epochs,
                first.epoch_numbers,
                first.start,
                first.stop,
                int(inner * width * DPI),
                label=ax is means,
            )
            batch_axis(ax, first.start, first.stop, inner * width, labels=ax is stds)
            ax.set_ylabel(name, fontsize=8)
            ax.grid(axis="y", color=RULE, linewidth=0.4, alpha=0.6)
            ax.set_axisbelow(True)
            ax.tick_params(axis="y", labelsize=6.5)
        stds.set_xlabel(f"batch ({first.phase})", fontsize=8)
        figure.text(left, 1 - 0.12 / height, title, fontsize=11, fontweight="bold", va="top", parse_math=False)
        beside = left + inner + 0.12 / width
        if len(panels) <= _LEGEND:
            _legend(figure, lines, panels, beside)
        else:
            _depth_bar(figure, names, (beside, 0.6 / height, 0.12 / width, 1 - 1.25 / height))
    return figure


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
    texts = [elide(f"{p.caption.name}  {p.caption.module}", 128.0, 7.0) for p in panels]
    figure.legend(
        lines, [text.replace("$", r"\$") for text in texts], loc="upper left",
        bbox_to_anchor=(left, 1 - 0.62 / figure.get_figheight()), frameon=False, fontsize=7, handlelength=1.4,
        borderaxespad=0.0, labelspacing=0.35,
    )  # fmt: skip


def _depth_bar(figure: ChartFigure, names: Sequence[str], rectangle: tuple[float, float, float, float]) -> None:
    ax = figure.add_axes(rectangle)
    number = len(names)
    figure.colorbar(ScalarMappable(Normalize(-0.5, number - 0.5), ListedColormap(depth_colors(number))), cax=ax)
    ax.invert_yaxis()
    ticks = sorted({int(i) for i in np.linspace(0, number - 1, 13)})
    ax.set_yticks(ticks, [elide(f"{i} {names[i]}", 118.0, 6.5).replace("$", r"\$") for i in ticks], fontsize=6.5)
    ax.minorticks_off()
    ax.set_title("call order", fontsize=7, color=MUTED, loc="left", pad=4)
