"""Sealed segments: immutable Parquet files that any engine reads.

A segment is three files of one number, that of its first batch: the columns (a row per stream and
occupied bucket), the moments (a row per stream and column) and the batches, and a fourth where
anything is known of units. The batches are written last: a segment counts from the moment its
batches are there. With it are written the sums of its columns, :mod:`colordim.store.levels`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colordim.column import COUNTERS, MOMENTS, PHASES, Stream, Units
from colordim.store.files import BATCHES, COLUMNS, MOMENTS_FOLDER, UNITS_FOLDER, numbered, replacing
from colordim.store.levels import Groups, Span, SpanWriter, parse_name
from colordim.store.parquet import COLUMNS_SCHEMA, GROUP_ROWS, MOMENTS_SCHEMA, Footer, Writer, bucket_rows
from colordim.store.sparse import Columns, Scratch, StreamColumns
from colordim.store.table import (
    UNITS,
    arrow_units,
    batch_arrays,
    checksum,
    join_batches,
    unit_arrays,
    units_of,
)
from colordim.store.tail import Frame

__all__ = ["Segment", "Summary", "batches_in", "read_batches", "read_units", "sources_of", "write_batches"]

IntArray = npt.NDArray[np.int64]

#: Batches whose frames are put together before they are sealed.
_JOINED = 16


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

    @property
    def recorded(self) -> int:
        """How many recorded batches there are."""
        return self._recorded

    def seal(self, folder: Path, streams: Sequence[Stream], between: Callable[[], None]) -> Span | None:
        """Write the segment's files and levels; the batches, which make it count, come last.

        Parameters
        ----------
        folder : Path
            That of the rank.
        streams : sequence of Stream
            Those of the run, by id.
        between : callable
            Called after each stream, as sealing may take a while.

        Returns
        -------
        Span or None
            What was summed up; None if no batch was recorded.

        Raises
        ------
        OSError
            If the disk does not take the data; no part of a file is left then.
        """
        self._join()
        table = join_batches(self._tables)
        arrays = batch_arrays(table)
        span = (
            Span(self.first, int(arrays["batch"][-1]), ((self.first, checksum(arrays)),))
            if arrays["recorded"].any()
            else None
        )
        name = f"{numbered(self.first)}.parquet"
        if span is not None:
            self._write_columns(folder, name, span, arrays, streams, between)
        pa.default_memory_pool().release_unused()
        write_batches(folder, name, self.first, table, self._units)
        return span

    def _write_columns(
        self,
        folder: Path,
        name: str,
        span: Span,
        batches: Mapping[str, npt.NDArray[Any]],
        streams: Sequence[Stream],
        between: Callable[[], None],
    ) -> None:
        """Write columns and moments of all streams, and their sums."""
        recorded = batches["batch"][batches["recorded"]]
        ids = np.unique(np.concatenate([np.zeros(0, np.int32), *(part.stream for part in self._parts)])).tolist()
        scratch = Scratch()
        with (
            replacing(folder / COLUMNS / name) as columns_path,
            replacing(folder / MOMENTS_FOLDER / name) as moments_path,
            Writer(columns_path, COLUMNS_SCHEMA, self.first, expected=len(ids)) as columns_file,
            Writer(moments_path, MOMENTS_SCHEMA, self.first) as moments_file,
            SpanWriter(folder, span, Groups.of_batches(batches), len(ids)) as levels,
        ):
            waiting: list[tuple[int, StreamColumns]] = []
            for stream in ids:
                found = Columns.stream_of(self._parts, stream, scratch)
                if found is not None:
                    levels.write(streams[stream], found)
                    columns_file.write([stream], bucket_rows(streams[stream], found, self.first))
                    waiting.append((stream, found))
                if waiting and (len(waiting) * len(recorded) >= GROUP_ROWS or stream == ids[-1]):
                    moments_file.write([stream for stream, _ in waiting], _moment_rows(waiting, recorded))
                    waiting.clear()
                between()


@dataclass(frozen=True)
class Summary:
    """What is known of batches without reading them.

    Attributes
    ----------
    last : int
        Number of the last batch.
    batches, recorded : int
        How many there are, and were recorded.
    units : int
        How many entries the file of units has.
    phases : mapping of str to (int, int, int)
        Of each phase that has a batch: its first and last index, and how many batches were recorded.
    """

    last: int
    batches: int
    recorded: int
    units: int
    phases: Mapping[str, tuple[int, int, int]]

    @classmethod
    def of(cls, table: Mapping[str, npt.NDArray[Any]], units: int) -> Summary:
        """Sum up a table of batches."""
        phases: dict[str, tuple[int, int, int]] = {}
        for phase in PHASES:
            mine = table["phase"] == phase
            if mine.any():
                index = table["index"][mine]
                phases[phase] = int(index[0]), int(index[-1]), int(np.count_nonzero(table["recorded"][mine]))
        return cls(
            int(table["batch"][-1]), len(table["batch"]), int(np.count_nonzero(table["recorded"])), units, phases
        )

    def to_json(self) -> dict[str, Any]:
        """Describe it in JSON types."""
        return asdict(self)

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Summary:
        """Return what :meth:`to_json` described."""
        return cls(*(described[field.name] for field in fields(cls)))


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


def write_batches(
    folder: Path,
    name: str,
    first: int,
    table: pa.Table,
    units: Sequence[Units],
    sources: Sequence[tuple[int, int, int]] = (),
) -> None:
    """Write what is known of batches, and of units in them.

    Parameters
    ----------
    folder : Path
        That of the rank.
    name : str
        Of the files.
    first : int
        Number of the first batch.
    table : Table
        The batches.
    units : sequence of Units
    sources : sequence of (int, int, int), optional
        First batch, checksum and number of recorded batches of each of the segments that these are of; by default it
        is one.

    Raises
    ------
    OSError
        If the disk does not take the data; no part of a file is left then.
    """
    if units:
        (folder / UNITS_FOLDER).mkdir(exist_ok=True)
        with replacing(folder / UNITS_FOLDER / name) as path, Writer(path, UNITS, first) as file:
            file.write_table([], arrow_units(units), checksum(unit_arrays(units)))
    arrays = batch_arrays(table)
    facts = Summary.of(arrays, len(units)).to_json() | ({"sources": sources} if sources else {})
    with replacing(folder / BATCHES / name) as path, Writer(path, table.schema, first, **facts) as file:
        file.write_table([], table, checksum(arrays))


def sources_of(footer: Footer) -> list[tuple[int, int, int]]:
    """Return first batch, checksum and number of recorded batches of each segment in a file of batches."""
    own = [[footer.facts["first"], footer.checksum, footer.facts["recorded"]]]
    return [(int(first), int(crc), int(recorded)) for first, crc, recorded in footer.facts.get("sources", own)]


def batches_in(names: Iterable[str]) -> list[tuple[int, int, str]]:
    """Return first batch, last batch and name of each file of batches among `names`, by the batches that they hold.

    The name of a single segment says only its first batch. What another file was made of comes behind it.
    """
    found = []
    for name in names:
        stem, dot, kind = name.partition(".")
        if dot and kind == "parquet" and stem.isdecimal():
            found.append((int(stem), int(stem), name))
        elif (ends := parse_name(name)) is not None:
            found.append((*ends, name))
    return sorted(found, key=lambda each: (each[0], -each[1]))


def read_batches(footer: Footer) -> dict[str, npt.NDArray[Any]]:
    """Return the table of batches of a segment; raises as :class:`Footer` does."""
    arrays = batch_arrays(footer.read(0, None))
    footer.check(0, arrays)
    return arrays


def read_units(footer: Footer) -> list[Units]:
    """Return all that is known of units in a segment; raises as :class:`Footer` does."""
    units = units_of(footer.read(0, None))
    footer.check(0, unit_arrays(units))
    return units
