"""The compiled kernel equals the reference, bin by bin, at every processor level and with every number of threads."""

import copy
import ctypes
import itertools
import math
import os
import pickle
import subprocess
import sys
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

import colordim.binning
from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.binning import Row, reference
from colordim.binning import kernel as kernel_module
from colordim.binning.kernel import LEVELS, Kernel, KernelError
from colordim.column import COUNTERS

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BLOCK = 2048
SIZES = [1, 2, 64, 65, 66, 127, 1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 17, 40_003]
LINEAR = LinearAxis(-10, 10, 200)
LOG = SignedLogAxis()
AXES = [
    *map(SignedLogAxis, range(9)),
    LINEAR,
    LinearAxis(0, 1, 1),
    LinearAxis(0.1, 0.7, 13),
    LinearAxis(-7, -2, 50),
    LinearAxis(0, 6, 60_000),
    LinearAxis(0, 1, 70_000),  # more bins than most tensors have values
    LinearAxis(0, 1, 1_100_000),  # too many for tables
    LinearAxis(1e6, 1e6 + 1, 1000),  # bins narrower than float32 tells apart
    LinearAxis(-1e300, 1e300, 10),
    LinearAxis(-3e38, 3e38, 100),
    LinearAxis(0, 1e-310, 5),
    LinearAxis(-1e-42, 1e-42, 7),
]


@pytest.fixture(autouse=True, scope="module")
def chosen_backend() -> str:
    """These tests name their backends themselves: they run once."""
    return "both"


@pytest.fixture(scope="module")
def kernels(library: Path) -> list[Kernel]:
    best = Kernel(library).level
    return [Kernel(library, level, threads) for level in range(best + 1) for threads in (1, 2)]


def values_for(axis: Axis, n: int, rng: np.random.Generator, dtype: torch.dtype) -> Tensor:
    """Draw values of several scales, with edges, neighbours of edges, specials, subnormals and zeros strewn in."""
    some = rng.choice(axis.edges, size=64)
    with np.errstate(over="ignore"):
        some32 = some.astype(np.float32)
    span = float(axis.edges[-1]) / 2 - float(axis.edges[0]) / 2
    pool = np.concatenate(
        [
            rng.normal(scale=10.0 ** rng.uniform(-14, 9), size=40),
            rng.normal(scale=4, size=40),
            float(axis.edges[0]) + 2 * span * rng.uniform(-0.1, 1.1, size=40),
            some,
            np.nextafter(some, rng.choice([-np.inf, np.inf], size=64)),
            np.nextafter(some32, np.float32(rng.choice([-np.inf, np.inf]))).astype(np.float64),
            [0.0, -0.0, 1e-46, -1e-46, 5e-324, 1e39, -1e39, 1e300, 2.0**24, -(2.0**24), 2.0**-40, 2.0**-41],
            [1e-40, -1e-40, 1.17549435e-38, 65504.0, 6e-8, -6e-8, 1 - 1e-12, *axis.edges[[0, -1]]],
        ]
    )
    x = rng.choice(pool, size=n)
    x[rng.random(n) < 0.2] = 0.0
    if rng.random() < 0.5:  # about one in a block, and so whole blocks without
        x = np.where(rng.random(n) < 0.0004, rng.choice([np.nan, -np.nan, np.inf, -np.inf], size=n), x)
    return torch.from_numpy(x).to(dtype)


def check(kernel: Kernel, tensor: Tensor, axis: Axis) -> None:
    got, want = Row.new(axis, tensor.device), Row.new(axis, tensor.device)
    assert kernel.bin_into(tensor, axis, got)
    assert reference.bin_into(tensor.contiguous(), axis, want)
    np.testing.assert_array_equal(got.counts.numpy(), want.counts.numpy())
    assert got.moments[2:].tolist() == want.moments[2:].tolist()
    values = tensor.detach().to(torch.float64).numpy()
    finite = values[np.isfinite(values)]
    with np.errstate(over="ignore"):
        for moment, terms in zip(got.moments.tolist(), (finite, finite**2), strict=False):
            total = np.abs(terms).sum()
            if math.isfinite(total):
                assert moment == pytest.approx(math.fsum(terms), rel=0, abs=1e-12 * total + 1e-300)
            else:
                assert moment == math.inf


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_equals_the_reference_on_tricky_values(kernels: list[Kernel], axis: Axis) -> None:
    rng = np.random.default_rng(3)
    for dtype in DTYPES:
        for n in SIZES:
            x = values_for(axis, n, rng, dtype)
            for kernel in kernels:
                check(kernel, x, axis)


