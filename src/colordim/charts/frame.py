"""What is around the panels of a figure: its title, the names of its axes, a line on how to read it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from colordim.axis import Axis
from colordim.charts.columns import Columns
from colordim.charts.layout import Grid
from colordim.charts.style import INK, MUTED, ChartFigure, new_figure, settings
from colordim.charts.titles import Caption

__all__ = ["Panel", "framed", "sentence_figure"]


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


def framed(grid: Grid, title: str, x: str, y: str, footer: str = "") -> ChartFigure:
    """Return a figure of the grid's size with everything but its panels."""
    figure = new_figure(grid.width, grid.height)
    m = grid.margins
    right = grid.width - m.right
    if title:
        figure.text(
            m.left / grid.width,
            1 - 0.12 / grid.height,
            title,
            fontsize=11,
            fontweight="bold",
            va="top",
            parse_math=False,
        )
    center = (m.left + right) / 2 / grid.width
    figure.text(center, 0.24 / grid.height, x, fontsize=8, color=INK, ha="center", va="bottom")
    middle = (m.bottom + grid.height - m.top - m.head) / 2 / grid.height
    figure.text(0.08 / grid.width, middle, y, fontsize=8, color=INK, rotation=90, ha="left", va="center")
    if footer:
        figure.text(m.left / grid.width, 0.07 / grid.height, footer, fontsize=6.2, color=MUTED, ha="left", va="bottom")
    return figure


def sentence_figure(sentence: str, figsize: tuple[float, float] | None = None) -> Figure:
    """Return a figure that says why there is nothing to draw."""
    with settings():
        figure = new_figure(*(figsize or (7.0, 1.6)))
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))  # a figure without axes is not shown by notebooks
        ax.set_axis_off()
        ax.text(0.5, 0.5, sentence, ha="center", va="center", fontsize=10, color=MUTED, wrap=True, parse_math=False)
        return figure
