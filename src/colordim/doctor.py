"""``colordim doctor``: what counts on this machine and why; and, on a GPU, whether it counts right and what it costs.

Nothing here is needed to record or to view.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.errors import ColordimError, DependencyError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Check", "NoGPUError", "check_counts", "check_recording", "cost", "examine", "examine_gpu", "tricky"]

AXES: tuple[Axis, ...] = (
    SignedLogAxis(),
    LinearAxis(-10, 10, 200),
    SignedLogAxis(8),
    LinearAxis(-7, -2, 50),
    LinearAxis(1e6, 1e6 + 1, 1000),
)
DTYPES = ("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")

Count = Callable[..., bool]


class NoGPUError(ColordimError, RuntimeError):
    """A GPU was to be examined where torch sees none."""


@dataclass(frozen=True)
class Check:
    """One line of a report."""

    what: str
    passed: bool | None
    """None for a figure, which is neither right nor wrong."""
    result: str

    def __str__(self) -> str:
        mark = {True: "ok    ", False: "FAILED", None: "      "}[self.passed]
        return f"{mark}  {self.what:<44} {self.result}"


def examine(gpu: bool, write: Callable[[str], Any]) -> int:
    """Write a report, line by line; return the exit code.

    Raises
    ------
    NoGPUError
        If a GPU was asked for and there is none.
    DependencyError
        If a GPU was asked for and torch is not installed.
    """
    if not gpu:
        for name, text in _machine():
            write(f"{name:<9} {text}")
        return 0
    _require_gpu()
    for name, text in _machine():
        write(f"{name:<9} {text}")
    write("")
    failed = 0
    for check in examine_gpu():
        write(str(check))
        failed += check.passed is False
    write("")
    write(
        f"{failed} checks failed: please send this report in, whole, as an issue."
        if failed
        else "All checks passed. Counting on GPUs is experimental until reports like this one are published: please send it in."
    )
    return 1 if failed else 0


def _require_gpu() -> None:
    try:
        import torch
    except ImportError:
        raise DependencyError(
            'a GPU is examined with PyTorch, which is not installed: pip install "colordim[torch]".',
            page="performance#gpu",
        ) from None
    if not torch.cuda.is_available():
        raise NoGPUError(
            f"there is no GPU to examine: torch {torch.__version__} sees no CUDA device here.", page="performance#gpu"
        )


def _machine() -> Iterator[tuple[str, str]]:
    yield "colordim", _version("colordim")
    yield "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "NumPy", np.__version__
    yield "pyarrow", _version("pyarrow")
    try:
        import torch
    except ImportError:
        yield "torch", 'not installed: runs can be viewed but not recorded; pip install "colordim[torch]"'
        return
    from colordim import binning
    from colordim.binning import device

    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} processors"
    yield "CPU", "counted by the {}: {}".format(*binning.backend())
    if not torch.cuda.is_available():
        yield "CUDA", "no device is seen"
        return
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        capability = f"{properties.major}.{properties.minor}"
        yield (
            "CUDA",
            f"device {number}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, capability {capability}",
        )
    yield "CUDA", "counted by {}: {}".format(*device.backend())
    yield "triton", _version("triton")


def _version(package: str) -> str:
    loaded = getattr(sys.modules.get(package), "__version__", None)
    try:
        return str(loaded or version(package))
    except PackageNotFoundError:
        return "not installed"


def examine_gpu() -> Iterator[Check]:
    """Yield what is found on the first CUDA device, in well under two minutes."""
    import torch

    gpu = torch.device("cuda")
    for name, count in backends():
        yield check_counts(f"counts, {name}", count, gpu)
        yield check_waiting(f"no waiting, {name}", count, gpu)
        for size in (10_000, 10_000_000):
            yield speed(f"speed, {name}, {size:,} float32", count, gpu, size)
    yield check_recording("a recorded training equals the CPU's", gpu)
    yield cost("training with and without recording", gpu)


def backends() -> Iterator[tuple[str, Count]]:
    """Yield what can count on a GPU here, by name."""
    from colordim.binning import device

    yield "torch operations", device.bin_by_operations
    try:
        from colordim.binning import triton
    except ImportError:
        return
    yield "Triton", triton.bin_into


def tricky(axis: Axis, n: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Return values of several scales, edges and their neighbours, subnormals, zeros, NaN and infinities."""
    import torch

    rng = np.random.default_rng(seed)
    some = rng.choice(axis.edges, size=256)
    pool = np.concatenate(
        [
            rng.normal(scale=4, size=256),
            rng.normal(scale=1e-9, size=32),
            some,
            np.nextafter(some, rng.choice([-np.inf, np.inf], size=256)),
            [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-46, -1e-46, 5e-324, -5e-324, 1e39, -1e39, 1e300],
            [2.0**24, -(2.0**24), 2.0**-40, 2.0**-41, 1e-40, -1e-40, 1.17549435e-38, 65504.0, 448.0, 1 - 1e-12],
        ]
    )
    return torch.from_numpy(rng.choice(pool, size=n)).to(dtype)


def check_counts(what: str, count: Count, device: torch.device, n: int = 100_003) -> Check:
    """Compare counts and moments on a device with those of the reference on the CPU."""
    import torch

    from colordim.binning import Row, reference

    wrong, tensors = [], 0
    try:
        for deterministic in (False, True):
            torch.use_deterministic_algorithms(deterministic)
            for axis in AXES:
                for name in DTYPES:
                    x = tricky(axis, n, getattr(torch, name), seed=tensors)
                    want, got = Row.new(axis, x.device), Row.new(axis, device)
                    reference.bin_into(x, axis, want)
                    count(x.to(device), axis, got)
                    tensors += 1
                    if not _equal(got, want, x):
                        wrong.append(f"{axis} of {name}{', deterministic' * deterministic}")
    except Exception as error:
        return _failed(what, error)
    finally:
        torch.use_deterministic_algorithms(False)
    return Check(what, not wrong, f"wrong for {'; '.join(wrong)}" if wrong else f"equal for {tensors} tensors")


