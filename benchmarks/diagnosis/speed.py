"""How long a diagnosis takes, and what it costs beside a training: `python -m benchmarks.diagnosis.speed`.

A run of 60 layers and 10,000 batches is written, and then read and diagnosed several times. For the live cost a small
training is recorded with and without `on_finding=`, in turn in one process.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal

import torch
from benchmarks.viewer import write
from torch import nn

import colordim
from colordim.diagnosis import diagnose, gather

LAYERS, BATCHES, REPEATS = 60, 10_000, 5
LIVE_BATCHES = 1000


def read(folder: Path) -> tuple[float, float]:
    """Return the seconds of opening a run and taking its evidence, and of asking all rules."""
    begun = time.perf_counter()
    evidence = gather(colordim.open(folder))
    taken = time.perf_counter()
    diagnose(evidence)
    return taken - begun, time.perf_counter() - taken


def live(folder: Path, on_finding: Literal["log"] | None) -> tuple[float, float]:
    """Return the seconds of a batch of a recorded training, and the milliseconds that diagnosing says it took of them."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    layers = [layer for _ in range(LAYERS // 2) for layer in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, y = torch.randn(64, 64), torch.randint(10, (64,))
    with colordim.record(model, folder=folder, optimizer=optimizer, on_finding=on_finding) as recording:
        begun = time.perf_counter()
        for batch in range(LIVE_BATCHES):
            if batch % 100 == 0:
                recording.epoch()
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            recording.log(loss=loss)
        seconds = (time.perf_counter() - begun) / LIVE_BATCHES
    return seconds, recording.diagnosis_ms


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="How long a diagnosis takes.")
    parser.add_argument("--folder", type=Path, help="where the run is written, or was")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "run"
        if not (folder / "run.json").exists():
            write(folder, LAYERS, BATCHES)
        times = [read(folder) for _ in range(REPEATS)]
        taken, asked = (statistics.median(each) for each in zip(*times, strict=True))
        print(
            f"{LAYERS} layers x {BATCHES:,} batches: {taken + asked:.2f} s ({taken:.2f} s reading, {asked:.2f} s asking)"
        )
        rows: dict[Literal["log"] | None, list[tuple[float, float]]] = {None: [], "log": []}
        for repeat in range(REPEATS):
            for on_finding, found in rows.items():
                found.append(live(Path(scratch) / f"live-{repeat}-{on_finding}", on_finding))
        without, with_it = (statistics.median(seconds for seconds, _ in found) for found in rows.values())
        cost = statistics.median(cost for _, cost in rows["log"])
        print(
            f"live, {LAYERS} layers: {cost:.2f} ms of a thread a batch; a batch takes {with_it / without:.3f} times as long"
        )


if __name__ == "__main__":
    main()
