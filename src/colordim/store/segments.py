"""Sealed segments: immutable Parquet files that any engine reads.

A segment is three files of one number, that of its first batch: the columns (a row per stream and
occupied bucket), the moments (a row per stream and column) and the batches, and a fourth where
anything is known of units. The batches are written last: a segment counts from the moment its
batches are there. With it are written the sums of its columns, :mod:`colordim.store.levels`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colordim.column import COUNTERS, MOMENTS, PHASES, Stream, Units
from colordim.store.files import BATCHES, COLUMNS, MOMENTS_FOLDER, UNITS_FOLDER, numbered, replacing
from colordim.store.levels import Groups, Span, SpanWriter
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

__all__ = ["Segment", "Summary", "read_batches", "read_units"]

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
        crc = checksum(arrays)
        recorded = arrays["batch"][arrays["recorded"]]
        span = Span(self.first, int(arrays["batch"][-1]), ((self.first, crc),)) if len(recorded) else None
        ids = np.unique(np.concatenate([np.zeros(0, np.int32), *(part.stream for part in self._parts)])).tolist()
        name = f"{numbered(self.first)}.parquet"
        scratch = Scratch()
        with (
            replacing(folder / COLUMNS / name) as columns_path,
            replacing(folder / MOMENTS_FOLDER / name) as moments_path,
            Writer(columns_path, COLUMNS_SCHEMA, self.first) as columns_file,
            Writer(moments_path, MOMENTS_SCHEMA, self.first) as moments_file,
            SpanWriter(folder, span, Groups.of_batches(arrays)) if span else nullcontext() as levels,
        ):
            waiting: list[tuple[int, StreamColumns]] = []
            for stream in ids:
                found = Columns.stream_of(self._parts, stream, scratch)
                if found is not None and levels is not None:
                    levels.write(streams[stream], found)
                    columns_file.write([stream], bucket_rows(streams[stream], found, self.first))
                    waiting.append((stream, found))
                if waiting and (len(waiting) * len(recorded) >= GROUP_ROWS or stream == ids[-1]):
                    moments_file.write([stream for stream, _ in waiting], _moment_rows(waiting, recorded))
                    waiting.clear()
                between()
        pa.default_memory_pool().release_unused()
        if self._units:
            (folder / UNITS_FOLDER).mkdir(exist_ok=True)
            with (
                replacing(folder / UNITS_FOLDER / name) as units_path,
                Writer(units_path, UNITS, self.first) as units_file,
            ):
                units_file.write_table([], arrow_units(self._units), checksum(unit_arrays(self._units)))
        with (
            replacing(folder / BATCHES / name) as batches_path,
            Writer(
                batches_path, table.schema, self.first, **Summary.of(arrays, len(self._units)).to_json()
            ) as batches_file,
        ):
            batches_file.write_table([], table, crc)
        return span


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
