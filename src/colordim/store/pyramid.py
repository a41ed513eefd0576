"""Exact sums of adjacent columns: level k adds up to 4**k batches of a phase into one column."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from colordim.store.base import Block

__all__ = ["FACTOR", "add_columns", "add_moments", "coarsest_level", "merge"]

#: Columns of one level that make up one of the next.
FACTOR = 4
#: Columns of a group up to which adding slice by slice is faster than group by group.
_SLICES = 64


def coarsest_level(batches: int, columns: int) -> int:
    """Return the coarsest level at which `batches` batches still give `columns` columns, at least 0."""
    level = 0
    while FACTOR**level < batches and -(-batches // FACTOR ** (level + 1)) >= columns:
        level += 1
    return level


def merge(blocks: Iterable[Block], level: int, bins: int) -> Block:
    """Add adjacent columns up to columns of `level`.

    Columns are grouped by ``first // 4**level``, so the grouping does not depend on where reading
    began or on how the store cut its segments.

    Parameters
    ----------
    blocks : iterable of Block
        Ascending and of `level` or a finer one, as a store yields them; held one at a time.
    level : int
        0 leaves the columns as they are.
    bins : int
        Bins of the stream's axis, for the result without columns.

    Returns
    -------
    Block
        One column a group that has a batch.
    """
    merged: list[Block] = []
    for block in blocks:
        if len(block) == 0:
            continue
        part = _add_groups(block, block.first // FACTOR**level) if level else block
        if level and merged and merged[-1].first[-1] // FACTOR**level == part.first[0] // FACTOR**level:
            seam = Block.concatenate([_part(merged[-1], slice(-1, None)), _part(part, slice(1))], bins)
            merged[-1] = _part(merged[-1], slice(-1))
            merged.append(_add_groups(seam, np.zeros(2, np.int64)))
            part = _part(part, slice(1, None))
        if len(part):
            merged.append(part)
    return Block.concatenate(merged, bins)


def _part(block: Block, which: slice) -> Block:
    return Block(*(getattr(block, field.name)[which] for field in fields(block)))


def _add_groups(block: Block, group: npt.NDArray[np.int64]) -> Block:
    starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
    if len(starts) == len(group):
        return block
    ends = np.append(starts[1:], len(group)) - 1
    return Block(
        first=block.first[starts],
        last=block.last[ends],
        number=np.add.reduceat(block.number, starts),
        counts=np.add.reduceat(block.counts, starts, axis=0),
        counters=np.add.reduceat(block.counters, starts, axis=0),
        moments=add_moments(block.moments, starts),
    )


def add_moments(moments: npt.NDArray[np.float64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the moments of groups of columns, each of which begins at one of `starts`."""
    added = np.empty((len(starts), moments.shape[1]))
    for i, add in enumerate((np.add, np.add, np.minimum, np.maximum)):
        added[:, i] = add.reduceat(moments[:, i], starts)
    return added


def add_columns(counts: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the sums of groups of adjacent columns of counts ``[bins, n]``, each of which begins at one of `starts`."""
    sizes = np.diff(starts[1:])
    if len(starts) < 3 or sizes[0] > _SLICES or not (sizes == sizes[0]).all():
        return np.add.reduceat(counts, starts, axis=1)
    # All but the groups at the ends are of one size: as slices, they are added in a fifth of the time.
    first, last, size = starts[1], starts[-1], sizes[0]
    added = np.empty((len(counts), len(starts)), np.int64)
    added[:, 0], added[:, -1] = counts[:, :first].sum(axis=1), counts[:, last:].sum(axis=1)
    inner = added[:, 1:-1]
    inner[:] = counts[:, first:last:size]
    for offset in range(1, size):
        inner += counts[:, first + offset : last : size]
    return added
