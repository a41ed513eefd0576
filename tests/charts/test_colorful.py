"""One colorful panel: what its artists hold is what was counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.charts.colorbar import ColorScale, color_scale
from colordim.charts.colorful import (
    EpochProfile,
    cells,
    colorful,
    outside,
    superimpose_mean,
    superimpose_profiles,
)
from colordim.charts.columns import Columns, to_rows
from colordim.charts.window import Window

Make = Callable[..., Columns]
AXES = [LinearAxis(-4, 4, 37), SignedLogAxis()]
WINDOW = Window(-2.0, 2.0)


def values_of(columns: Columns, axis: Axis, window: Window, rows: int, color: str = "share") -> np.ma.MaskedArray:
    return cells(to_rows(columns, axis.project(window.edges(rows))), columns, color)  # type: ignore[arg-type]


def draw(ax: Axes, columns: Columns, axis: Axis, window: Window = WINDOW, rows: int = 20, color: str = "share") -> Any:
    values = values_of(columns, axis, window, rows, color)
    shares = outside(to_rows(columns, axis.project(window.edges(rows))), columns)
    scale = color_scale([values], color)  # type: ignore[arg-type]
    return colorful(ax, columns, values, window, scale, shares_outside=shares, not_finite="NaN in 1 batch")


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize(
    "window", [WINDOW, Window(-3.0, 1.0), Window(-100.0, 100.0, "symlog", 0.1)], ids=["even", "odd", "symlog"]
)
def test_the_image_and_its_strips_hold_every_finite_value(make: Make, ax: Axes, axis: Axis, window: Window) -> None:
    rng = np.random.default_rng(0)
    batches = [np.append(rng.normal(scale=2, size=200), [1e9, -1e9, np.nan]) for _ in range(6)]
    panel = draw(ax, make(batches, axis), axis, window, color="count")
    total = sum(image.get_array().filled(0).sum(axis=0) for image in (panel.image, panel.under, panel.over) if image)
    assert total == pytest.approx(np.full(6, 202))


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_a_cell_is_blank_if_and_only_if_nothing_can_be_in_it(make: Make, axis: Axis) -> None:
    columns = make([np.array([0.7]), np.array([0.0, -1.5]), np.array([3.0])], axis)
    window, rows = WINDOW, 20
    values = values_of(columns, axis, window, rows)
    edges = window.edges(rows)
    for column, value in ((0, 0.7), (1, 0.0), (1, -1.5)):
        bin_ = int(np.searchsorted(axis.edges, value, side="right")) - 1
        lower, upper = (value, value) if value == 0 and isinstance(axis, SignedLogAxis) else axis.edges[bin_ : bin_ + 2]
        touched = (edges[1:] > lower) & ((edges[:-1] < upper) | ((edges[:-1] == lower) & (lower == upper)))
        assert (~np.ma.getmaskarray(values)[1:-1, column][touched]).all()
    blank = np.ma.getmaskarray(values)
    assert blank[1:-1, 2].all()
    assert not blank[-1, 2]
    assert (values.compressed() > 0).all()


def test_one_value_in_a_million_is_not_hidden(make: Make) -> None:
    axis = LinearAxis(-2, 2, 8)
    columns = make([np.append(np.zeros(999_999), 1.7)], axis)
    assert values_of(columns, axis, WINDOW, 8).filled(0)[8, 0] == 1e-6


def test_edges_that_differ_by_rounding_do_not_fill_the_row_beside(make: Make) -> None:
    axis = LinearAxis(-0.7, 0.7, 200)
    for k in range(200):
        value = (axis.edges[k] + axis.edges[k + 1]) / 2
        values = values_of(make([np.array([value])], axis), axis, Window(-0.7, 0.7), 40)
        assert values.count() == 1


def test_a_wide_bucket_is_one_block_at_its_density(make: Make) -> None:
    axis = LinearAxis(-2, 2, 2)
    values = values_of(make([np.array([0.5] * 8)], axis), axis, WINDOW, 8, "count")
    assert values.filled(0)[:, 0].tolist() == [0, 0, 0, 0, 0, 2, 2, 2, 2, 0]


@given(width=st.sampled_from([1, 2, 4, 8]), color=st.sampled_from(["share", "count"]))
def test_merging_columns_does_not_change_their_brightness(width: int, color: str) -> None:
    axis = SignedLogAxis()
    one = np.array([0.3, 0.3, 1.1, 0.0])
    from colordim.charts.columns import regular

    n = 8
    counts = np.zeros((n, axis.bins), np.int64)
    counts[:, [axis.zero_bin, *np.searchsorted(axis.edges, one[:3], side="right") - 1]] = [[1, 2, 2, 1]]
    counters = np.tile([0, 0, 0, 0, 0, 1, 4, 1], (n, 1))
    fired = np.array([1, 1, 0, 1, 1, 1, 1, 1])[:, None]  # of the batches in which it did not run nothing is fainter
    columns = regular(
        np.arange(n),
        np.ones(n, np.int64),
        counts * fired,
        counters * fired,
        np.zeros((n, 4)),
        width=width,
        start=0,
        stop=n,
    )
    values = values_of(columns, axis, WINDOW, 20, color)
    there = columns.counter("calls") > 0
    expected = np.array([0.25, 0.5, 0.25]) * (1 if color == "share" else 4)
    assert there.sum() == (7 if width == 1 else n // width)
    for column in np.flatnonzero(there):
        assert values[:, column].sum() == pytest.approx(1 if color == "share" else 4)
        assert values[11, column] == pytest.approx(expected[0])


def test_gaps_are_blank(make: Make, ax: Axes) -> None:
    axis = LinearAxis(-2, 2, 8)
    panel = draw(ax, make([np.ones(3), None, np.ones(3)], axis), axis)
    assert np.ma.getmaskarray(panel.image.get_array()).all(axis=0).tolist() == [False, True, False]


def test_strips_say_what_share_of_the_values_they_hold(make: Make, ax: Axes) -> None:
    axis = LinearAxis(-4, 4, 16)
    panel = draw(ax, make([np.array([3.0, 9.0, 0.2, 0.4]), np.array([-3.0, 0.2, 0.2, 0.2])], axis), axis)
    assert panel.over is not None
    assert panel.under is not None
    assert panel.over.get_array().filled(0).tolist() == [[0.5, 0]]
    assert panel.under.get_array().filled(0).tolist() == [[0, 0.25]]
    assert [text.get_text() for text in panel.texts] == ["12 % below", "25 % above"]
    assert panel.over.norm is panel.image.norm


def test_nothing_outside_is_not_mentioned(make: Make, ax: Axes) -> None:
    axis = LinearAxis(-2, 2, 8)
    panel = draw(ax, make([np.ones(3)], axis), axis)
    assert panel.texts == []
    assert panel.under is None
    assert panel.over is None


def test_columns_with_nan_or_inf_are_marked_where_they_are(make: Make, ax: Axes) -> None:
    axis = LinearAxis(-2, 2, 8)
    batches = [np.ones(2), np.array([np.nan, 1.0]), np.array([np.inf, np.nan]), np.ones(2), np.array([-np.inf])]
    panel = draw(ax, make(batches, axis), axis)
    assert panel.not_finite is not None
    spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in panel.not_finite.get_paths()]
    assert spans == [(1, 3), (4, 5)]
    assert min(tint.get_zorder() for tint in ax.collections) < panel.image.get_zorder()  # colours are not tinted
    assert [text.get_text() for text in panel.texts] == ["NaN in 1 batch"]
    assert np.ma.getmaskarray(panel.image.get_array())[:, 2].all()


@pytest.mark.parametrize(
    "window", [WINDOW, Window(-100.0, 100.0, "symlog", 0.1), Window(1.0, 3.0)], ids=["linear", "symlog", "positive"]
)
def test_rows_are_where_the_axis_says(make: Make, ax: Axes, window: Window) -> None:
    axis = SignedLogAxis()
    rows = 40
    panel = draw(ax, make([np.array([1.5])] * 2, axis), axis, window, rows)
    low, high = panel.image.get_extent()[2:]
    filled = np.flatnonzero(panel.image.get_array().filled(0)[:, 0])
    bottom, top = low + (high - low) * np.array([filled[0], filled[-1] + 1]) / rows
    shares = ax.transAxes.inverted().transform(ax.transData.transform([(0, 1.5), (0, window.lo), (0, window.hi)]))[:, 1]
    assert bottom <= shares[0] <= top
    assert (low, high) == pytest.approx((shares[1], shares[2]))
    assert (panel.zero is None) == (window.lo > 0)


def test_the_lowest_colour_is_not_blank(make: Make, ax: Axes) -> None:
    axis = LinearAxis(-2, 2, 8)
    panel = draw(ax, make([np.append(np.zeros(999), 1.0)], axis), axis)
    faintest = panel.image.to_rgba(np.ma.array([1e-12, 1.0], mask=[False, True]))
    assert faintest[0][3] == 1.0
    assert faintest[0][:3].max() < 0.4
    assert faintest[1][3] == 0.0


def test_the_mean_is_superimposed_with_gaps(make: Make, ax: Axes) -> None:
    axis = LinearAxis(-4, 4, 8)
    lines: Any = superimpose_mean(ax, make([np.array([1.0, 3.0, np.nan]), None, np.array([-1.0, -1.0])], axis))
    mean, low, high = lines
    assert mean.get_xdata().tolist() == [0.5, 1.5, 2.5]
    np.testing.assert_array_equal(mean.get_ydata(), [2.0, np.nan, -1.0])
    np.testing.assert_array_equal(low.get_ydata(), [1.0, np.nan, -1.0])
    np.testing.assert_array_equal(high.get_ydata(), [3.0, np.nan, -1.0])


def test_profiles_begin_at_their_epoch_and_reach_over_nine_tenths_of_it(ax: Axes) -> None:
    edges = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    profile = EpochProfile(100, 200, np.array([0.0, 2.0, 50.0, 4.0]), np.array([0.0, 0.0, 1.0, 2.0]))
    lines: Any = superimpose_profiles(ax, [profile], edges, Window(-2.0, 2.0))
    grey, black = lines
    assert black.get_ydata().tolist() == [-1.5, -0.5, 0.5, 1.5]
    np.testing.assert_allclose(black.get_xdata(), [np.nan, 145, 190, 190])  # zeros do not squeeze the rest
    np.testing.assert_allclose(grey.get_xdata(), [np.nan, np.nan, 122.5, 145])


def test_the_scale_covers_all_panels_but_at_most_six_decades() -> None:
    scale = color_scale([np.ma.array([0.5, 0.1]), np.ma.array([1e-9, 0.2])], "share")
    assert (scale.high, scale.low) == pytest.approx((0.5, 5e-7))
    one = color_scale([np.ma.array([0.25])], "share")
    assert one.low < one.high == 0.25
    assert color_scale([np.ma.array([1.0], mask=[True])], "count") == ColorScale("count", 0.01, 1.0)
