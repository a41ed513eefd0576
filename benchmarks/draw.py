"""How long a figure of many layers takes to draw, against reading the same columns alone.

Prints medians in seconds and the ratio of the two, measured in turn in one process.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import colordim
from colordim.axis import SignedLogAxis
from colordim.column import COUNTERS, Batch, Stream
from colordim.store.writer import FolderWriter

LAYERS, BATCHES, VALUES, ROUNDS = 60, 1000, 20_000, 5


def write(folder: Path) -> None:
    """Write a run whose layers are normal distributions that widen from batch to batch."""
    axis = SignedLogAxis()
    rng = np.random.default_rng(0)
    writer = FolderWriter(folder, {"name": "draw"})
    streams = [
        Stream(i, f"layer{i // 3}.{i % 3}", "activation", "Conv2d", "64, 64", (64, 64, 16, 16), i, axis)
        for i in range(LAYERS)
    ]
    for stream in streams:
        writer.declare(stream)
    widths = 1 + np.arange(8)[:, None] * rng.random(LAYERS)
    histograms = [
        [np.histogram(rng.normal(scale=width, size=VALUES), bins=np.unique(axis.edges))[0] for width in row]
        for row in widths
    ]
    for batch in range(BATCHES):
        rows = []
        for histogram in histograms[batch * len(histograms) // BATCHES]:
            counts = np.insert(histogram, axis.zero_bin, 0)
            specials = np.zeros(len(COUNTERS), np.int64)
            specials[COUNTERS.index("size")] = counts.sum()
            specials[COUNTERS.index("calls")] = 1
            rows.append(np.concatenate([counts, specials]))
        moments = np.tile([0.0, float(VALUES), -4.0, 4.0], (LAYERS, 1))
        writer.append(Batch(batch, batch, "train", 0, batch, 0.0), streams, np.concatenate(rows), moments)
    writer.close("stopped")


def main() -> None:
    """Print one line for reading and one for drawing."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "run")
        read, draw = [], []
        for _ in range(ROUNDS):
            run = colordim.open(Path(folder) / "run")
            began = time.perf_counter()
            for stream in run.streams:
                run.overview(stream, columns=200)
            read.append(time.perf_counter() - began)
            began = time.perf_counter()
            run.colorful().savefig(io.BytesIO(), format="png")
            draw.append(time.perf_counter() - began)
    print(f"{LAYERS} layers x {BATCHES} batches, medians of {ROUNDS}")
    print(f"  read     {statistics.median(read):6.2f} s")
    print(
        f"  colorful {statistics.median(draw):6.2f} s  = {statistics.median(draw) / statistics.median(read):.1f} x read"
    )


if __name__ == "__main__":
    main()
