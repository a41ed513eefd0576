"""The units that are marked active are those that NumPy finds active."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from colordim.binning import mark_active, units
from colordim.binning.kernel import Kernel
from colordim.errors import ArgumentError

LEAST = 2.0**-40
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SMALL = [0.0, -0.0, 2.0**-41, -(2.0**-40) * (1 - 2.0**-20), 1e-46, 5e-324, -1e-40]
ACTIVE = [LEAST, -LEAST, 6e-8, -1.0, 65504.0, 1e300, math.nan, -math.nan, math.inf, -math.inf]


def expected(tensor: Tensor, dim: int) -> npt.NDArray[np.bool_]:
    values = np.moveaxis(tensor.detach().to(torch.float64).numpy(), dim, 0).reshape(tensor.shape[dim], -1)
    found: npt.NDArray[np.bool_] = ((np.abs(values) >= LEAST) | np.isnan(values)).any(axis=1)
    return found


def check(tensor: Tensor, dim: int, mark: Callable[[Tensor, int, Tensor], bool] = mark_active) -> None:
    want = expected(tensor, dim)
    for dtype in (torch.bool, torch.uint8):
        active = torch.zeros(tensor.shape[dim], dtype=dtype)
        known = mark(tensor, dim, active)
        np.testing.assert_array_equal(active.numpy(), want.astype(active.numpy().dtype))
        assert not known or want.all()
        before = torch.from_numpy(~want).to(dtype)  # what is marked stays so
        mark(tensor, dim, before)
        assert before.all()


def layouts(x: Tensor) -> list[Tensor]:
    order = list(range(x.dim()))
    found = [x, x.permute(order[::-1]).contiguous().permute(order[::-1])]
    if x.dim() == 4:
        found.append(x.to(memory_format=torch.channels_last))
    if x.dim() > 1:
        found.append(x.movedim(1, -1).contiguous().movedim(-1, 1))
        found.append(torch.cat([x, x])[::2])  # every other one: not dense
    found.append(x.expand(3, *x.shape)[1:])
    return found


@settings(max_examples=150, deadline=None)
@given(
    shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=9),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.001, 0.02, 0.3]),
    data=st.data(),
)
def test_units_are_those_of_numpy(shape: tuple[int, ...], seed: int, share: float, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    values = np.where(rng.random(shape) < share, rng.choice(ACTIVE, shape), rng.choice(SMALL, shape))
    for dtype in DTYPES:
        for x in layouts(torch.from_numpy(values).to(dtype)):
            check(x, data.draw(st.integers(0, x.dim() - 1)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "dim"), [((7, 5, 33, 40), 1), ((300, 2500), 1), ((70, 3, 1100), 2), ((3, 40_000), 0)], ids=str
)
def test_a_single_active_element_is_found_wherever_it_is(
    dtype: torch.dtype, shape: tuple[int, ...], dim: int, library: Path
) -> None:
    rng = np.random.default_rng(5)
    kernels = [Kernel(library, level) for level in range(Kernel(library).level + 1)]
    for _ in range(12):
        x = torch.zeros(shape, dtype=dtype)
        dead = rng.random(shape[dim]) < rng.choice([0.0, 0.002, 0.3, 1.0])
        late = rng.random(shape[dim]) < rng.choice([0.01, 1.0])  # the others are found at the first look
        for unit in np.flatnonzero(~dead):
            some = [[0, 1, size - 1, int(rng.integers(size))][rng.integers(4)] for size in shape]
            place = some if late[unit] else [0] * len(shape)
            place[dim] = int(unit)
            x[tuple(place)] = 6e-8 if dtype == torch.float16 else [LEAST, -1.0, math.nan][unit % 3]
        check(x, dim)
        for kernel in kernels:
            check(x, dim, kernel.mark_active)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_unit_active_is_known_at_once(dtype: torch.dtype, library: Path) -> None:
    active = torch.zeros(6, dtype=torch.bool)
    x = torch.ones(4, 6, 5, dtype=dtype)
    x[:, 3] = 0
    kernel = Kernel(library)
    assert not kernel.mark_active(x, 1, active)
    assert active.tolist() == [True, True, True, False, True, True]
    assert kernel.mark_active(torch.ones(2, 6, dtype=dtype), 1, active)
    assert active.all()


def test_other_dtypes_and_kinds_of_tensors() -> None:
    x = torch.tensor([[0, 1, 0], [0, -1, 2]])
    for other in (x, x.to(torch.int8), x.to(torch.complex64) * 1j, x.float().to(torch.float8_e5m2)):
        active = torch.zeros(3, dtype=torch.bool)
        mark_active(other, -1, active)
        assert active.tolist() == [False, True, True]
    for same in (torch.nn.Parameter(x.float()), torch.complex(x.float(), x.float()).conj().imag):
        check(same, 1)
    for unread in (x.to("meta"), x.float().to_sparse()):
        active = torch.zeros(3, dtype=torch.bool)
        assert not mark_active(unread, 1, active)
        assert not active.any()
    active = torch.zeros(3, dtype=torch.bool)
    torch.func.vmap(lambda y: mark_active(y, 0, active) or y)(x.float())
    mark_active(torch.zeros(0, 3), 1, active)
    assert not active.any()
    mark_active(torch.full((3,), 2.0), 0, strided := torch.zeros(6, dtype=torch.bool)[::2])
    assert strided.all()


def test_what_does_not_fit_is_refused() -> None:
    x = torch.ones(2, 3)
    with pytest.raises(ArgumentError, match=r"shape \[2, 3\] has no dimension 2"):
        mark_active(x, 2, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ArgumentError, match=r"activity of 3 units .* not torch.bool \[2\]"):
        mark_active(x, 1, torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ArgumentError, match=r"not torch.float32 \[3\]"):
        mark_active(x, 1, torch.zeros(3))
    with pytest.raises(ArgumentError, match="on meta, not on cpu"):
        mark_active(x, 1, torch.zeros(3, dtype=torch.bool, device="meta"))


def test_the_operations_and_the_backend_agree_on_the_limit() -> None:
    assert units.LEAST == LEAST
