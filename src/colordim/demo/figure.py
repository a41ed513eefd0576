"""The picture of the demo: the same layers of two trainings side by side, their losses on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator

from colordim.charts.colorbar import color_bar, color_scale
from colordim.charts.colorful import cells, colorful, outside
from colordim.charts.columns import Columns, regular, to_rows
from colordim.charts.labels import shape_text
from colordim.charts.marks import batch_axis, epoch_marks, value_ticks
from colordim.charts.style import INK, LINE_COLORS, MUTED, RULE, ChartFigure, new_figure, settings
from colordim.charts.window import Window, round_up

if TYPE_CHECKING:
    from colordim.column import Stream
    from colordim.run import Run

__all__ = ["LAYERS", "side_by_side"]

#: What both networks have; of the convolutions one sees both signs.
LAYERS = ("conv1", "conv2", "conv3", "conv4", "head")

_ROWS = 160
_WIDTH, _HEIGHT = 12.4, 11.2
_LEFT, _RIGHT, _GAP, _TOP, _BOTTOM = 0.75, 1.35, 0.35, 1.3, 0.62
_LOSS_HEIGHT, _HEAD = 1.35, 0.27


def side_by_side(
    runs: Sequence[Run], titles: Sequence[str], notes: Sequence[str] = ("", ""), layers: Sequence[str] = LAYERS
) -> ChartFigure:
    """Draw the training batches of two runs, a column for each and a row for each layer.

    All panels share one window and one colour scale, so that they can be compared at a glance.

    Parameters
    ----------
    runs : sequence of Run
    titles : sequence of str
        What stands above each column.
    notes : sequence of str
        A line below each title.
    layers : sequence of str
        Names that both runs have.

    Returns
    -------
    ChartFigure
    """
    panels = [[_read(run, run.stream(layer, "activation")) for run in runs] for layer in layers]
    window = _window([columns for row in panels for _, columns in row])
    edges = window.edges(_ROWS)
    filled = [[to_rows(columns, stream.axis.project(edges)) for stream, columns in row] for row in panels]
    values = [
        [cells(f, columns) for f, (_, columns) in zip(rows, row, strict=True)]
        for rows, row in zip(filled, panels, strict=True)
    ]
    scale = color_scale([v for row in values for v in row], "share")
    width = (_WIDTH - _LEFT - _RIGHT - _GAP * (len(runs) - 1)) / len(runs)
    height = (_HEIGHT - _TOP - _BOTTOM - _LOSS_HEIGHT) / len(layers) - _HEAD
    with settings():
        figure = new_figure(_WIDTH, _HEIGHT)
        figure.text(
            _LEFT / _WIDTH, 1 - 0.16 / _HEIGHT, "The same network, the same digits, two trainings", fontsize=15,
            fontweight="bold", va="top",
        )  # fmt: skip
        figure.text(
            _LEFT / _WIDTH, 1 - 0.5 / _HEIGHT,
            "Every batch is a column, every value of the layer is counted in it: colour is the share of them that lie at that height.",
            fontsize=9, color=MUTED, va="top",
        )  # fmt: skip

        def axes(column: int, top: float, tall: float) -> Axes:
            left = _LEFT + column * (width + _GAP)
            return figure.add_axes((left / _WIDTH, 1 - (top + tall) / _HEIGHT, width / _WIDTH, tall / _HEIGHT))

        for column, (run, title, note) in enumerate(zip(runs, titles, notes, strict=True)):
            ax = axes(column, _TOP, _LOSS_HEIGHT - 0.2)
            ink = "#B3261E" if column == 0 else "#116329"
            ax.set_title(title, loc="left", fontsize=11.5, fontweight="bold", color=ink, pad=17)
            ax.text(0, 1.06, note, fontsize=8, color=MUTED, transform=ax.transAxes)
            _losses(ax, run, labels=column == 0)
            batch_axis(ax, 0, run.length(), width, labels=False)
            for row, layer in enumerate(layers):
                stream, columns = panels[row][column]
                ax = axes(column, _TOP + _LOSS_HEIGHT + row * (height + _HEAD) + _HEAD, height)
                colorful(
                    ax, columns, values[row][column], window, scale,
                    shares_outside=outside(filled[row][column], columns), font=6.5,
                )  # fmt: skip
                starts = run.epochs()
                pixels = int(width * figure.dpi)
                epoch_marks(ax, starts, np.arange(len(starts)), 0, run.length(), pixels, label=row == 0)
                batch_axis(ax, 0, run.length(), width, labels=row == len(layers) - 1)
                value_ticks(ax, _ticks(window), labels=column == 0)
                ax.set_title(
                    f"{layer}  {stream.module} {shape_text(stream.shape)}",
                    loc="left",
                    fontsize=8,
                    pad=12 if row == 0 else 3,
                    color=INK,
                )
        figure.text((_LEFT + width + _GAP / 2) / _WIDTH, 0.2 / _HEIGHT, "training batch", fontsize=9, ha="center")
        middle = (_BOTTOM + (height + _HEAD) * len(layers) / 2) / _HEIGHT
        figure.text(
            0.14 / _WIDTH,
            middle,
            "activation (linear up to ±1, then logarithmic)",
            fontsize=9,
            rotation=90,
            va="center",
        )
        bar = figure.add_axes(((_WIDTH - _RIGHT + 0.72) / _WIDTH, _BOTTOM / _HEIGHT, 0.16 / _WIDTH, 3.2 / _HEIGHT))
        color_bar(bar, scale, size=7)
    return figure


def _read(run: Run, stream: Stream) -> tuple[Stream, Columns]:
    block = run.columns(stream)
    columns = regular(
        block.first, block.number, block.counts, block.counters, block.moments, width=1, start=0, stop=run.length()
    )
    return stream, columns


def _window(panels: Sequence[Columns]) -> Window:
    """Show everything, linear between -1 and 1, where activations ought to be."""
    largest = max(
        float(np.abs(columns.moments[:, 2:]).max(initial=0, where=np.isfinite(columns.moments[:, 2:])))
        for columns in panels
    )
    hi = max(round_up(largest), 10.0) if largest > 0 else 10.0
    return Window(-hi, hi, "symlog", 1.0)


def _ticks(window: Window) -> list[float]:
    powers = [10.0**k for k in range(6) if 10.0**k <= window.hi]
    return [*(-p for p in reversed(powers)), 0.0, *powers]


def _losses(ax: Axes, run: Run, labels: bool) -> None:
    table = run.batches
    train, valid = table["phase"] == "train", table["phase"] == "valid"
    ax.plot(table["index"][train] + 0.5, table["loss"][train], color=INK, linewidth=0.9)
    # A validation pass belongs where the training batches before it end.
    ends = np.append(run.epochs()[1:], run.length())
    means = [float(table["loss"][valid & (table["epoch"] == epoch)].mean()) for epoch in range(len(ends))]
    ax.plot(ends, means, color=LINE_COLORS[5], linewidth=0, marker="o", markersize=4, clip_on=False)
    guess = float(np.log(10))
    ax.axhline(guess, color=RULE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
    ax.set_ylim(0, 3.6)
    ax.yaxis.set_major_locator(FixedLocator([0, 1, 2, 3]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelleft=labels)
    if labels:
        ax.set_ylabel("loss", fontsize=9)
    right = run.length()
    ax.text(right, guess + 0.06, "guessing", fontsize=6.5, color=MUTED, ha="right", va="bottom")
    ax.text(0.72, 0.83, "— training batch", fontsize=7, color=INK, transform=ax.transAxes, ha="right")
    ax.text(0.74, 0.83, "● validation", fontsize=7, color=LINE_COLORS[5], transform=ax.transAxes)
