"""Updates: the ratio by hand, what happens where one of the two is missing, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from colordim.axis import SignedLogAxis
from colordim.charts.columns import Columns
from colordim.charts.strips import NOT_FINITE_CELL, ZERO_CELL
from colordim.charts.updates import UpdateRow, ratios, update_lines, updates_figure

Make = Callable[..., Columns]
AXIS = SignedLogAxis()
UNKNOWN = (float("nan"), False)
ONE = np.array([-1.0, 1.0])  # its standard deviation is 1
NO_EPOCHS = (np.array([0]), np.array([0]))


def test_the_ratio_is_that_of_the_standard_deviations(make: Make) -> None:
    row = ratios("w", make([1e-3 * ONE, 1e-2 * ONE, 5 + 1e-3 * ONE], AXIS), make([ONE, ONE, 0.1 * ONE], AXIS), UNKNOWN)
    assert row.ratio == pytest.approx([-3, -2, -2])
    assert not row.zero.any()
    assert not row.not_finite.any()


def test_updates_that_are_zero_are_known_and_weights_without_spread_are_not(make: Make) -> None:
    updates = make([np.zeros(2), ONE, ONE, np.array([3.0])], AXIS)
    row = ratios("w", updates, make([ONE, np.ones(2), ONE, np.array([2.0])], AXIS), UNKNOWN)
    assert row.zero.tolist() == [True, False, False, False]
    np.testing.assert_array_equal(row.ratio, [np.nan, np.nan, 0.0, np.nan])


def test_the_weight_is_taken_as_it_was_last_seen(make: Make) -> None:
    updates = make([0.1 * ONE, None, 0.1 * ONE, None, 0.1 * ONE, None], AXIS)
    weights = make([None, 10 * ONE, None, None, None, ONE], AXIS)
    row = ratios("w", updates, weights, UNKNOWN)
    np.testing.assert_allclose(row.ratio, [np.nan, np.nan, -2, -2, -2, -2])  # each update is held until the next
    assert ratios("w", updates, weights, (100.0, False)).ratio[:3] == pytest.approx([-3, -3, -2])


def test_an_update_is_held_no_longer_than_updates_usually_lie_apart(make: Make) -> None:
    fired = [0.1 * ONE if i in (0, 2, 4) else None for i in range(9)]
    row = ratios("w", make(fired, AXIS), make([ONE] * 9, AXIS), UNKNOWN)
    assert np.isfinite(row.ratio).tolist() == [True] * 6 + [False] * 3


def test_nan_in_either_is_marked_and_no_longer_than_it_lasts(make: Make) -> None:
    broken = np.array([np.nan, -1.0, 1.0])
    row = ratios("w", make([ONE, broken, ONE, ONE], AXIS), make([ONE, ONE, broken, ONE], AXIS), UNKNOWN)
    assert row.not_finite.tolist() == [False, True, True, False]
    assert ratios("w", make([ONE], AXIS), make([None], AXIS), (1.0, True)).not_finite.tolist() == [True]


def rows(make: Make, number: int) -> list[UpdateRow]:
    """Ratios of -3, the second parameter frozen in its first two of four batches, NaN in the third's last."""
    found = []
    for i in range(number):
        steps = [1e-3 * ONE] * 4
        if i == 1:
            steps[:2] = [np.zeros(2)] * 2
        if i == 2:
            steps[3] = np.array([np.nan, 1.0])
        found.append(ratios(f"layer{i}.weight", make(steps, AXIS), make([ONE] * 4, AXIS), UNKNOWN))
    return found


def test_few_parameters_are_lines_and_zeros_lie_below_the_floor(make: Make, ax: Axes) -> None:
    drawn = update_lines(ax, rows(make, 3))
    assert drawn.lines[0].get_xdata().tolist() == [0.5, 1.5, 2.5, 3.5]  # type: ignore[union-attr]
    np.testing.assert_allclose(np.asarray(drawn.lines[1].get_ydata()), [np.nan, np.nan, -3, -3])
    zeros = drawn.zeros[1]
    assert zeros is not None
    assert [segment[:, 0].tolist() for segment in zeros.get_segments()] == [[0, 2]]
    assert drawn.zeros[0] is drawn.zeros[2] is None
    lowest = min(float(np.nanmin(np.asarray(line.get_ydata(), np.float64))) for line in drawn.lines)
    assert ax.get_ylim()[0] < zeros.get_segments()[0][0, 1] < min(lowest, -4.5)


def figure_of(found: list[UpdateRow]) -> Figure:
    return updates_figure(found, phase="train", start=0, stop=4, epochs=NO_EPOCHS)


def test_many_parameters_are_strips_with_flags_over_them(make: Make) -> None:
    figure = figure_of(rows(make, 12))
    ax: Any = figure.axes[0]
    values, flags = (np.ma.filled(image.get_array().astype(float), 9) for image in ax.images)
    assert values.shape == (12, 4)
    assert values[0] == pytest.approx(np.full(4, -3))
    assert values[1].tolist() == [9, 9, pytest.approx(-3), pytest.approx(-3)]
    expected = np.full((12, 4), 9.0)
    expected[1, :2] = ZERO_CELL
    expected[2, 3] = NOT_FINITE_CELL
    np.testing.assert_array_equal(flags, expected)
    assert ax.images[0].get_extent() == [0, 4, 12, 0]  # the first at the top
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"layer{i}.weight" for i in range(12)]
    said = " ".join(text.get_text() for text in figure.texts)
    assert "black: no update (exactly zero)" in said
    assert "pink: NaN or Inf" in said


def test_a_legend_is_never_longer_than_eight_and_nothing_is_drawn_of_all_nan(make: Make) -> None:
    assert len(figure_of(rows(make, 8)).legends[0].get_texts()) == 8 + 1
    assert not figure_of(rows(make, 9)).legends
    nan = np.array([np.nan])
    figure = figure_of([ratios("w", make([nan] * 4, AXIS), make([nan] * 4, AXIS), UNKNOWN)])
    marks = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)]
    assert any(len(c.get_segments()) == 1 and c.get_segments()[0][:, 0].tolist() == [0, 4] for c in marks)


def test_hundreds_of_rows_are_named_as_far_as_there_is_room(make: Make) -> None:
    ticks = figure_of(rows(make, 300)).axes[0].get_yticks()
    assert 60 < len(ticks) <= 150
    assert ticks[0] == 0.5
