"""The reading side of the folder store: what one rank has written."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import COUNTERS, MOMENTS, NO_MOMENTS, Phase, Stream, Units
from colordim.errors import ColordimError
from colordim.store import files
from colordim.store.base import Block
from colordim.store.description import read_facts, read_info, read_streams, unreadable
from colordim.store.levels import Groups, level_names, parse_name, read_level
from colordim.store.memory import batch_table
from colordim.store.parquet import Footer, read_columns, read_moments
from colordim.store.place import Place, place_of, reason
from colordim.store.segments import Summary, read_batches, read_units
from colordim.store.sparse import Columns, StreamColumns
from colordim.store.table import batch_arrays, join_batches
from colordim.store.tail import TailReader

__all__ = ["FolderReader"]

IntArray = npt.NDArray[np.int64]
Table = Mapping[str, npt.NDArray[Any]]

#: Columns of a block at most, so that a block of the default axis stays below 10 MB.
_BLOCK = 1024
#: Footers of sealed files that are kept: with many streams one takes half a megabyte.
_FOOTERS = 64
#: How often the folder is listed again because a tail was sealed meanwhile.
_LISTINGS = 100


@dataclass(frozen=True)
class _Part:
    """A segment of the snapshot: sealed, or a tail with its frames."""

    first: int
    summary: Summary
    crc: int  # of a sealed segment's batches
    frames: tuple[Columns, ...] | None  # None if it is sealed
    units: tuple[Units, ...]  # of a tail
    table: Table | None = None  # of a tail

    def has(self, phase: Phase, start: int, stop: int) -> bool:
        """Whether any batch of the phase may lie in ``start <= index < stop``."""
        first, last, recorded = self.summary.phases.get(phase, (0, -1, 0))
        return recorded > 0 and first < stop and last >= start


@dataclass(frozen=True)
class _Level:
    """The files of a span at a level, by their name."""

    level: int
    first: int
    last: int

    @property
    def names(self) -> tuple[str, str]:
        """Names of the columns and the moments."""
        return level_names(self.level, f"{files.numbered(self.first)}-{files.numbered(self.last)}.parquet")


class FolderReader:
    """Reads what one rank has written, as a :class:`~colordim.store.base.Reader`; also while it writes.

    Sealed files are read when they are asked for; damage in them is found, and added to
    :attr:`problems`, then. The columns of a damaged part are left out of :meth:`blocks`; a level that
    is missing, stale or damaged is summed up from the one below.

    Parameters
    ----------
    path : path-like or str
        Folder of the run, or its address.
    rank : int
        Whose part of it is read.

    Raises
    ------
    NotARunError
        If there is no run; the message names runs below the folder.
    StoreError
        If an address cannot be reached, or not with these credentials.
    FormatError
        If the run was written by a newer colordim, or ``run.json`` or ``streams.json`` is damaged.
    """

    def __init__(self, path: str | os.PathLike[str] | Place, rank: int = 0) -> None:
        self._run = place_of(path) if isinstance(path, (str, os.PathLike)) else path
        self._rank = files.rank_name(rank)
        self._place = self._run.at(self._rank)
        self._lock = threading.Lock()
        self._info = read_info(self._run)
        self._sealed: dict[int, _Part] = {}
        self._levels: dict[int, list[_Level]] = {}
        self._tables: dict[int, Table | None] = {}
        self._units: dict[int, Sequence[Units]] = {}
        self._tails: dict[int, TailReader] = {}
        self._footers: OrderedDict[str, Footer] = OrderedDict()
        self._problems: dict[object, str] = {}
        self._streams: tuple[Stream, ...] = ()
        self._facts: Mapping[str, Any] = {}
        self._ended: str | None = None
        self._parts: tuple[_Part, ...] = ()
        self._table: Table | None = None
        self.refresh()

    @property
    def path(self) -> str:
        return str(self._run)

    @property
    def info(self) -> Mapping[str, Any]:
        return self._info

    @property
    def facts(self) -> Mapping[str, Any]:
        self._facts = self._facts or read_facts(self._place)  # they are written once
        return self._facts

    @property
    def ended(self) -> str | None:
        return self._ended

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self._streams

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each damaged part that was left out, as far as it was asked for."""
        tails = [sentence for _, tail in sorted(self._tails.items()) for sentence in tail.problems]
        return (*self._problems.values(), *tails)

    def refresh(self) -> None:
        """Take a new snapshot of what is there now.

        Raises
        ------
        NotARunError
            If the folder is gone.
        StoreError
            If an address cannot be reached, or not with these credentials; the old snapshot is kept.
        FormatError
            If ``streams.json`` is damaged.
        """
        try:
            self._refresh()
        except ColordimError:
            raise
        except OSError as error:
            raise unreadable(self._run, error) from error

    def _refresh(self) -> None:
        with self._lock:
            # The end first, the streams last: what an ended run holds is complete, and whatever
            # stream the columns name was declared before them.
            end = self._read_end()
            for _ in range(_LISTINGS):
                if self._list(ended=end is not None):
                    break
            self._streams = read_streams(self._run, self._rank)
            self._ended = None if end is None else str(end["reason"])
            self._parts = tuple(sorted((*self._sealed.values(), *self._live()), key=lambda part: part.first))
            self._table = None
            self._compare(None if end is None else end.get("batches"))

    def batches(self) -> Mapping[str, npt.NDArray[Any]]:
        table = self._table
        if table is None:
            tables = [self._batches_of(part) for part in self._parts]
            table = self._table = _join_tables([table for table in tables if table is not None])
        return table

    def extent(self, phase: Phase) -> tuple[int, int]:
        found = [part.summary.phases[phase] for part in self._parts if phase in part.summary.phases]
        return max((last for _, last, _ in found), default=-1) + 1, sum(recorded for _, _, recorded in found)

    def units(self, stream: Stream, phase: Phase) -> Sequence[Units]:
        known = [each for part in self._parts for each in self._units_of(part)]
        return [each for each in known if each.stream == stream.id and each.phase == phase]

    def blocks(self, stream: Stream, phase: Phase, start: int, stop: int, level: int = 0) -> Iterator[Block]:
        return self._over(self._parts, stream, phase, start, stop, level, level)

    # The snapshot.

    def _live(self) -> Iterator[_Part]:
        """Yield the tails that stand for a segment."""
        for first, tail in self._tails.items():
            if tail.frames:
                table = batch_arrays(join_batches(frame.batches for frame in tail.frames))
                units = tuple(each for frame in tail.frames for each in frame.units)
                columns = tuple(frame.columns for frame in tail.frames if frame.columns is not None)
                yield _Part(first, Summary.of(table, len(units)), 0, columns, units, table)

    def _compare(self, written: int | None) -> None:
        """Say it if batches are missing that the end of the run counted: a file is gone."""
        self._problems.pop("missing", None)
        found = sum(part.summary.batches for part in self._parts)
        if (
            written is not None
            and found < written
            and not self._problems
            and not any(t.problems for t in self._tails.values())
        ):
            self._problems["missing"] = (
                f"{self._run}: {written - found} of {written} batches are missing, because a file of the run is gone."
            )

    def _list(self, ended: bool) -> bool:
        """Look at the tails, then at the sealed segments; False if a tail vanished in between."""
        names = [name for name in self._place.names() if name.startswith("tail-") and name.endswith(".cdt")]
        tails = {int(name[5:-4]): name for name in names if name[5:-4].isdecimal()}
        sealed = sorted(
            int(name[:-8])
            for name in self._place.names(files.BATCHES)
            if name[:-8].isdecimal() and name.endswith(".parquet")
        )
        self._take_sealed(sealed, sorted({*tails, *sealed}), tails)
        self._take_levels()
        return self._take_tails(tails, ended)

    def _take_sealed(self, sealed: list[int], firsts: list[int], tails: Mapping[int, str]) -> None:
        for first in sealed:
            if first in self._sealed:
                continue
            name = _batches_name(first)
            try:
                footer = Footer(self._place, name, first)
                part = _Part(first, Summary.from_json(footer.facts), footer.checksum, None, ())
                self._tables.pop(first, None)
                if first in tails:  # it is read at once where there is something to fall back to
                    self._tables[first] = read_batches(footer)
                self._sealed[first] = part
                self._problems.pop(name, None)
            except Exception as error:  # a damaged file can fail in any way
                after = [other for other in firsts if other > first]
                self._problems[name] = _left_out(name, first, after[0] - 1 if after else None, error)
        for first in [first for first in self._sealed if first not in sealed]:
            del self._sealed[first]
            self._tables.pop(first, None)

    def _take_levels(self) -> None:
        self._levels = {}
        for folder in self._place.names("moments"):
            _, equals, number = folder.partition("level=")
            if not equals or not number.isdecimal() or number == "0":
                continue
            for name in self._place.names(files.moments_folder(int(number))):
                if (ends := parse_name(name)) is not None:
                    self._levels.setdefault(ends[0], []).append(_Level(int(number), *ends))
        for found in self._levels.values():
            found.sort(key=lambda level: (level.level, level.last), reverse=True)

    def _take_tails(self, tails: Mapping[int, str], ended: bool) -> bool:
        # A sealed segment supersedes its tail, unless the batches that make it one are damaged.
        live = {first: name for first, name in tails.items() if first not in self._sealed}
        for first in [first for first in self._tails if first not in live]:
            del self._tails[first]
        for first, name in sorted(live.items()):
            tail = self._tails.setdefault(first, TailReader(self._place, name, first))
            try:
                tail.refresh(ended)
            except FileNotFoundError:
                return False
            except OSError as error:
                self._problems[name] = f"{name}: the batches from {first} on are left out ({reason(error)})."
            else:
                self._problems.pop(name, None)
        return True

    # Reading.

    def _batches_of(self, part: _Part) -> Table | None:
        if part.table is not None:
            return part.table
        if part.first not in self._tables:
            name = _batches_name(part.first)
            try:
                self._tables[part.first] = read_batches(Footer(self._place, name, part.first))
                self._problems.pop(name, None)
            except Exception as error:  # a damaged file can fail in any way
                self._problems[name] = _left_out(name, part.first, part.summary.last, error)
                return None
        return self._tables[part.first]

    def _over(
        self, parts: Sequence[_Part], stream: Stream, phase: Phase, start: int, stop: int, level: int, wanted: int
    ) -> Iterator[Block]:
        """Yield the columns of adjacent parts at the level `wanted`, read from files of up to `level`."""
        at = 0
        while at < len(parts):
            file, number = self._coarsest(parts[at:], phase, start, stop, level)
            if file is not None:
                yield from self._of_level(file, parts[at : at + number], stream, phase, start, stop, wanted)
            elif parts[at].has(phase, start, stop):
                yield from self._of_part(parts[at], stream, phase, start, stop, wanted)
            at += number

    def _coarsest(
        self, parts: Sequence[_Part], phase: Phase, start: int, stop: int, level: int
    ) -> tuple[_Level | None, int]:
        """Return the coarsest file that begins with these parts, if there is one, and how many of them it sums up."""
        for file in self._levels.get(parts[0].first, ()) if level else ():
            if file.level > level or file.last > parts[-1].summary.last:
                continue
            mine = [part for part in parts if part.first <= file.last]
            if not any(part.has(phase, start, stop) for part in mine):
                return None, len(mine)
            try:
                sources = self._footer(file.names[1], file.first).facts["sources"]
            except Exception:  # removed meanwhile, or damaged: what it sums up is elsewhere
                continue
            if sources == [[part.first, part.crc] for part in mine if part.summary.recorded]:
                return file, len(mine)
        return None, 1

    def _of_level(
        self, file: _Level, parts: Sequence[_Part], stream: Stream, phase: Phase, start: int, stop: int, wanted: int
    ) -> Iterator[Block]:
        def below(first: int, last: int) -> Iterator[Block]:
            return self._over(parts, stream, phase, max(start, first), min(stop, last + 1), file.level - 1, wanted)

        try:
            columns, moments = (self._footer(name, file.first) for name in file.names)
            every = Groups.from_json(moments.facts["columns"])
            groups, where = every.of_phase(phase)
            touched = np.flatnonzero((groups.last >= start) & (groups.first < stop))
            inside = np.flatnonzero((groups.first >= start) & (groups.last < stop))
            found = read_level(columns, moments, stream.id, len(every), where) if len(inside) else None
            _check_buckets(found, stream)
        except Exception:  # removed meanwhile, or damaged: what it sums up is elsewhere
            yield from below(start, stop)
            return
        if len(inside) == 0:
            yield from below(start, stop)
            return
        # A column that is cut by the ends of what is wanted is summed up anew.
        if touched[0] < inside[0]:
            yield from below(int(groups.first[touched[0]]), int(groups.last[inside[0] - 1]))
        whole = slice(int(inside[0]), int(inside[-1]) + 1)
        yield _brought_to(wanted, found and found.chosen(whole), groups.chosen(whole), stream.axis.bins)
        if inside[-1] < touched[-1]:
            yield from below(int(groups.first[inside[-1] + 1]), int(groups.last[touched[-1]]))

    def _of_part(
        self, part: _Part, stream: Stream, phase: Phase, start: int, stop: int, wanted: int
    ) -> Iterator[Block]:
        table = self._batches_of(part)
        if table is None:
            return
        recorded = table["recorded"]
        index = table["index"][recorded]
        chosen = np.flatnonzero((table["phase"][recorded] == phase) & (index >= start) & (index < stop))
        if len(chosen) == 0:
            return
        if part.frames is None:
            there, found = self._of_sealed(part, stream, table["batch"][recorded])
            if not there:
                return
        else:
            found = Columns.stream_of(part.frames, stream.id)
        for piece in [chosen] if wanted else np.split(chosen, range(_BLOCK, len(chosen), _BLOCK)):
            groups = Groups.of_index(index[piece])
            # A slice is not copied.
            which = slice(piece[0], piece[-1] + 1) if piece[-1] - piece[0] + 1 == len(piece) else piece
            yield _brought_to(wanted, found and found.chosen(which), groups, stream.axis.bins)

    def _of_sealed(self, part: _Part, stream: Stream, numbers: IntArray) -> tuple[bool, StreamColumns | None]:
        """Return whether the columns of a stream can be read, and the columns, None if it never fired."""
        for folder, key in ((files.COLUMNS, "columns"), (files.MOMENTS_FOLDER, "moments")):
            name = f"{folder}/{files.numbered(part.first)}.parquet"
            try:
                footer = self._footer(name, part.first)
                if key == "columns":
                    if stream.id not in footer.group_of:
                        self._problems.pop((name, stream.id), None)
                        return True, None
                    buckets, counts = read_columns(footer, stream.id, len(numbers))
                else:
                    batches, counters, moments = read_moments(footer, stream.id)
                    found = _found(buckets, counts, np.searchsorted(numbers, batches), counters, moments)
                    _check_buckets(found, stream)
            except Exception as error:  # a damaged file can fail in any way
                self._problems[name, stream.id] = _left_out(
                    name, int(numbers[0]), int(numbers[-1]), error, f"the columns of {stream.name!r} in "
                )
                return False, None
            self._problems.pop((name, stream.id), None)
        return True, found

    def _units_of(self, part: _Part) -> Sequence[Units]:
        if part.frames is not None:
            return part.units
        if part.first in self._units:  # a sealed file never changes
            return self._units[part.first]
        if part.summary.units == 0:
            return ()
        name = f"{files.UNITS_FOLDER}/{files.numbered(part.first)}.parquet"
        try:
            units = read_units(self._footer(name, part.first))
        except Exception as error:  # a damaged file can fail in any way
            self._problems[name] = _left_out(name, part.first, part.summary.last, error, "the units of ")
            return ()
        self._problems.pop(name, None)
        self._units[part.first] = units
        return units

    def _footer(self, name: str, first: int) -> Footer:
        with self._lock:
            footer = self._footers.pop(name, None) or Footer(self._place, name, first)
            self._footers[name] = footer
            if len(self._footers) > _FOOTERS:
                self._footers.popitem(last=False)
        return footer

    def _read_end(self) -> dict[str, Any] | None:
        try:
            end = json.loads(self._place.read(files.END))
            ended, dropped = str(end["reason"]), int(end["dropped"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            if self._run.remote and isinstance(error, OSError):  # a connection that fails ends no run
                raise
            self._problems[files.END] = f"{files.END}: why the run ended is unknown ({reason(error)})."
            return {"reason": "unknown"}
        if dropped:
            self._problems[files.END] = (
                f"{files.END}: {dropped} batches were never written, because the disk failed while the run was recorded."
            )
        return {"reason": ended, "batches": end.get("batches")}


def _batches_name(first: int) -> str:
    return f"{files.BATCHES}/{files.numbered(first)}.parquet"


def _found(
    bucket: IntArray, counts: IntArray, place: IntArray, counters: IntArray, moments: npt.NDArray[np.float64]
) -> StreamColumns:
    """Return the columns of a sealed segment, of which `counters` and `moments` are those that fired."""
    number = counts.shape[1]
    fired = np.zeros(number, np.bool_)
    fired[place] = True
    every = np.zeros((number, len(COUNTERS)), np.int64)
    every[place] = counters
    sums = np.tile(np.array(NO_MOMENTS), (number, 1))
    sums[place] = moments
    return StreamColumns(bucket, counts, fired, every, sums)


def _check_buckets(found: StreamColumns | None, stream: Stream) -> None:
    if found is not None and len(found.bucket) and not 0 <= found.bucket.min() <= found.bucket.max() < stream.axis.bins:
        raise ValueError(f"it has buckets that {stream.axis} has not")


def _brought_to(level: int, columns: StreamColumns | None, groups: Groups, bins: int) -> Block:
    """Return columns at a level that is not finer than theirs, with their empty buckets."""
    if level:
        groups, starts = groups.at_level(level)
        columns = columns and columns.added(starts)
    if columns is None:
        none = np.tile(np.array(NO_MOMENTS), (len(groups), 1))
        columns = StreamColumns(
            np.zeros(0, np.int64),
            np.zeros((0, len(groups)), np.int64),
            np.zeros(len(groups), np.bool_),
            np.zeros((len(groups), len(COUNTERS)), np.int64),
            none.reshape(len(groups), len(MOMENTS)),
        )
    return columns.block(groups.first, groups.last, groups.number, bins)


def _left_out(name: str, first: int, last: int | None, error: Exception, what: str = "") -> str:
    span = f"the batches from {first} on" if last is None else f"batches {first} to {last}"
    return f"{name}: {what}{span} are left out ({reason(error)})."


def _join_tables(tables: list[Table]) -> Table:
    if not tables:
        return batch_table([])
    names = dict.fromkeys(name for table in tables for name in table)
    return {
        name: np.concatenate(
            [table[name] if name in table else np.full(len(table["batch"]), np.nan) for table in tables]
        )
        for name in names
    }
