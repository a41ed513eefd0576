"""What counting costs on the CPU, as ratios to a streaming read of the same array with as many threads.

Run ``python benchmarks/kernel.py`` (``--quick`` for one size). All candidates of a size take turns within one process,
and each is divided by the read of the same turn, so that whatever else the machine does falls on both alike. Shown is
the median of these ratios, with the quartiles.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from colordim.axis import LinearAxis, SignedLogAxis
from colordim.binning import Row, backend, reference
from colordim.binning.kernel import Kernel
from colordim.binning.units import mark_by_operations

AXES: dict[str, SignedLogAxis | LinearAxis] = {"log": SignedLogAxis(), "linear": LinearAxis(-10, 10, 200)}
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}
KINDS = ("Gaussian", "ReLU")
SECONDS = 5.0

Work = Callable[[], object]

#: Candidates that take many times as long take the first turns only.
SLOW_TURNS = 3
SLOW = {"numpy.histogram", "boost-histogram", "histc + moments", "reference, log", "reference, linear"}


def counting(backend: Callable[[Tensor, SignedLogAxis | LinearAxis, Row], bool], axis: str, x: Tensor) -> Work:
    """Return the counting of a tensor by a backend, over and over into one row."""
    row = Row.new(AXES[axis], x.device)
    return lambda: backend(x, AXES[axis], row)


def histc_and_moments(x: Tensor) -> object:
    """Count and compute what a column holds, each by an operation of torch."""
    return (
        torch.histc(x, bins=200, min=-10, max=10),
        x.mean(),
        x.std(),
        x.min(),
        x.max(),
        x.isnan().sum(),
        x.isinf().sum(),
        (x == 0).sum(),
    )


def candidates(n: int, kernel: Kernel, threads: int) -> dict[str, Work]:
    """Return by name what is timed; a read is named as the counting that it is the measure of."""
    normal = torch.randn(n, generator=torch.Generator().manual_seed(0)) * 4
    chosen: dict[str, Work] = {}
    for name, dtype in DTYPES.items():
        for kind in KINDS:
            x = (normal.relu() if kind == "ReLU" else normal).to(dtype)
            # Torch sums halves slower than it reads them: their memory is read as float32.
            chosen[f"read, {name}, {kind}"] = x.sum if dtype == torch.float64 else x.view(torch.float32).sum
            for axis in AXES:
                chosen[f"{axis}, {name}, {kind}"] = counting(kernel.bin_into, axis, x)
    values = normal.numpy()
    chosen["torch.histc"] = lambda: torch.histc(normal, bins=200, min=-10, max=10)
    chosen["histc + moments"] = lambda: histc_and_moments(normal)
    chosen["numpy.histogram"] = lambda: np.histogram(values, bins=200, range=(-10, 10))
    if fill := boost(normal, threads):
        chosen["boost-histogram"] = fill
    for axis in AXES:
        chosen[f"reference, {axis}"] = counting(reference.bin_into, axis, normal)
    return chosen


def boost(x: Tensor, threads: int) -> Work | None:
    """Return a fill of a boost-histogram, or None where that is not installed."""
    try:
        boost_histogram: Any = importlib.import_module("boost_histogram")
    except ImportError:
        return None
    histogram = boost_histogram.Histogram(boost_histogram.axis.Regular(200, -10, 10))
    values = x.numpy()
    return lambda: histogram.fill(values, threads=threads)


def measure(chosen: dict[str, Work], seconds: float) -> dict[str, list[float]]:
    """Time the candidates in turns, at least four; NaN where one sat a turn out."""
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for work in chosen.values():
        work()
    end = time.perf_counter() + seconds
    for turn in itertools.count():
        if turn >= 4 and time.perf_counter() > end:
            break
        for name, work in chosen.items():
            if name in SLOW and turn >= SLOW_TURNS:
                times[name].append(float("nan"))
                continue
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    return times


def ratios(times: dict[str, list[float]], name: str, other: str) -> list[float]:
    """Return median and quartiles of the ratios of two candidates, turn by turn."""
    low, median, high = np.nanquantile(np.divide(times[name], times[other]), [0.25, 0.5, 0.75])
    return [float(median), float(low), float(high)]


def shown(quantiles: list[float]) -> str:
    """Write median and quartiles."""
    median, low, high = quantiles
    digits = 0 if median >= 20 else 1
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one size, for a look in passing")
    quick = parser.parse_args().quick
    console = Console(width=150)
    kernel = Kernel()
    sizes = [10**6] if quick else [10**4, 10**5, 10**6, 10**7]
    console.print(f"{backend()[0]}: {backend()[1]}")
    measured: dict[tuple[int, int], dict[str, list[float]]] = {}
    for n, threads in itertools.product(sizes, (1, 2)):
        torch.set_num_threads(threads)
        measured[n, threads] = measure(candidates(n, kernel, threads), SECONDS)
    table = Table(title="times a streaming read of the same array: median (quartiles)")
    columns = [f"{n:.0e}, {threads} thr." for n, threads in measured]
    for title in ("what", *columns):
        table.add_column(title, justify="right")
    nanoseconds = [f"{np.median(t['read, float32, Gaussian']) / n * 1e9:.2f}" for (n, _), t in measured.items()]
    table.add_row("read float32, ns a value", *nanoseconds, end_section=True)
    for name in next(iter(measured.values())):
        if not name.startswith("read"):
            read = "read" + name[name.index(",") :] if name.endswith(KINDS) else "read, float32, Gaussian"
            table.add_row(name, *(shown(ratios(times, name, read)) for times in measured.values()))
    console.print(table)
    if not quick:
        show_units(console, kernel)
    show_targets(console, [measured[sizes[-1], threads] for threads in (1, 2)], sizes[-1])


def marking(mark: Callable[[Tensor, int, Tensor], bool], x: Tensor) -> Work:
    """Return the search for the active units of a tensor, beginning with none."""
    active = torch.zeros(x.shape[1], dtype=torch.bool)
    return lambda: (active.zero_(), mark(x, 1, active))


def show_units(console: Console, kernel: Kernel) -> None:
    """Show what it costs to see which units are active, on one thread."""
    torch.set_num_threads(1)
    table = Table(title="active units, float32, 1 thread: ns a value, median (quartiles)")
    for title in ("shape", "dead units", "kernel", "torch", "read"):
        table.add_column(title, justify="right")
    for shape, dead in itertools.product(((64, 64, 32, 32), (2048, 1024)), (0.0, 0.3, 1.0)):
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(shape, generator=generator).relu()
        x[:, torch.rand(shape[1], generator=generator) < dead] = 0
        ways: dict[str, Work] = {
            "kernel": marking(kernel.mark_active, x),
            "torch": marking(mark_by_operations, x),
            "read": x.sum,
        }
        times = measure(ways, 1.0)
        nanoseconds = (np.quantile(times[way], [0.5, 0.25, 0.75]) / x.numel() * 1e9 for way in ways)
        cells = (f"{median:.3f} ({low:.3f}-{high:.3f})" for median, low, high in nanoseconds)
        table.add_row(str(list(shape)), f"{dead:.0%}", *cells)
    console.print(table)


def show_targets(console: Console, both: list[dict[str, list[float]]], n: int) -> None:
    """Compare what was promised with what was measured at the largest size."""
    table = Table(title=f"targets, {n:.0e} values")
    for title in ("ratio", "target", "1 thread", "2 threads"):
        table.add_column(title, justify="right")

    def add(target: str, name: str, other: str) -> None:
        table.add_row(f"{name} / {other}", target, *(shown(ratios(times, name, other)) for times in both))

    add("<= 4", "log, float32, Gaussian", "read, float32, Gaussian")
    add("<= 6", "linear, float32, Gaussian", "read, float32, Gaussian")
    for axis in AXES:
        add("<= 1.3", f"{axis}, float32, ReLU", f"{axis}, float32, Gaussian")
        add("<= 1", f"{axis}, bfloat16, Gaussian", f"{axis}, float32, Gaussian")
        add("<= 1", f"{axis}, float16, Gaussian", f"{axis}, float32, Gaussian")
        add(">= 8", "histc + moments", f"{axis}, float32, Gaussian")
    console.print(table)


if __name__ == "__main__":
    main()
