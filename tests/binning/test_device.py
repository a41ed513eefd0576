"""Counting on a device: equal to the reference, in pieces of bounded size, and without making the host wait."""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import colordim.binning
from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.binning import Row, device, reference
from colordim.errors import ArgumentError

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
AXES = [
    *map(SignedLogAxis, (0, 3, 8)),
    LinearAxis(-10, 10, 200),
    LinearAxis(0, 1, 1),
    LinearAxis(0.1, 0.7, 13),
    LinearAxis(-7, -2, 50),
    LinearAxis(0, 1, 70_000),
    LinearAxis(1e6, 1e6 + 1, 1000),
    LinearAxis(-8e307, 8e307, 10),
    LinearAxis(0, 1e-310, 5),
]

#: Operations that make the host wait for a CUDA device, or whose result has as many elements as the device finds.
WAITING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_bincount",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::repeat_interleave.Tensor",
}


class NoWaiting(TorchDispatchMode):
    """Fails on whatever would wait if the tensors were on a CUDA device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name()
        if name in WAITING or name.split(".")[0] in WAITING:
            raise AssertionError(f"{name} waits")
        if name.startswith("aten::index") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for argument in args
            if isinstance(argument, (list, tuple))
            for index in argument
        ):
            raise AssertionError(f"{name} by a mask waits")
        if name.startswith("aten::_to_copy") and (kwargs or {}).get("device") is not None:
            raise AssertionError("a copy to another device waits")
        if name.startswith(("aten::histc", "aten::histogram")):
            raise AssertionError("histc without a range waits, and not every device has it")
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True, scope="module")
def chosen_backend() -> str:
    """These tests name their backends themselves: they run once."""
    return "both"


def tricky(rng: np.random.Generator, axis: Axis, n: int, dtype: torch.dtype) -> Tensor:
    some = rng.choice(axis.edges, size=64)
    pool = np.concatenate(
        [
            rng.normal(scale=10.0 ** rng.uniform(-14, 9), size=40),
            rng.normal(scale=4, size=40),
            some,
            np.nextafter(some, rng.choice([-np.inf, np.inf], size=64)),
            [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-46, -1e-46, 5e-324, -5e-324, 1e39, -1e39, 1e300],
            [2.0**24, -(2.0**24), 2.0**-40, 2.0**-41, 1e-40, -1e-40, 1.17549435e-38, 65504.0, 448.0, 1 - 1e-12],
        ]
    )
    return torch.tensor(rng.choice(pool, size=n)).to(dtype)


def check(tensor: Tensor, axis: Axis) -> None:
    got, want = Row.new(axis, tensor.device), Row.new(axis, tensor.device)
    device.boundaries(axis, tensor.device)  # made once per axis
    device._order(axis, tensor.device)
    with NoWaiting():
        assert device.bin_into(tensor, axis, got)
    assert reference.bin_into(tensor, axis, want)
    np.testing.assert_array_equal(got.counts.numpy(), want.counts.numpy())
    assert got.moments[2:].tolist() == want.moments[2:].tolist()
    values = (tensor.abs() if tensor.is_complex() else tensor).to(torch.float64)
    finite = values[values.isfinite()].numpy()
    with np.errstate(over="ignore"):
        for moment, terms in zip(got.moments.tolist(), (finite, finite**2), strict=False):
            total = np.abs(terms).sum()
            if math.isfinite(total):
                assert moment == pytest.approx(math.fsum(terms), rel=0, abs=1e-12 * total + 1e-300)


@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("chunk", [device.CHUNK, 64])
def test_equals_the_reference_and_never_waits(monkeypatch: pytest.MonkeyPatch, axis: Axis, chunk: int) -> None:
    monkeypatch.setattr(device, "CHUNK", chunk)
    rng = np.random.default_rng(5)
    for dtype in DTYPES:
        for n in (0, 1, 63, 64, 65, 1000):
            check(tricky(rng, axis, n, dtype), axis)


@pytest.mark.parametrize("axis", [AXES[1], AXES[3]], ids=str)
def test_complex_numbers_integers_and_booleans_too(axis: Axis) -> None:
    rng = np.random.default_rng(6)
    check(torch.complex(tricky(rng, axis, 500, torch.float64), tricky(rng, axis, 500, torch.float64)), axis)
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool):
        check(torch.tensor(rng.integers(0, 2, size=100)).to(dtype), axis)


@pytest.mark.parametrize("axis", [AXES[1], AXES[3]], ids=str)
def test_nothing_but_nan_or_infinities(axis: Axis) -> None:
    for value in (math.nan, math.inf, -math.inf, 0.0, -0.0):
        check(torch.full((10,), value), axis)


@pytest.mark.pitfall("deterministic algorithms")
def test_deterministic_algorithms_count_the_same() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        check(tricky(np.random.default_rng(7), AXES[1], 1000, torch.float32), AXES[1])
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: torch.bincount(x.long()),
        lambda x: torch.equal(x, x),
        lambda x: x.to("cpu", copy=True),
    ],
)
def test_the_check_finds_what_waits(waits: Callable[[Tensor], Any]) -> None:
    with pytest.raises(AssertionError, match=r"waits"), NoWaiting():
        waits(torch.ones(3))


def test_the_reference_itself_waits() -> None:
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        reference.bin_into(torch.ones(3), AXES[1], Row.new(AXES[1], torch.device("cpu")))


def test_a_row_is_cleared_without_waiting() -> None:
    row = Row.new(AXES[1], torch.device("cpu"))
    device.bin_into(torch.ones(3), AXES[1], row)
    with NoWaiting():
        row.clear()
    assert row.counts.sum() == 0
    assert row.moments.tolist() == [0.0, 0.0, math.inf, -math.inf]


def test_rows_on_a_device_are_counted_there(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def bin_into(*_: object) -> bool:
        seen.append(True)
        return True

    monkeypatch.setattr(device, "bin_into", bin_into)
    meta = Row(torch.zeros(1033, dtype=torch.int64, device="meta"), torch.zeros(4, device="meta"))
    assert colordim.binning.bin_into(torch.ones(3), AXES[1], meta)
    colordim.binning.bin_into(torch.ones(3), AXES[1], Row.new(AXES[1], torch.device("cpu")))
    assert seen == [True]


def test_the_temporaries_of_a_chunk_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
                largest = max(largest, out.untyped_storage().nbytes())
            return out

    monkeypatch.setattr(device, "CHUNK", 4096)
    x = torch.randn(20 * 4096)
    with Sizes():
        device.bin_into(x, AXES[1], Row.new(AXES[1], x.device))
    assert largest == 8 * 4096


def test_what_counts_is_chosen_by_the_environment() -> None:
    code = "from colordim.binning import device; print(device.backend())"

    def run(choice: str) -> str:
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "COLORDIM_CUDA": choice}
        )
        return result.stdout + result.stderr

    assert "the default" in run("")
    assert "asked for" in run("triton")  # counts, or says that Triton cannot be imported
    assert "there is no backend 'warp'" in run("warp")
    with pytest.raises(ArgumentError, match="COLORDIM_CUDA may be torch or triton"):
        device.use_backend("warp")
