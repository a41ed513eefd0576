"""The reference store: everything in lists. What it returns defines what every other store returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import MOMENTS, PHASES, Batch, Phase, Stream, Units
from colordim.store.base import Block, batch_key
from colordim.store.pyramid import merge

__all__ = ["MemoryStore", "batch_table"]


class MemoryStore:
    """A :class:`~colordim.column.Sink` and :class:`~colordim.store.base.Reader` without a disk.

    A reader of it always sees everything that was appended; :meth:`refresh` has nothing to do.
    """

    def __init__(self, info: Mapping[str, Any] | None = None) -> None:
        self._info = dict(info or {})
        self._streams: list[Stream] = []
        self._batches: list[Batch] = []
        self._rows: list[dict[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]] = []
        self._units: list[Units] = []
        self._facts: Mapping[str, Any] = {}
        self._ended: str | None = None

    @property
    def seconds(self) -> float:
        return 0.0

    def declare(self, stream: Stream) -> None:
        if stream.id != len(self._streams):
            raise ValueError(f"stream {stream.name!r} has id {stream.id}, but {len(self._streams)} is the next.")
        self._streams.append(stream)

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts

    def append(
        self,
        batch: Batch,
        streams: Sequence[Stream],
        rows: npt.NDArray[np.int64],
        moments: npt.NDArray[np.float64],
        units: Sequence[Units] = (),
    ) -> None:
        ends = np.cumsum([stream.width for stream in streams], dtype=np.int64)
        pieces = np.split(rows.copy(), ends[:-1]) if streams else []
        self._batches.append(batch)
        self._rows.append(
            {stream.id: (row, moment) for stream, row, moment in zip(streams, pieces, moments.copy(), strict=True)}
        )
        self._units.extend(units)

    def flush(self) -> None:
        pass

    def close(self, reason: str) -> None:
        self._ended = reason

    @property
    def path(self) -> str:
        return ""

    @property
    def info(self) -> Mapping[str, Any]:
        return self._info

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._facts

    @property
    def ended(self) -> str | None:
        return self._ended

    @property
    def streams(self) -> tuple[Stream, ...]:
        return tuple(self._streams)

    @property
    def problems(self) -> tuple[str, ...]:
        return ()

    def refresh(self) -> None:
        pass

    def batches(self) -> Mapping[str, npt.NDArray[Any]]:
        return batch_table(self._batches)

    def extent(self, phase: Phase) -> tuple[int, int]:
        mine = [batch for batch in self._batches if batch.phase == phase]
        return (mine[-1].index + 1 if mine else 0), sum(batch.recorded for batch in mine)

    def kept(self, phase: Phase, level: int) -> int:
        return 0

    def blocks(self, stream: Stream, phase: Phase, start: int, stop: int, level: int = 0) -> Iterator[Block]:
        chosen = [
            (batch.index, rows.get(stream.id))
            for batch, rows in zip(self._batches, self._rows, strict=True)
            if batch.recorded and batch.phase == phase and start <= batch.index < stop
        ]
        if not chosen:
            return
        bins = stream.axis.bins
        block = Block.unfired(np.array([index for index, _ in chosen], np.int64), bins)
        for column, (_, row) in enumerate(chosen):
            if row is not None:
                block.counts[column] = row[0][:bins]
                block.counters[column] = row[0][bins:]
                block.moments[column] = row[1][: len(MOMENTS)]
        yield merge([block], level, bins)

    def columns(self, stream: Stream, phase: Phase, start: int, stop: int, level: int) -> Block:
        return merge(self.blocks(stream, phase, start, stop, level), level, stream.axis.bins)

    def units(self, stream: Stream, phase: Phase) -> Sequence[Units]:
        return [units for units in self._units if units.stream == stream.id and units.phase == phase]


def batch_table(batches: Sequence[Batch]) -> dict[str, npt.NDArray[Any]]:
    """Return batches as columns, as :meth:`colordim.store.base.Reader.batches` describes them."""
    width = max(len(phase) for phase in PHASES)
    table: dict[str, npt.NDArray[Any]] = {
        "batch": np.array([b.batch for b in batches], np.int64),
        "index": np.array([b.index for b in batches], np.int64),
        "epoch": np.array([b.epoch for b in batches], np.int64),
        "step": np.array([b.step for b in batches], np.int64),
        "phase": np.array([b.phase for b in batches], f"U{width}"),
        "time": np.array([b.time for b in batches], np.float64),
        "recorded": np.array([b.recorded for b in batches], np.bool_),
    }
    for name in dict.fromkeys(name for b in batches for name in b.values):
        table[batch_key(name)] = np.array([b.values.get(name, np.nan) for b in batches], np.float64)
    return table
