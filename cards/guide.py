"""The pictures of the reading guide, ``docs/reading.md``: each mark once, on real trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cards.card import CardError
from cards.marks import mark, panels
from cards.networks import perceptron
from cards.training import fit, one_cycle, sgd
from colordim import Run, reading
from colordim.charts.colorful_grid import colorful_grid, grid_of
from colordim.demo.network import healthy_network

__all__ = ["GUIDE", "pictures"]

GUIDE = "reading"
"""What the guide's pictures are called, among the cards."""

HALF = 6.0


def pictures(folder: Path) -> list[Figure]:
    """Return both pictures: one panel with all its marks; and mean, spread and NaN.

    Raises
    ------
    CardError
        If the trainings do not have what the guide points at.
    """
    run = fit(healthy_network, folder / "healthy", optimizer=sgd(0.6), schedule=one_cycle(0.6), epochs=4)
    broken = fit(perceptron(128, 128), folder / "broken", optimizer=sgd(3.0), epochs=2, kinds="activation")
    bad = np.flatnonzero(broken.moments("head")["nan"] > 0)
    if not 5 < bad.min(initial=999) < 60:
        raise CardError(f"{GUIDE}: the broken training was to have NaN after a while; mend its learning rate.")
    if not run.moments("head")["max"].max() > HALF:
        raise CardError(f"{GUIDE}: the last layer was to leave the window; mend the window.")
    return [anatomy(run), extras(run, broken, int(bad[0]))]


def anatomy(run: Run) -> Figure:
    """Return one panel with everything that is drawn, numbered."""
    figure = run.colorful(
        "head", window=(-HALF, HALF), profiles=True, figsize=(8.6, 5.4), title="One panel, and what is in it"
    )
    (ax,) = panels(figure)
    mark(ax, 1, (4.5, 0.3), (6, 58))
    mark(ax, 2, (17, 3.2), (0, 0))
    mark(ax, 3, (75.5, -1.4), (-30, -34))
    mark(ax, 4, (60, 0.0), (-16, 30))
    mark(ax, 5, (31, 5.2), (-24, 0))
    mark(ax, 6, (72, 1.06 * HALF), (0, -30))
    mark(ax, 7, (86, -1.0), (30, -44))
    mark(ax, 8, (33.5, -3.1), (-26, -30))
    return figure


def extras(run: Run, broken: Run, first: int) -> Figure:
    """Return a layer with its mean, and one that runs into NaN."""
    grid, bar = grid_of(2, window="own", bar="shared", figsize=(8.6, 3.8))
    drawn = [
        reading.panel(of, of.stream(layer), "train", (0, of.length()), reading.epochs(of, "train"), grid.panel_width)
        for of, layer in ((run, "conv4"), (broken, "head"))
    ]
    figure = colorful_grid(
        drawn, grid, window="own", bar=bar, mean=True, title="Mean, spread, and numbers that are none"
    )
    left, right = panels(figure)
    mark(left, 9, (70, 0.0), (0, 26))
    mark(left, 10, (90, -0.25 * left.get_ylim()[1]), (0, -22))
    mark(right, 11, (first + 8, 0.97 * right.get_ylim()[1]), (16, -34))
    return figure
