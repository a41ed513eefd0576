"""Sees NaN and infinities in the batches that go by: in which batch a stream was not finite for the first time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from colordim.column import COUNTERS
from colordim.recording.counters import Columns

__all__ = ["Alarm"]

_BAD = [COUNTERS.index(name) - len(COUNTERS) for name in ("nan", "pos_inf", "neg_inf")]


class Alarm:
    """Is shown every batch, for some microseconds.

    Parameters
    ----------
    ring : callable
        Is told the number of the batch in which a stream holds NaN or infinities that did not before.
    """

    def __init__(self, ring: Callable[[int], None]) -> None:
        self._ring = ring
        self._known: set[int] = set()
        self._places: dict[tuple[int, ...], npt.NDArray[np.intp]] = {}

    def __call__(self, batch: int, columns: Columns) -> None:
        ids = tuple([stream.id for stream in columns.streams])
        places = self._places.get(ids)
        if places is None:  # models run the same layers in nearly every batch
            ends = np.cumsum([stream.width for stream in columns.streams], dtype=np.intp)
            places = self._places[ids] = np.add.outer(ends, _BAD)
        bad = columns.rows[places]
        if bad.any():
            found = {ids[i] for i in np.flatnonzero(bad.any(axis=1))} - self._known
            if found:
                self._known |= found
                self._ring(batch)
