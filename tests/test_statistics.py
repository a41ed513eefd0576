"""Statistics of columns against NumPy on the values themselves, and against hand-made examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colordim import statistics
from colordim.axis import LinearAxis, SignedLogAxis


def histogram(values: np.ndarray, axis: LinearAxis | SignedLogAxis) -> np.ndarray:
    """Count by numpy.histogram; zeros by hand, since it cannot place them in a bin without width."""
    counts = np.histogram(values[values != 0], axis.edges)[0].astype(np.int64)
    counts[axis.zero_bin] += np.count_nonzero(values == 0)
    return counts


def test_mean_and_std_are_those_of_the_finite_values() -> None:
    values = np.array([1.0, -2.0, 4.5, 0.0])
    number = statistics.finite(size=7, nan=1, pos_inf=1, neg_inf=1)
    assert number == 4
    assert statistics.mean(values.sum(), number) == pytest.approx(values.mean())
    assert statistics.std(values.sum(), (values**2).sum(), number) == pytest.approx(values.std())


def test_mean_and_std_of_nothing_are_nan() -> None:
    assert np.isnan(statistics.mean([0.0], [0])).all()
    assert np.isnan(statistics.std([0.0], [0.0], [0])).all()


def test_std_never_is_the_root_of_a_negative_number() -> None:
    value = 1e8 + 0.1
    assert statistics.std(3 * value, 3 * value**2 * (1 - 1e-15), 3) >= 0


def test_the_log_ratio_of_updates_to_weights_by_hand() -> None:
    found = statistics.log_ratio([1e-3, 0.5, 0.0, 1.0, np.nan], [1.0, 0.005, 1.0, 0.0, 1.0])
    assert found[:2] == pytest.approx([-3.0, 2.0])
    assert np.isnan(found[2:]).all()


@pytest.mark.parametrize("axis", [LinearAxis(-6, 6, 240), SignedLogAxis()], ids=str)
def test_quantiles_are_within_a_bin_of_those_of_the_values(axis: LinearAxis | SignedLogAxis) -> None:
    rng = np.random.default_rng(0)
    columns = [rng.normal(size=5000), np.maximum(rng.normal(size=5000), 0)]
    q = [0.01, 0.25, 0.6, 0.99]
    found = statistics.quantiles([histogram(c, axis) for c in columns], axis.edges, q)
    expected = np.array([np.quantile(c, q, method="inverted_cdf") for c in columns])
    bins = np.clip(np.searchsorted(axis.edges, expected, side="right") - 1, 0, axis.bins - 1)
    assert (np.abs(found - expected) <= np.diff(axis.edges)[bins] + 1e-12).all()


def test_quantiles_interpolate_inside_a_bin() -> None:
    assert statistics.quantiles([0, 4, 0], [0, 1, 2, 3], [0.25, 0.5, 1.0]).tolist() == [1.25, 1.5, 2.0]


def test_quantiles_outside_of_the_axis_are_infinite_and_of_nothing_nan() -> None:
    found = statistics.quantiles([[2, 2], [0, 0], [0, 0]], [0, 1, 2], [0.1, 0.5, 0.9], under=[4, 0, 0], over=[4, 0, 3])
    assert found[0].tolist() == [-np.inf, 1.0, np.inf]
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [np.inf] * 3


def test_near_zero_counts_exact_zeros_whole_and_splits_the_bin_that_is_cut() -> None:
    axis = LinearAxis(-1, 1, 4)  # bins of 0.5; the zeros are in the third
    counts = [0, 4, 10, 0]
    assert statistics.near_zero(counts, axis.edges, 0.25, zeros=6) == pytest.approx(6 + 4 / 2 + 4 / 2)
    assert statistics.near_zero(counts, axis.edges, 0.0, zeros=6) == 6


def test_near_zero_takes_nothing_of_a_bin_that_is_cut_by_rounding_alone() -> None:
    axis = LinearAxis(-10, 10, 400)  # the edge nearest to -0.05 lies above it
    assert axis.edges[199] > -0.05
    assert statistics.near_zero(np.eye(400)[[198, 199, 200, 201]], axis.edges, 0.05).tolist() == [0, 1, 1, 0]


def test_near_zero_on_the_signed_log_axis_is_near_that_of_the_values() -> None:
    axis = SignedLogAxis()
    values = np.maximum(np.random.default_rng(1).normal(size=20_000), 0)
    found = statistics.near_zero(histogram(values, axis), axis.edges, 0.05, zeros=np.count_nonzero(values == 0))
    assert found == pytest.approx(np.count_nonzero(np.abs(values) <= 0.05), rel=0.003)


def test_half_width_by_hand() -> None:
    edges = [-2, -1, 0, 1, 2]
    assert statistics.half_width([1, 4, 4, 1], edges, 0.8) == pytest.approx(1.0)
    assert statistics.half_width([1, 4, 4, 1], edges, 0.9) == pytest.approx(1.5)
    assert statistics.half_width([1, 4, 4, 1], edges, 0.4) == pytest.approx(0.5)
    assert statistics.half_width([0, 0, 0, 8], edges, 0.5) == pytest.approx(1.5)


def test_half_width_of_zeros_nothing_and_the_unreachable() -> None:
    axis = SignedLogAxis()
    assert statistics.half_width(histogram(np.zeros(5), axis), axis.edges, 0.995) == 0.0
    assert np.isnan(statistics.half_width([0, 0], [0, 1, 2], 0.9))
    assert statistics.half_width([9, 0], [0, 1, 2], 0.95, over=1) == np.inf
    assert statistics.half_width([9, 0], [0, 1, 2], 0.9, over=1) == pytest.approx(1.0)


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60), st.floats(0.05, 1.0))
def test_half_width_holds_the_share_to_within_a_bin(values: list[float], share: float) -> None:
    axis = SignedLogAxis()
    array = np.array(values, np.float64)
    width = statistics.half_width(histogram(array, axis), axis.edges, share)
    exact = np.sort(np.abs(array))[max(int(np.ceil(share * len(array) - 1e-9)), 1) - 1]
    assert width <= exact * (1 + 1 / 8) + 2.0**-39
    assert np.count_nonzero(np.abs(array) <= width * (1 + 1 / 8) + 2.0**-39) >= share * len(array) - 1e-6


def test_smoothing_keeps_a_constant_and_the_middle_of_a_peak() -> None:
    assert statistics.smooth(np.full(9, 3.0), 2.0) == pytest.approx(np.full(9, 3.0))
    spike = np.zeros(21)
    spike[10] = 1.0
    smoothed = statistics.smooth(spike, 1.5)
    assert smoothed.argmax() == 10
    assert smoothed[9] / smoothed[10] == pytest.approx(np.exp(-0.5 / 1.5**2), rel=1e-6)


def test_peaks_and_prominences_by_hand() -> None:
    found = statistics.peaks([0, 3, 1, 2, 1, 5, 4, 4.5, 0], sigma=0, prominence=0.05)
    assert found.position.tolist() == [5, 1, 3, 7]
    assert found.prominence.tolist() == [5, 2, 1, 0.5]


def test_a_small_peak_counts_by_its_own_height() -> None:
    # 4 stands 3 above its valley at 1, three quarters of its height; 100 - 97 stands 2 above 95, a fiftieth of its own.
    profile = [0, 100, 95, 97, 20, 1, 4, 0]
    assert statistics.peaks(profile, sigma=0, prominence=0.02).position.tolist() == [1, 6, 3]
    assert statistics.peaks(profile, sigma=0, prominence=0.02, own=0.25).position.tolist() == [1, 6]
    assert statistics.peaks(profile, sigma=0, prominence=0.1, own=0.25).position.tolist() == [1]


def test_peaks_at_the_ends_and_on_plateaus() -> None:
    assert statistics.peaks([4, 1, 0, 0], sigma=0).position.tolist() == [0]
    assert statistics.peaks([0, 2, 2, 2, 0], sigma=0).position.tolist() == [2]
    assert statistics.peaks(np.zeros(7)).position.size == 0


def test_peaks_ignore_the_noise_of_a_bimodal_histogram() -> None:
    rng = np.random.default_rng(2)
    counts, edges = np.histogram(np.concatenate([rng.normal(-5, 1, 4000), rng.normal(4, 1, 4000)]), 160, (-10, 10))
    found = np.sort(((edges[:-1] + edges[1:]) / 2)[statistics.peaks(counts, sigma=3).position])
    assert found == pytest.approx([-5, 4], abs=0.4)


def test_change_is_zero_for_what_stays_and_log2_parts_for_what_moves_on() -> None:
    assert statistics.change(np.tile([10, 20, 30], (16, 1))) == 0.0
    moving = np.kron(np.eye(8), np.full((2, 1), 10_000))
    assert statistics.change(moving, parts=8) == pytest.approx(3.0, abs=0.01)
    assert statistics.change(moving[:2], parts=2) == 0.0
    assert statistics.change(np.zeros((5, 3))) == 0.0


def test_change_does_not_take_noise_for_change() -> None:
    rng = np.random.default_rng(3)
    still = np.stack([np.histogram(rng.normal(size=40), 30, (-3, 3))[0] for _ in range(64)])
    drift = np.stack([np.histogram(rng.normal(i / 64, 1, size=40), 30, (-3, 3))[0] for i in range(64)])
    assert statistics.change(still) < 0.02 < statistics.change(drift)
