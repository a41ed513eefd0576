"""Numbered marks on the panels of a chart, which the text of a card refers to."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation

__all__ = ["INK", "mark", "panels"]

INK = "#0B5FA5"


def panels(figure: Figure) -> list[Axes]:
    """Return the panels of layers in a figure, in reading order, without its colour bars."""
    found = [ax for ax in figure.axes if ax.get_images() and ax.get_xaxis().get_label().get_text() != "color"]
    return [ax for ax in found if ax.get_position().width > 2 * 0.02]


def mark(ax: Axes, number: int, at: tuple[float, float], away: tuple[float, float] = (26, 22)) -> Annotation:
    """Mark a place by a number in a circle.

    Parameters
    ----------
    ax : Axes
    number : int
        What is written, and what the text refers to as **1**.
    at : (float, float)
        Batch and value.
    away : (float, float)
        From there to the middle of the circle, in points; the panel's edge must not cut it off.

    Returns
    -------
    Annotation
    """
    made = ax.annotate(
        str(number), at, xytext=away, textcoords="offset points", ha="center", va="center", fontsize=8.5,
        fontweight="bold", color="white", zorder=10, annotation_clip=False,
        bbox={"boxstyle": "circle,pad=0.28", "facecolor": INK, "edgecolor": "white", "linewidth": 1.0},
        arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.3, "shrinkA": 6, "shrinkB": 0, "mutation_scale": 9},
    )  # fmt: skip
    if made.arrow_patch is not None:  # to be seen on any colour
        made.arrow_patch.set_path_effects([withStroke(linewidth=3.0, foreground="white")])
    return made
