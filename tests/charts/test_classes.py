"""One layer by class: profiles against counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from colordim.axis import LinearAxis
from colordim.charts.classes import ClassCounts, class_profile, superimpose_classes
from colordim.charts.window import Window

AXIS = LinearAxis(-2, 2, 4)
WINDOW = Window(-2.0, 2.0)


def counts(*rows: list[int], labels: str = "ab") -> ClassCounts:
    table = np.array(rows, np.int64)
    return ClassCounts(10, 30, 1, list(labels), table, table.sum(axis=1))


def test_shares_are_of_the_class_and_of_the_layer() -> None:
    shares = counts([0, 4, 4, 0], [0, 4, 0, 0], [0, 0, 4, 0]).shares(AXIS, WINDOW, 4)
    assert shares.tolist() == [[0, 0.5, 0.5, 0], [0, 1, 0, 0], [0, 0, 1, 0]]


def test_a_class_without_values_has_no_share() -> None:
    assert counts([0, 4, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]).shares(AXIS, WINDOW, 4)[2].tolist() == [0, 0, 0, 0]


def test_lines_begin_with_the_epoch_and_the_fullest_row_reaches_over_nine_tenths(ax: Axes) -> None:
    epochs = [counts([0, 4, 0, 4], [0, 4, 0, 0], [0, 0, 0, 4])]
    lines = superimpose_classes(ax, epochs, AXIS, WINDOW, ["red", "blue"])
    assert [line.get_color() for line in lines] == ["black", "red", "blue"]
    reach = [np.asarray(line.get_xdata(), np.float64) for line in lines]
    assert [np.nanmax(x) for x in reach] == pytest.approx([10 + 0.9 * 20 / 2, 28, 28])
    below = np.asarray(lines[1].get_ydata(), np.float64) < -1
    assert np.isnan(reach[1][below]).all(), "where no value is, no line is"


def test_a_small_panel_has_its_class_filled_and_the_layer_as_a_line(ax: Axes) -> None:
    own: Any
    whole: Any
    own, whole = class_profile(ax, np.array([0.0, 1.0]), np.array([0.5, 0.5]), np.array([-1.0, 0.0, 1.0]), 1.0, "red")
    assert (own.get_data().values.tolist(), own.get_fill()) == ([0, 1], True)
    assert (whole.get_data().values.tolist(), whole.get_fill()) == ([0.5, 0.5], False)
    assert ax.get_xlim() == (0, 1.05)
