"""Levels on the disk: exact sums of adjacent columns, so that a long run is seen without being read.

A *span* is a sealed segment, which is of order 0, or four adjacent spans of the order below. A span of order j has files
of the levels j + 1 to j + :data:`DEPTH`, a segment of many streams of level 1 alone; when four of them become one of order j + 1, its files
replace theirs but those of level j + 1, which hold as many columns as a file should. So a level has few files, however long
the run is, and each column is written about once. They say which segments they sum up: what does not match these is stale,
and not read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from colordim.column import COUNTERS, MOMENTS, NO_MOMENTS, PHASES, Phase, Stream
from colordim.store import files
from colordim.store.parquet import (
    COLUMNS_SCHEMA,
    GROUP_ROWS,
    LEVEL_SCHEMA,
    MANY,
    Footer,
    Writer,
    bucket_rows,
    read_columns,
    read_moments,
)
from colordim.store.place import LocalPlace, Place
from colordim.store.pyramid import FACTOR
from colordim.store.sparse import StreamColumns
from colordim.store.table import arrow_texts

__all__ = [
    "DEPTH",
    "Groups",
    "Span",
    "SpanWriter",
    "first_of",
    "join",
    "level_names",
    "levels_in",
    "parse_name",
    "read_level",
    "remove",
    "span_name",
]

IntArray = npt.NDArray[np.int64]

#: Levels that a span is written at: with one, an overview would have to read finer sums. A segment of :data:`MANY` streams has
#: one all the same, as what another costs in each batch grows with their number.
DEPTH = 2

_PHASES = [phase.encode() for phase in PHASES]


@dataclass(frozen=True)
class Groups:
    """Which batches the columns of a file hold: by phase, and ascending within a phase.

    Attributes
    ----------
    phase : ndarray of int64, shape ``[n]``
        Position in :data:`colordim.column.PHASES`.
    first, last, number : ndarray of int64, shape ``[n]``
        As of a :class:`~colordim.store.base.Block`.
    """

    phase: IntArray
    first: IntArray
    last: IntArray
    number: IntArray

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of_batches(cls, table: Mapping[str, npt.NDArray[Any]]) -> Groups:
        """Return the columns of level 0 of a table of batches, in its order."""
        recorded = table["recorded"]
        index = table["index"][recorded]
        codes = np.zeros(len(index), np.int64)
        for code, phase in enumerate(PHASES):
            codes[table["phase"][recorded] == phase] = code
        return cls(codes, index, index, np.ones(len(index), np.int64))

    @classmethod
    def of_index(cls, index: IntArray) -> Groups:
        """Return columns of level 0 of one phase."""
        return cls(np.zeros(len(index), np.int64), index, index, np.ones(len(index), np.int64))

    def chosen(self, which: slice | IntArray) -> Groups:
        """Return some of the columns."""
        return Groups(self.phase[which], self.first[which], self.last[which], self.number[which])

    @classmethod
    def beside(cls, parts: Sequence[Groups]) -> Groups:
        """Return the columns of all parts, one after the other."""
        return cls(
            *(np.concatenate([getattr(p, name) for p in parts]) for name in ("phase", "first", "last", "number"))
        )

    def by_phase(self) -> tuple[Groups, IntArray]:
        """Return the columns by phase, and where each of them was."""
        order = np.argsort(self.phase, kind="stable")
        return self.chosen(order), order

    def at_level(self, level: int) -> tuple[Groups, IntArray]:
        """Return the columns of a level, and at which column each of them begins."""
        if not len(self):
            return self, np.zeros(0, np.int64)
        key = self.first // FACTOR**level
        new = (np.diff(key, prepend=-1) != 0) | (np.diff(self.phase, prepend=-1) != 0)
        starts = np.flatnonzero(new)
        ends = np.append(starts[1:], len(self)) - 1
        return Groups(
            self.phase[starts], self.first[starts], self.last[ends], np.add.reduceat(self.number, starts)
        ), starts

    def of_phase(self, phase: Phase) -> tuple[Groups, slice]:
        """Return the columns of a phase, and where they are."""
        low, high = np.searchsorted(self.phase, [PHASES.index(phase), PHASES.index(phase) + 1]).tolist()
        where = slice(low, high)
        return self.chosen(where), where

    def to_json(self) -> dict[str, list[int]]:
        """Describe the columns in JSON types."""
        return {name: getattr(self, name).tolist() for name in ("phase", "first", "last", "number")}

    @classmethod
    def from_json(cls, described: Mapping[str, Any]) -> Groups:
        """Return what :meth:`to_json` described."""
        return cls(*(np.array(described[name], np.int64) for name in ("phase", "first", "last", "number")))


@dataclass(frozen=True)
class Span:
    """Adjacent segments that are summed up together.

    Attributes
    ----------
    first, last : int
        Numbers of the first and the last batch.
    sources : tuple of (int, int)
        First batch and checksum of each segment.
    order : int
        0 of a segment, one more than that of the four spans that it is made of.
    """

    first: int
    last: int
    sources: tuple[tuple[int, int], ...]
    order: int = 0

    @property
    def name(self) -> str:
        """Name of its files."""
        return span_name(self.first, self.last)

    @property
    def levels(self) -> range:
        """Levels at which it has to be written."""
        return range(self.order + 1, self.order + 1 + (DEPTH if self.order else 1))


def level_names(level: int, name: str) -> tuple[str, str]:
    """Return the names of a span's columns and moments at a level, in the folder of the rank."""
    return f"{files.columns_folder(level)}/{name}", f"{files.moments_folder(level)}/{name}"


