"""From colours to numbers: the scale that all panels of a figure share, and the bars that explain it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import NullLocator

from colordim.charts.labels import compact, elide, tick_text
from colordim.charts.style import MUTED, colormap

__all__ = ["Color", "ColorScale", "color_bar", "color_scale"]

#: What colour stands for: the share of a layer's values in a cell, or how many they are in a batch.
Color = Literal["share", "count"]

#: Decades of the scale; what is fainter has its lowest colour, which is still not blank.
_DECADES = 6


@dataclass(frozen=True)
class ColorScale:
    """A logarithmic scale of colours from `low` to `high`, of shares or of counts a batch."""

    color: Color
    low: float
    high: float

    def norm(self) -> LogNorm:
        """Return the scale as Matplotlib has it."""
        return LogNorm(self.low, self.high)


def color_scale(panels: Iterable[np.ma.MaskedArray], color: Color) -> ColorScale:
    """Return the scale that covers the cells of all panels, at most six decades of it."""
    low, high = math.inf, 0.0
    for cells in panels:
        filled = cells.compressed()
        if filled.size:
            low, high = min(low, float(filled.min())), max(high, float(filled.max()))
    if high == 0.0:
        low, high = 0.01, 1.0
    low = max(low, high * 10.0**-_DECADES)
    return ColorScale(color, min(low, high / 10), high)


def color_bar(
    ax: Axes, scale: ColorScale, counts: Sequence[tuple[str, float]] = (), *, size: float = 6.5, apart: float = 0.5
) -> list[Axes]:
    """Draw a vertical bar: shares at its left, the counts they are for each given layer at its right.

    Parameters
    ----------
    ax : Axes
        Empty axes, as wide as the bar.
    scale : ColorScale
    counts : sequence of (str, float)
        Heading and number of values a batch of each layer whose counts are to be read; without
        effect on a scale of counts.
    size : float
        Of the font, in points.
    apart : float
        Inches from one scale of counts to the next.

    Returns
    -------
    list of Axes
        That of the colours, then one for each scale of counts.
    """
    ax.set_yscale("log")
    ax.set_xlim(0, 1)
    ax.set_ylim(scale.low, scale.high)
    ax.imshow(
        np.linspace(0, 1, 256)[:, None], cmap=colormap(), aspect="auto", extent=(0, 1, 0, 1),
        transform=ax.transAxes, vmin=0, vmax=1, interpolation="nearest",
    )  # fmt: skip
    ax.set_xticks([])
    drawn = [ax]
    if scale.color == "count":
        _scale_ticks(ax, scale.low, scale.high, compact, size)
        ax.yaxis.tick_right()
        _heading(ax, "count", 0.0, size, 99.0)
        return drawn
    _scale_ticks(ax, scale.low, scale.high, lambda share: f"{tick_text(100 * share)} %", size)
    ax.yaxis.tick_left()
    _heading(ax, "share", -0.5, size, 99.0, ha="right")
    width = ax.get_position().width * ax.figure.get_figwidth()  # type: ignore[union-attr]
    for number, (heading, values) in enumerate(counts):
        twin = ax.twinx()
        twin.set_yscale("log")
        twin.set_ylim(scale.low * values, scale.high * values)
        offset = number * apart
        twin.spines["right"].set_position(("axes", 1 + offset / width))
        twin.spines[["left", "top", "bottom"]].set_visible(False)
        _scale_ticks(twin, scale.low * values, scale.high * values, compact, size)
        _heading(twin, heading, 1 + offset / width, size, 72 * apart - 4)
        drawn.append(twin)
    return drawn


def _scale_ticks(ax: Axes, low: float, high: float, text: object, size: float) -> None:
    ticks = _decades(low, high)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_yticks(ticks, [text(tick) for tick in ticks], fontsize=size)  # type: ignore[operator]
    ax.tick_params(axis="y", pad=1.5)


def _decades(low: float, high: float) -> npt.NDArray[np.float64]:
    """Return the powers of ten of a range, or in a short one also their double and fivefold."""
    exponents = np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, dtype=np.float64)
    ticks = 10.0**exponents
    if math.log10(high / low) < 1.8:
        ticks = (ticks[:, None] * np.array([1.0, 2.0, 5.0])).ravel()
    return ticks[(ticks >= low * (1 - 1e-9)) & (ticks <= high * (1 + 1e-9))]


def _heading(ax: Axes, text: str, x: float, size: float, room: float, ha: str = "left") -> None:
    lines = [elide(line, room, size, keep="end" if n else "start") for n, line in enumerate(text.split("\n"))]
    ax.annotate(
        "\n".join(lines), (x, 1.0), xycoords="axes fraction", xytext=(0, 4), textcoords="offset points",
        fontsize=size, color=MUTED, ha=ha, va="bottom", parse_math=False, linespacing=1.15,
    )  # fmt: skip
