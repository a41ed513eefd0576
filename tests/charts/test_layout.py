"""The grid: sensible from one panel to three hundred, panels apart from each other and inside the figure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colordim.charts.layout import Margins, default_columns, plan


@given(st.integers(1, 300), st.sampled_from([1, 2]))
def test_panels_fill_the_figure_without_touching(number: int, multiple: int) -> None:
    grid = plan(number * multiple, Margins(), multiple=multiple)
    boxes = [grid.rectangle(i) for i in range(grid.number)]
    assert all(left > 0 and bottom > 0 and left + w < 1 and bottom + h < 1 for left, bottom, w, h in boxes)
    assert grid.cols % multiple == 0
    assert (grid.rows - 1) * grid.cols < grid.number <= grid.rows * grid.cols
    for i, (left, bottom, _, height) in enumerate(boxes[1:], 1):
        before = boxes[i - 1]
        assert left > before[0] + before[2] or bottom + height < before[1]
    assert grid.panel_width >= 1.0
    assert grid.panel_height >= 1.0
    assert 4 <= grid.width <= 21


@pytest.mark.parametrize(("panels", "expected"), [(1, 1), (11, 4), (60, 10), (300, 15)])
def test_columns_by_number(panels: int, expected: int) -> None:
    assert default_columns(panels) == expected


def test_rows_columns_and_size_can_be_given() -> None:
    assert plan(11, Margins(), rows=2).cols == 6
    assert plan(11, Margins(), cols=5).rows == 3
    grid = plan(11, Margins(), cols=5, figsize=(10, 8))
    assert (grid.width, grid.height) == (10, 8)
    left, _, width, _ = grid.rectangle(4)
    assert (left + width) * 10 == pytest.approx(10 - Margins().right)


def test_axes_are_labelled_below_and_at_the_left() -> None:
    grid = plan(5, Margins(), cols=3)
    assert [grid.leftmost(i) for i in range(5)] == [True, False, False, True, False]
    assert [grid.lowest(i) for i in range(5)] == [False, False, True, True, True]
