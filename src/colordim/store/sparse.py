"""Columns of several batches without their empty buckets: what a frame of the tail holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import COUNTERS, MOMENTS, Batch, Stream

__all__ = ["Appended", "Columns", "StreamColumns"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Appended:
    """One batch as it was appended, its zeros left out.

    `where` are the positions of the nonzero integers among the batch's row, `values` what stands there.
    """

    batch: Batch
    streams: Sequence[Stream]
    where: IntArray
    values: IntArray
    moments: npt.NDArray[np.float64]
    dense_bytes: int

    @classmethod
    def of(cls, batch: Batch, streams: Sequence[Stream], rows: IntArray, moments: npt.NDArray[np.float64]) -> Appended:
        """Leave the zeros of `rows` out."""
        where = np.flatnonzero(rows.astype(np.bool_))  # through bool: a third of the time of flatnonzero alone
        return cls(batch, streams, where, rows[where], moments, rows.nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes of memory, roughly."""
        return 1000 + 16 * len(self.where) + self.moments.nbytes


@dataclass(frozen=True)
class StreamColumns:
    """The columns of one stream.

    Attributes
    ----------
    batch : ndarray of int64, shape ``[n]``
    length : ndarray of int64, shape ``[n]``
        How many buckets of each column are occupied.
    bucket, counts : ndarray of small integers, shape ``[length.sum()]``
    counters : ndarray of int64, shape ``[n, 8]``
    moments : ndarray of float64, shape ``[n, 4]``
    """

    batch: IntArray
    length: IntArray
    bucket: npt.NDArray[Any]
    counts: npt.NDArray[Any]
    counters: IntArray
    moments: npt.NDArray[np.float64]

    def dense(self, batches: IntArray) -> tuple[IntArray, IntArray]:
        """Return the occupied buckets, and their counts by bucket and batch.

        Parameters
        ----------
        batches : ndarray of int64, shape ``[m]``
            Ascending; every batch of the columns is among them.

        Returns
        -------
        buckets : ndarray of int64, shape ``[occupied]``
        counts : ndarray of int64, shape ``[occupied, m]``
        """
        place = np.searchsorted(batches, self.batch).astype(np.int32)
        occupied = np.zeros(int(self.bucket.max(initial=0)) + 1, np.bool_)
        occupied[self.bucket] = True
        row = np.cumsum(occupied) - 1
        buckets = np.flatnonzero(occupied)
        counts = np.zeros(len(buckets) * len(batches), np.int64)
        flat = (row * len(batches))[self.bucket]  # one index takes half the time of two
        flat += np.repeat(place, self.length)
        counts[flat] = self.counts
        return buckets, counts.reshape(len(buckets), len(batches))


