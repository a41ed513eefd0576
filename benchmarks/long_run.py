"""A run of a million batches: how long an overview, the newest columns and a full scan take, and how much memory recording.

Three streams of the lesson network are trained for some hundred batches on real digits; their columns are written
again and again, by the writer that recordings use. Then the run is opened and read, each measure several times, in turn.

    python benchmarks/long_run.py [--batches N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import importlib
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

import colordim
from colordim.column import Batch
from colordim.demo.network import lesson_network
from colordim.store.writer import FolderWriter

COLUMNS, NEWEST = 1000, 500

store: Any = importlib.import_module("store")  # the benchmark beside this one


def chosen(columns: Any, number: int) -> Any:
    """Return the first streams alone."""
    width = sum(stream.width for stream in columns.streams[:number])
    return store.Columns(columns.streams[:number], columns.rows[:, :width].copy(), columns.moments[:, :number].copy())


def memory() -> float:
    """Return the resident memory of this process, in MB."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def write(columns: Any, batches: int, folder: Path, say: Callable[[str], object]) -> tuple[float, float, float]:
    """Write so many batches; return the seconds, and the memory after a tenth and the most after that."""
    writer = FolderWriter(folder, {"name": "long"}, queue_bytes=32 << 20, patience=1e9)  # as fast as the disk allows
    for stream in columns.streams:
        writer.declare(stream)
    began, early, peak = time.perf_counter(), 0.0, 0.0
    for number in range(batches):
        at = number % len(columns.rows)
        batch = Batch(number, number, "train", number // 1000, number, time.time(), True, {"loss": 1 / (1 + number)})
        writer.append(batch, columns.streams, columns.rows[at], columns.moments[at])
        if number == batches // 10:
            early = memory()
        if number % 2000 == 0:
            peak = max(peak, memory()) if early else 0.0
            say(f"writing {number:,} of {batches:,}")
    writer.close("stopped")
    return time.perf_counter() - began, early, peak


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--batches", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the run stays, and is read from if it is there")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    console = Console()
    table = Table(title=f"A run of {options.batches:,} batches", show_header=False)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "run"
        if not (folder / "run.json").exists():
            columns = chosen(store.record(lesson_network(), 28, 5, 400), 3)
            with console.status("writing") as status:
                seconds, early, peak = write(columns, options.batches, folder, status.update)
            table.add_row("streams", ", ".join(stream.name for stream in columns.streams))
            table.add_row("written in", f"{seconds:.0f} s, {1e6 * seconds / options.batches:.0f} us a batch")
            table.add_row("memory after a tenth; most after that", f"{early:.0f} MB; {peak:.0f} MB")
        files = [path for path in folder.rglob("*") if path.is_file()]
        nbytes = sum(path.stat().st_size for path in files)
        table.add_row("on the disk", f"{nbytes / 1e9:.2f} GB in {len(files):,} files")

        opened = time.perf_counter()
        run = colordim.open(folder)
        table.add_row("opening", f"{1e3 * (time.perf_counter() - opened):.0f} ms")
        names = [stream.name for stream in run.streams]
        times: dict[str, list[float]] = {}
        for turn in range(6):
            calls: dict[str, Callable[[str], Any]] = {
                f"overview, at least {COLUMNS:,} columns": lambda name: run.overview(name, COLUMNS),
                f"the newest {NEWEST:,} columns": lambda name: run.columns(name, start=-NEWEST),
                "opening and an overview": lambda name: colordim.open(folder).overview(name, COLUMNS),
            }
            for what, call in calls.items():
                began = time.perf_counter()
                call(names[turn % len(names)])
                times.setdefault(what, []).append(time.perf_counter() - began)
        began = time.perf_counter()
        total = sum(int(run.counts(names[0], start=i, stop=i + 8192).sum()) for i in range(0, options.batches, 8192))
        scan = time.perf_counter() - began
        overview = run.overview(names[0], COLUMNS)
        for what, found in times.items():
            table.add_row(
                what, f"{1e3 * statistics.median(found):.0f} ms ({1e3 * min(found):.0f}-{1e3 * max(found):.0f})"
            )
        table.add_row(
            "full scan of a stream",
            f"{scan:.1f} s, {scan / statistics.median(next(iter(times.values()))):.0f} x an overview",
        )
        table.add_row(
            "columns of the overview",
            f"{len(overview):,}; their sum equals the scan's: {np.sum(overview.counts) == total}",
        )
        began = time.perf_counter()
        rows = len(run.batches["batch"])
        table.add_row("table of batches", f"{1e3 * (time.perf_counter() - began):.0f} ms, {rows:,} rows")
    console.print(table)


if __name__ == "__main__":
    main()