class SpanWriter(contextlib.AbstractContextManager["SpanWriter"]):
    """Writes the files of a span, stream by stream; they are there when the context is left without an error.

    Parameters
    ----------
    folder : Path
        That of the rank.
    span : Span
    base : Groups
        The columns that are given to :meth:`write`.
    expected : int
        How many streams there will be.
    """

    def __init__(self, folder: Path, span: Span, base: Groups, expected: int = 0) -> None:
        self._folder = folder
        self._span = span
        self._expected = expected
        self._levels = span.levels if span.order or expected >= MANY else range(1, 1 + DEPTH)
        groups, self._order = base.by_phase()
        self._sorted = bool((np.diff(self._order) == 1).all())
        self._parts: list[tuple[Groups, IntArray]] = []
        for level in self._levels:
            self._parts.append(groups.at_level(level))
            groups = self._parts[-1][0]
        self._stack = contextlib.ExitStack()
        self._writers: list[tuple[Writer, Writer]] = []
        self._waiting: list[list[tuple[Stream, StreamColumns]]] = [[] for _ in self._levels]

    def __enter__(self) -> SpanWriter:
        facts: dict[str, Any] = {"sources": self._span.sources, "order": self._span.order}
        with contextlib.ExitStack() as stack:
            for level, (groups, _) in zip(self._levels, self._parts, strict=True):
                columns, moments = (self._folder / name for name in level_names(level, self._span.name))
                for path in (columns, moments):
                    path.parent.mkdir(exist_ok=True)  # not its parents: a run that was deleted stays deleted
                # Left in the opposite order: the moments, without which the columns do not count, come last.
                moments_path = stack.enter_context(files.replacing(moments))
                columns_path = stack.enter_context(files.replacing(columns))
                described = {**facts, "level": level}
                moments_writer = Writer(
                    moments_path, LEVEL_SCHEMA, self._span.first, **described, columns=groups.to_json()
                )
                columns_writer = Writer(
                    columns_path, COLUMNS_SCHEMA, self._span.first, expected=self._expected, **described
                )
                self._writers.append((stack.enter_context(columns_writer), stack.enter_context(moments_writer)))
            self._stack = stack.pop_all()
        return self

    def write(self, stream: Stream, columns: StreamColumns) -> None:
        """Add up the columns of the next stream, by ascending id, which are only lent."""
        if not self._sorted:
            columns = columns.chosen(self._order)
        for (groups, starts), (columns_file, _), waiting in zip(self._parts, self._writers, self._waiting, strict=True):
            columns = columns.added(starts)
            columns_file.write([stream.id], bucket_rows(stream, columns, self._span.first))
            waiting.append((stream, columns))
            if len(waiting) * len(groups) >= GROUP_ROWS:
                self._write_moments()

    def _write_moments(self) -> None:
        """Write the moments of all streams that wait."""
        for (groups, _), (_, moments_file), waiting in zip(self._parts, self._writers, self._waiting, strict=True):
            if waiting:
                moments_file.write([stream.id for stream, _ in waiting], _moment_rows(waiting, groups))
                waiting.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if kind is None:
            try:
                self._write_moments()
            except BaseException as failure:
                self._stack.__exit__(type(failure), failure, failure.__traceback__)
                raise
        self._stack.__exit__(kind, error, trace)


def _moment_rows(streams: Sequence[tuple[Stream, StreamColumns]], groups: Groups) -> dict[str, Any]:
    n = len(streams)
    counters = np.concatenate([columns.counters for _, columns in streams]).T
    moments = np.concatenate([columns.moments for _, columns in streams]).T
    return {
        "stream": np.repeat(np.array([stream.id for stream, _ in streams], np.int32), len(groups)),
        # Not by Arrow's take(), which imports pyarrow.compute: a quarter of a second, within a training.
        "phase": arrow_texts([_PHASES[code] for code in groups.phase.tolist()] * n, pa.string()),
        "column": np.tile(np.arange(len(groups)), n),
        **{name: np.tile(getattr(groups, name), n) for name in ("first", "last", "number")},
        **{name: np.ascontiguousarray(row) for name, row in zip(COUNTERS, counters, strict=True)},
        **{name: np.ascontiguousarray(row) for name, row in zip(MOMENTS, moments, strict=True)},
    }


