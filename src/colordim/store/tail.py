"""The tail: the newest batches of a run, appended frame by frame, each with its own checksum.

A file begins with :data:`MAGIC`. A frame is a marker, the length and the CRC-32 of its payload, and
the payload: the length of a first Arrow IPC stream (the table of batches), that stream, and a
second one (the columns). The marker lets a reader find the next frame behind a damaged one.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from colordim.column import COUNTERS, MOMENTS
from colordim.store.files import BINARY
from colordim.store.sparse import Appended, Columns
from colordim.store.table import arrow_batches

__all__ = ["MAGIC", "Frame", "TailReader", "TailWriter"]

MAGIC = b"colordim tail 1\n"
_MARKER = b"\xc0\x1dFr"
_HEADER = struct.Struct("<4sII")  # marker, length of the payload, CRC-32 of the payload
_LENGTH = struct.Struct("<Q")
# lz4 takes a third of the time of zstd, and the tail is removed soon.
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(frozen=True)
class Frame:
    """The batches of one flush, with their columns."""

    batches: pa.Table
    columns: Columns

    @classmethod
    def of(cls, batches: Sequence[Appended]) -> Frame:
        """Gather what was appended, at least one batch."""
        return cls(arrow_batches([appended.batch for appended in batches]), Columns.of(batches))

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
        columns = self.columns
        offsets = pa.array(columns.offsets.astype(np.int32))
        table = pa.table(
            {
                "stream": columns.stream,
                "batch": columns.batch,
                "counters": pa.FixedSizeListArray.from_arrays(columns.counters.ravel(), len(COUNTERS)),
                "moments": pa.FixedSizeListArray.from_arrays(columns.moments.ravel(), len(MOMENTS)),
                "bucket": pa.ListArray.from_arrays(offsets, columns.bucket),
                "counts": pa.ListArray.from_arrays(offsets, columns.counts),
            }
        )
        batches = _stream_bytes(self.batches)
        payload = b"".join([_LENGTH.pack(len(batches)), batches, _stream_bytes(table)])
        return _HEADER.pack(_MARKER, len(payload), zlib.crc32(payload)) + payload

    @classmethod
    def from_payload(cls, payload: memoryview) -> Frame:
        """Read what :meth:`to_bytes` wrote behind the header."""
        (length,) = _LENGTH.unpack_from(payload)
        batches = pa.ipc.open_stream(payload[_LENGTH.size : _LENGTH.size + length]).read_all()
        table = pa.ipc.open_stream(payload[_LENGTH.size + length :]).read_all().combine_chunks()
        n = table.num_rows
        (bucket, counts), counters, moments = (
            [_only_chunk(table, name) for name in ("bucket", "counts")],
            _only_chunk(table, "counters"),
            _only_chunk(table, "moments"),
        )
        return cls(
            batches,
            Columns(
                stream=_only_chunk(table, "stream").to_numpy(),
                batch=_only_chunk(table, "batch").to_numpy(),
                counters=counters.flatten().to_numpy().reshape(n, len(COUNTERS)),
                moments=moments.flatten().to_numpy().reshape(n, len(MOMENTS)),
                offsets=bucket.offsets.to_numpy().astype(np.int64),
                bucket=bucket.values.to_numpy(),
                counts=counts.values.to_numpy(),
            ),
        )


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

    def __init__(self, path: Path, first: int) -> None:
        self.path = path
        self.frames: list[Frame] = []
        self._next = first
        self._damaged: list[str] = []
        self._open_end: str | None = None
        self._offset = 0

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
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
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
            self._open_end = (
                f"{self.path.name}: the batches from {self._next} on are left out, because its end is damaged."
            )

    def _take(self, payload: memoryview, adjacent: bool) -> None:
        try:
            frame = Frame.from_payload(payload)
            first, last = frame.first, frame.last
        except Exception as error:  # whatever Arrow makes of data that passed its checksum
            self._damaged.append(f"{self.path.name}: a frame after batch {self._next - 1} is left out ({error}).")
            return
        if not adjacent and first > self._next:
            lost = f"batch {self._next}" if first == self._next + 1 else f"batches {self._next} to {first - 1}"
            self._damaged.append(f"{self.path.name}: {lost} left out, because a checksum does not match.")
        self.frames.append(frame)
        self._next = last + 1


def _next_frame(data: bytes, position: int) -> int:
    """Return where the next whole frame begins, at `position` or later, or -1."""
    while position >= 0 and _payload(data, position) is None:
        position = data.find(_MARKER, position + 1)
    return position


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
