"""What one rank has written, as it was at one instant; all but its columns."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import Phase, Stream, Units
from colordim.errors import ColordimError
from colordim.store import files
from colordim.store.budget import read_dropped
from colordim.store.description import read_facts, read_info, read_streams, unreadable
from colordim.store.levels import first_of, level_names, levels_in, parse_name, span_name
from colordim.store.memory import batch_table
from colordim.store.parquet import Footer
from colordim.store.place import Place, place_of, reason
from colordim.store.segments import Summary, batches_in, read_batches, read_units, sources_of
from colordim.store.sparse import Columns
from colordim.store.table import batch_arrays, join_batches
from colordim.store.tail import TailReader, tails_in

__all__ = ["LevelFiles", "Part", "Snapshot", "left_out"]

Table = Mapping[str, npt.NDArray[Any]]

#: Footers of sealed files that are kept: with many streams one takes half a megabyte.
_FOOTERS = 64
#: How often the folder is listed again because a tail was sealed meanwhile.
_LISTINGS = 100


@dataclass(frozen=True)
class Part:
    """A segment of the snapshot: sealed, or a tail with its frames; or several, of which only the batches are left."""

    key: str  # the name of its file of batches, without the folder, or of its tail
    first: int
    summary: Summary
    sources: Sequence[tuple[int, int, int]] = ()  # of a sealed part
    frames: tuple[Columns, ...] | None = None  # None if it is sealed
    units: tuple[Units, ...] = ()  # of a tail
    table: Table | None = None  # of a tail

    def segments(self) -> Iterator[Part]:
        """Yield a part for each segment, as far as it is known apart."""
        if len(self.sources) < 2:
            yield self
            return
        ends = [*(first - 1 for first, _, _ in self.sources[1:]), self.summary.last]
        for source, last in zip(self.sources, ends, strict=True):
            yield Part(self.key, source[0], replace(self.summary, last=last, recorded=source[2]), [source])

    def has(self, phase: Phase, start: int, stop: int) -> bool:
        """Whether any batch of the phase may lie in ``start <= index < stop``."""
        first, last, recorded = self.summary.phases.get(phase, (0, -1, 0))
        return min(recorded, self.summary.recorded) > 0 and first < stop and last >= start


@dataclass(frozen=True)
class LevelFiles:
    """The files of a span at a level, by their name."""

    level: int
    first: int
    last: int

    @property
    def names(self) -> tuple[str, str]:
        """Names of the columns and the moments."""
        return level_names(self.level, span_name(self.first, self.last))


class Snapshot:
    """What there is of a rank: its parts, batches, units and levels, also while it is written.

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
        self._run = place_of(path)
        self._rank = files.rank_name(rank)
        self._place = self._run.at(self._rank)
        self._lock = threading.Lock()
        self._info = read_info(self._run)
        self._sealed: dict[str, Part] = {}
        self._levels: dict[int, list[LevelFiles]] = {}
        self._dropped: Mapping[int, int] = {}
        self._tables: dict[str, Table] = {}
        self._units: dict[str, Sequence[Units]] = {}
        self._tails: dict[int, TailReader] = {}
        self._footers: OrderedDict[str, Footer] = OrderedDict()
        self._problems: dict[object, str] = {}
        self._streams: tuple[Stream, ...] = ()
        self._resumed = 0
        self._missing: tuple[str, ...] = ()
        self._facts: Mapping[str, Any] = {}
        self._ended: str | None = None
        self._parts: tuple[Part, ...] = ()
        self._sorted_units: tuple[tuple[Part, ...] | None, dict[tuple[int, str], dict[Units, None]]] = None, {}
        self._table: tuple[tuple[Part, ...], Table] | None = None
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
        tails = [sentence for _, tail in sorted(self._tails.copy().items()) for sentence in tail.problems]
        return (*self._missing, *self._problems.copy().values(), *tails)

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
            self._look_for_resume()
            # The end first, the streams last: what an ended run holds is complete, and whatever
            # stream the columns name was declared before them.
            end = self._read_end()
            for _ in range(_LISTINGS):
                if self._list(ended=end is not None):
                    break
            for key in [key for key in list(self._problems) if isinstance(key, tuple) and key[0] == "sums"]:
                self._problems.pop(key, None)
            self._streams = read_streams(self._run, self._rank)
            self._ended = None if end is None else str(end["reason"])
            self._parts = tuple(sorted((*self._sealed.values(), *self._live()), key=lambda part: part.first))
            self._compare(None if end is None else end.get("batches"))

    def batches(self) -> Mapping[str, npt.NDArray[Any]]:
        parts, known = self._parts, self._table
        if known is None or known[0] is not parts:  # another thread may have taken a new snapshot
            tables = [self._batches_of(part) for part in parts]
            known = self._table = parts, _join_tables([table for table in tables if table is not None])
        return known[1]

    def extent(self, phase: Phase) -> tuple[int, int]:
        found = [part.summary.phases[phase] for part in self._parts if phase in part.summary.phases]
        return max((last for _, last, _ in found), default=-1) + 1, sum(recorded for _, _, recorded in found)

    def kept(self, phase: Phase, level: int) -> int:
        kept, dropped = self.extent(phase)[0], self._dropped
        for finer in range(level + 1):
            # Nothing of this phase may have come since.
            kept = min(kept, self._first_after(phase, dropped[finer])) if finer in dropped else 0
        return kept

    def _first_after(self, phase: Phase, dropped: int) -> int:
        """Return the index of the first batch of a phase behind the batch `dropped`."""
        for part in self._parts:
            if part.summary.last > dropped and phase in part.summary.phases:
                if part.first > dropped:
                    return part.summary.phases[phase][0]
                table = self._batches_of(part)
                if table is None:  # damaged, and named: none of it can be relied on
                    continue
                found = table["index"][(table["batch"] > dropped) & (table["phase"] == phase)]
                if len(found):
                    return int(found[0])
        return self.extent(phase)[0]

    def units(self, stream: Stream, phase: Phase) -> Sequence[Units]:
        parts, found = self._sorted_units
        if parts is not self._parts:  # sorted once a snapshot: of many layers each is asked for, and most have none
            parts = self._parts
            known: dict[str, Sequence[Units]] = {}
            for part in parts:
                known.update(self._units_of(part))
            found = {}
            for each in (each for some in known.values() for each in some):
                # Some may be read twice, from before and after they were put together with others.
                found.setdefault((each.stream, each.phase), {})[each] = None
            if not any(
                str(name).startswith(files.UNITS_FOLDER) for name in self._problems
            ):  # else a file may come back
                self._sorted_units = parts, found
        return list(found.get((stream.id, phase), ()))

    # The snapshot.

    def _live(self) -> Iterator[Part]:
        """Yield the tails that stand for a segment."""
        for first, tail in self._tails.items():
            if tail.frames:
                table = batch_arrays(join_batches(frame.batches for frame in tail.frames))
                units = tuple(each for frame in tail.frames for each in frame.units)
                columns = tuple(frame.columns for frame in tail.frames if frame.columns is not None)
                summary = Summary.of(table, len(units))
                yield Part(tail.name, first, summary, frames=columns, units=units, table=table)

    def _look_for_resume(self) -> None:
        """Forget what was read before the run was resumed, as its end may have been cut off."""
        try:
            described = files.from_json(self._place.read(files.RANK_FILE))
            resumed = described.get("resumed", [])
            missing = [sentence for entry in resumed for sentence in entry.get("missing", ())]
            self._missing = (*map(str, missing), *map(str, described.get("damaged", ())))
        except (OSError, ValueError, AttributeError, TypeError):
            return
        if len(resumed) != self._resumed:
            self._resumed = len(resumed)
            for known in (
                self._sealed,
                self._levels,
                self._tables,
                self._units,
                self._tails,
                self._footers,
                self._problems,
            ):
                known.clear()

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
        """Look at the tails, then at the sealed segments; False if a file vanished in between."""
        tails = tails_in(self._place.names())
        sealed = batches_in(self._place.names(files.BATCHES))
        try:
            self._take_sealed(sealed, sorted({*tails, *(first for first, _, _ in sealed)}), tails)
            self._take_levels()
            self._take_tails(tails, ended)
        except FileNotFoundError:
            return False
        return True

    def _take_sealed(self, sealed: list[tuple[int, int, str]], firsts: list[int], tails: Mapping[int, str]) -> None:
        there: set[str] = set()
        end = -1
        for first, last, key in sealed:
            if first <= end:  # its batches are in the file before, which was made of it
                continue
            if key not in self._sealed:
                name = f"{files.BATCHES}/{key}"
                try:
                    footer = Footer(self._place, name, first)
                    summary = Summary.from_json(footer.facts)
                    if first in tails:  # it is read at once where there is something to fall back to
                        self._tables[key] = read_batches(footer)
                    self._sealed[key] = Part(key, first, summary, sources_of(footer))
                    self._problems.pop(name, None)
                except FileNotFoundError:
                    raise
                except Exception as error:  # a damaged file can fail in any way
                    after = [other for other in firsts if other > first]
                    self._problems[name] = left_out(name, first, after[0] - 1 if after else None, error)
                    continue
            there.add(key)
            end = last
        for key in [key for key in self._sealed if key not in there]:
            del self._sealed[key]
            self._tables.pop(key, None)

    def _take_levels(self) -> None:
        # The finest level first, and what was dropped last: what is not found here is in a coarser one, or known to be
        # dropped. Other threads read meanwhile.
        levels: dict[int, list[LevelFiles]] = {}
        for level in levels_in(self._place):
            for name in self._place.names(files.moments_folder(level)):
                if (ends := parse_name(name)) is not None:
                    levels.setdefault(ends[0], []).append(LevelFiles(level, *ends))
        for found in levels.values():
            found.sort(key=lambda level: (level.level, level.last), reverse=True)
        self._levels = levels
        self._take_dropped()

    def _take_dropped(self) -> None:
        try:
            self._dropped = read_dropped(self._place.read(files.DROPPED))
            self._problems.pop(files.DROPPED, None)
        except FileNotFoundError:
            self._dropped = {}
        except (OSError, ValueError) as error:
            self._problems[files.DROPPED] = f"{files.DROPPED}: what was dropped is unknown ({reason(error)})."

    def _take_tails(self, tails: Mapping[int, str], ended: bool) -> None:
        # A sealed segment supersedes its tail, unless the batches that make it one are damaged.
        sealed = {first for part in self._sealed.values() for first, _, _ in part.sources}
        live = {first: name for first, name in tails.items() if first not in sealed}
        for first in [first for first in self._tails if first not in live]:
            del self._tails[first]
        for first, name in sorted(live.items()):
            tail = self._tails.setdefault(first, TailReader(self._place, name, first))
            try:
                tail.refresh(ended)
            except FileNotFoundError:
                raise
            except OSError as error:
                self._problems[name] = f"{name}: the batches from {first} on are left out ({reason(error)})."
            else:
                self._problems.pop(name, None)

    # Reading.

    def _batches_of(self, part: Part) -> Table | None:
        if part.table is not None:
            return part.table
        table = self._tables.get(part.key)
        if table is None:
            name = f"{files.BATCHES}/{part.key}"
            try:
                table = self._read_batches(part)
                self._tables[part.key] = table
                self._problems.pop(name, None)
            except Exception as error:  # a damaged file can fail in any way
                self._problems[name] = left_out(name, part.first, part.summary.last, error)
        return table

    def _read_batches(self, part: Part) -> Table:
        """Return the batches of a sealed part, from where they are now."""
        key = part.key
        while True:
            try:
                table = read_batches(Footer(self._place, f"{files.BATCHES}/{key}", first_of(key)))
            except FileNotFoundError:
                if (other := self._now_in(part)) in (None, key):
                    raise
                key = other
            else:
                low, high = np.searchsorted(table["batch"], [part.first, part.summary.last + 1])
                return {name: values[low:high] for name, values in table.items()}

    def _now_in(self, part: Part) -> str | None:
        """Return the file of batches into which those of a part were put together with others, if there is one."""
        for first, last, key in batches_in(self._place.names(files.BATCHES)):
            if first <= part.first and part.summary.last <= last:
                return key
        return None

    def _units_of(self, part: Part) -> dict[str, Sequence[Units]]:
        """Return what is known of units in a part, by its key: or in what it was put together with since."""
        if part.frames is not None:
            return {part.key: part.units}
        if part.summary.units == 0:
            return {}
        key = part.key
        while key not in self._units:  # a sealed file never changes
            name = f"{files.UNITS_FOLDER}/{key}"
            try:
                self._units[key] = read_units(self._footer(name, first_of(key)))
            except Exception as error:  # a damaged file can fail in any way
                self._forget([name])
                other = self._now_in(part) if isinstance(error, FileNotFoundError) else None
                if other not in (None, key):
                    key = other
                    continue
                self._problems[name] = left_out(name, part.first, part.summary.last, error, "the units of ")
                return {}
            self._problems.pop(name, None)
        return {key: self._units[key]}

    def _footer(self, name: str, first: int) -> Footer:
        with self._lock:
            footer = self._footers.pop(name, None) or Footer(self._place, name, first)
            self._footers[name] = footer
            if len(self._footers) > _FOOTERS:
                self._footers.popitem(last=False)
        return footer

    def _forget(self, names: Sequence[str]) -> None:
        """Read these footers anew the next time: the files may have been mended."""
        with self._lock:
            for name in names:
                self._footers.pop(name, None)

    def _read_end(self) -> dict[str, Any] | None:
        try:
            end = files.from_json(self._place.read(files.END))
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


def left_out(name: str, first: int, last: int | None, error: Exception, what: str = "") -> str:
    """Return the sentence about a file that cannot be read."""
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
