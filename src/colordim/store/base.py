"""The protocol of a store that is read: what :class:`colordim.run.Run` asks of it.

The writing side is :class:`colordim.column.Sink`. Every store implements both, and one
parametrised test suite holds all of them to the memory store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from colordim.column import COUNTERS, NO_MOMENTS, Phase, Stream, Units

__all__ = ["BATCH_COLUMNS", "Block", "Reader", "batch_key"]

#: What every row of the table of batches has, before what was logged; the last two only with several ranks.
BATCH_COLUMNS = ("batch", "index", "epoch", "step", "phase", "time", "recorded", "ranks", "partial")


def batch_key(name: str) -> str:
    """Return the key of a logged name in the table of batches: "step" becomes "step_", as "step" is taken."""
    return f"{name}_" if name.rstrip("_") in BATCH_COLUMNS else name


@dataclass(frozen=True)
class Block:
    """Adjacent columns of one stream and phase, n of them, at some level of merging.

    At level 0 there is one column for every *recorded* batch of the phase; where the stream did
    not fire in a batch, its column is all zeros (``calls`` is 0), so that the columns of all
    streams line up.

    Attributes
    ----------
    first, last : ndarray of int64, shape ``[n]``
        Index, within the phase, of each column's first and last batch; `first` ascends.
    number : ndarray of int64, shape ``[n]``
        How many recorded batches the column is the sum of.
    counts : ndarray of int64, shape ``[n, bins]``
    counters : ndarray of int64, shape ``[n, 8]``
        In the order of :data:`colordim.column.COUNTERS`.
    moments : ndarray of float64, shape ``[n, 4]``
        In the order of :data:`colordim.column.MOMENTS`; (0, 0, inf, -inf) where nothing fired.
    """

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    number: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    counters: npt.NDArray[np.int64]
    moments: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def unfired(cls, index: npt.NDArray[np.int64], bins: int) -> Block:
        """Return a level-0 block for the batches `index`, in none of which the stream fired."""
        n = len(index)
        return cls(
            first=index,
            last=index,
            number=np.ones(n, np.int64),
            counts=np.zeros((n, bins), np.int64),
            counters=np.zeros((n, len(COUNTERS)), np.int64),
            moments=np.tile(np.array(NO_MOMENTS), (n, 1)),
        )

    @classmethod
    def concatenate(cls, blocks: Sequence[Block], bins: int) -> Block:
        """Return the columns of all `blocks`, one after the other; without blocks an empty one."""
        if not blocks:
            return cls.unfired(np.zeros(0, np.int64), bins)
        if len(blocks) == 1:
            return blocks[0]  # a copy of megabytes for nothing
        return cls(*(np.concatenate([getattr(block, f.name) for block in blocks]) for f in fields(cls)))


class Reader(Protocol):
    """A store as a reader sees it: a snapshot that changes only in :meth:`refresh`."""

    @property
    def path(self) -> str:
        """Where the run is, or "" for one in memory."""

    @property
    def info(self) -> Mapping[str, Any]:
        """What was written once: schema, name, created, versions, model."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was learnt of the model when it first ran; empty before."""

    @property
    def ended(self) -> str | None:
        """Why the run ended, or None while it is being written (or was cut off)."""

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All streams, by id."""

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each damaged part that was left out of the snapshot."""

    def refresh(self) -> None:
        """Take a new snapshot of what is there now."""

    def batches(self) -> Mapping[str, npt.NDArray[Any]]:
        """Return one row a batch, by ascending number.

        Keys: ``batch, index, epoch, step`` (int64), ``phase`` (str), ``time`` (float64), ``recorded``
        (bool); if the run has several ranks ``ranks`` (int64), how many of them hold the batch, and
        ``partial`` (bool), whether they are fewer than all; then every logged name in order of first appearance (float64, NaN where not logged),
        as :func:`batch_key` gives it.
        """

    def extent(self, phase: Phase) -> tuple[int, int]:
        """Return how many batches a phase has, by its last index, and how many of them were recorded."""

    def kept(self, phase: Phase, level: int) -> int:
        """Return the index of the first batch from which on all columns of `level` can be had: 0 unless some were dropped."""

    def blocks(self, stream: Stream, phase: Phase, start: int, stop: int, level: int = 0) -> Iterator[Block]:
        """Yield the columns of `stream` with ``start <= index < stop``, ascending, in pieces.

        At a `level` above 0 where two pieces meet, the last column of one and the first of the next may belong
        together: :func:`colordim.store.pyramid.merge` adds them up.
        """

    def columns(self, stream: Stream, phase: Phase, start: int, stop: int, level: int) -> Block:
        """Return all that :meth:`blocks` would yield in one piece, with what belongs together added up."""

    def units(self, stream: Stream, phase: Phase) -> Sequence[Units]:
        """Return what is known of the activity of a layer's units, in no particular order; windows may overlap."""
