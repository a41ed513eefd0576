"""What writing costs: bytes and processor time a column, by the columns of real trainings.

Each network is trained for some batches while it is recorded; then its columns are written again, by the writer that
recordings use, with a few milliseconds of torch between two batches, so that caches are as cold and the interpreter as
busy as in a training. What trains too slowly for a whole segment is drawn anew, value by value, from the columns that
there are. Processor time is that of the thread that spent it.

    python benchmarks/store.py [--quick]
"""

from __future__ import annotations

import argparse
import functools
import importlib
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import colordim
from colordim.column import COUNTERS, MOMENTS, Batch, Stream
from colordim.demo.network import lesson_network
from colordim.store.base import Block
from colordim.store.disk import Disk
from colordim.store.folder import FolderReader
from colordim.store.writer import FolderWriter

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """What was recorded: a row of integers and one of moments for each batch."""

    streams: list[Stream]
    rows: IntArray
    moments: npt.NDArray[np.float64]

    def batch(self, number: int, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Return a recorded batch; behind the last one, one of the same sizes that is drawn from an earlier one."""
        rows, moments = self.rows[number % len(self.rows)], self.moments[number % len(self.rows)]
        if number < len(self.rows):
            return rows, moments
        rows, begin = rows.copy(), 0
        for stream in self.streams:
            bins = rows[begin : begin + stream.axis.bins]
            bins[bins > 0] = rng.multinomial(bins.sum(), bins[bins > 0] / bins.sum())
            begin += stream.width
        return rows, moments * rng.normal(1, 1e-6, moments.shape)


@dataclass(frozen=True)
class Costs:
    """What writing some columns took."""

    columns: int
    batches: int
    nbytes: int
    levels: int
    append: float
    tail: float
    sealing: float
    thread: float
    stall: float


@functools.cache
def load() -> Any:
    """Return the digits of the demo."""
    return importlib.import_module("colordim.demo.data").load_digits()


def digits(size: int, batch: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of real digits, as large as asked for."""
    images = load()
    while True:
        chosen = torch.randint(len(images.train_images), (batch,))
        x = images.train_images[chosen]
        yield (
            x if size == 28 else nn.functional.interpolate(x, (size, size)).expand(-1, 3, -1, -1).contiguous(),
            (images.train_labels[chosen]),
        )


def record(model: nn.Module, size: int, seconds: float, batches: int, **options: Any) -> Columns:
    """Train for so many batches or seconds, and return the columns."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    until = time.perf_counter() + seconds
    with (
        tempfile.TemporaryDirectory() as folder,
        colordim.record(model, folder=Path(folder) / "run", **options) as recording,
    ):
        for number, (x, y) in enumerate(digits(size)):
            if number == batches or (number > 3 and time.perf_counter() > until):
                break
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        recording.stop()
        reader = FolderReader(recording.path)
        blocks = [Block.concatenate(list(reader.blocks(s, "train", 0, number)), s.axis.bins) for s in reader.streams]
    rows = np.concatenate([array for block in blocks for array in (block.counts, block.counters)], axis=1)
    return Columns(list(reader.streams), rows, np.stack([block.moments for block in blocks], axis=1))


def resnet18(seconds: float) -> Columns:
    """Return what a resnet18 gives on 64 images of 64 x 64."""
    return record(importlib.import_module("torchvision.models").resnet18(num_classes=10), 64, seconds, 290)


#: By name: what gives the columns within some seconds, these seconds, and how many batches are written.
NETWORKS: dict[str, tuple[Callable[[float], Columns], float, int]] = {
    "lesson network": (lambda seconds: record(lesson_network(), 28, seconds, 1024), 8, 1024),
    "resnet18": (resnet18, 5, 1000),
    "linear": (lambda seconds: record(lesson_network(), 28, seconds, 768, range=(-10, 10)), 5, 768),
}


def write(columns: Columns, batches: int, pause: Callable[[], object]) -> Costs:
    """Write so many batches, and return what that took."""
    spent = {"append": 0.0, "seal": 0.0}

    class TimedDisk(Disk):
        def append(self, *args: Any) -> None:
            began = time.thread_time()
            super().append(*args)
            spent["append"] += time.thread_time() - began

        def seal(self, *args: Any) -> None:
            began, tail = time.thread_time(), spent["append"]
            super().seal(*args)
            spent["seal"] += time.thread_time() - began - (spent["append"] - tail)

    rng = np.random.default_rng(0)
    own, longest = 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        with mock.patch("colordim.store.writer.Disk", TimedDisk):
            writer = FolderWriter(Path(folder) / "run", {})
        for stream in columns.streams:
            writer.declare(stream)
        for number in range(batches):
            rows, moments = columns.batch(number, rng)
            pause()
            batch = Batch(number, number, "train", 0, number, time.time(), True, {"loss": 1.0 / (1 + number)})
            began, wall = time.thread_time(), time.perf_counter()
            writer.append(batch, columns.streams, rows, moments)
            longest = max(longest, time.perf_counter() - wall)
            own += time.thread_time() - began
        writer.close("stopped")
        sizes = {file: file.stat().st_size for file in Path(folder).rglob("*.parquet")}
        levels = sum(size for file, size in sizes.items() if "-" in file.name)
        nbytes = sum(sizes.values()) - levels
    return Costs(
        len(columns.streams) * batches,
        batches,
        nbytes,
        levels,
        own,
        spent["append"],
        spent["seal"],
        writer.seconds,
        longest,
    )


def tensorboard(columns: Columns, batches: int) -> str:
    """Return the bytes a column of TensorBoard's event file, for the same counts in the same buckets."""
    try:
        board = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        return "not installed"
    with tempfile.TemporaryDirectory() as folder:
        writer = board(folder)
        for number in range(batches):
            begin = 0
            for stream, (total, squares, low, high) in zip(columns.streams, columns.moments[number], strict=True):
                counts = columns.rows[number, begin : begin + stream.axis.bins]
                begin += stream.width
                occupied = np.flatnonzero(counts)
                writer.add_histogram_raw(
                    stream.name,
                    *(low, high, int(counts.sum()), total, squares),
                    stream.axis.edges[occupied + 1].tolist(),
                    counts[occupied].tolist(),
                    number,
                )
        writer.close()
        nbytes = sum(file.stat().st_size for file in Path(folder).iterdir())
    return f"{nbytes / batches / len(columns.streams):,.0f}"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a quarter of the batches, and noisier")
    options = parser.parse_args()
    share = 0.25 if options.quick else 1.0
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # those of other packages
    step = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
    x = torch.randn(16, 8, 28, 28)
    pause = functools.partial(lambda: step(x).sum().backward())
    console = Console()
    load()
    table = Table(title="What writing costs: real columns, moments included")
    table.add_column("")
    cells: dict[str, list[str]] = {}
    for name, (make, seconds, batches) in NETWORKS.items():
        with console.status(name):
            try:
                columns = make(seconds * share)
            except ImportError as error:
                console.print(f"{name}: {error.name} is not installed")
                continue
            costs = write(columns, int(batches * share), pause)
            raw = 8 * (columns.rows.shape[1] / len(columns.streams) + len(MOMENTS))
            board = tensorboard(columns, min(len(columns.rows), 20))
        table.add_column(name, justify="right")
        for row, cell in {
            "streams; bins": f"{len(columns.streams)}; {columns.streams[0].width - len(COUNTERS):,}",
            "batches written (recorded)": f"{costs.batches:,} ({len(columns.rows):,})",
            "bytes a column, level 0": f"[bold]{costs.nbytes / costs.columns:,.0f}[/bold]",
            "  raw, 64 bits a number": f"{raw:,.0f}",
            "  event file of TensorBoard": board,
            "  levels beside it": f"{costs.levels / costs.columns:,.0f}",
            "us a column: append, calling thread": f"{1e6 * costs.append / costs.columns:.1f}",
            "us a column: tail": f"{1e6 * costs.tail / costs.columns:.1f}",
            "us a column: sealing and levels": f"{1e6 * costs.sealing / costs.columns:.1f}",
            "us a batch: append, calling thread": f"{1e6 * costs.append / costs.batches:,.0f}",
            "us a batch: writing thread": f"[bold]{1e6 * costs.thread / costs.batches:,.0f}[/bold]",
            "longest append, ms": f"{1e3 * costs.stall:.1f}",
        }.items():
            cells.setdefault(row, []).append(cell)
    for row, values in cells.items():
        table.add_row(row, *values)
    console.print(table)


if __name__ == "__main__":
    main()
