"""Exact sums of adjacent columns: level k adds up to 4**k batches of a phase into one column."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from colordim.store.base import Block

__all__ = ["FACTOR", "coarsest_level", "merge"]

#: Columns of one level that make up one of the next.
FACTOR = 4


def coarsest_level(batches: int, columns: int) -> int:
    """Return the coarsest level at which `batches` batches still give `columns` columns, at least 0."""
    level = 0
    while FACTOR**level < batches and -(-batches // FACTOR ** (level + 1)) >= columns:
        level += 1
    return level


def merge(blocks: Iterable[Block], level: int, bins: int) -> Block:
    """Add adjacent level-0 columns up to columns of `level`.

    Columns are grouped by ``first // 4**level``, so the grouping does not depend on where reading
    began or on how the store cut its segments.

    Parameters
    ----------
    blocks : iterable of Block
        Ascending and of level 0, as a store yields them; held one at a time.
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
            part = Block.concatenate([merged.pop(), part], bins)
            part = _add_groups(part, part.first // FACTOR**level)
        merged.append(part)
    return Block.concatenate(merged, bins)


def _add_groups(block: Block, group: npt.NDArray[np.int64]) -> Block:
    starts = np.flatnonzero(np.diff(group, prepend=group[0] - 1))
    ends = np.append(starts[1:], len(group)) - 1
    return Block(
        first=block.first[starts],
        last=block.last[ends],
        number=np.add.reduceat(block.number, starts),
        counts=np.add.reduceat(block.counts, starts, axis=0),
        counters=np.add.reduceat(block.counters, starts, axis=0),
        moments=np.column_stack(
            [
                np.add.reduceat(block.moments[:, 0], starts),
                np.add.reduceat(block.moments[:, 1], starts),
                np.minimum.reduceat(block.moments[:, 2], starts),
                np.maximum.reduceat(block.moments[:, 3], starts),
            ]
        ),
    )
