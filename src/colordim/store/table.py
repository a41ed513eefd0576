"""The tables in Arrow: what is known of a batch besides its columns, and of units; their checksums."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colordim.column import Batch, Units
from colordim.store.base import batch_key
from colordim.store.memory import batch_table

__all__ = [
    "UNITS",
    "arrow",
    "arrow_batches",
    "arrow_texts",
    "arrow_units",
    "batch_arrays",
    "checksum",
    "join_batches",
    "numbers",
    "unit_arrays",
    "units_of",
]

_EMPTY = batch_table([])
_TYPES = {"phase": pa.string(), "recorded": pa.bool_(), "time": pa.float64()}

#: The table of units.
UNITS = pa.schema(
    [
        ("stream", pa.int32()),
        ("judged_on", pa.string()),
        ("phase", pa.string()),
        ("first", pa.int64()),
        ("last", pa.int64()),
        ("number", pa.int64()),
        ("active", pa.binary()),
    ]
)


def arrow(values: npt.NDArray[Any], kind: pa.DataType, valid: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return numbers as an Arrow array, which shares their memory.

    Unlike ``pyarrow.array``, which imports pandas to see whether they are one of its: half a second, within a training.
    """
    data = np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    mask = None if valid is None or valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [mask, pa.py_buffer(data)])


def numbers(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return an Arrow column of numbers as NumPy array, NaN where it is null; see :func:`arrow` for why."""
    if isinstance(column, pa.ChunkedArray):
        chunks = [numbers(chunk) for chunk in column.chunks]
        return chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros(0, column.type.to_pandas_dtype()), *chunks])
    valid, data = column.buffers()
    here = slice(column.offset, column.offset + len(column))
    if column.type == pa.bool_():
        return _bits(data)[here]
    values = np.frombuffer(data or b"", column.type.to_pandas_dtype())[here]
    return np.where(_bits(valid)[here], values, np.nan) if column.null_count else values


def _texts(column: pa.ChunkedArray) -> npt.NDArray[np.str_]:
    """Return a column of texts; those of one length, as the phases have, at once; see :func:`arrow` for why."""
    kind = _EMPTY["phase"].dtype
    chunks = []
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets or b"", np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        length = int(ends[1] - ends[0]) if len(chunk) else 0
        if length and not chunk.null_count and (np.diff(ends) == length).all():
            raw = np.frombuffer(data, np.uint8, length * len(chunk), int(ends[0])).reshape(-1, length)
            codes = np.full(len(raw), -1)
            texts: list[str] = []
            while (codes < 0).any():  # once a text: there are few different ones
                text = raw[(codes < 0).argmax()]
                codes[(raw == text).all(axis=1)] = len(texts)
                texts.append(text.tobytes().decode())
            chunks.append(np.array(texts, kind)[codes])
        else:
            chunks.append(np.array(chunk.to_pylist(), kind))
    return np.concatenate([_EMPTY["phase"], *chunks])


def _bits(buffer: pa.Buffer | None) -> npt.NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(buffer or b"", np.uint8), bitorder="little").view(np.bool_)


def arrow_texts(values: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    """Return texts or bytes as an Arrow array; see :func:`arrow` for why."""
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))])


def arrow_batches(batches: Sequence[Batch]) -> pa.Table:
    """Return one row a batch; what was logged is float64, null where it was not logged."""
    columns = {
        name: arrow(np.array([getattr(b, name) for b in batches], empty.dtype), _TYPES.get(name, pa.int64()))
        for name, empty in _EMPTY.items()
        if name != "phase"
    }
    columns["phase"] = arrow_texts([b.phase.encode() for b in batches], pa.string())
    columns = {name: columns[name] for name in _EMPTY}
    for name in dict.fromkeys(name for b in batches for name in b.values):
        valid = np.array([name in b.values for b in batches])
        values = np.array([float(b.values.get(name, 0.0)) for b in batches])
        columns[batch_key(name)] = arrow(values, pa.float64(), valid)
    return pa.Table.from_arrays(list(columns.values()), names=list(columns))


def join_batches(tables: Iterable[pa.Table]) -> pa.Table:
    """Put tables one below the other; a column that one lacks is null there."""
    return pa.concat_tables(tables, promote_options="default")


def batch_arrays(table: pa.Table) -> dict[str, npt.NDArray[Any]]:
    """Return the table as :meth:`colordim.store.base.Reader.batches` describes it.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is no such table.
    """
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name, empty in _EMPTY.items():
        column = table.column(name)
        if column.null_count:
            raise ValueError(f"its column {name!r} has holes")
        arrays[name] = _texts(column) if name == "phase" else np.asarray(numbers(column), empty.dtype)
    for name in table.column_names:
        if name not in arrays:
            arrays[name] = np.asarray(numbers(table.column(name)), np.float64)
    return arrays


def arrow_units(units: Sequence[Units]) -> pa.Table:
    """Return one row an entry, as :data:`UNITS` says."""
    columns = [
        arrow_texts([_bytes(getattr(each, field.name)) for each in units], field.type)
        if field.type in (pa.string(), pa.binary())
        else arrow(np.array([getattr(each, field.name) for each in units], field.type.to_pandas_dtype()), field.type)
        for field in UNITS
    ]
    return pa.Table.from_arrays(columns, schema=UNITS)


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def units_of(table: pa.Table) -> list[Units]:
    """Return what :func:`arrow_units` made a table of.

    Raises
    ------
    KeyError, TypeError, ValueError
        If it is no such table.
    """
    units = [Units(**row) for row in table.select(UNITS.names).to_pylist()]
    if any(not 0 <= each.number <= 8 * len(each.active) for each in units):
        raise ValueError("it has more units than bits")
    return units


def unit_arrays(units: Sequence[Units]) -> dict[str, npt.NDArray[Any]]:
    """Return what :func:`checksum` takes of them; texts and bits as their lengths and their bytes."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for field in UNITS:
        values = [getattr(each, field.name) for each in units]
        if field.type in (pa.string(), pa.binary()):
            texts = [_bytes(value) for value in values]
            arrays[f"{field.name} lengths"] = np.array([len(text) for text in texts], np.int64)
            arrays[field.name] = np.frombuffer(b"".join(texts), np.uint8)
        else:
            arrays[field.name] = np.array(values, np.int64)
    return arrays


def checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    """Return the CRC-32 of names, types, shapes and values.

    Parquet's own page checksums cover neither page headers nor the footer; a flipped bit there
    can give other values without an error.
    """
    crc = 0
    for name, array in arrays.items():
        crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), crc)
        crc = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data, crc)
    return crc
