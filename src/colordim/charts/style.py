"""Colours, sizes and settings that all charts share."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

__all__ = [
    "CMAP",
    "DPI",
    "EPOCH",
    "INK",
    "LINE_COLORS",
    "MUTED",
    "NOT_FINITE",
    "PAPER",
    "RULE",
    "ZERO",
    "ChartFigure",
    "colormap",
    "new_figure",
    "settings",
]

INK = "#1f2328"
MUTED = "#62686f"
RULE = "#c3c8ce"
PAPER = "#ffffff"

#: Colour-blind-safe (Okabe and Ito 2008, "Color universal design").
LINE_COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#8c6d00")

ZERO = "#D62728"
EPOCH = "#2b3a67"
NOT_FINITE = "#E0218A"  # a hue that viridis does not have

#: Dark purple to yellow; its lowest colour is as far from the white of an empty cell as colours get.
CMAP = "viridis"
#: Dots per inch of a figure, unless it is saved at another resolution.
DPI = 120

_SETTINGS: Any = {
    "axes.edgecolor": RULE,
    "axes.facecolor": PAPER,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "figure.facecolor": PAPER,
    "font.size": 8.0,
    "image.composite_image": True,
    "image.origin": "lower",
    "lines.linestyle": "-",
    "lines.marker": "None",
    "path.effects": [],
    "savefig.facecolor": "auto",
    "text.color": INK,
    "text.usetex": False,
    "xtick.color": RULE,
    "xtick.direction": "out",
    "xtick.labelcolor": MUTED,
    "xtick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "xtick.minor.visible": False,
    "ytick.color": RULE,
    "ytick.direction": "out",
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 2.5,
    "ytick.major.width": 0.6,
    "ytick.minor.visible": False,
}


_one = threading.RLock()


class ChartFigure(Figure):
    """A figure that a notebook shows when it is the value of a cell, whether or not pyplot is loaded.

    It is no pyplot figure, so that it is never shown a second time and nothing has to close it.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


@contextmanager
def settings() -> Iterator[None]:
    """Build artists with the look of these charts, whatever the user's Matplotlib settings are.

    One thread at a time: Matplotlib's settings are those of the process, and what is put back must be the user's.
    """
    with _one, mpl.rc_context(_SETTINGS):
        yield


def new_figure(width: float, height: float) -> ChartFigure:
    """Return an empty figure of `width` times `height` inches."""
    return ChartFigure(figsize=(width, height), dpi=DPI, facecolor=PAPER)


def colormap() -> Colormap:
    """Return the colour map of the counts; masked cells are left blank."""
    return mpl.colormaps[CMAP].with_extremes(bad=(0.0, 0.0, 0.0, 0.0))
