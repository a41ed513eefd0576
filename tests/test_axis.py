from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colordim.axis import Axis, LinearAxis, SignedLogAxis, axis_from_dict, common_axis
from colordim.errors import AxisError

finite = st.floats(-1e6, 1e6)
bits = st.integers(0, 5)


@st.composite
def axes(draw: st.DrawFn) -> Axis:
    if draw(st.booleans()):
        return SignedLogAxis(draw(bits))
    lo = draw(finite)
    return LinearAxis(lo, lo + draw(st.floats(1e-3, 1e6)), draw(st.integers(1, 300)))


def test_linear_edges() -> None:
    axis = LinearAxis(-1, 1, 4)
    assert axis.edges.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert axis.bins == 4
    assert axis.zero_bin == 2, "an edge belongs to the bin above it"
    assert LinearAxis(-2, 3).bins == 200
    assert not axis.edges.flags.writeable


@pytest.mark.parametrize(
    ("lo", "hi", "expected"), [(-1, 0, 1), (0, 1, 0), (0.5, 1, -1), (-2, -1, 2), (-3, 1, 1), (-1, 3, 0)]
)
def test_linear_zero_bin(lo: float, hi: float, expected: int) -> None:
    """Zero on the last edge is inside the last bin; outside, it is underflow (-1) or overflow (bins)."""
    assert LinearAxis(lo, hi, 2).zero_bin == expected


def test_signed_log_edges() -> None:
    axis = SignedLogAxis(1)
    assert axis.bins == 2 * 64 * 2 + 1
    assert axis.zero_bin == axis.per_sign == 128
    edges = axis.edges
    # Around zero: the innermost bucket of either sign reaches down to zero, and 1.5 * 2**-40 is its other edge.
    assert edges[125:133].tolist() == [
        -3 * 2.0**-40, -2 * 2.0**-40, -1.5 * 2.0**-40, 0.0, 0.0, 1.5 * 2.0**-40, 2 * 2.0**-40, 3 * 2.0**-40,
    ]  # fmt: skip
    assert edges[[0, -1]].tolist() == [-(2.0**24), 2.0**24]
    assert not np.signbit(edges[128:130]).any()
    assert SignedLogAxis().bins == 1025
    for exponent in range(-39, 25):
        assert 2.0**exponent in SignedLogAxis(3).edges


def test_signed_log_widths() -> None:
    edges = SignedLogAxis(3).edges[SignedLogAxis(3).per_sign + 2 :]
    ratio = edges[1:] / edges[:-1] - 1
    assert 0.06 < ratio.min() < ratio.max() <= 0.125


def test_split_in_proportion() -> None:
    """Bins [0, 1), [1, 2], rows [-1, 0.25), [0.25, 1.5): a quarter of the first; the rest and half the second."""
    matrix = LinearAxis(0, 2, 2).project([-1, 0.25, 1.5])
    assert matrix.tolist() == [[0, 0], [0.25, 0], [0.75, 0.5], [0, 0.5]]


def test_window_rows_outside() -> None:
    matrix = LinearAxis(-2, 2, 4).window(-1, 1, 2)
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("edges", "row"), [([-1, 0, 1], 2), ([-1, 0], 1), ([0, 1], 1), ([1, 2], 0), ([-2, -1], 2), ([-2, -1, -0.5], 3)]
)
def test_zero_goes_whole_to_the_row_that_holds_it(edges: list[float], row: int) -> None:
    axis = SignedLogAxis(2)
    column = axis.project(edges)[:, axis.zero_bin]
    assert column.tolist() == [float(i == row) for i in range(len(edges) + 1)]


@given(axes(), finite, st.floats(1e-6, 1e6), st.integers(1, 50))
def test_window_conserves_every_bin(axis: Axis, lo: float, width: float, rows: int) -> None:
    if lo + width / rows <= lo:
        return
    matrix = axis.window(lo, lo + width, rows)
    assert matrix.shape == (rows + 2, axis.bins)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=0), 1, rtol=0, atol=1e-12)


