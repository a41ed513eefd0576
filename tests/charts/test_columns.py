"""Columns: exact sums, evenly spaced, each batch in one of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colordim.axis import LinearAxis
from colordim.charts.columns import Columns, column_width, to_rows

AXIS = LinearAxis(-2, 2, 4)
Make = Callable[..., Columns]


@given(st.integers(1, 300_000), st.integers(1, 2000))
def test_columns_never_outnumber_pixels_and_are_made_of_whole_levels(batches: int, pixels: int) -> None:
    width, level = column_width(batches, pixels)
    assert -(-batches // width) <= pixels
    assert width % 4**level == 0
    assert width == 1 or width < 1.25 * -(-batches // pixels) + 1


def test_every_batch_is_in_exactly_one_column(make: Make) -> None:
    batches = [np.full(i + 1, -1.5 + i % 4) for i in range(11)]
    columns = make(batches, AXIS, width=4)
    assert columns.number.tolist() == [4, 4, 3]
    assert columns.counter("size").tolist() == [1 + 2 + 3 + 4, 5 + 6 + 7 + 8, 9 + 10 + 11]
    assert columns.whole(AXIS).tolist() == [1 + 5 + 9, 2 + 6 + 10, 3 + 7 + 11, 4 + 8]
    assert columns.edges.tolist() == [0, 4, 8, 12]


def test_zooming_does_not_regroup_batches(make: Make) -> None:
    batches = [np.full(i + 1, 0.5) for i in range(12)]
    whole = make(batches, AXIS, width=4)
    zoomed = make(batches[4:], AXIS, width=4, first=range(4, 12), start=5)
    assert zoomed.start == 4
    assert zoomed.counts.tolist() == whole.counts[1:].tolist()


def test_what_did_not_fire_is_a_gap_and_what_was_not_recorded_repeats(make: Make) -> None:
    ones = np.full(3, 0.5)
    columns = make([ones, None, ones * 3], AXIS, first=[0, 3, 6], stop=8)
    assert columns.counter("size").tolist() == [3, 3, 3, 0, 0, 0, 3, 3]
    assert columns.held.tolist() == [False, True, True, False, True, True, False, True]
    assert columns.total("size") == 6
    assert columns.whole(AXIS).sum() == 6


def test_before_the_first_recorded_batch_there_is_nothing(make: Make) -> None:
    columns = make([np.full(3, 0.5)], AXIS, first=[2], stop=4)
    assert columns.counter("size").tolist() == [0, 0, 3, 3]
    assert np.isposinf(columns.moments[0, 2])


def test_without_recorded_columns_all_are_empty(make: Make) -> None:
    columns = make([], AXIS, stop=3)
    assert len(columns) == 3
    assert columns.counts.sum() == 0


def test_moments_merge_as_moments_do(make: Make) -> None:
    columns = make([np.array([1.0, 2.0]), None, np.array([-1.5])], AXIS, width=4)
    assert columns.moments[0].tolist() == [1.5, 1 + 4 + 2.25, -1.5, 2.0]
    assert columns.number.tolist() == [2]


def test_rows_hold_every_finite_value(make: Make) -> None:
    rng = np.random.default_rng(0)
    batches = [np.append(rng.normal(scale=3, size=50), [np.nan, np.inf]) for _ in range(9)]
    columns = make(batches, AXIS, width=2)
    rows = to_rows(columns, AXIS.window(-0.7, 0.9, 6))
    assert rows.sum(axis=0) == pytest.approx([100] * 4 + [50])


def test_rows_are_the_product_with_the_matrix(make: Make) -> None:
    rng = np.random.default_rng(1)
    columns = make([rng.normal(size=80) for _ in range(5)], AXIS)
    matrix = AXIS.window(-1.1, 1.7, 7)
    expected = matrix[:, columns.first_bin : columns.first_bin + columns.counts.shape[1]] @ columns.counts.T
    expected[0] += columns.counter("under")
    expected[-1] += columns.counter("over")
    assert to_rows(columns, matrix) == pytest.approx(expected)
