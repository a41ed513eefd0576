"""Windows: the choice computed by hand, edges that keep zero on an edge, the user's errors."""

from __future__ import annotations

import numpy as np
import pytest

from colordim.charts.window import Window, round_up, shared_half_width, symlog_window, symmetric, window_from
from colordim.errors import AxisError


def test_the_shared_window_is_wide_enough_for_nine_layers_in_ten() -> None:
    assert shared_half_width([1, 2, 3, 4, 5, 6, 7, 8, 9, 1000]) == 9
    assert shared_half_width([3, float("nan"), 1]) == 3
    assert np.isnan(shared_half_width([float("nan")]))


@pytest.mark.parametrize(
    ("value", "expected"), [(1.0, 1.0), (1.01, 1.2), (8.5, 10.0), (0.031, 0.04), (2.3e-7, 2.5e-7), (10.1, 12.0)]
)
def test_windows_end_at_numbers_that_can_be_read(value: float, expected: float) -> None:
    assert round_up(value) == expected


@pytest.mark.parametrize("width", [0.0, float("nan"), float("inf")])
def test_a_window_without_a_width_is_one(width: float) -> None:
    assert symmetric(width) == Window(-1.0, 1.0)


@pytest.mark.parametrize("window", [Window(-0.003, 0.003), Window(-7, 7), Window(-250.0, 250.0, "symlog", 0.01)])
@pytest.mark.parametrize("rows", [2, 46, 58, 240])
def test_zero_is_an_edge_of_a_symmetric_window(window: Window, rows: int) -> None:
    edges = window.edges(rows)
    assert edges[rows // 2] == 0.0
    assert (edges[0], edges[-1]) == (window.lo, window.hi)
    assert (np.diff(edges) > 0).all()


def test_rows_of_the_symlog_scale_are_linear_inside_and_logarithmic_outside() -> None:
    window = Window(-100.0, 100.0, "symlog", 1.0)
    edges = window.edges(400)
    assert window.inverse(window.forward([-50.0, 0.3, 7.0])) == pytest.approx([-50.0, 0.3, 7.0])
    steps = np.diff(edges[(edges > 0) & (edges < 0.95)])
    assert steps == pytest.approx(np.full(steps.size, steps[0]))
    ratios = edges[edges > 2][1:] / edges[edges > 2][:-1]
    assert ratios == pytest.approx(np.full(ratios.size, ratios[0]))


def test_the_symlog_window_reaches_the_largest_value() -> None:
    window = symlog_window([0.5, 30.0, float("nan")], 800.0)
    assert (window.hi, window.scale) == (800.0, "symlog")
    assert window.linthresh == pytest.approx(0.01)
    assert symlog_window([], 0.0).hi == 1.0


@pytest.mark.parametrize("bad", [(1, 1), (2, -2), (float("nan"), 1), (0, float("inf"))])
def test_an_empty_window_is_refused(bad: tuple[float, float]) -> None:
    with pytest.raises(AxisError, match="must be below its second"):
        window_from(bad)


@pytest.mark.parametrize("bad", ["wide", (1, 2, 3), 5, None])
def test_what_is_no_window_is_refused(bad: object) -> None:
    with pytest.raises(AxisError, match="is no window"):
        window_from(bad)  # type: ignore[arg-type]
