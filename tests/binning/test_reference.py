"""Counting against NumPy in float64, on tensors made to hit every border."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.binning import Row, bin_into
from colordim.column import COUNTERS, MOMENTS

FLOAT_DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
LINEAR = LinearAxis(-10, 10, 200)
LOG = SignedLogAxis()


def count(tensor: torch.Tensor, axis: Axis) -> dict[str, npt.NDArray[np.int64] | int | float]:
    row = Row.new(axis, tensor.device)
    assert bin_into(tensor, axis, row)
    counters = dict(zip(COUNTERS, row.counts[axis.bins :].tolist(), strict=True))
    moments = dict(zip(MOMENTS, row.moments.tolist(), strict=True))
    return {"counts": row.counts[: axis.bins].numpy(), **counters, **moments}


def exact_sum(values: npt.NDArray[np.float64]) -> float:
    return math.fsum(values) if math.isfinite(np.abs(values).sum()) else math.inf


def expected(values: npt.NDArray[np.float64], axis: Axis) -> dict[str, npt.NDArray[np.int64] | int | float]:
    """Count float64 values without torch and without the axis' own edges."""
    finite = values[np.isfinite(values)]
    if isinstance(axis, LinearAxis):
        counts, _ = np.histogram(finite, bins=axis.bins, range=(axis.lo, axis.hi))
        under, over = (finite < axis.lo).sum(), (finite > axis.hi).sum()
    else:
        assert isinstance(axis, SignedLogAxis)
        mantissa, exponent = np.frexp(np.abs(finite))  # |x| = mantissa * 2**exponent, 0.5 <= mantissa < 1
        eighth = np.floor((2 * mantissa - 1) * 2**axis.bits).astype(np.int64)
        bucket = np.maximum((exponent.astype(np.int64) - 1 + 40) * 2**axis.bits + eighth, 0)
        per_sign = 64 * 2**axis.bits
        inside = (bucket < per_sign) & (finite != 0)
        signed = per_sign + np.sign(finite).astype(np.int64) * (bucket + 1)
        counts = np.bincount(signed[inside], minlength=2 * per_sign + 1)
        counts[per_sign] += (finite == 0).sum()
        beyond = (bucket >= per_sign) & (finite != 0)
        under, over = (beyond & (finite < 0)).sum(), (beyond & (finite > 0)).sum()
    return {
        "counts": counts.astype(np.int64),
        "under": int(under),
        "over": int(over),
        "nan": int(np.isnan(values).sum()),
        "pos_inf": int(np.isposinf(values).sum()),
        "neg_inf": int(np.isneginf(values).sum()),
        "zeros": int((values == 0).sum()),
        "size": values.size,
        "sum": exact_sum(finite),
        "sum_sq": exact_sum(finite**2),
        "min": finite.min(initial=math.inf),
        "max": finite.max(initial=-math.inf),
    }


def check(tensor: torch.Tensor, axis: Axis, values: npt.NDArray[np.float64] | None = None) -> None:
    if values is None:
        values = tensor.detach().to(torch.float64).reshape(-1).numpy()
    with np.errstate(over="ignore"):
        got, want = count(tensor, axis), expected(values, axis)
    assert np.sum(got["counts"]) + sum(got[k] for k in COUNTERS[:5]) == got["size"]
    assert np.array_equal(
        got["counts"], want["counts"]
    )  # NumPy's and pytest's own comparisons take longer than all else
    for name in (*COUNTERS[:7], "min", "max"):
        assert got[name] == want[name], name
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore"):
        tolerance = 1e-12 * np.abs(finite).sum(), 1e-12 * (finite**2).sum()
    if math.isfinite(tolerance[0]):
        assert abs(got["sum"] - want["sum"]) <= tolerance[0] + 1e-300
    if math.isfinite(tolerance[1]):
        assert abs(got["sum_sq"] - want["sum_sq"]) <= tolerance[1] + 1e-300


def tricky(rng: np.random.Generator, axis: Axis, dtype: torch.dtype) -> torch.Tensor:
    """Draw a tensor of a random scale with edges, specials, subnormals and both zeros strewn in."""
    shape = tuple(rng.integers(0, 8, size=rng.integers(0, 4)))
    size = math.prod(shape)
    scale = 10.0 ** rng.uniform(-14, 9)
    pool = np.concatenate(
        [
            rng.normal(scale=scale, size=20),
            rng.normal(scale=4, size=20),
            rng.choice(axis.edges, size=10),
            np.nextafter(rng.choice(axis.edges, size=6), rng.choice([-np.inf, np.inf], size=6)),
            [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-46, -1e-46, 5e-324, 1e39, -1e39, 1e300, 2.0**24, -(2.0**24)],
            [2.0**-40, 2.0**-41, 1e-40, -1e-40, 1.17549435e-38, 65504.0, 448.0, 1 - 1e-12],
        ]
    )
    return torch.tensor(rng.choice(pool, size=size)).reshape(shape).to(dtype)


@pytest.mark.parametrize("axis", [LINEAR, LOG], ids=str)
def test_ten_thousand_random_tensors_are_accounted_for_bin_by_bin(axis: Axis) -> None:
    rng = np.random.default_rng(7)
    for i in range(10_000):
        check(tricky(rng, axis, FLOAT_DTYPES[i % len(FLOAT_DTYPES)]), axis)


