"""Batches as they were appended, in one piece of memory, until the writing thread takes them."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from colordim.column import COUNTERS, MOMENTS, NO_MOMENTS, Batch, Stream, Units

__all__ = ["Chunk", "Layout"]

#: Bytes that a batch takes beside its rows, roughly.
_BATCH_BYTES = 1000


class Layout:
    """Where the rows of some streams stand when they are put one after the other.

    Parameters
    ----------
    streams : sequence of Stream
        By ascending id.

    Attributes
    ----------
    width : int
        Length of all rows together.
    start : ndarray of int64, shape ``[n]``
        Where the row of each stream begins.
    bucket : ndarray of int32, shape ``[width]``
        Bucket of each place; meaningless for a counter's.
    mask : ndarray of int64, shape ``[width]``
        All bits set where a bucket is, none where a counter is.
    counters : ndarray of int64, shape ``[n, 8]``
        Where the counters are.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = list(streams)
        widths = np.array([stream.width for stream in streams], np.int64)
        self.width = int(widths.sum())
        self.stream = np.array([stream.id for stream in streams], np.int32)
        self.start = np.cumsum(widths) - widths
        self.bucket = (np.arange(self.width) - np.repeat(self.start, widths)).astype(np.int32)
        self.counters = (self.start + widths - len(COUNTERS))[:, None] + np.arange(len(COUNTERS))
        self.mask = np.full(self.width, -1, np.int64)
        self.mask[self.counters] = 0

    def with_streams(self, streams: Sequence[Stream]) -> Layout:
        """Return the layout of these streams and of `streams`; this one, if it has them all."""
        both = {stream.id: stream for stream in (*self.streams, *streams)}
        return self if len(both) == len(self.streams) else Layout([both[number] for number in sorted(both)])


class Chunk:
    """Some batches, whose rows are copied one below the other; all that the training thread does with them.

    Memory is taken once: the training thread only copies into it, and a chunk that was written is used again.

    Parameters
    ----------
    layout : Layout
        Of the streams that may fire.
    batches : int
        How many batches fit.
    nbytes : int
        Bytes of rows from which on nothing more is taken.
    """

    __slots__ = ("_capacity", "_fired", "_limit", "batches", "filled", "layout", "moments", "rows", "since", "units")

    def __init__(self, layout: Layout, batches: int, nbytes: int) -> None:
        self.layout = layout
        self._limit = batches
        self._capacity = min(batches, max(1, -(-nbytes // (8 * layout.width or 1))))
        self.rows = np.empty((self._capacity, layout.width), np.int64)
        self.moments = np.empty((self._capacity, len(layout.streams), len(MOMENTS)))
        self.clear()

    def clear(self) -> None:
        """Forget the batches, keep the memory."""
        self.batches: list[Batch] = []
        self.units: list[Units] = []
        self.filled = 0
        self.since = 0.0
        self._fired: dict[int, npt.NDArray[np.bool_]] = {}

    @property
    def full(self) -> bool:
        """Whether nothing more is taken."""
        return self.filled == self._capacity or len(self.batches) >= self._limit

    @property
    def nbytes(self) -> int:
        """Bytes that are in use, roughly."""
        return 8 * self.layout.width * self.filled + _BATCH_BYTES * len(self.batches)

    @property
    def fired(self) -> npt.NDArray[np.bool_]:
        """Whether each stream has a column in each recorded batch, shape ``[n, filled]``."""
        fired = np.ones((self.filled, len(self.layout.streams)), np.bool_)
        for row, which in self._fired.items():
            fired[row] = which
        return np.ascontiguousarray(fired.T)

    def next_layout(self) -> Layout:
        """Return the layout for the batches that follow: without the streams that have no column here."""
        if len(self._fired) < self.filled or not self.filled:
            return self.layout
        hits = np.flatnonzero(self.fired.any(axis=1))
        if len(hits) == len(self.layout.streams):
            return self.layout
        return Layout([self.layout.streams[hit] for hit in hits])

    def put(
        self,
        batch: Batch,
        streams: list[Stream],
        rows: npt.NDArray[np.int64],
        moments: npt.NDArray[np.float64],
        units: Sequence[Units],
    ) -> bool:
        """Copy a batch, as :meth:`colordim.column.Sink.append` gets it; False if its streams are not in the layout."""
        if batch.recorded:
            if streams == self.layout.streams:
                self.rows[self.filled] = rows
                self.moments[self.filled] = moments
            elif not self._put_some(streams, rows, moments):
                return False
            self.filled += 1
        if not self.batches:
            self.since = time.monotonic()
        self.batches.append(batch)
        if units:
            self.units.extend(units)
        return True

    def _put_some(self, streams: list[Stream], rows: npt.NDArray[np.int64], moments: npt.NDArray[np.float64]) -> bool:
        place = np.searchsorted(self.layout.stream, [stream.id for stream in streams])
        if len(place) and place.max() == len(self.layout.stream):
            return False
        if any(self.layout.stream[at] != stream.id for at, stream in zip(place, streams, strict=True)):
            return False
        row = self.rows[self.filled]
        row[:] = 0
        begin = 0
        for start, stream in zip(self.layout.start[place], streams, strict=True):
            row[start : start + stream.width] = rows[begin : begin + stream.width]
            begin += stream.width
        self.moments[self.filled] = NO_MOMENTS
        self.moments[self.filled, place] = moments
        if len(place) < len(self.layout.stream):
            self._fired[self.filled] = np.isin(self.layout.stream, self.layout.stream[place])
        return True
