"""Columns as they are found in one file after the other, put together with their empty buckets only at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from colordim.column import COUNTERS, NO_MOMENTS
from colordim.store.base import Block
from colordim.store.levels import Groups
from colordim.store.pyramid import FACTOR
from colordim.store.sparse import StreamColumns

__all__ = ["Piece", "gather"]


@dataclass(frozen=True)
class Piece:
    """Adjacent columns of one stream and phase.

    Attributes
    ----------
    groups : Groups
        Which batches they hold.
    columns : StreamColumns or None
        None if the stream fired in none of them.
    """

    groups: Groups
    columns: StreamColumns | None

    def at_level(self, level: int, own: int = 0) -> Piece:
        """Return columns of a level that is not finer than `own`, that of these."""
        if level == own:
            return self
        groups, starts = self.groups.at_level(level)
        return Piece(groups, self.columns and self.columns.added(starts))


def gather(pieces: Iterable[Piece], level: int, bins: int) -> Block:
    """Put columns of a level together; where two pieces meet in one column, that is added up.

    Memory is taken once, and touched only where anything was counted: for the overview of a long run that halves the time.
    Each bin's counts lie side by side in it, as in the files and as a chart's rows take them: turning them takes longer than
    reading them.

    Parameters
    ----------
    pieces : iterable of Piece
        Ascending.
    level : int
    bins : int
        Bins of the stream's axis.

    Returns
    -------
    Block
    """
    found = [piece for piece in pieces if len(piece.groups)]
    starts: list[int] = []
    end, last_key = 0, -1
    for piece in found:
        first_key = int(piece.groups.first[0]) // FACTOR**level
        starts.append(end - (first_key == last_key))
        end = starts[-1] + len(piece.groups)
        last_key = int(piece.groups.first[-1]) // FACTOR**level
    first, last, number = (np.zeros(end, np.int64) for _ in range(3))
    counts, counters = np.zeros((bins, end), np.int64), np.zeros((end, len(COUNTERS)), np.int64)
    moments = np.tile(np.array(NO_MOMENTS), (end, 1))
    filled = 0
    for piece, start in zip(found, starts, strict=True):
        rows = slice(start, start + len(piece.groups))
        seam = filled - start  # 1 where the first column is one with the last before
        first[filled : rows.stop] = piece.groups.first[seam:]
        last[rows] = piece.groups.last
        number[rows] += piece.groups.number
        if piece.columns is not None:
            own = piece.columns
            counts[own.bucket, filled : rows.stop] = own.counts[:, seam:]
            counts[own.bucket, start:filled] += own.counts[:, :seam]
            counters[rows] += own.counters
            moments[rows, :2] += own.moments[:, :2]
            moments[rows, 2] = np.minimum(moments[rows, 2], own.moments[:, 2])
            moments[rows, 3] = np.maximum(moments[rows, 3], own.moments[:, 3])
        filled = rows.stop
    return Block(first, last, number, counts.T, counters, moments)