def _failed(what: str, error: Exception) -> Check:
    return Check(what, False, " ".join(f"{type(error).__name__}: {error}".split()))


def _equal(got: Any, want: Any, x: Tensor) -> bool:
    values = x.double()
    values = values[values.isfinite()]
    if got.counts.tolist() != want.counts.tolist() or got.moments[2:].tolist() != want.moments[2:].tolist():
        return False
    for ours, theirs, scale in zip(
        got.moments.tolist(), want.moments.tolist(), (values.abs(), values**2), strict=False
    ):
        total = float(scale.sum())
        if math.isfinite(total) and abs(ours - theirs) > 2e-12 * total + 1e-300:
            return False
    return True


def check_waiting(what: str, count: Count, device: torch.device) -> Check:
    """Count while torch raises an error on whatever makes the host wait for the device."""
    import torch

    from colordim.binning import Row

    try:
        for axis in AXES[:2]:
            for name in DTYPES:
                x, row = tricky(axis, 10_000, getattr(torch, name)).to(device), Row.new(axis, device)
                count(x, axis, row)  # edges are brought to the device once
                with _raising_on_waits():
                    count(x, axis, row)
                    row.clear()
    except Exception as error:
        return _failed(what, error)
    return Check(what, True, "as far as torch notices")


@contextmanager
def _raising_on_waits() -> Iterator[None]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this is a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def speed(
    what: str,
    count: Count,
    device: torch.device,
    size: int,
    *,
    axis: Axis = AXES[0],
    dtype: str = "float32",
    rounds: int = 20,
) -> Check:
    """Measure counting against reading: the ratio to ``torch.sum`` of the same tensor, in turn; half of it is zeros."""
    import torch

    from colordim.binning import Row

    x, row = torch.randn(size, device=device).relu().to(getattr(torch, dtype)), Row.new(axis, device)
    try:
        count(x, axis, row)
        reading, counting = [], []
        for _ in range(rounds):
            reading.append(_seconds(x.sum, device))
            counting.append(_seconds(lambda: count(x, axis, row), device))
    except Exception as error:
        return _failed(what, error)
    seconds = statistics.median(counting)
    return Check(
        what,
        None,
        f"{1e6 * seconds:.0f} us, {1e9 * seconds / size:.3f} ns a value, {seconds / statistics.median(reading):.1f} x torch.sum",
    )


def _seconds(work: Callable[[], Any], device: torch.device) -> float:
    _finish(device)
    began = time.perf_counter()
    work()
    _finish(device)
    return time.perf_counter() - began


def _finish(device: torch.device) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _network(device: torch.device, width: int) -> Any:
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    ).to(device)  # fmt: skip


def check_recording(what: str, device: torch.device, batches: int = 50) -> Check:
    """Record the same tensors on the device and on the CPU, and compare every column and number."""
    import torch
    from torch import nn

    import colordim

    class Passes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.layer(x)
            return out

    try:
        runs = []
        with tempfile.TemporaryDirectory() as folder:
            for name, where in (("host", torch.device("cpu")), ("device", device)):
                model = Passes()
                with colordim.record(model, folder=Path(folder) / name) as recording:
                    for batch in range(batches):
                        x = tricky(AXES[0], 5000, torch.float32, seed=batch).to(where)
                        model(x)
                        recording.log(loss=x.nan_to_num(0, 0, 0).sign().sum())
                run = colordim.open(recording.path)
                runs.append((run.counts(0).tolist(), run.batches["loss"].tolist(), len(recording.notices)))
    except Exception as error:
        return _failed(what, error)
    equal = runs[0] == runs[1] and len(runs[0][1]) == batches
    return Check(what, equal, f"{batches} batches" if equal else "columns, numbers or notices differ")


def cost(what: str, device: torch.device, *, width: int = 64, size: int = 128, rounds: int = 12) -> Check:
    """Train a convolutional network with and without recording, in turn; and compare time and memory."""
    import torch

    import colordim

    model = _network(device, width)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x = torch.randn(size, 3, 32, 32, device=device)
    y = torch.randint(0, 10, (size,), device=device)

    def train(recording: Any = None, batches: int = 10) -> None:
        for _ in range(batches):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
            if recording is not None:
                recording.log(loss=loss)

    times: dict[bool, list[float]] = {False: [], True: []}
    peaks: dict[bool, int] = {False: 0, True: 0}
    with tempfile.TemporaryDirectory() as folder:
        train()
        for turn in range(2 * rounds):
            on = turn % 2 == 1
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            if on:
                with colordim.record(model, folder=Path(folder) / str(turn)) as recording:
                    train(recording, 2)  # rows are made
                    times[on].append(_seconds(lambda: train(recording), device))
            else:
                train(None, 2)
                times[on].append(_seconds(train, device))
            if device.type == "cuda":
                peaks[on] = max(peaks[on], torch.cuda.max_memory_allocated(device))
    ratio = statistics.median(recorded / plain for plain, recorded in zip(times[False], times[True], strict=True))
    step = 1e3 * statistics.median(times[False]) / 10
    memory = f", {(peaks[True] - peaks[False]) / 2**20:+.0f} MiB at the peak" if device.type == "cuda" else ""
    return Check(what, None, f"{ratio:.2f} x of {step:.2f} ms a step, {len(model)} layers{memory}")