@settings(max_examples=200, deadline=None)
@given(
    values=hnp.arrays(
        np.float64, st.integers(60, 300), elements=st.floats(width=64, max_value=1e290, min_value=-1e290)
    ),
    lo=st.floats(-1e6, 1e6),
    width=st.floats(1e-3, 1e6),
    bins=st.integers(1, 300),
    data=st.data(),
)
def test_equals_the_reference_on_any_values_and_axis(
    library: Path, values: npt.NDArray[np.float64], lo: float, width: float, bins: int, data: st.DataObject
) -> None:
    kernel = Kernel(library)
    linear = LinearAxis(lo, lo + width, bins)
    edges = data.draw(st.lists(st.sampled_from(list(linear.edges)), max_size=30))
    x = torch.from_numpy(np.concatenate([values, edges]))
    for dtype in DTYPES:
        check(kernel, x.to(dtype), linear)
        check(kernel, x.to(dtype), SignedLogAxis(data.draw(st.integers(0, 8))))


@pytest.mark.parametrize("axis", [LINEAR, LOG], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_number_of_16_bits(kernels: list[Kernel], axis: Axis, dtype: torch.dtype) -> None:
    half = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    for numbers in (half.view(torch.float16), half.view(torch.bfloat16)):
        for kernel in kernels:
            check(kernel, numbers.to(dtype), axis)


@pytest.mark.parametrize("axis", [LINEAR, LOG, LinearAxis(1, 2, 3)], ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.5, 1e30, -1e30, 1e-40])
def test_one_value_over_and_over(kernels: list[Kernel], axis: Axis, value: float) -> None:
    for dtype in DTYPES:
        x = torch.full((5 * BLOCK + 3,), value, dtype=torch.float64).to(dtype)
        mixed = x.clone()
        mixed[BLOCK : 3 * BLOCK] = torch.linspace(-11, 11, 2 * BLOCK).to(dtype)
        for kernel in kernels:
            check(kernel, x, axis)
            check(kernel, mixed, axis)


def strided() -> dict[str, Callable[[Tensor], Tensor]]:
    return {
        "every third": lambda x: x[::3],
        "rows of a slice": lambda x: x.reshape(60, 800)[:, 17:400],
        "long rows of a slice": lambda x: x.reshape(6, 8000)[:, 17:7000],
        "runs one short of a block": lambda x: x.reshape(20, 2400)[:, :2047],
        "slice of images": lambda x: x.reshape(4, 10, 30, 40)[:, 2:7, ::2, 3:],
        "transposed slice": lambda x: x.reshape(60, 800)[3:50, 5:].t(),
        "channels last": lambda x: x.reshape(4, 10, 30, 40).to(memory_format=torch.channels_last),
        "slice of channels last": lambda x: x.reshape(4, 10, 30, 40).to(memory_format=torch.channels_last)[:, 3:],
        "expanded": lambda x: x[:500].reshape(1, 500, 1).expand(3, 500, 7),
        "expanded scalar": lambda x: x[5].expand(9000),
        "overlapping": lambda x: x.as_strided((300, 200), (1, 1)),
        "column": lambda x: x.reshape(4800, 10)[:, :1],
        "many dimensions": lambda x: x[: 3 * 2**13].reshape(3, *[2] * 13)[:, 0, :, 1],
        "nothing": lambda x: x.reshape(60, 800)[:, 17:17],
        "storage offset": lambda x: x[1:],
    }