@given(axes(), st.lists(st.floats(-100, 100), min_size=2, max_size=8, unique=True), st.integers(0, 2**32))
def test_projection_is_the_overlap(axis: Axis, borders: list[float], seed: int) -> None:
    """Against the definition: the share of the bin's interval that lies in the row's."""
    rows = sorted(borders)
    rows = [rows[0]] + [b for a, b in itertools.pairwise(rows) if b - a > 1e-9]
    if len(rows) < 2:
        return
    matrix = axis.project(rows)
    bounds = [-math.inf, *rows, math.inf]
    for i in np.random.default_rng(seed).integers(0, axis.bins, 5):
        a, b = axis.edges[i], axis.edges[i + 1]
        if a == b:
            continue
        for j in range(len(rows) + 1):
            lo, hi = max(a, bounds[j]), min(b, bounds[j + 1])
            share = float((Fraction(hi) - Fraction(lo)) / (Fraction(b) - Fraction(a))) if hi > lo else 0.0
            assert matrix[j, i] == pytest.approx(share, abs=1e-9)


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**32))
def test_merge_equals_counting_on_the_coarser_axis(first: int, second: int, seed: int) -> None:
    fine, coarse = SignedLogAxis(max(first, second)), SignedLogAxis(min(first, second))
    rng = np.random.default_rng(seed)
    values = rng.normal(size=2000) * 2.0 ** rng.integers(-45, 21, 2000)  # below 2**24, where overflow begins
    values[::50] = 0

    def counted(axis: SignedLogAxis) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        # By the definition of the buckets, in Python integers: sign, exponent, leading bits of the mantissa.
        counts = np.zeros(axis.bins, np.int64)
        for value in values:
            mantissa, exponent = math.frexp(abs(value))
            place = (exponent - 1 + 40) * 2**axis.bits + int((2 * mantissa - 1) * 2**axis.bits)
            place = max(0, place)
            counts[axis.per_sign + (0 if value == 0 else math.copysign(1 + place, value).__int__())] += 1
        return counts

    np.testing.assert_array_equal(fine.merge(counted(fine), coarse), counted(coarse))


@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 2**32))
def test_linear_merge_equals_numpy(coarse: int, factor: int, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(-1, 1, 500)
    fine = LinearAxis(-1, 1, coarse * factor)
    counts = np.histogram(values, fine.edges)[0]
    merged = fine.merge(np.stack([counts, 2 * counts]), LinearAxis(-1, 1, coarse))
    expected = np.histogram(values, fine.edges[::factor])[0]
    np.testing.assert_array_equal(merged, [expected, 2 * expected])
    assert merged.dtype == np.int64


def test_merge_of_counts_beyond_float() -> None:
    counts = [2**62, 1, 0, 0]
    assert LinearAxis(0, 1, 4).merge(counts, LinearAxis(0, 1, 2)).tolist() == [2**62 + 1, 0]


@given(axes())
def test_description_round_trip(axis: Axis) -> None:
    assert axis_from_dict(axis.to_dict()) == axis
    assert np.all(np.diff(axis.edges) >= 0)
    assert len(axis.edges) == axis.bins + 1
    np.testing.assert_array_equal(axis.merge(np.arange(axis.bins), axis), np.arange(axis.bins))


def test_common_axis() -> None:
    assert common_axis(SignedLogAxis(4), SignedLogAxis(2)) == SignedLogAxis(2)
    assert common_axis(LinearAxis(0, 1, 12), LinearAxis(0, 1, 18)) == LinearAxis(0, 1, 6)
    for first, second in (
        (LinearAxis(0, 1, 12), LinearAxis(0, 2, 12)),
        (SignedLogAxis(3), LinearAxis(0, 1, 2)),
        (LinearAxis(0, 1, 2), SignedLogAxis(3)),
    ):
        with pytest.raises(AxisError, match="no bins in common"):
            common_axis(first, second)


@pytest.mark.parametrize(
    ("lo", "hi", "bins", "message"),
    [
        (1, 1, 5, "is empty"),
        (2, 1, 5, "is empty"),
        (math.nan, 1, 5, "finite borders"),
        (0, math.inf, 5, "finite borders"),
        (-1.7e308, 1.7e308, 5, "finite borders"),
        (0, 1, 0, "0 bins cannot be"),
        (0, 1, -3, "-3 bins cannot be"),
        (0, 1, 1.5, "1.5 bins cannot be"),
        (1, 1 + 1e-15, 200, "narrower than float64 tells apart"),
    ],
)
def test_linear_errors(lo: float, hi: float, bins: int, message: str) -> None:
    with pytest.raises(AxisError, match=message):
        LinearAxis(lo, hi, bins)


def test_other_errors() -> None:
    for wrong in (-1, 9):
        with pytest.raises(AxisError, match="0 to 8 mantissa bits"):
            SignedLogAxis(wrong)
    axis = LinearAxis(0, 1, 10)
    for edges in ([1, 0], [0, 0], [0], [[0, 1]], [0, math.nan]):
        with pytest.raises(AxisError, match="ascend strictly"):
            axis.project(edges)
    with pytest.raises(AxisError, match="0 rows cannot be"):
        axis.window(0, 1, 0)
    for into in (LinearAxis(0, 1, 3), LinearAxis(0, 1, 20), LinearAxis(0, 2, 5), SignedLogAxis(3)):
        with pytest.raises(AxisError, match="does not merge into"):
            axis.merge(np.zeros(10), into)
    with pytest.raises(AxisError, match="does not merge into"):
        SignedLogAxis(2).merge(np.zeros(513), SignedLogAxis(3))
    with pytest.raises(AxisError, match="unknown axis type 'cube'"):
        axis_from_dict({"type": "cube"})
