"""Sealed segments: immutable Parquet files that any engine reads.

A segment is three files of one number, that of its first batch: the columns (a row per stream and
occupied bucket), the moments (a row per stream and column) and the batches, and a fourth where
anything is known of units. The batches are written last: a segment counts from the moment its
batches are there.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from colordim.column import COUNTERS, MOMENTS, Stream, Units
from colordim.store.files import BATCHES, COLUMNS, MOMENTS_FOLDER, UNITS_FOLDER, numbered, replacing
from colordim.store.sparse import Columns, Scratch, StreamColumns
from colordim.store.table import (
    UNITS,
    arrow,
    arrow_units,
    batch_arrays,
    checksum,
    join_batches,
    numbers,
    unit_arrays,
    units_of,
)
from colordim.store.tail import Frame

__all__ = ["Footer", "Segment", "read_batches", "read_columns", "read_moments", "read_units"]

IntArray = npt.NDArray[np.int64]

#: Rows of moments that share a row group: below that, the footer would outweigh the data.
_GROUP_ROWS = 4096
#: Batches whose frames are put together before they are sealed.
_JOINED = 16
#: Bytes of a page: what Arrow needs for one stays in the processor's cache, and compresses best.
_PAGE_BYTES = 128 << 10
_KEY = b"colordim"


class Segment:
    """Frames that are sealed together, held without their zeros until then.

    Parameters
    ----------
    first : int
        Number of the first batch.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self._tables: list[pa.Table] = []
        self._parts: list[Columns] = []
        self._small: list[Columns] = []
        self._units: list[Units] = []
        self._begin = np.zeros(1, np.int64)
        self._occupied = np.zeros(0, np.bool_)
        self._cells = 0
        self._batches = 0
        self._recorded = 0
        self._columns = 0

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the segment's files when decoded."""
        rows = (len(COUNTERS) + len(MOMENTS) + 2) * self._columns + 16 * self._batches
        return 8 * (self._cells * self._recorded + rows)

    def add(self, frame: Frame, streams: Sequence[Stream]) -> None:
        """Take one more frame; `streams` are those of the run, by id."""
        self._tables.append(frame.batches)
        self._units.extend(frame.units)
        self._batches += frame.batches.num_rows
        columns = frame.columns
        if columns is None:
            return
        if self._small and not np.array_equal(self._small[0].stream, columns.stream):
            self._join()
        self._small.append(columns)
        if sum(part.number for part in self._small) >= _JOINED:
            self._join()
        self._recorded += columns.number
        self._columns += int(np.count_nonzero(columns.fired))
        if len(self._begin) <= len(streams):
            self._begin = np.cumsum([0, *(stream.axis.bins for stream in streams)])
            self._occupied = np.append(self._occupied, np.zeros(self._begin[-1] - len(self._occupied), np.bool_))
        place = np.repeat(self._begin[columns.stream], np.diff(columns.offsets)) + columns.bucket
        self._cells += len(place) - int(np.count_nonzero(self._occupied[place]))
        self._occupied[place] = True

    def _join(self) -> None:
        # A slow training has a frame a batch: sealing so many parts, stream by stream, would take twice the time.
        if self._small:
            self._parts.append(Columns.join(self._small) if len(self._small) > 1 else self._small[0])
            self._small = []

    def seal(self, folder: Path, streams: Sequence[Stream], between: Callable[[], None]) -> None:
        """Write the segment's files; the batches, which make it count, come last.

        Parameters
        ----------
        folder : Path
            That of the rank.
        streams : sequence of Stream
            Those of the run, by id.
        between : callable
            Called after each stream, as sealing may take a while.

        Raises
        ------
        OSError
            If the disk does not take the data; no part of a file is left then.
        """
        self._join()
        table = join_batches(self._tables)
        recorded = numbers(table.column("batch"))[numbers(table.column("recorded"))]
        ids = np.unique(np.concatenate([np.zeros(0, np.int32), *(part.stream for part in self._parts)])).tolist()
        name = f"{numbered(self.first)}.parquet"
        scratch = Scratch()
        with (
            replacing(folder / COLUMNS / name) as columns_path,
            replacing(folder / MOMENTS_FOLDER / name) as moments_path,
            _Writer(columns_path, _COLUMNS_SCHEMA, self.first) as columns_file,
            _Writer(moments_path, _MOMENTS_SCHEMA, self.first) as moments_file,
        ):
            waiting: list[tuple[int, StreamColumns]] = []
            for stream in ids:
                found = Columns.stream_of(self._parts, stream, scratch)
                if found is not None:
                    columns_file.write([stream], _bucket_rows(streams[stream], found, self.first))
                    waiting.append((stream, found))
                if waiting and (len(waiting) * len(recorded) >= _GROUP_ROWS or stream == ids[-1]):
                    moments_file.write([stream for stream, _ in waiting], _moment_rows(waiting, recorded))
                    waiting.clear()
                between()
        pa.default_memory_pool().release_unused()
        if self._units:
            (folder / UNITS_FOLDER).mkdir(exist_ok=True)
            with (
                replacing(folder / UNITS_FOLDER / name) as units_path,
                _Writer(units_path, UNITS, self.first) as units_file,
            ):
                units_file.write_table([], arrow_units(self._units), checksum(unit_arrays(self._units)))
        with (
            replacing(folder / BATCHES / name) as batches_path,
            _Writer(batches_path, table.schema, self.first, units=len(self._units)) as batches_file,
        ):
            batches_file.write_table([], table, checksum(batch_arrays(table)))