@dataclass(frozen=True)
class Columns:
    """Columns of several streams and batches, ordered by stream, then by batch.

    Attributes
    ----------
    stream : ndarray of int32, shape ``[n]``
    batch : ndarray of int64, shape ``[n]``
    counters : ndarray of int64, shape ``[n, 8]``
    moments : ndarray of float64, shape ``[n, 4]``
    offsets : ndarray of int64, shape ``[n + 1]``
        Where each column begins in `bucket` and `counts`.
    bucket, counts : ndarray of the smallest integers that hold them
        The occupied buckets of the columns, ascending within each, and their counts.
    """

    stream: npt.NDArray[np.int32]
    batch: IntArray
    counters: IntArray
    moments: npt.NDArray[np.float64]
    offsets: IntArray
    bucket: npt.NDArray[Any]
    counts: npt.NDArray[Any]

    @classmethod
    def of(cls, batches: Sequence[Appended]) -> Columns:
        """Gather what was appended; batches that are not recorded have no columns."""
        recorded = [appended for appended in batches if appended.batch.recorded and len(appended.streams)]
        if not recorded:
            none = np.zeros(0, np.int64)
            return cls(
                none.astype(np.int32),
                none,
                none.reshape(0, len(COUNTERS)),
                np.zeros((0, len(MOMENTS))),
                np.zeros(1, np.int64),
                none.astype(np.uint16),
                none.astype(np.uint8),
            )
        shapes: dict[tuple[int, ...], tuple[IntArray, IntArray]] = {}
        bases = np.cumsum([0] + [appended.dense_bytes // 8 for appended in recorded])
        starts, bins, ids = [], [], []
        for base, appended in zip(bases, recorded, strict=False):
            key = tuple([stream.id for stream in appended.streams])
            if key not in shapes:
                shape = np.array([stream.axis.bins for stream in appended.streams], np.int64)
                shapes[key] = shape, np.cumsum(shape + len(COUNTERS)) - shape - len(COUNTERS)
            starts.append(shapes[key][1] + base)
            bins.append(shapes[key][0])
            ids.append(key)
        where = np.concatenate([appended.where + base for base, appended in zip(bases, recorded, strict=False)])
        values = np.concatenate([appended.values for appended in recorded])
        stream = np.concatenate([np.array(key, np.int32) for key in ids])
        order = np.argsort(stream, kind="stable")
        start, bin_count = np.concatenate(starts)[order], np.concatenate(bins)[order]
        begin = np.searchsorted(where, start)
        middle = np.searchsorted(where, start + bin_count)
        end = np.searchsorted(where, start + bin_count + len(COUNTERS))

        length = middle - begin
        take = _ranges(begin, length)
        bucket = where[take] - np.repeat(start, length)
        rest = _ranges(middle, end - middle)
        column = np.repeat(np.arange(len(order)), end - middle)
        counters = np.zeros((len(order), len(COUNTERS)), np.int64)
        counters[column, where[rest] - (start + bin_count)[column]] = values[rest]
        numbers = np.array([appended.batch.batch for appended in recorded], np.int64)
        return cls(
            stream=stream[order],
            batch=np.repeat(numbers, [len(key) for key in ids])[order],
            counters=counters,
            moments=np.concatenate([appended.moments for appended in recorded])[order],
            offsets=np.append(0, np.cumsum(length)),
            bucket=_smallest(bucket),
            counts=_smallest(values[take]),
        )

    @cached_property
    def span(self) -> dict[int, tuple[int, int]]:
        """First column, and the one past the last, of each stream that has any."""
        starts = np.flatnonzero(np.diff(self.stream, prepend=-1))
        ends = np.append(starts, len(self.stream))[1:]
        return {int(self.stream[lo]): (int(lo), int(hi)) for lo, hi in zip(starts, ends, strict=True)}

    @staticmethod
    def stream_of(parts: Iterable[Columns], stream: int) -> StreamColumns | None:
        """Return the columns of one stream in all `parts`, which ascend, or None without any."""
        spans = [(part, *part.span[stream]) for part in parts if stream in part.span]
        if not spans:
            return None

        inner = [(part, part.offsets[lo], part.offsets[hi]) for part, lo, hi in spans]
        return StreamColumns(
            batch=np.concatenate([part.batch[lo:hi] for part, lo, hi in spans]),
            length=np.concatenate([np.diff(part.offsets[lo : hi + 1]) for part, lo, hi in spans]),
            bucket=np.concatenate([part.bucket[lo:hi] for part, lo, hi in inner]),
            counts=np.concatenate([part.counts[lo:hi] for part, lo, hi in inner]),
            counters=np.concatenate([part.counters[lo:hi] for part, lo, hi in spans]),
            moments=np.concatenate([part.moments[lo:hi] for part, lo, hi in spans]),
        )


def _ranges(start: IntArray, length: IntArray) -> IntArray:
    """Return ``arange(s, s + n)`` for every pair, one after the other."""
    ends = np.cumsum(length)
    total = int(ends[-1]) if len(ends) else 0
    return np.repeat(start - (ends - length), length) + np.arange(total)


def _smallest(values: IntArray) -> npt.NDArray[Any]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    # No uint64: joined with int64 it would become float64.
    return values.astype(np.min_scalar_type(high)) if low >= 0 and high < 2**32 else values
