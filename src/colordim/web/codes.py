"""Counts as one byte each: what the page draws from, where the integers would take five times the room."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["EXACT", "STEPS", "decode", "encode"]

#: Counts up to this are their own code.
EXACT = 16
#: Codes an octave above it: 2^(1/12), 6 %, is the largest error, less than two of the 256 colours over six decades.
STEPS = 6

#: The largest count of each code above EXACT but the last: half way, on the logarithmic scale, to the next.
_BORDERS = np.floor(EXACT * 2.0 ** ((np.arange(255 - EXACT) + 0.5) / STEPS)).astype(np.int64)


def encode(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return the code of each count: 0 for 0, never 0 for more, ascending; above 2^55 the last.

    Parameters
    ----------
    counts : ndarray of int64, any shape
        Not negative.
    """
    codes = _SMALL[np.minimum(counts, len(_SMALL) - 1)]
    large = counts >= len(_SMALL)
    if large.any():
        codes[large] = _searched(counts[large])
    return codes


def _searched(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    codes = np.searchsorted(_BORDERS, counts, side="left") + EXACT
    return np.where(counts <= EXACT, counts, codes).astype(np.uint8)


#: Codes of most counts that there are: looking them up takes a fifth of the time of searching.
_SMALL = _searched(np.arange(1 << 16))


def decode(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the count in the middle of what each code stands for."""
    exponent = (codes.astype(np.float64) - EXACT) / STEPS
    return np.where(codes <= EXACT, codes, EXACT * 2.0**exponent).astype(np.float64)
