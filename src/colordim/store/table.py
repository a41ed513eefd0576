"""The table of batches in Arrow: what is known of a batch besides its columns."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colordim.column import Batch
from colordim.store.base import batch_key
from colordim.store.memory import batch_table

__all__ = ["arrow_batches", "batch_arrays", "checksum", "join_batches"]

_EMPTY = batch_table([])


def arrow_batches(batches: Sequence[Batch]) -> pa.Table:
    """Return one row a batch; what was logged is float64, null where it was not logged."""
    columns: dict[str, pa.Array] = {
        "batch": pa.array([b.batch for b in batches], pa.int64()),
        "index": pa.array([b.index for b in batches], pa.int64()),
        "epoch": pa.array([b.epoch for b in batches], pa.int64()),
        "step": pa.array([b.step for b in batches], pa.int64()),
        "phase": pa.array([b.phase for b in batches], pa.string()),
        "time": pa.array([b.time for b in batches], pa.float64()),
        "recorded": pa.array([b.recorded for b in batches], pa.bool_()),
    }
    for name in dict.fromkeys(name for b in batches for name in b.values):
        columns[batch_key(name)] = pa.array([_number(b, name) for b in batches], pa.float64())
    return pa.table(columns)


def _number(batch: Batch, name: str) -> float | None:
    return float(batch.values[name]) if name in batch.values else None


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
        values = column.to_pylist() if name == "phase" else column.to_numpy()
        arrays[name] = np.asarray(values, dtype=empty.dtype)
    for name in table.column_names:
        if name not in arrays:
            arrays[name] = np.asarray(table.column(name).to_numpy(), np.float64)
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
