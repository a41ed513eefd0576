"""Sealed files: Parquet that any engine reads, with a checksum of what a reader of ours takes from each row group."""

from __future__ import annotations

import contextlib
import json
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from colordim.column import COUNTERS, MOMENTS, Stream
from colordim.store.place import Place
from colordim.store.sparse import StreamColumns
from colordim.store.table import arrow, checksum, numbers

__all__ = [
    "COLUMNS_SCHEMA",
    "GROUP_ROWS",
    "LEVEL_SCHEMA",
    "MANY",
    "MOMENTS_SCHEMA",
    "Footer",
    "Writer",
    "bucket_rows",
    "kept_open",
    "read_columns",
    "read_moments",
]

IntArray = npt.NDArray[np.int64]

#: Rows of moments that share a row group: below that, the footer would outweigh the data.
GROUP_ROWS = 4096
#: Bytes of a page: what Arrow needs for one stays in the processor's cache, and compresses best.
_PAGE_BYTES = 128 << 10
_KEY = b"colordim"
#: Decoded bytes that a row group may declare: a segment has some ten million.
_MOST_BYTES = 1 << 30

COLUMNS_SCHEMA = pa.schema(
    [
        ("stream", pa.int32()),
        ("bucket", pa.int32()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("first", pa.int64()),
        pa.field("counts", pa.list_(pa.field("element", pa.int64(), nullable=False)), nullable=False),
    ]
)
MOMENTS_SCHEMA = pa.schema(
    [
        ("stream", pa.int32()),
        ("batch", pa.int64()),
        *((name, pa.int64()) for name in COUNTERS),
        *((name, pa.float64()) for name in MOMENTS),
    ]
)
#: The moments of a level above 0: a row a stream and column, whether or not it fired.
LEVEL_SCHEMA = pa.schema(
    [
        ("stream", pa.int32()),
        ("phase", pa.string()),
        *((name, pa.int64()) for name in ("column", "first", "last", "number")),
        *((name, pa.int64()) for name in COUNTERS),
        *((name, pa.float64()) for name in MOMENTS),
    ]
)
#: Columns that are there for other engines: a reader of ours has them from elsewhere.
FOR_OTHERS = ("lower", "upper", "phase", "first", "last", "number")
_ENCODINGS = {
    # Byte planes of like numbers compress best among what every Parquet reader decodes.
    **dict.fromkeys(("counts.list.element", "lower", "upper", *COUNTERS, *MOMENTS), "BYTE_STREAM_SPLIT"),
    # Ascending numbers, which are next to nothing so.
    **dict.fromkeys(("bucket", "batch", "column", "first", "last", "number"), "DELTA_BINARY_PACKED"),
}
#: A compressor of zstd's is slow to begin with: where there is little to compress, another one or none takes half the time.
_COMPRESSIONS = {"lower": "snappy", "upper": "snappy", "stream": "none", "bucket": "none"}
#: Streams from which on writing is made cheap: what they cost in each batch grows with their number. With LZ4 counts cost
#: a sixth less, for a sixth more space (a quarter more of a small network's).
MANY = 32


class Writer:
    """Writes row groups, and closes the file with their checksums in its footer.

    Parameters
    ----------
    path : Path
    schema : Schema
    first : int
        Number of the first batch.
    expected : int
        How many streams there will be.
    **facts
        What else is put into the footer, in JSON types.
    """

    def __init__(self, path: Path, schema: pa.Schema, first: int, *, expected: int = 0, **facts: Any) -> None:
        leaves = ["counts.list.element" if field.name == "counts" else field.name for field in schema]
        compressions = {**_COMPRESSIONS, **({"counts.list.element": "lz4"} if expected >= MANY else {})}
        ours = schema in (COLUMNS_SCHEMA, MOMENTS_SCHEMA, LEVEL_SCHEMA)  # what is logged may have any name
        self._writer = pq.ParquetWriter(
            path.absolute(),  # Arrow takes a relative path such as exp:1/run for an address
            schema,
            compression={name: compressions.get(name, "zstd") for name in leaves} if ours else "zstd",
            compression_level=None if ours else 1,
            use_dictionary=[name for name in ("stream", "phase", "judged_on") if name in leaves],
            column_encoding={name: _ENCODINGS[name] for name in leaves if name in _ENCODINGS} if ours else None,
            write_statistics=[name for name in ("stream", "batch") if name in schema.names],
            write_page_checksum=True,
            data_page_size=_PAGE_BYTES,
            store_schema=False,
        )
        self._schema = schema
        self._facts = {"first": first, **facts}
        self._streams: list[list[int]] = []
        self._checksums: list[int] = []

    def write(self, streams: list[int], arrays: Mapping[str, Any]) -> None:
        """Write a row group with the rows of some streams; a column that no reader of ours takes may be an Arrow array."""
        columns = [_arrow(arrays[field.name], field.type) for field in self._schema]
        self.write_table(streams, pa.Table.from_arrays(columns, schema=self._schema), checksum(_checked(arrays)))

    def write_table(self, streams: list[int], table: pa.Table, crc: int) -> None:
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._streams.append(streams)
        self._checksums.append(crc)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                text = json.dumps({**self._facts, "streams": self._streams, "crc": self._checksums}).encode()
                self._writer.add_key_value_metadata({_KEY: b"%08x " % zlib.crc32(text) + text})
        finally:
            self._writer.close()


def _arrow(array: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(array, pa.Array):
        return array
    if array.ndim == 1:
        return arrow(array, kind)
    rows, columns = array.shape
    offsets = arrow(np.arange(rows + 1, dtype=np.int32) * np.int32(columns), pa.int32())
    return pa.ListArray.from_arrays(offsets, arrow(array.reshape(-1), pa.int64()), type=kind)


def _checked(arrays: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Return what a reader takes from the file."""
    return {
        name: array.reshape(-1) if array.ndim > 1 else np.ascontiguousarray(array)
        for name, array in arrays.items()
        if name not in FOR_OTHERS
    }


#: Footers that hold the arrays of a row group, the oldest first; of one MB at most, as a group of moments has no more.
_holding: deque[weakref.ref[Footer]] = deque()
_MOST_HELD = 24


#: Files that a thread keeps open at most: a process may open some thousand.
_MOST_OPEN = 64


class _Open(threading.local):
    """The files that a thread keeps open."""

    def __init__(self) -> None:
        self.files: dict[Footer, pq.ParquetFile] = {}
        self.until: contextlib.ExitStack | None = None


_open = _Open()


@contextlib.contextmanager
def kept_open() -> Iterator[None]:
    """Keep the files that this thread reads open meanwhile: to open one takes half as long as to read a stream in it."""
    if _open.until is not None:
        yield
        return
    with contextlib.ExitStack() as _open.until:
        try:
            yield
        finally:
            _open.until = None
            _open.files.clear()


class Footer:
    """Where the streams are in a sealed file, with the checksums of what is there.

    Parameters
    ----------
    place : Place
        Folder of the rank.
    name : str
        Of the file, in that folder.
    first : int
        Number of the first batch that it should hold.

    Attributes
    ----------
    facts : mapping
        What the writer has put into the footer.
    group_of : mapping of int to int
        Row group of each stream.

    Raises
    ------
    OSError, ValueError, LookupError
        If the file cannot be read or its footer is damaged.
    """

    def __init__(self, place: Place, name: str, first: int) -> None:
        self._place = place
        self._name = name
        with place.opened(name) as file:
            self._metadata = pq.read_metadata(file)
            self._size: int | None = getattr(file, "size", None)  # that of a remote file is asked for once
        crc, _, text = self._metadata.metadata[_KEY].partition(b" ")
        if int(crc, 16) != zlib.crc32(text):
            raise ValueError("the checksum of its footer does not match")
        self.facts: Mapping[str, Any] = json.loads(text)
        if self.facts["first"] != first:
            raise ValueError(f"it holds the batches from {self.facts['first']} on")
        self._held: tuple[int, Mapping[str, npt.NDArray[Any]]] | None = None
        self.group_of = {stream: group for group, ids in enumerate(self.facts["streams"]) for stream in ids}

    @property
    def checksum(self) -> int:
        """Checksum of the first row group."""
        return int(self.facts["crc"][0])

    @property
    def groups(self) -> int:
        """Number of row groups."""
        return int(self._metadata.num_row_groups)

    def read(self, group: int, columns: Sequence[str] | None) -> pa.Table:
        """Return a row group; raises a ValueError if it declares more than any that was written."""
        found = self._metadata.row_group(group)  # not its columns: Arrow aborts on those of a damaged footer
        if found.total_byte_size > _MOST_BYTES or found.num_rows > _MOST_BYTES // 8:
            raise ValueError("it declares more than can be read")
        with contextlib.ExitStack() as stack:
            file = _open.files.get(self)
            if file is None:
                keep = _open.until if len(_open.files) < _MOST_OPEN else None
                file = self._file(keep or stack)
                if keep:
                    _open.files[self] = file
            return file.read_row_group(group, columns=columns, use_threads=False)

    def _file(self, until: contextlib.ExitStack) -> pq.ParquetFile:
        return until.enter_context(
            pq.ParquetFile(
                until.enter_context(self._place.opened(self._name, self._size)),
                metadata=self._metadata,
                page_checksum_verification=True,
                pre_buffer=self._place.remote,  # what lies side by side is read at once
            )
        )

    def held(self, group: int) -> Mapping[str, npt.NDArray[Any]] | None:
        """Return the arrays of a row group that was held, if it is still."""
        held = self._held
        return held[1] if held is not None and held[0] == group else None

    def hold(self, group: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Keep the arrays of a row group that were checked: moments of dozens of streams share one, and are asked for in turn."""
        self._held = (group, arrays)
        _holding.append(weakref.ref(self))
        while len(_holding) > _MOST_HELD:
            if (oldest := _holding.popleft()()) is not None and oldest is not self:
                oldest._held = None

    def check(self, group: int, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Raise a ValueError if these are not the arrays that were written."""
        if checksum(arrays) != self.facts["crc"][group]:
            raise ValueError("a checksum does not match")


def bucket_rows(stream: Stream, columns: StreamColumns, first: int) -> dict[str, npt.NDArray[Any]]:
    """Return the rows of a stream's columns as :data:`COLUMNS_SCHEMA` has them; `first` is the first batch of the file."""
    edges = stream.axis.edges
    return {
        "stream": np.full(len(columns.bucket), stream.id, np.int32),
        "bucket": columns.bucket.astype(np.int32),
        "lower": edges[columns.bucket],
        "upper": edges[columns.bucket + 1],
        "first": np.full(len(columns.bucket), first, np.int64),
        "counts": columns.counts,
    }


def read_columns(footer: Footer, stream: int, batches: int) -> tuple[IntArray, IntArray]:
    """Return the occupied buckets of a stream and its counts ``[occupied, batches]``; raises as :class:`Footer` does."""
    group = footer.group_of[stream]
    table = footer.read(group, ["stream", "bucket", "counts"])
    counts = table.column("counts").combine_chunks()
    arrays = {
        "stream": numbers(table.column("stream")),
        "bucket": numbers(table.column("bucket")),
        "counts": _flat(_one(counts)),
    }
    footer.check(group, arrays)
    return arrays["bucket"].astype(np.int64), arrays["counts"].reshape(table.num_rows, batches)


def read_moments(footer: Footer, stream: int, key: str = "batch") -> tuple[IntArray, IntArray, npt.NDArray[np.float64]]:
    """Return the batches in which a stream fired, its counters and its moments; raises as :class:`Footer` does.

    Of a level above 0, with the key "column", these are the positions of all columns of the file.
    """
    group = footer.group_of[stream]
    arrays = footer.held(group)
    if arrays is None:
        names = ["stream", key, *COUNTERS, *MOMENTS]
        table = footer.read(group, names)
        arrays = {name: numbers(table.column(name)) for name in names}
        footer.check(group, arrays)
        footer.hold(group, arrays)
    mine = arrays["stream"] == stream
    return (
        arrays[key][mine],
        np.column_stack([arrays[name][mine] for name in COUNTERS]),
        np.column_stack([arrays[name][mine] for name in MOMENTS]),
    )


def _one(column: Any) -> pa.Array:
    return column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)


def _flat(lists: pa.ListArray) -> IntArray:
    """Return the values of all lists, of which none is null; flatten() would import pyarrow.compute."""
    begin, end = (lists.offsets[at].as_py() for at in (0, -1))
    return numbers(lists.values.slice(begin, end - begin))
