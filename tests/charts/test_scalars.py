"""Scalars: lines against the values that were logged, and the scale that they are drawn on."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from colordim.charts.scalars import Series, scalars


def series(values: list[float] | np.ndarray) -> Series:
    y = np.asarray(values, np.float64)
    return Series("loss", {"train": (np.arange(len(y), dtype=np.float64), y)})


def test_each_phase_is_a_line_of_its_own(ax: Axes) -> None:
    both = Series(
        "loss", {"train": (np.arange(3.0), np.array([3.0, 2.0, 1.0])), "valid": (np.array([3.0]), np.array([1.5]))}
    )
    drawn = scalars(ax, both, 0, 3, 300)
    assert {phase: np.asarray(line.get_xydata()).tolist() for phase, line in drawn.lines.items()} == {
        "train": [[0.5, 3], [1.5, 2], [2.5, 1]],
        "valid": [[3, 1.5]],
    }


def test_more_batches_than_pixels_are_means_between_extremes(ax: Axes) -> None:
    values = np.tile([0.0, 1.0, 2.0, 9.0], 25)
    line = scalars(ax, series(values), 0, 100, 25).lines["train"]
    assert np.asarray(line.get_ydata()).tolist() == [3.0] * 25
    assert np.asarray(line.get_xdata()).tolist() == list(range(2, 100, 4))
    (shade,) = (c for c in ax.collections if isinstance(c, PolyCollection))
    corners = shade.get_paths()[0].get_extents()
    assert (corners.y0, corners.y1) == (0, 9)


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1e-5, 1e-2], "log"),
        ([1e-5, 1e-3], "linear"),  # two decades, not more
        ([0.0, 1e-5, 1e-2], "symlog"),  # a warm-up begins at zero
        ([-1.0, 1e-5, 1e-2], "linear"),
        ([2.0, 1.0], "linear"),
        ([0.0, 0.0], "linear"),
        ([], "linear"),
        ([float("inf"), 1.0], "linear"),
    ],
)
def test_what_spans_decades_is_on_a_logarithmic_scale(ax: Axes, values: list[float], scale: str) -> None:
    scalars(ax, series(values), 0, 3, 300)
    assert ax.get_yscale() == scale


def test_limits_keep_the_scale_linear(ax: Axes) -> None:
    share = Series("share", {"train": (np.arange(3.0), np.array([1e-4, 0.0, 0.9]))}, limits=(0.0, 1.0))
    scalars(ax, share, 0, 3, 300)
    assert (ax.get_yscale(), ax.get_ylim()) == ("linear", (0, 1))


def test_infinite_values_are_marked_and_not_drawn(ax: Axes) -> None:
    line = scalars(ax, series([1.0, np.inf, 2.0]), 0, 3, 300).lines["train"]
    assert np.asarray(line.get_ydata()).tolist() == [1.0, 2.0]
    assert any(isinstance(c, PolyCollection) for c in ax.collections)