_COLUMNS_SCHEMA = pa.schema(
    [
        ("stream", pa.int32()),
        ("bucket", pa.int32()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("first", pa.int64()),
        pa.field("counts", pa.list_(pa.field("element", pa.int64(), nullable=False)), nullable=False),
    ]
)
_MOMENTS_SCHEMA = pa.schema(
    [
        ("stream", pa.int32()),
        ("batch", pa.int64()),
        *((name, pa.int64()) for name in COUNTERS),
        *((name, pa.float64()) for name in MOMENTS),
    ]
)
_ENCODINGS = {
    # Byte planes of like numbers compress best among what every Parquet reader decodes.
    "counts.list.element": "BYTE_STREAM_SPLIT",
    "batch": "DELTA_BINARY_PACKED",
    **dict.fromkeys((*COUNTERS, *MOMENTS), "BYTE_STREAM_SPLIT"),
}


def _bucket_rows(stream: Stream, columns: StreamColumns, first: int) -> dict[str, npt.NDArray[Any]]:
    edges = stream.axis.edges
    return {
        "stream": np.full(len(columns.bucket), stream.id, np.int32),
        "bucket": columns.bucket.astype(np.int32),
        "lower": edges[columns.bucket],
        "upper": edges[columns.bucket + 1],
        "first": np.full(len(columns.bucket), first, np.int64),
        "counts": columns.counts,
    }


def _moment_rows(streams: Sequence[tuple[int, StreamColumns]], recorded: IntArray) -> dict[str, npt.NDArray[Any]]:
    fired = np.concatenate([columns.fired for _, columns in streams])
    # One row a counter, so that each of them lies in one piece.
    counters = np.concatenate([columns.counters for _, columns in streams]).T[:, fired]
    moments = np.concatenate([columns.moments for _, columns in streams]).T[:, fired]
    return {
        "stream": np.repeat(np.array([stream for stream, _ in streams], np.int32), len(recorded))[fired],
        "batch": np.tile(recorded, len(streams))[fired],
        **dict(zip(COUNTERS, counters, strict=True)),
        **dict(zip(MOMENTS, moments, strict=True)),
    }


class _Writer:
    """Writes row groups, and closes the file with their checksums in its footer."""

    def __init__(self, path: Path, schema: pa.Schema, first: int, **facts: int) -> None:
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in ("stream", "phase", "judged_on") if name in schema.names],
            column_encoding={
                name: encoding for name, encoding in _ENCODINGS.items() if name.split(".")[0] in schema.names
            }
            if "under" in schema.names or "counts" in schema.names
            else None,
            write_statistics=[name for name in ("stream", "batch") if name in schema.names],
            write_page_checksum=True,
            data_page_size=_PAGE_BYTES,
            store_schema=False,
        )
        self._schema = schema
        self._facts = {"first": first, **facts}
        self._streams: list[list[int]] = []
        self._checksums: list[int] = []

    def write(self, streams: list[int], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        columns = [_arrow(arrays[field.name], field.type) for field in self._schema]
        self.write_table(streams, pa.Table.from_arrays(columns, schema=self._schema), checksum(_checked(arrays)))

    def write_table(self, streams: list[int], table: pa.Table, crc: int) -> None:
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._streams.append(streams)
        self._checksums.append(crc)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                text = json.dumps({**self._facts, "streams": self._streams, "crc": self._checksums}).encode()
                self._writer.add_key_value_metadata({_KEY: b"%08x " % zlib.crc32(text) + text})
        finally:
            self._writer.close()


def _arrow(array: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    if array.ndim == 1:
        return arrow(array, kind)
    rows, columns = array.shape
    offsets = arrow(np.arange(rows + 1, dtype=np.int32) * np.int32(columns), pa.int32())
    return pa.ListArray.from_arrays(offsets, arrow(array.reshape(-1), pa.int64()), type=kind)


def _checked(arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Return what a reader takes from the file; the rest is there for other engines."""
    left_out = ("lower", "upper", "first")
    return {
        name: array.reshape(-1) if array.ndim > 1 else np.ascontiguousarray(array)
        for name, array in arrays.items()
        if name not in left_out
    }


class Footer:
    """Where the streams are in a sealed file, with the checksums of what is there.

    Raises
    ------
    OSError, ValueError, LookupError
        If the file cannot be read or its footer is damaged.
    """

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.metadata = pq.read_metadata(path)
        crc, _, text = self.metadata.metadata[_KEY].partition(b" ")
        if int(crc, 16) != zlib.crc32(text):
            raise ValueError("the checksum of its footer does not match")
        described = json.loads(text)
        if described["first"] != first:
            raise ValueError(f"it holds the batches from {described['first']} on")
        self._checksums = described["crc"]
        self.units = int(described.get("units", 0))
        self.group_of = {stream: group for group, ids in enumerate(described["streams"]) for stream in ids}

    def read(self, group: int, columns: Sequence[str] | None) -> pa.Table:
        with pq.ParquetFile(self.path, metadata=self.metadata, page_checksum_verification=True) as file:
            return file.read_row_group(group, columns=columns, use_threads=False)

    def check(self, group: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        if checksum(arrays) != self._checksums[group]:
            raise ValueError("a checksum does not match")


def read_batches(folder: Path, first: int) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """Return the table of batches of a segment, and how many entries of units it has; raises as :class:`Footer` does."""
    footer = Footer(folder / BATCHES / f"{numbered(first)}.parquet", first)
    arrays = batch_arrays(footer.read(0, None))
    footer.check(0, arrays)
    return arrays, footer.units


def read_units(footer: Footer) -> list[Units]:
    """Return all that is known of units in a segment; raises as :class:`Footer` does."""
    units = units_of(footer.read(0, None))
    footer.check(0, unit_arrays(units))
    return units


def read_columns(footer: Footer, stream: int, batches: int) -> tuple[IntArray, IntArray]:
    """Return the occupied buckets of a stream and its counts ``[occupied, batches]``; raises as :class:`Footer` does."""
    group = footer.group_of[stream]
    table = footer.read(group, ["stream", "bucket", "counts"])
    counts = table.column("counts").combine_chunks()
    arrays = {
        "stream": numbers(table.column("stream")),
        "bucket": numbers(table.column("bucket")),
        "counts": numbers(_one(counts).flatten()),
    }
    footer.check(group, arrays)
    return arrays["bucket"].astype(np.int64), arrays["counts"].reshape(table.num_rows, batches)


def read_moments(footer: Footer, stream: int) -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Return the batches in which a stream fired, its counters and its moments; raises as :class:`Footer` does."""
    group = footer.group_of[stream]
    table = footer.read(group, None)
    arrays = {name: numbers(table.column(name)) for name in _MOMENTS_SCHEMA.names}
    footer.check(group, arrays)
    mine = arrays["stream"] == stream
    return (
        arrays["batch"][mine],
        np.column_stack([arrays[name][mine] for name in COUNTERS]),
        np.column_stack([arrays[name][mine] for name in MOMENTS]),
    )


def _one(column: Any) -> pa.Array:
    return column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
