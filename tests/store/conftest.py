"""Random trainings that are replayed through the stores, and the comparison of what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.column import COUNTERS, NO_MOMENTS, PHASES, Batch, Phase, Sink, Stream
from colordim.store.base import Block, Reader
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.writer import FolderWriter

AXES: tuple[Axis, ...] = (SignedLogAxis(3), LinearAxis(-1, 1, 200), SignedLogAxis(0), LinearAxis(0, 3, 1))


@dataclass(frozen=True)
class Append:
    """One call of ``append``, with the streams to be declared before it."""

    batch: Batch
    streams: tuple[Stream, ...]
    rows: npt.NDArray[np.int64]
    moments: npt.NDArray[np.float64]
    new: tuple[Stream, ...]

    def into(self, *sinks: Sink) -> None:
        for sink in sinks:
            for stream in self.new:
                sink.declare(stream)
            sink.append(self.batch, self.streams, self.rows.copy(), self.moments.copy())


def make_stream(number: int, axis: Axis | None = None) -> Stream:
    axis = axis or AXES[number % len(AXES)]
    return Stream(number, f"layer{number}", "activation", "ReLU", "inplace=True", (8, 4), number, axis)


def make_row(rng: np.random.Generator, stream: Stream) -> npt.NDArray[np.int64]:
    """A column that keeps the books: a cluster of occupied bins, and every counter at times."""
    bins = np.zeros(stream.axis.bins, np.int64)
    middle = rng.integers(stream.axis.bins)
    near = slice(max(0, middle - 20), middle + 20)
    bins[near] = rng.poisson(rng.choice([0.3, 40, 1e6]), bins[near].shape)
    if rng.random() < 0.02:
        bins[middle] = 3_000_000_000_000
    under, over, nan, pos, neg = rng.integers(0, 3, 5)
    size = bins.sum() + under + over + nan + pos + neg
    return np.append(bins, [under, over, nan, pos, neg, bins[stream.axis.zero_bin % len(bins)], size, 1])


def make_training(seed: int, batches: int = 300) -> Iterator[Append]:
    """Two phases, streams that appear late or rest, batches that are not recorded, values that come and go."""
    rng = np.random.default_rng(seed)
    streams = [make_stream(0), make_stream(1)]
    new = tuple(streams)
    index = {"train": 0, "valid": 0}
    for number in range(batches):
        if number and number % 60 == 0:
            streams.append(make_stream(len(streams)))
            new += (streams[-1],)
        phase: Phase = "valid" if number % 50 >= 40 else "train"
        recorded = bool(rng.random() < 0.8)
        values = {name: float(rng.normal()) for name in ("loss", "lr", "step", "μ.x/y") if rng.random() < 0.6}
        if rng.random() < 0.1:
            values["loss"] = float("nan")
        if number > batches // 2:
            values["late"] = 1.0
        batch = Batch(number, index[phase], phase, number // 50, number // 2, 1e9 + number / 7, recorded, values)
        index[phase] += 1
        fired = tuple(s for s in streams if recorded and rng.random() < 0.9)
        rows = [make_row(rng, stream) for stream in fired]
        moments = [NO_MOMENTS if rng.random() < 0.1 else tuple(rng.normal(size=4)) for _ in fired]
        yield Append(
            batch,
            fired,
            np.concatenate([*rows, np.zeros(0, np.int64)]),
            np.array(moments, np.float64).reshape(len(fired), 4),
            new,
        )
        new = ()


def assert_same_blocks(ours: Block, theirs: Block, what: object) -> None:
    for name in ("first", "last", "number", "counts", "counters", "moments"):
        got, expected = getattr(ours, name), getattr(theirs, name)
        assert got.dtype == expected.dtype, (what, name)
        np.testing.assert_array_equal(got, expected, err_msg=f"{what} {name}")


def assert_same(ours: Reader, theirs: Reader, windows: Sequence[tuple[int, int]] = ((0, 10**9),)) -> None:
    """Both readers return the same batches, streams and columns."""
    assert ours.streams == theirs.streams
    got, expected = ours.batches(), theirs.batches()
    assert list(got) == list(expected)
    for name in expected:
        assert got[name].dtype == expected[name].dtype, name
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    for stream in theirs.streams:
        for phase in PHASES:
            for start, stop in windows:
                blocks = [
                    Block.concatenate(list(r.blocks(stream, phase, start, stop)), stream.axis.bins)
                    for r in (ours, theirs)
                ]
                assert_same_blocks(blocks[0], blocks[1], (stream.name, phase, start, stop))


@dataclass
class Kit:
    """What the tests of the store share."""

    training: Callable[..., Iterator[Append]] = make_training
    stream: Callable[..., Stream] = make_stream
    row: Callable[..., npt.NDArray[np.int64]] = make_row
    same: Callable[..., None] = assert_same
    counters: int = len(COUNTERS)

    def record(
        self, path: Path, seed: int = 0, batches: int = 300, close: bool = True, flush_every: int = 0, **options: Any
    ) -> MemoryStore:
        """Write a training into a folder, and return it in memory."""
        memory = MemoryStore()
        writer = FolderWriter(path, {"name": "a"}, **options)
        for step in self.training(seed, batches):
            step.into(memory, writer)
            if flush_every and step.batch.batch % flush_every == flush_every - 1:
                writer.flush()  # or a slow disk would have larger segments
        writer.flush()
        if close:
            writer.close("stopped")
            memory.close("stopped")
        return memory

    def read(self, path: Path) -> FolderReader:
        return FolderReader(path)


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()
