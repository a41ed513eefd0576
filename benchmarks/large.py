"""Very large layers: what recording 4 and 34 million values a batch costs in time, memory and bytes.

Each line is a training of two linear layers with a ReLU between, of which the ReLU and the layer before it return that many
values, with all kinds and with activations alone; against the same training without a recording, step by step in turn.

    python benchmarks/large.py [--threads 2]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import colordim

#: Values that the wide layer returns, and how many steps are measured.
SIZES = ((4_000_000, 16), (34_000_000, 4))
WIDTH, NARROW = 4096, 64


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return two layers and what trains them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(NARROW, WIDTH), nn.ReLU(), nn.Linear(WIDTH, NARROW))
    return model, torch.optim.SGD(model.parameters(), lr=1e-3)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> float:
    """Take a step; return its seconds."""
    began = time.perf_counter()
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    return time.perf_counter() - began


def peak() -> float:
    """Return the most memory that the process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(values: int, steps: int, kinds: str) -> tuple[str, ...]:
    """Return a row of the table."""
    x = torch.randn(values // WIDTH, NARROW)
    plain, recorded = network(), network()
    for _ in range(2):
        step(*plain, x)
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run")
        with colordim.record(recorded[0], folder=path, kinds=kinds, optimizer=recorded[1]) as recording:
            step(*recorded, x)
            ratios = [step(*recorded, x) / step(*plain, x) for _ in range(steps)]
        columns = sum(int(recording.run.moments(stream)["calls"].sum()) for stream in recording.run.streams)
        size = sum(file.stat().st_size for file in path.rglob("*.parquet"))
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    more = peak() - before
    return (
        f"{values / 1e6:.0f} million", kinds, f"{middle:.2f} ({low:.2f}-{high:.2f})", f"{more:.0f}",
        f"{columns}", f"{size / columns:.0f}",
    )  # fmt: skip


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=1, help="of torch; by default 1")
    torch.set_num_threads(parser.parse_args().threads)
    table = Table(title="Large layers: time with / without recording, median (quartiles)")
    for title in ("values of the layer", "kinds", "ratio", "MB more at the peak", "columns", "bytes a column"):
        table.add_column(title, justify="right")
    for values, steps in SIZES:
        for kinds in ("activation", "all"):
            table.add_row(*measure(values, steps, kinds))
    Console().print(table)


if __name__ == "__main__":
    main()