@pytest.mark.parametrize("view", strided().values(), ids=strided().keys())
@pytest.mark.parametrize("axis", [LINEAR, LOG], ids=str)
def test_strides_are_followed_without_a_copy(
    kernels: list[Kernel], axis: Axis, view: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    for dtype in DTYPES:
        x = view(values_for(axis, 48_000, rng, dtype))
        for kernel in kernels:
            check(kernel, x, axis)
    monkeypatch.setattr(kernel_module, "flatten", None)
    monkeypatch.setattr(reference, "bin_into", None)
    assert kernels[-1].bin_into(x, axis, Row.new(axis, x.device))


def test_threads_share_a_tensor_that_large_ones_are_split_between(library: Path) -> None:
    x = torch.randn(1_000_001, generator=torch.Generator().manual_seed(2))
    for threads in (1, 2, 3, 7, 200):
        check(Kernel(library, threads=threads), x, LOG)
        check(Kernel(library, threads=threads), x[::2], LINEAR)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_millions_of_every_dtype(kernels: list[Kernel], dtype: torch.dtype) -> None:
    x = torch.randn(3_000_001, generator=torch.Generator().manual_seed(6)).to(dtype)
    for kernel in kernels:
        check(kernel, x, LOG)
        check(kernel, x.relu(), LINEAR)


def test_more_than_32_bits_of_elements(library: Path) -> None:
    n = 2**32 + 5
    row = Row.new(LOG, torch.device("cpu"))
    assert Kernel(library).bin_into(torch.tensor([1.0], dtype=torch.bfloat16).expand(n), LOG, row)
    assert int(row.counts[833]) == n
    assert int(row.counts[LOG.bins + COUNTERS.index("size")]) == n
    assert row.moments.tolist() == [n, n, 1.0, 1.0]


def test_tables_are_emptied_before_a_counter_overflows(compile_kernel: Callable[..., Path]) -> None:
    # Counters of 16 bits, emptied as late as they may be: one of 65,536 would wrap.
    library = compile_kernel("-DTABLE_COUNTER=uint16_t", "-DROUND_ELEMENTS=63488")
    for value, dtype, threads in itertools.product((1.0, 20.0, -20.0, 0.0), (torch.float32, torch.float16), (1, 2)):
        check(Kernel(library, threads=threads), torch.full((1_200_000,), value, dtype=dtype), LINEAR)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_moments_keep_float64_precision_over_many_blocks(kernels: list[Kernel], dtype: torch.dtype) -> None:
    x = torch.full((3_000_000,), 0.1, dtype=dtype)
    offset = (torch.randn(500_000, generator=torch.Generator().manual_seed(1)) + 1e4).to(dtype)
    for kernel in kernels:
        check(kernel, x, LOG)
        check(kernel, offset, LOG)


def test_rounding_errors_of_many_blocks_do_not_pile_up(library: Path) -> None:
    n = 200_000_000
    row = Row.new(LOG, torch.device("cpu"))
    Kernel(library, threads=1).bin_into(torch.tensor([0.1], dtype=torch.float64).expand(n), LOG, row)
    for moment, exact in zip(row.moments.tolist(), (0.1 * n, 0.1**2 * n), strict=False):
        assert moment == pytest.approx(exact, rel=1e-13)  # without the carry it is 2e-12


@pytest.mark.parametrize("axis", [LOG, LinearAxis(0, 1, 4), LinearAxis(-1e-42, 1e-42, 7)], ids=str)
def test_subnormals_count_as_themselves_when_the_processor_flushes_them(kernels: list[Kernel], axis: Axis) -> None:
    for dtype in DTYPES:
        x = torch.tensor([1e-45, -1e-45, 1e-40, 6e-8, 0.0, -0.0, 5e-324, -5e-324]).to(dtype).repeat(300)
        for kernel in kernels:
            plain, flushing = Row.new(axis, x.device), Row.new(axis, x.device)
            kernel.bin_into(x, axis, plain)
            if not torch.set_flush_denormal(True):  # not available on every processor
                return
            try:
                kernel.bin_into(x, axis, flushing)
                still_set = float(torch.tensor(1e-40) * 1.0) == 0.0
            finally:
                torch.set_flush_denormal(False)
            assert still_set
            assert torch.equal(plain.counts, flushing.counts)
            assert torch.equal(plain.moments, flushing.moments)
            check(kernel, x, axis)


class Labelled(Tensor):
    """A subclass like fastai's TensorImage: an ordinary tensor with a type."""


def test_what_stands_for_other_values_is_read_as_those(library: Path) -> None:
    kernel = Kernel(library)
    x = torch.randn(100, generator=torch.Generator().manual_seed(4))
    check(kernel, torch.nn.Parameter(x), LOG)
    check(kernel, x.requires_grad_(), LOG)
    for negative in (torch.complex(x.detach(), x.detach()).conj().imag, torch._neg_view(x.detach() + 1)):
        assert negative.is_neg()
        check(kernel, negative, LOG)
    got, want = Row.new(LOG, x.device), Row.new(LOG, x.device)
    kernel.bin_into(x.detach().as_subclass(Labelled), LOG, got)
    kernel.bin_into(torch._efficientzerotensor(3), LOG, got)
    reference.bin_into(torch.cat([x.detach(), torch.zeros(3)]), LOG, want)
    assert torch.equal(got.counts, want.counts)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:Sparse CSR")
def test_tensors_without_memory_of_their_own_are_counted_like_the_reference_does(library: Path) -> None:
    kernel = Kernel(library)
    x = torch.randn(100, 7, generator=torch.Generator().manual_seed(4)).relu()
    nested = torch.nested.nested_tensor([x, x[:50]])
    for tensor in (x.to_sparse(), x.to_sparse_csr(), nested, nested.transpose(1, 2), torch.empty(0), x[:, :0]):
        got, want = Row.new(LOG, x.device), Row.new(LOG, x.device)
        assert kernel.bin_into(tensor, LOG, got)
        assert reference.bin_into(tensor, LOG, want)
        assert torch.equal(got.counts, want.counts)
    row = Row.new(LOG, x.device)
    for transform in (torch.func.vmap, torch.func.grad, torch.func.functionalize):
        transform(lambda y: y.sum() + kernel.bin_into(y, LOG, row))(x)
    assert not kernel.bin_into(x.to("meta"), LOG, row)
    assert not row.counts.any()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda row: pickle.loads(pickle.dumps(row))])