@pytest.mark.parametrize(
    "axis",
    [LinearAxis(-1, 3, 7), LinearAxis(0.1, 0.7, 13), LinearAxis(-7, -2, 1), SignedLogAxis(0), SignedLogAxis(5)],
    ids=str,
)
def test_other_axes_agree_as_well(axis: Axis) -> None:
    rng = np.random.default_rng(11)
    for i in range(300):
        check(tricky(rng, axis, FLOAT_DTYPES[i % 4]), axis)


@pytest.mark.pitfall("NaN and infinities")
@settings(max_examples=300, deadline=None)
@given(hnp.arrays(np.float64, st.integers(0, 50), elements=st.floats(width=64)), st.sampled_from([LINEAR, LOG]))
def test_any_float64_is_accounted_for(values: npt.NDArray[np.float64], axis: Axis) -> None:
    with np.errstate(over="ignore"):
        check(torch.from_numpy(values), axis)


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(1, 300), st.data())
def test_values_on_edges_fall_where_numpy_puts_them(lo: float, width: float, bins: int, data: st.DataObject) -> None:
    axis = LinearAxis(lo, lo + width, bins)
    on_edges = data.draw(st.lists(st.sampled_from(list(axis.edges)), min_size=1, max_size=30))
    check(torch.tensor(on_edges, dtype=torch.float64), axis)


def test_every_edge_of_the_seed_axis_is_its_bins_left_edge() -> None:
    got = count(torch.from_numpy(LINEAR.edges.copy()), LINEAR)
    assert np.array_equal(got["counts"], [1] * 199 + [2])  # the right edge lies inside the last bin
    assert got["under"] == got["over"] == 0


def test_hand_worked_buckets_of_the_signed_log_axis() -> None:
    # 1.0 is exponent 0, eighth 0: the bucket 40 * 8 after the innermost positive one, which follows zero at 512.
    for value, bucket in [(1.0, 513 + 320), (1.124, 833), (1.125, 834), (-1.0, 511 - 320), (0.0, 512), (-0.0, 512)]:
        assert count(torch.tensor([value]), LOG)["counts"].tolist().index(1) == bucket, value  # type: ignore[union-attr]
    assert count(torch.tensor(1e-30), LOG)["counts"][513] == 1  # type: ignore[index]
    assert count(torch.tensor(-1e-46, dtype=torch.float64), LOG)["counts"][511] == 1  # type: ignore[index]
    assert count(torch.tensor(2.0**24), LOG)["over"] == 1
    assert count(torch.tensor(-(2.0**24)), LOG)["under"] == 1


def test_float64_is_not_narrowed_before_counting() -> None:
    assert count(torch.tensor(1e39, dtype=torch.float64), LOG)["pos_inf"] == 0
    assert count(torch.tensor(1e-46, dtype=torch.float64), LOG)["zeros"] == 0
    assert count(torch.tensor(1 - 1e-12, dtype=torch.float64), LinearAxis(0, 2, 2))["counts"].tolist() == [1, 0]  # type: ignore[union-attr]


@pytest.mark.pitfall("saturating counts")
@pytest.mark.parametrize(
    ("dtype", "n"), [(torch.bfloat16, 100_000), (torch.float16, 100_000), (torch.float32, 17_000_000)]
)
@pytest.mark.parametrize("axis", [LINEAR, LOG], ids=str)
def test_counts_do_not_saturate_in_the_dtype_of_the_input(dtype: torch.dtype, n: int, axis: Axis) -> None:
    got = count(torch.zeros(n, dtype=dtype), axis)
    assert got["counts"][axis.zero_bin] == got["zeros"] == got["size"] == n  # type: ignore[index]


def test_a_row_adds_up_over_calls_and_clears() -> None:
    row = Row.new(LINEAR, torch.device("cpu"))
    bin_into(torch.tensor([1.0, 2.0]), LINEAR, row)
    bin_into(torch.tensor([-3.0]), LINEAR, row)
    assert row.counts[200 + COUNTERS.index("size")] == 3
    assert row.moments.tolist() == [0.0, 14.0, -3.0, 2.0]
    row.clear()
    assert row.counts.sum() == 0
    assert row.moments.tolist() == [0.0, 0.0, math.inf, -math.inf]


def test_a_large_offset_does_not_swallow_the_variance() -> None:
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0)) + 1e4
    got = count(x, LOG)
    n, total, squares = 200_000, got["sum"], got["sum_sq"]
    std = math.sqrt((squares - total**2 / n) / n)
    assert std == pytest.approx(float(x.double().std(correction=0)), rel=1e-6)


@pytest.mark.parametrize("axis", [LINEAR, LOG], ids=str)
def test_subnormals_are_not_zeros_even_when_the_processor_flushes_them(axis: Axis, chosen_backend: str) -> None:
    if chosen_backend == "device":  # the processor's setting is not the device's
        return
    x = torch.tensor([1e-45, -1e-45, 1e-40, 0.0, -0.0])
    if not torch.set_flush_denormal(True):  # not available on every processor: then there is nothing to tell apart
        return
    try:
        got = count(x, axis)
    finally:
        torch.set_flush_denormal(False)
    assert got["zeros"] == 2
    if axis is LOG:
        assert [int(got["counts"][i]) for i in (511, 512, 513)] == [1, 2, 2]  # type: ignore[index]