def read_level(
    columns: Footer, moments: Footer, stream: int, number: int, where: slice = slice(None)
) -> StreamColumns | None:
    """Return the columns of a stream in a file of a level.

    Parameters
    ----------
    columns, moments : Footer
        Of the two files.
    stream : int
    number : int
        Columns of the file.
    where : slice
        Which of them are returned.

    Returns
    -------
    StreamColumns or None
        None if the stream never fired.

    Raises
    ------
    OSError, ValueError, LookupError
        As :class:`~colordim.store.parquet.Footer` does, if a file is damaged.
    """
    if stream not in columns.group_of:
        return None
    bucket, counts = read_columns(columns, stream, number)
    place, counters, sums = read_moments(moments, stream, "column")
    if not np.array_equal(place, np.arange(number)):
        raise ValueError("it has not the columns that it says")
    counters, sums = counters[where], sums[where]
    return StreamColumns(bucket, counts[:, where], counters[:, COUNTERS.index("calls")] > 0, counters, sums)


def join(folder: Path, spans: Sequence[Span], streams: Sequence[Stream], between: Callable[[], None]) -> Span:
    """Sum up adjacent spans of one order together, and remove the files that this replaces.

    Parameters
    ----------
    folder : Path
        That of the rank.
    spans : sequence of Span
    streams : sequence of Stream
        Those of the run, by id.
    between : callable
        Called after each stream, as this may take a while.

    Returns
    -------
    Span
        Of the next order.

    Raises
    ------
    OSError, ValueError, LookupError
        If a file cannot be read or written, or is damaged; nothing is removed then.
    """
    span = Span(
        spans[0].first, spans[-1].last, tuple(source for each in spans for source in each.sources), spans[0].order + 1
    )
    place, level = LocalPlace(folder), span.order
    pairs = [[Footer(place, name, each.first) for name in level_names(level, each.name)] for each in spans]
    groups = [Groups.from_json(moments.facts["columns"]) for _, moments in pairs]
    ids = sorted({stream for columns, _ in pairs for stream in columns.group_of})
    base = Groups.beside(groups)
    with SpanWriter(folder, span, base, len(ids)) as writer:
        for stream in ids:
            parts = [
                read_level(columns, moments, stream, len(each))
                for (columns, moments), each in zip(pairs, groups, strict=True)
            ]
            writer.write(streams[stream], _beside(parts, [len(each) for each in groups]))
            between()
    for each in spans:
        remove(folder, each, range(level + 1, level + DEPTH))
    return span


def remove(folder: Path, span: Span, levels: range) -> None:
    """Remove the files of a span at these levels; what cannot be removed does no harm."""
    for level in levels:
        for name in reversed(level_names(level, span.name)):
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def _beside(parts: Sequence[StreamColumns | None], sizes: Sequence[int]) -> StreamColumns:
    """Return the columns of one stream in adjacent files as those of one."""
    bucket = np.unique(np.concatenate([part.bucket for part in parts if part is not None]))
    ends = np.cumsum(sizes)
    counts = np.zeros((len(bucket), int(ends[-1])), np.int64)
    fired = np.zeros(int(ends[-1]), np.bool_)
    counters = np.zeros((int(ends[-1]), len(COUNTERS)), np.int64)
    moments = np.tile(np.array(NO_MOMENTS), (int(ends[-1]), 1))
    for part, size, end in zip(parts, sizes, ends.tolist(), strict=True):
        if part is not None:
            here = slice(end - size, end)
            counts[np.searchsorted(bucket, part.bucket), here] = part.counts
            fired[here], counters[here], moments[here] = part.fired, part.counters, part.moments
    return StreamColumns(bucket, counts, fired, counters, moments)


def levels_in(place: Place) -> list[int]:
    """Return the levels above 0 that a rank has files of, ascending."""
    numbers = [name.removeprefix("level=") for name in place.names("moments") if name.startswith("level=")]
    return sorted(int(number) for number in numbers if number.isdecimal() and number != "0")


def span_name(first: int, last: int) -> str:
    """Return the name of the files of the batches `first` to `last`, of several segments."""
    return f"{files.numbered(first)}-{files.numbered(last)}.parquet"


def first_of(name: str) -> int:
    """Return the first batch in a sealed file, by its name: that of a segment, or of several."""
    return int(name.partition("-")[0].removesuffix(".parquet"))


def parse_name(name: str) -> tuple[int, int] | None:
    """Return the first and the last batch of a span by the name of its files, or None if it is no such name."""
    first, dash, last = name.removesuffix(".parquet").partition("-")
    if not (dash and name.endswith(".parquet") and first.isdecimal() and last.isdecimal()):
        return None
    return int(first), int(last)