def test_a_copy_of_a_row_has_counters_of_its_own(library: Path, copied: Callable[[Row], Row]) -> None:
    kernel, row = Kernel(library), Row.new(LOG, torch.device("cpu"))
    kernel.bin_into(torch.ones(3), LOG, row)
    row.peek()
    other = copied(row)
    for _ in range(2):
        kernel.bin_into(torch.ones(100), LOG, other)
    assert int(row.counts[833]) == int(row.peek()[0][833]) == 3
    assert int(other.counts[833]) == int(other.peek()[0][833]) == 203


def test_a_row_serves_several_kernels_and_axes(kernels: list[Kernel]) -> None:
    row = Row.new(LOG, torch.device("cpu"))
    for kernel in kernels:
        for _ in range(2):
            kernel.bin_into(torch.ones(100, dtype=torch.bfloat16), SignedLogAxis(), row)
        assert row.target.kernel is kernel
    assert int(row.counts[833]) == 200 * len(kernels)
    row = Row.new(LINEAR, torch.device("cpu"))
    for hi in (2, 4):
        kernels[0].bin_into(torch.ones(100), LinearAxis(0, hi, 200), row)
    assert row.counts[[50, 100]].tolist() == [100, 100]


def test_a_compiler_without_vectors_builds_a_kernel_that_counts_the_same(compile_kernel: Callable[..., Path]) -> None:
    kernel = Kernel(compile_kernel("-DPLAIN_C"))
    assert kernel.name == "kernel, baseline"
    for axis, dtype in itertools.product((LOG, LINEAR), DTYPES):
        check(kernel, values_for(axis, 3000, np.random.default_rng(2), dtype), axis)
    assert kernel.mark_active(torch.ones(3, 4), 1, torch.zeros(4, dtype=torch.bool))


