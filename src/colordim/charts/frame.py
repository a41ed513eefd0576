"""What is around the panels of a figure: its title, the names of its axes, a line on how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from colordim.axis import Axis
from colordim.charts.columns import Columns
from colordim.charts.labels import elide, text_width
from colordim.charts.layout import Grid
from colordim.charts.style import INK, MUTED, ChartFigure, new_figure, settings
from colordim.charts.titles import Caption

__all__ = ["FOOTNOTES", "Panel", "framed", "heading", "lines_of", "sentence_figure"]


#: What stands between two remarks of a footer.
FOOTNOTES = "  ·  "


@dataclass(frozen=True)
class Panel:
    """One stream in one phase, as charts take it.

    Attributes
    ----------
    caption : Caption
    phase : str
    axis : Axis
    columns : Columns
    start, stop : int
        Batches on show.
    epochs, epoch_numbers : ndarray of int64
        First batch of each epoch of the phase, and the epoch's number.
    not_finite : str
        How many batches had NaN or Inf; empty if none had.
    """

    caption: Caption
    phase: str
    axis: Axis
    columns: Columns
    start: int
    stop: int
    epochs: npt.NDArray[np.int64]
    epoch_numbers: npt.NDArray[np.int64]
    not_finite: str = ""

    @property
    def batch_size(self) -> float:
        """Values of the stream in a batch, on average; 0 if it never fired."""
        fired = int(self.columns.number[~self.columns.held].sum())
        return self.columns.total("size") / fired if fired else 0.0


def framed(grid: Grid, title: str, x: str, y: str, footer: str = "", *, beside: float = 0.0) -> ChartFigure:
    """Return a figure of the grid's size with everything but its panels; `beside` inches at the right of `x` stay free."""
    figure = new_figure(grid.width, grid.height)
    m = grid.margins
    right = grid.width - m.right
    heading(figure, m.left, title)
    half = text_width(x, 8) / 72 / 2
    center = max(min((m.left + right) / 2, right - beside - half), m.left + half) / grid.width
    figure.text(center, 0.24 / grid.height, x, fontsize=8, color=INK, ha="center", va="bottom")
    middle = (m.bottom + grid.height - m.top - m.head) / 2 / grid.height
    figure.text(0.08 / grid.width, middle, y, fontsize=8, color=INK, rotation=90, ha="left", va="center")
    if footer:
        room = 72 * (grid.width - m.left - 0.1)
        for n, line in enumerate(reversed(lines_of(footer.split(FOOTNOTES), room, 6.2))):
            figure.text(m.left / grid.width, (0.035 + 0.1 * n) / grid.height, line, fontsize=6.2, color=MUTED,
                ha="left", va="bottom", parse_math=False)  # fmt: skip
    return figure


def heading(figure: Figure, left: float, title: str) -> None:
    """Write the title of a figure, `left` inches from its border and no wider than it."""
    width, height = figure.get_size_inches()
    short = elide(title, 72 * (width - left - 0.1), 11, "bold")
    figure.text(left / width, 1 - 0.12 / height, short, fontsize=11, fontweight="bold", va="top", parse_math=False)


def lines_of(parts: Sequence[str], width: float, size: float, most: int = 2) -> list[str]:
    """Return the parts of a footer, joined, in at most `most` lines of `width` points; what is left is cut."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}{FOOTNOTES}{part}" if lines[-1] else part
        if lines[-1] and text_width(longer, size) > width and len(lines) < most:
            lines.append(part)
        else:
            lines[-1] = longer
    return [elide(line, width, size) for line in lines]


def sentence_figure(sentence: str, figsize: tuple[float, float] | None = None) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    with settings():
        figure = new_figure(*(figsize or (7.0, 1.6)))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # a figure without axes is not shown by notebooks
        ax.set_axis_off()
        ax.text(0.5, 0.5, sentence, ha="center", va="center", fontsize=10, color=MUTED, wrap=True, parse_math=False)
        return figure
