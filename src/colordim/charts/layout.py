"""Where the panels of a figure are: a grid in inches, sensible for one layer and for three hundred."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["Grid", "Margins", "default_columns", "plan"]

#: Largest number of panels for which a grid has so many columns.
_COLUMNS = (
    (1, 1),
    (2, 2),
    (3, 3),
    (4, 2),
    (6, 3),
    (8, 4),
    (9, 3),
    (16, 4),
    (25, 5),
    (36, 6),
    (48, 8),
    (80, 10),
    (144, 12),
)
_WIDEST = 15

#: Inches from one panel to the next for a given number of columns.
_PITCH = {1: 8.6, 2: 5.8, 3: 4.4, 4: 3.6, 5: 3.05, 6: 2.6, 7: 2.35, 8: 2.1, 9: 1.95}


@dataclass(frozen=True)
class Margins:
    """Inches around the grid (left, right, top, bottom), and between panels (gap beside, head above, foot below)."""

    left: float = 0.62
    right: float = 0.2
    top: float = 0.2
    bottom: float = 0.55
    gap: float = 0.14
    head: float = 0.5
    foot: float = 0.12


@dataclass(frozen=True)
class Grid:
    """A grid of equal panels, filled row by row.

    Attributes
    ----------
    number, rows, cols : int
        Panels, and the grid that holds them.
    width, height : float
        The whole figure, in inches.
    panel_width, panel_height : float
        One panel, in inches, without its title.
    margins : Margins
    """

    number: int
    rows: int
    cols: int
    width: float
    height: float
    panel_width: float
    panel_height: float
    margins: Margins

    def rectangle(self, index: int) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a panel as shares of the figure."""
        m = self.margins
        row, col = divmod(index, self.cols)
        left = m.left + col * (self.panel_width + m.gap)
        top = m.top + row * (m.head + self.panel_height + m.foot) + m.head
        bottom = self.height - top - self.panel_height
        return left / self.width, bottom / self.height, self.panel_width / self.width, self.panel_height / self.height

    def add_panels(self, figure: Figure) -> Sequence[Axes]:
        """Add the axes of all panels to a figure of the grid's size."""
        return [figure.add_axes(self.rectangle(i)) for i in range(self.number)]

    def leftmost(self, index: int) -> bool:
        """Whether a panel begins a row."""
        return index % self.cols == 0

    def lowest(self, index: int) -> bool:
        """Whether there is no panel below."""
        return index + self.cols >= self.number


def default_columns(panels: int, multiple: int = 1) -> int:
    """Return how many panels to put beside each other; divisible by `multiple`."""
    if multiple > 1 and panels <= 3 * multiple:
        return multiple
    cols = next((cols for most, cols in _COLUMNS if panels <= most), _WIDEST)
    return max(-(-cols // multiple) * multiple, 1)


def plan(
    panels: int,
    margins: Margins,
    *,
    rows: int | None = None,
    cols: int | None = None,
    figsize: tuple[float, float] | None = None,
    multiple: int = 1,
) -> Grid:
    """Lay out a grid.

    Parameters
    ----------
    panels : int
        At least one.
    margins : Margins
    rows, cols : int, optional
        One of them gives the other.
    figsize : (float, float), optional
        Width and height of the figure in inches, into which the panels are made to fit.
    multiple : int
        Panels that belong together and stay in one row.

    Returns
    -------
    Grid
    """
    if cols is None:
        cols = default_columns(panels, multiple) if rows is None else math.ceil(panels / max(rows, 1))
    cols = max(1, min(cols, panels))
    needed = math.ceil(panels / cols)
    rows = max(needed, rows or 0)
    across = margins.left + margins.right + (cols - 1) * margins.gap
    down = margins.top + margins.bottom + rows * margins.head + (rows - 1) * margins.foot
    if figsize is None:
        panel_width = _PITCH.get(cols, max(17.6 / cols, 1.2)) - margins.gap
        panel_height = min(max(0.6 * panel_width, 1.1), 4.2)
        figsize = (across + cols * panel_width, down + rows * panel_height)
    else:
        panel_width = max((figsize[0] - across) / cols, 0.2)
        panel_height = max((figsize[1] - down) / rows, 0.2)
    return Grid(panels, rows, cols, float(figsize[0]), float(figsize[1]), panel_width, panel_height, margins)
