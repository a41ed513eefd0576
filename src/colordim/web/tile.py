"""A tile: adjacent columns of one stream as bytes, from which the page draws any window without asking again.

Layout, little-endian: the length of the header (uint32), the header (JSON, padded with blanks to a multiple of 8 with
those four bytes), then three sections:

- the occupied bins, uint32 ``[bins]``, padded to a multiple of 8;
- :data:`ARRAYS`, float64 ``[14, columns]``, byte-shuffled: all first bytes, then all second ones, ...;
- the codes of the counts (:mod:`colordim.web.codes`), uint8 ``[bins, columns]``, bin by bin, padded to a multiple of 8;
- in an exact tile the counts themselves, float64 ``[bins, columns]``, byte-shuffled.

Integers up to 2^53 are exact in float64, which is a million batches of nine billion values each.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim import reading, statistics
from colordim.charts.columns import Columns, regular
from colordim.column import COUNTERS, OF_PARAMETERS, Phase, Stream
from colordim.run import Run
from colordim.store.base import Block
from colordim.web.codes import encode

__all__ = ["ARRAYS", "arrays_of", "pack", "tile_columns"]

#: What a tile holds of each column. `number`: batches in which the stream fired; `held`: 1 where a column repeats the
#: one before, as none of its batches was recorded; `mean` and `std` of the finite values, to seven digits.
ARRAYS = ("number", "held", *COUNTERS, "mean", "std", "min", "max")

#: Batches before a tile in which its first columns look for the last one that was recorded.
_REACH = 1024


def tile_columns(run: Run, stream: Stream, phase: Phase, start: int, stop: int, width: int, level: int) -> Columns:
    """Return the columns of ``start <= batch < stop``, `width` batches each, read from a level.

    Parameters
    ----------
    run : Run
    stream : Stream
    phase : {"train", "valid"}
    start, stop : int
        `start` is a multiple of `width`.
    width : int
        A multiple of ``4**level``.
    level : int
    """
    block = run.columns(stream, phase, start, stop, level)
    first = start
    if start and not (len(block) and block.first[0] < start + width and _calls(block)[0]):
        # what is held in the first columns was recorded before them
        first = max(start - -(-_REACH // width) * width, 0, -(-run.kept(phase, level) // width) * width)
        first = min(first, start)
        block = run.columns(stream, phase, first, stop, level)
    if stream.kind in OF_PARAMETERS:
        block = reading.as_taken(block)
    columns = regular(
        block.first, block.number, block.counts, block.counters, block.moments,
        width=width, start=first, stop=stop,
    )  # fmt: skip
    cut = (start - columns.start) // width
    return Columns(
        start, width, columns.number[cut:], columns.counts[cut:], columns.first_bin, columns.counters[cut:],
        columns.moments[cut:], columns.held[cut:],
    )  # fmt: skip


def _calls(block: Block) -> npt.NDArray[np.int64]:
    calls: npt.NDArray[np.int64] = block.counters[:, COUNTERS.index("calls")]
    return calls


def pack(columns: Columns, header: dict[str, Any], exact: bool = False) -> bytes:
    """Return columns as a tile.

    Parameters
    ----------
    columns : Columns
    header : dict
        JSON types; `start, width, columns, bins, exact` are added.
    exact : bool
        Whether the counts themselves go along.
    """
    occupied = np.flatnonzero(columns.counts.any(axis=0))
    counts = np.ascontiguousarray(columns.counts.T[occupied])
    described = {
        **header, "start": columns.start, "width": columns.width, "columns": len(columns), "bins": len(occupied),
        "exact": exact,
    }  # fmt: skip
    text = json.dumps(described, separators=(",", ":")).encode()
    text += b" " * (-(4 + len(text)) % 8)
    parts = [
        struct.pack("<I", len(text)), text,
        _padded((occupied + columns.first_bin).astype("<u4").tobytes()),
        _shuffled(_arrays(columns)),
        _padded(encode(counts).tobytes()),
    ]  # fmt: skip
    if exact:
        parts.append(_shuffled(counts.astype(np.float64)))
    return b"".join(parts)


def arrays_of(columns: Columns) -> dict[str, npt.NDArray[Any]]:
    """Return :data:`ARRAYS` of columns by name, each of shape ``[columns]``, exactly."""
    counters = {name: columns.counter(name) for name in COUNTERS}
    number = statistics.finite(*(counters[name] for name in ("size", "nan", "pos_inf", "neg_inf")))
    total, squares, least, most = columns.moments.T
    return {
        "number": columns.number, "held": columns.held.astype(np.int64), **counters,
        "mean": statistics.mean(total, number), "std": statistics.std(total, squares, number), "min": least, "max": most,
    }  # fmt: skip


def _arrays(columns: Columns) -> npt.NDArray[np.float64]:
    arrays = arrays_of(columns)
    rounded = {name: _seven_digits(arrays[name]) for name in ("mean", "std")}
    return np.vstack([(arrays | rounded)[name] for name in ARRAYS]).astype(np.float64)


def _seven_digits(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Round to float32's mantissa and keep float64's range: half of the bytes become zeros, which take no room."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    rounded = ((bits + np.uint64(1 << 28)) & ~np.uint64((1 << 29) - 1)).view(np.float64)
    return np.where(np.isfinite(values), rounded, values)


def _shuffled(values: npt.NDArray[np.float64]) -> bytes:
    return np.ascontiguousarray(values.astype("<f8").reshape(-1).view(np.uint8).reshape(-1, 8).T).tobytes()


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 8)
