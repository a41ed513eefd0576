"""A run of known values: two layers, three epochs, with zeros, NaN, Inf and values outside of the axis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure

import colordim
from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.column import Batch, Phase, Sink, Stream, Units
from colordim.store.writer import FolderWriter

STREAMS = (
    Stream(0, "conv.1", "activation", "Conv2d", "", (4, 8), 0, SignedLogAxis(3)),
    Stream(1, "fc", "activation", "Linear", "", (4, 8), 1, LinearAxis(-1, 1, 8)),
    Stream(2, "fc.weight", "weight", "Linear", "", (8, 8), 2, SignedLogAxis(3)),
)

#: Phase of each batch, epoch by epoch; the last epoch has only begun.
EPOCHS: tuple[tuple[Phase, ...], ...] = (
    ("train",) * 5 + ("valid",) * 2,
    ("train",) * 5 + ("valid",) * 2,
    ("train",) * 2,
)


def column(values: npt.NDArray[np.float64], axis: Axis) -> tuple[npt.NDArray[np.int64], list[float]]:
    """Count values as the definition of a column says, by NumPy alone."""
    finite = values[np.isfinite(values)]
    low, high = axis.edges[0], axis.edges[-1]
    if isinstance(axis, LinearAxis):
        inside = (finite >= low) & (finite <= high)
        bins = np.histogram(finite, axis.edges)[0]
    else:
        inside = (finite > low) & (finite < high)
        signs = finite[inside & (finite < 0)], finite[inside & (finite > 0)]
        negative = np.histogram(-signs[0], axis.edges[axis.bins // 2 + 1 :])[0][::-1]
        positive = np.histogram(signs[1], axis.edges[axis.bins // 2 + 1 :])[0]
        bins = np.concatenate([negative, [np.sum(finite == 0)], positive])
    outside = finite[~inside]
    counters = [
        np.sum(outside < 0), np.sum(outside > 0), np.sum(np.isnan(values)), np.sum(values == np.inf),
        np.sum(values == -np.inf), np.sum(values == 0), values.size, 1,
    ]  # fmt: skip
    assert bins.sum() + sum(counters[:5]) == values.size
    return np.array([*bins, *counters], np.int64), [finite.sum(), (finite**2).sum(), finite.min(), finite.max()]


@dataclass
class Known:
    """The values of every batch, and what writes them."""

    values: dict[tuple[str, Phase, int], npt.NDArray[np.float64]] = field(default_factory=dict)
    """By stream, phase and index of the batch."""

    def batches(
        self, seed: int = 0
    ) -> Iterator[tuple[Batch, list[npt.NDArray[np.int64]], list[list[float]], list[Units]]]:
        rng = np.random.default_rng(seed)
        index: dict[Phase, int] = {"train": 0, "valid": 0}
        number = 0
        for epoch, phases in enumerate(EPOCHS):
            for phase in phases:
                rows, moments = [], []
                for stream in STREAMS[: 3 if phase == "train" else 2]:
                    values = rng.normal(0.1, 0.7 + epoch, 400)
                    values[:20] = 0.0
                    if stream.name == "conv.1" and epoch == 1 and phase == "train":
                        values[20:26] = [np.nan, np.nan, np.inf, -np.inf, -3e7, 4e7]
                    self.values[stream.name, phase, index[phase]] = values
                    row, moment = column(values, stream.axis)
                    rows.append(row)
                    moments.append(moment)
                at = index[phase]
                # of four units one was never active in the window that epoch 1 ends in
                units = [Units(0, "relu", "train", 5, 9, 4, np.packbits([1, 0, 1, 1]).tobytes())] if at == 9 else []
                yield Batch(number, at, phase, epoch, number, 1e9 + 60 * number), rows, moments, units
                index[phase] += 1
                number += 1

    def write(self, sink: Sink, until: int | None = None, skip: int = 0) -> None:
        """Write the batches ``skip <= number < until``."""
        for batch, rows, moments, units in self.batches():
            if skip <= batch.batch < (10**9 if until is None else until):
                sink.append(batch, STREAMS[: len(rows)], np.concatenate(rows), np.array(moments), units)

    def of(self, stream: str, phase: Phase, first: int, last: int) -> npt.NDArray[np.float64]:
        """Return all values of the batches ``first <= index <= last``."""
        return np.concatenate([self.values[stream, phase, i] for i in range(first, last + 1)])


@pytest.fixture
def known() -> Known:
    return Known()


@pytest.fixture
def folder(known: Known, tmp_path: Path) -> Path:
    path = tmp_path / "lenet"
    writer = FolderWriter(path, {"name": "lenet", "created": "2026-01-02T03:04:05+00:00"})
    for stream in STREAMS:
        writer.declare(stream)
    known.write(writer)
    writer.close("stopped")
    return path


@pytest.fixture
def run(folder: Path) -> colordim.Run:
    return colordim.open(folder)


@pytest.fixture
def small_figures(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Draw something small in place of the chart; return what was asked for."""
    asked: list[dict[str, Any]] = []

    def colorful(self: colordim.Run, **options: Any) -> Figure:
        asked.append(options)
        figure = Figure(figsize=(1, 1))
        figure.text(0.1, 0.5, f"{options}")
        return figure

    monkeypatch.setattr(colordim.Run, "colorful", colorful)
    return asked
