"""The tail: the newest batches of a run, appended frame by frame, each with its own checksum.

A file begins with :data:`MAGIC`. A frame is a marker, the length and the CRC-32 of its payload, and
the payload: the lengths of three Arrow IPC streams, and these: the table of batches, the columns, a
row a stream, and the units; the last two have no bytes where there are none. The marker lets a
reader find the next frame behind a damaged one.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from colordim.column import COUNTERS, MOMENTS, Units
from colordim.store.chunk import Chunk
from colordim.store.files import BINARY
from colordim.store.place import Place
from colordim.store.sparse import Columns
from colordim.store.table import arrow, arrow_batches, arrow_units, numbers, units_of

__all__ = ["MAGIC", "Frame", "TailReader", "TailWriter", "tails_in"]

MAGIC = b"colordim tail 1\n"
_MARKER = b"\xc0\x1dFr"
_HEADER = struct.Struct("<4sII")  # marker, length of the payload, CRC-32 of the payload
_LENGTHS = struct.Struct("<QQQ")
#: How often a byte is looked at, on the average, to find the next whole frame behind damaged ones.
_MOST_LOOKS = 16
# Not compressed: a frame is written while training fills the processors, and the tail is removed soon. Not in threads:
# they would be Arrow's own, one more for the training to share the processors with.
_OPTIONS = pa.ipc.IpcWriteOptions(use_threads=False)


@dataclass(frozen=True)
class Frame:
    """The batches of one flush, with their columns and what is known of their units.

    `columns` is None where no batch was recorded; else it has a place for every recorded batch.
    """

    batches: pa.Table
    columns: Columns | None
    units: Sequence[Units] = ()

    @classmethod
    def of(cls, chunk: Chunk) -> Frame:
        """Gather what was appended, at least one batch."""
        return cls(arrow_batches(chunk.batches), Columns.of(chunk) if chunk.filled else None, tuple(chunk.units))

    @property
    def first(self) -> int:
        """Number of the first batch."""
        return int(self.batches.column("batch")[0].as_py())

    @property
    def last(self) -> int:
        """Number of the last batch."""
        return int(self.batches.column("batch")[-1].as_py())

    def to_bytes(self) -> bytes:
        """Return the frame as it stands in the file, marker and checksum included."""
        parts = [
            _stream_bytes(self.batches),
            _stream_bytes(_arrow_columns(self.columns)) if self.columns else b"",
            _stream_bytes(arrow_units(self.units)) if self.units else b"",
        ]
        payload = b"".join([_LENGTHS.pack(*map(len, parts)), *parts])
        return _HEADER.pack(_MARKER, len(payload), zlib.crc32(payload)) + payload

    @classmethod
    def from_payload(cls, payload: memoryview) -> Frame:
        """Read what :meth:`to_bytes` wrote behind the header."""
        parts: list[pa.Table] = []
        begin = _LENGTHS.size
        for length in _LENGTHS.unpack_from(payload):
            part = payload[begin : begin + length]
            table = pa.ipc.open_stream(part).read_all() if length else None
            if table is not None:
                table.validate(full=True)  # Arrow believes lengths and offsets
                table = table.combine_chunks()
            parts.append(table)
            begin += length
        batches, columns, units = parts
        return cls(
            batches,
            None if columns is None else _columns_of(columns, int(numbers(batches.column("recorded")).sum())),
            () if units is None else units_of(units),
        )


def _arrow_columns(columns: Columns) -> pa.Table:
    """Return one row a stream."""
    lists = {
        "fired": columns.fired,
        "counters": columns.counters,
        "moments": columns.moments,
        "bucket": columns.bucket.astype(np.min_scalar_type(int(columns.bucket.max(initial=0)))),
        "counts": columns.counts,
    }
    equal = np.arange(len(columns.stream) + 1)
    arrays = [arrow(columns.stream, pa.int32())]
    for name, values in lists.items():
        if name == "bucket":
            offsets = columns.offsets
        elif name == "counts":
            offsets = columns.offsets * columns.number
        else:
            offsets = equal * (values.size // len(columns.stream) if len(columns.stream) else 0)
        kind = pa.bool_() if values.dtype == np.bool_ else pa.from_numpy_dtype(values.dtype)
        flat = arrow(values.reshape(-1), kind)
        arrays.append(pa.ListArray.from_arrays(arrow(offsets.astype(np.int32), pa.int32()), flat))
    return pa.Table.from_arrays(arrays, names=["stream", *lists])


def _columns_of(table: pa.Table, number: int) -> Columns:
    """Return what :func:`_arrow_columns` made a table of; `number` is that of the recorded batches."""
    n = table.num_rows
    lists = {name: _only_chunk(table, name) for name in ("fired", "counters", "moments", "bucket", "counts")}
    offsets = numbers(lists["bucket"].offsets).astype(np.int64)
    return Columns(
        stream=numbers(_only_chunk(table, "stream")),
        fired=numbers(lists["fired"].values).reshape(n, number),
        counters=numbers(lists["counters"].values).reshape(n, number, len(COUNTERS)),
        moments=numbers(lists["moments"].values).reshape(n, number, len(MOMENTS)),
        offsets=offsets,
        bucket=numbers(lists["bucket"].values).astype(np.int32),
        counts=numbers(lists["counts"].values).reshape(int(offsets[-1]), number),
    )


def tails_in(names: Iterable[str]) -> dict[int, str]:
    """Return the first batch and the name of each tail among `names`."""
    found = {name[5:-4]: name for name in names if name.startswith("tail-") and name.endswith(".cdt")}
    return {int(first): name for first, name in found.items() if first.isdecimal()}


class TailWriter:
    """Appends frames to a new file; a failed write leaves no trace behind the last whole frame.

    Raises
    ------
    OSError
        In the constructor and in :meth:`append`, if the disk does not take the data.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | BINARY, 0o666)
        try:
            self._write(MAGIC)
        except OSError:
            self.remove()
            raise

    @classmethod
    def resume(cls, path: Path, size: int) -> TailWriter:
        """Go on in a file behind its first `size` bytes, which end with a whole frame; what follows is cut off."""
        tail = cls.__new__(cls)
        tail.path, tail._size = path, size
        tail._descriptor = os.open(path, os.O_RDWR | BINARY)
        os.ftruncate(tail._descriptor, size)
        return tail

    def append(self, frame: Frame) -> None:
        """Write one frame; readers see it from now on."""
        self._write(frame.to_bytes())

    def close(self) -> None:
        """Close the file and leave it where it is."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Close the file and remove it; if that fails, readers still prefer the sealed segment."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _write(self, data: bytes) -> None:
        try:
            # If an earlier truncation failed too, what it left is overwritten.
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self.path.stat()  # the open file would swallow data long after the folder was deleted
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)


class TailReader:
    """Reads a tail that may be growing; keeps what it has read.

    Attributes
    ----------
    frames : list of Frame
    problems : list of str
        A sentence for each damaged part.
    """

    def __init__(self, place: Place, name: str, first: int) -> None:
        self.name = name
        self._place = place
        self.frames: list[Frame] = []
        self._next = first
        self._damaged: list[str] = []
        self._open_end: str | None = None
        self._offset = 0

    @property
    def size(self) -> int:
        """Bytes up to the end of the last whole frame."""
        return self._offset

    @property
    def problems(self) -> list[str]:
        return self._damaged + ([self._open_end] if self._open_end else [])

    def refresh(self, ended: bool) -> None:
        """Read what was appended since.

        Parameters
        ----------
        ended : bool
            Whether the run has ended, so that a torn end is damage and not work in progress.

        Raises
        ------
        FileNotFoundError
            If the tail is gone, because it has been sealed.
        """
        data = self._place.read(self.name, self._offset)
        position = 0
        if self._offset == 0:
            if data[: len(MAGIC)] == MAGIC:
                position = len(MAGIC)
            elif len(data) < len(MAGIC) and MAGIC.startswith(data) and not ended:
                return
        while (start := _next_frame(data, position)) >= 0:
            payload = _payload(data, start)
            assert payload is not None
            self._take(payload, start == position)
            position = start + _HEADER.size + len(payload)
        self._offset += position
        rest = data[position:]
        # A live tail may end in the midst of a frame; a frame of full length with another checksum may not.
        torn = len(rest) < _HEADER.size or len(rest) < _HEADER.size + _HEADER.unpack_from(rest)[1]
        torn = torn and rest[: len(_MARKER)] == _MARKER[: len(rest)]
        self._open_end = None
        if rest and (ended or not torn):
            self._open_end = f"{self.name}: the batches from {self._next} on are left out, because its end is damaged."

    def _take(self, payload: memoryview, adjacent: bool) -> None:
        try:
            frame = Frame.from_payload(payload)
            first, last = frame.first, frame.last
        except Exception as error:  # whatever Arrow makes of data that passed its checksum
            self._damaged.append(f"{self.name}: a frame after batch {self._next - 1} is left out ({error}).")
            return
        if not adjacent and first > self._next:
            lost = f"batch {self._next}" if first == self._next + 1 else f"batches {self._next} to {first - 1}"
            self._damaged.append(f"{self.name}: {lost} left out, because a checksum does not match.")
        self.frames.append(frame)
        self._next = last + 1


def _next_frame(data: bytes, position: int) -> int:
    """Return where the next whole frame begins, at `position` or later, or -1."""
    looked = 0
    while position >= 0 and _payload(data, position) is None:
        # What is made of markers alone would be looked at again from each of them.
        looked += min(_length(data, position), len(data) - position)
        if looked > _MOST_LOOKS * len(data):
            return -1
        position = data.find(_MARKER, position + 1)
    return position


def _length(data: bytes, position: int) -> int:
    """Return the length that a frame declares; 0 where none begins."""
    if len(data) < position + _HEADER.size or data[position : position + len(_MARKER)] != _MARKER:
        return 0
    return int(_HEADER.unpack_from(data, position)[1])


def _payload(data: bytes, position: int) -> memoryview | None:
    """Return the payload of the frame at `position`, if it is there, whole and unharmed."""
    begin = position + _HEADER.size
    if len(data) < begin or data[position : position + len(_MARKER)] != _MARKER:
        return None
    _, length, crc = _HEADER.unpack_from(data, position)
    payload = memoryview(data)[begin : begin + length]
    return payload if len(payload) == length and zlib.crc32(payload) == crc else None


def _stream_bytes(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _only_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
