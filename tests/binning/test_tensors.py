"""Layouts, dtypes and subclasses: every stored value is read once, implied zeros are counted."""

import numpy as np
import pytest
import torch
from torch import Tensor

from colordim.axis import LinearAxis, SignedLogAxis
from colordim.binning import Row, bin_into
from colordim.binning.tensors import flatten
from colordim.column import COUNTERS

AXIS = LinearAxis(-10, 10, 20)


def counted(tensor: Tensor) -> dict[str, int]:
    row = Row.new(AXIS, torch.device("cpu"))
    assert bin_into(tensor, AXIS, row)
    named = dict(zip(COUNTERS, row.counts[AXIS.bins :].tolist(), strict=True))
    return {**named, "sum": row.moments[0].item(), "min": row.moments[2].item(), "max": row.moments[3].item()}


def histogram(tensor: Tensor) -> list[int]:
    row = Row.new(AXIS, torch.device("cpu"))
    assert bin_into(tensor, AXIS, row)
    return row.counts[: AXIS.bins].tolist()


def reference(values: list[float]) -> list[int]:
    return np.histogram(values, bins=20, range=(-10, 10))[0].tolist()


def test_complex_numbers_count_by_modulus() -> None:
    assert histogram(torch.tensor([3 + 4j, -3 - 4j])) == reference([5, 5])
    assert histogram(torch.tensor([3 + 4j], dtype=torch.complex128).conj()) == reference([5])
    assert counted(torch.tensor([complex("nan"), complex("inf"), 0j]))["nan"] == 1


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool])
def test_integers_and_booleans_count_as_their_values(dtype: torch.dtype) -> None:
    assert histogram(torch.tensor([0, 1, 1]).to(dtype)) == reference([0, 1, 1])


def test_sparse_tensors_count_their_implied_zeros() -> None:
    coo = torch.sparse_coo_tensor(torch.tensor([[0, 0, 2]]), torch.tensor([1.0, 2.0, 5.0]), (4,), check_invariants=True)
    assert histogram(coo) == reference([3, 0, 5, 0])  # uncoalesced: the two values at 0 are one
    got = counted(coo)
    assert (got["size"], got["zeros"], got["min"], got["max"]) == (4, 2, 0.0, 5.0)


@pytest.mark.filterwarnings("ignore:Sparse .*beta state:UserWarning")
def test_compressed_sparse_tensors_too() -> None:
    dense = torch.tensor([[0.0, 2.0, 0.0], [-3.0, 0.0, 4.0]])
    for layout in (torch.sparse_csr, torch.sparse_csc):
        got = counted(dense.to_sparse(layout=layout))
        assert (got["size"], got["zeros"], got["sum"]) == (6, 3, 3.0)
        assert histogram(dense.to_sparse(layout=layout)) == reference(dense.flatten().tolist())


@pytest.mark.parametrize("axis", [LinearAxis(1, 2, 3), LinearAxis(-2, -1, 3), SignedLogAxis()], ids=str)
def test_implied_zeros_land_where_zeros_do(axis: LinearAxis | SignedLogAxis) -> None:
    sparse = torch.sparse_coo_tensor(torch.tensor([[1]]), torch.tensor([1.5]), (3,), check_invariants=True)
    rows = [Row.new(axis, torch.device("cpu")) for _ in range(2)]
    bin_into(sparse, axis, rows[0])
    bin_into(sparse.to_dense(), axis, rows[1])
    assert rows[0].counts.tolist() == rows[1].counts.tolist()
    assert rows[0].moments.tolist() == rows[1].moments.tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_tensors_are_dequantised() -> None:
    x = torch.quantize_per_tensor(torch.tensor([0.0, 1.0, -2.0]), scale=0.5, zero_point=10, dtype=torch.quint8)
    assert histogram(x) == reference([0, 1, -2])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_count_their_parts() -> None:
    parts = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0])]
    for layout in (torch.strided, torch.jagged):
        nested = torch.nested.nested_tensor(parts, layout=layout)
        assert histogram(nested) == reference([1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4)[:, ::2, 1:],
        torch.arange(24.0).reshape(2, 3, 4).transpose(0, 2),
        torch.arange(48.0).reshape(2, 3, 4, 2).to(memory_format=torch.channels_last),
        torch.tensor([3.0]).expand(5),
        torch.tensor(2.0),
        torch.empty(0, 3),
        torch.arange(6.0).requires_grad_(),
    ],
    ids=["strided", "transposed", "channels_last", "expanded", "0-dim", "empty", "requires_grad"],
)
def test_strides_and_shapes_do_not_matter(tensor: Tensor) -> None:
    assert histogram(tensor) == reference(tensor.detach().flatten().tolist())
    assert counted(tensor)["size"] == tensor.numel()


def test_dense_memory_is_read_without_a_copy() -> None:
    channels_last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for tensor in (channels_last, channels_last.permute(3, 1, 0, 2), torch.randn(4, 5).t()):
        flat = flatten(tensor)
        assert flat is not None
        assert flat[0].data_ptr() == tensor.data_ptr()


class Labelled(Tensor):
    """A subclass like fastai's TensorImage: an ordinary tensor with a type."""


def test_subclasses_count_as_plain_tensors() -> None:
    labelled = torch.tensor([1.0, 2.0]).as_subclass(Labelled)
    assert histogram(labelled) == reference([1, 2])


def test_what_has_no_values_is_refused_and_changes_nothing() -> None:
    row = Row.new(AXIS, torch.device("cpu"))
    before = row.counts.clone()
    assert not bin_into(torch.empty(3, device="meta"), AXIS, row)
    seen: list[bool] = []

    def inside(x: Tensor) -> Tensor:
        seen.append(bin_into(x, AXIS, row))
        return x * 2

    torch.vmap(inside)(torch.ones(3, 2))
    assert seen == [False]
    assert torch.equal(row.counts, before)


def test_fake_tensors_are_refused() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    row = Row.new(AXIS, torch.device("cpu"))
    with FakeTensorMode():
        fake = torch.ones(3)
    assert not bin_into(fake, AXIS, row)


def test_counting_works_across_inference_mode() -> None:
    with torch.inference_mode():
        row = Row.new(AXIS, torch.device("cpu"))
        bin_into(torch.ones(2), AXIS, row)
    bin_into(torch.ones(2, requires_grad=True), AXIS, row)
    assert row.counts[AXIS.bins + COUNTERS.index("size")] == 4