def test_an_axis_that_was_freed_is_not_mistaken_for_its_successor(library: Path) -> None:
    kernel = Kernel(library)
    for bins in range(1, 600):  # the same address again and again, and more axes than are remembered
        check(kernel, torch.linspace(-1, 1, 5), LinearAxis(-1, 1, bins))


def test_an_unknown_axis_is_refused(library: Path) -> None:
    with pytest.raises(TypeError, match="no way to count"):
        Kernel(library).bin_into(torch.ones(2), object(), Row.new(LOG, torch.device("cpu")))  # type: ignore[arg-type]


def test_a_missing_kernel_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = tmp_path / "note.txt"
    monkeypatch.setattr(kernel_module, "BUILD_NOTE", note)
    with pytest.raises(KernelError, match=r"missing: colordim runs from a source tree"):
        Kernel(tmp_path / "none.so")
    note.write_text("no C compiler was found when colordim was installed\n")
    with pytest.raises(KernelError, match=r"missing: no C compiler was found when colordim was installed\.\n"):
        Kernel(tmp_path / "none.so")
    (tmp_path / "broken.so").write_bytes(b"no library")
    with pytest.raises(KernelError, match="could not be loaded"):
        Kernel(tmp_path / "broken.so")


def test_a_kernel_of_another_version_is_refused(compile_kernel: Callable[..., Path]) -> None:
    with pytest.raises(KernelError, match="another version"):
        Kernel(compile_kernel("-DINTERFACE=99"))


def test_levels_are_named_and_bounded(library: Path) -> None:
    assert Kernel(library, 0).name == "kernel, baseline"
    assert Kernel(library).name.removeprefix("kernel, ") in LEVELS
    with pytest.raises(KernelError, match="no level 3"):
        Kernel(library, 3)


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(colordim.binning.__file__).parents[2])
    variables = {**os.environ, "PYTHONPATH": source, **environment}
    return subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)


def test_the_environment_forces_a_backend(tmp_path: Path) -> None:
    shown = python("import colordim.binning as b; print(b.backend())", COLORDIM_BACKEND="reference")
    assert shown.stdout.startswith("('reference', 'asked for")
    refused = python("import colordim.binning", COLORDIM_BACKEND="fast")
    assert "there is no backend 'fast'" in refused.stderr
    hidden = f"import pathlib, colordim.binning.kernel as k; k.Kernel.__init__.__defaults__ = (pathlib.Path({str(tmp_path)!r}, 'x'), None, None)"
    forced = python(f"{hidden}; import colordim.binning as b; b.use_backend('kernel')")
    assert "KernelError: the backend kernel was asked for, but the compiled kernel is missing" in forced.stderr
    fallen_back = python(f"{hidden}; import colordim.binning as b; b.use_backend(); print(b.backend())")
    assert fallen_back.stdout.startswith("('reference', 'the compiled kernel is missing")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the memory map of Linux")
def test_threads_come_from_the_one_openmp_library_that_torch_uses(library: Path) -> None:
    code = f"""
import pathlib, torch
from colordim.axis import SignedLogAxis
from colordim.binning import Row
from colordim.binning.kernel import Kernel
kernel = Kernel(pathlib.Path({str(library)!r}), threads=2)
torch.set_num_threads(2)
torch.randn(10**6).exp_()
tasks = pathlib.Path("/proc/self/task")
before = len(list(tasks.iterdir()))
kernel.bin_into(torch.randn(10**6), SignedLogAxis(), Row.new(SignedLogAxis(), torch.device("cpu")))
print(kernel.note)
print(len(list(tasks.iterdir())) - before)
print(*sorted({{line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line or "libomp" in line}}))
"""
    shown = python(code)
    note, new_threads, libraries = shown.stdout.splitlines()
    assert "torch's threads" in note
    assert new_threads == "0"
    assert len(libraries.split()) == 1
    assert ctypes.CDLL(str(library)).colordim_interface() == 2
