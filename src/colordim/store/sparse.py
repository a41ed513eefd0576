"""Columns of several batches without their empty buckets: what a frame of the tail holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import COUNTERS, NO_MOMENTS
from colordim.store.base import Block
from colordim.store.chunk import Chunk
from colordim.store.pyramid import add_columns, add_moments

__all__ = ["Columns", "Scratch", "StreamColumns"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class StreamColumns:
    """The columns of one stream in m batches.

    Attributes
    ----------
    bucket : ndarray of int64, shape ``[occupied]``
        The buckets that are occupied in any of the batches, ascending.
    counts : ndarray of int64, shape ``[occupied, m]``
    fired : ndarray of bool, shape ``[m]``
        Whether the stream has a column in the batch.
    counters : ndarray of int64, shape ``[m, 8]``
    moments : ndarray of float64, shape ``[m, 4]``
        Neutral where the stream did not fire.
    """

    bucket: IntArray
    counts: IntArray
    fired: npt.NDArray[np.bool_]
    counters: IntArray
    moments: npt.NDArray[np.float64]

    def chosen(self, which: slice | IntArray) -> StreamColumns:
        """Return some of the columns."""
        return StreamColumns(
            self.bucket, self.counts[:, which], self.fired[which], self.counters[which], self.moments[which]
        )

    def added(self, starts: IntArray) -> StreamColumns:
        """Add up groups of adjacent columns, each of which begins at one of `starts`."""
        return StreamColumns(
            self.bucket,
            add_columns(self.counts, starts),
            np.logical_or.reduceat(self.fired, starts),
            np.add.reduceat(self.counters, starts, axis=0),
            add_moments(self.moments, starts),
        )

    def block(self, first: IntArray, last: IntArray, number: IntArray, bins: int) -> Block:
        """Return the columns with their empty buckets; the arguments are those of a Block."""
        counts = np.zeros((len(first), bins), np.int64)
        counts[:, self.bucket] = self.counts.T
        return Block(first, last, number, counts, self.counters, self.moments)


class Scratch:
    """Memory that is used again and again: asking the system for it costs more than filling it."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.int64)

    def zeros(self, rows: int, columns: int) -> IntArray:
        """Return zeros, which hold until the next call."""
        if self._memory.size < rows * columns:
            self._memory = np.empty(rows * columns, np.int64)
        zeros = self._memory[: rows * columns].reshape(rows, columns)
        zeros.fill(0)
        return zeros


@dataclass(frozen=True)
class Columns:
    """Columns of n streams in m batches, by stream, then bucket, then batch.

    Attributes
    ----------
    stream : ndarray of int32, shape ``[n]``
        Ascending.
    fired : ndarray of bool, shape ``[n, m]``
        Where a stream has no column, there are zeros in `counts` and `counters`.
    counters : ndarray of int64, shape ``[n, m, 8]``
    moments : ndarray of float64, shape ``[n, m, 4]``
    offsets : ndarray of int64, shape ``[n + 1]``
        Where the buckets of each stream begin.
    bucket : ndarray of int32, shape ``[offsets[-1]]``
        The buckets that are occupied in any of the batches, ascending within a stream.
    counts : ndarray of the smallest integers that hold them, shape ``[offsets[-1], m]``
    """

    stream: npt.NDArray[np.int32]
    fired: npt.NDArray[np.bool_]
    counters: IntArray
    moments: npt.NDArray[np.float64]
    offsets: IntArray
    bucket: npt.NDArray[np.int32]
    counts: npt.NDArray[Any]

    @classmethod
    def of(cls, chunk: Chunk) -> Columns:
        """Leave out what is empty, and put together what belongs to a bucket."""
        layout = chunk.layout
        rows = chunk.rows[: chunk.filled]
        bits = np.bitwise_or.reduce(rows, axis=0) & layout.mask
        place = np.flatnonzero(bits)
        highest = bits.take(place)
        return cls(
            stream=layout.stream,
            fired=chunk.fired,
            counters=np.ascontiguousarray(rows.take(layout.counters, axis=1).swapaxes(0, 1)),
            moments=chunk.moments[: chunk.filled].swapaxes(0, 1).copy(),  # the chunk is filled again
            offsets=np.append(np.searchsorted(place, layout.start), len(place)),
            bucket=layout.bucket.take(place),
            counts=rows.take(place, axis=1).T.astype(_smallest(highest), order="C"),
        )

    @classmethod
    def join(cls, parts: Sequence[Columns]) -> Columns:
        """Return the columns of all `parts`, which have the same streams, as those of one chunk."""
        streams = len(parts[0].stream)
        bins = 1 + max(int(part.bucket.max(initial=0)) for part in parts)
        keys = [np.repeat(np.arange(streams) * bins, np.diff(part.offsets)) + part.bucket for part in parts]
        occupied = np.zeros(streams * bins, np.bool_)
        for key in keys:
            occupied[key] = True
        row = np.cumsum(occupied) - 1
        place = np.flatnonzero(occupied)
        ends = np.cumsum([part.number for part in parts])
        counts = np.zeros((len(place), ends[-1]), np.result_type(*(part.counts for part in parts)))
        for part, key, end in zip(parts, keys, ends, strict=True):
            counts[row[key], end - part.number : end] = part.counts
        return cls(
            stream=parts[0].stream,
            fired=np.concatenate([part.fired for part in parts], axis=1),
            counters=np.concatenate([part.counters for part in parts], axis=1),
            moments=np.concatenate([part.moments for part in parts], axis=1),
            offsets=np.searchsorted(place, np.arange(streams + 1) * bins),
            bucket=(place % bins).astype(np.int32),
            counts=counts,
        )

    @property
    def number(self) -> int:
        """How many batches there are."""
        return int(self.fired.shape[1])

    @cached_property
    def place(self) -> dict[int, int]:
        """Where each stream is."""
        return {stream: place for place, stream in enumerate(self.stream.tolist())}

    @staticmethod
    def stream_of(parts: Sequence[Columns], stream: int, scratch: Scratch | None = None) -> StreamColumns | None:
        """Return the columns of one stream in the batches of all `parts`, or None if it never fired.

        With `scratch`, `counts` holds until that is used again.
        """
        number = sum(part.number for part in parts)
        fired = np.zeros(number, np.bool_)
        counters = np.zeros((number, len(COUNTERS)), np.int64)
        moments = np.tile(np.array(NO_MOMENTS), (number, 1))
        found: list[tuple[slice, npt.NDArray[np.int32], npt.NDArray[Any]]] = []
        end = 0
        for part in parts:
            batches = slice(end, end := end + part.number)
            at = part.place.get(stream)
            if at is not None:
                fired[batches], counters[batches], moments[batches] = (
                    part.fired[at],
                    part.counters[at],
                    part.moments[at],
                )
                buckets = slice(part.offsets[at], part.offsets[at + 1])
                found.append((batches, part.bucket[buckets], part.counts[buckets]))
        if not fired.any():
            return None
        occupied = np.zeros(1 + max(int(bucket[-1]) if len(bucket) else 0 for _, bucket, _ in found), np.bool_)
        for _, bucket, _ in found:
            occupied[bucket] = True
        row = np.cumsum(occupied) - 1
        counts = (scratch or Scratch()).zeros(int(np.count_nonzero(occupied)), number)
        for batches, bucket, part_counts in found:
            counts[row[bucket], batches] = part_counts
        return StreamColumns(np.flatnonzero(occupied), counts, fired, counters, moments)


def _smallest(values: IntArray) -> np.dtype[Any]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    return np.min_scalar_type(high) if low >= 0 and high < 2**32 else np.dtype(np.int64)
