"""The reading side of the folder store, and finding runs."""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import Phase, Stream, Units
from colordim.errors import AxisError, FormatError, NotARunError
from colordim.store import files
from colordim.store.base import Block
from colordim.store.memory import batch_table
from colordim.store.segments import Footer, read_batches, read_columns, read_moments, read_units
from colordim.store.sparse import Columns
from colordim.store.table import batch_arrays, join_batches
from colordim.store.tail import TailReader

__all__ = ["FolderReader", "find_runs", "read_info", "read_streams"]

Table = Mapping[str, npt.NDArray[Any]]

#: Columns of a block at most, so that a block of the default axis stays below 10 MB.
_BLOCK = 1024
#: Footers of sealed files that are kept: with many streams one takes half a megabyte.
_FOOTERS = 64
#: Folders that are searched for runs to be named in an error.
_SEARCHED = 2000
#: How often the folder is listed again because a tail was sealed meanwhile.
_LISTINGS = 100


@dataclass(frozen=True)
class _Part:
    """A segment of the snapshot: sealed, or a tail with its frames."""

    first: int
    table: Table
    frames: tuple[Columns, ...] | None  # None if it is sealed
    units: tuple[Units, ...] | int  # of a sealed segment, how many entries its file has


class FolderReader:
    """Reads what one rank has written, as a :class:`~colordim.store.base.Reader`; also while it writes.

    Sealed files are read when their columns are asked for; damage in them is found, and added to
    :attr:`problems`, then. The columns of a damaged part are left out of :meth:`blocks`.

    Parameters
    ----------
    path : path-like
        Folder of the run.
    rank : int
        Whose part of it is read.

    Raises
    ------
    NotARunError
        If there is no run; the message names runs below the folder.
    FormatError
        If the run was written by a newer colordim, or ``run.json`` or ``streams.json`` is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], rank: int = 0) -> None:
        self._path = Path(path)
        self._rank = self._path / files.rank_name(rank)
        self._lock = threading.Lock()
        self._info = read_info(self._path)
        self._sealed: dict[int, tuple[Table, int]] = {}
        self._units: dict[int, Sequence[Units]] = {}
        self._tails: dict[int, TailReader] = {}
        self._footers: OrderedDict[Path, Footer] = OrderedDict()
        self._problems: dict[object, str] = {}
        self._streams: tuple[Stream, ...] = ()
        self._resumed = 0
        self._missing: tuple[str, ...] = ()
        self._ended: str | None = None
        self._parts: tuple[_Part, ...] = ()
        self._table: Table | None = None
        self.refresh()

    @property
    def path(self) -> str:
        return str(self._path)

    @property
    def info(self) -> Mapping[str, Any]:
        return self._info

    @property
    def facts(self) -> Mapping[str, Any]:
        """What was learnt of the model when it first ran; empty before, and if its file is damaged."""
        try:
            return _parse(self._rank / files.FACTS, (self._rank / files.FACTS).read_bytes())
        except (OSError, FormatError):
            return {}

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
        return (*self._missing, *self._problems.values(), *tails)

    def refresh(self) -> None:
        """Take a new snapshot of what is there now.

        Raises
        ------
        NotARunError
            If the folder is gone.
        FormatError
            If ``streams.json`` is damaged.
        """
        with self._lock:
            self._look_for_resume()
            # The end first, the streams last: what an ended run holds is complete, and whatever
            # stream the columns name was declared before them.
            end = self._read_end()
            for _ in range(_LISTINGS):
                if self._list(ended=end is not None):
                    break
            self._streams = read_streams(self._rank)
            self._ended = None if end is None else str(end["reason"])
            parts = [_Part(first, table, None, units) for first, (table, units) in self._sealed.items()]
            parts += [
                _Part(
                    first,
                    batch_arrays(join_batches(frame.batches for frame in tail.frames)),
                    tuple(frame.columns for frame in tail.frames if frame.columns is not None),
                    tuple(each for frame in tail.frames for each in frame.units),
                )
                for first, tail in self._tails.items()
                if tail.frames
            ]
            self._parts = tuple(sorted(parts, key=lambda part: part.first))
            self._table = None
            self._compare(None if end is None else end.get("batches"))

    def batches(self) -> Mapping[str, npt.NDArray[Any]]:
        table = self._table
        if table is None:
            table = self._table = _join_tables([part.table for part in self._parts])
        return table

    def units(self, stream: Stream, phase: Phase) -> Sequence[Units]:
        known = [each for part in self._parts for each in self._units_of(part)]
        return [each for each in known if each.stream == stream.id and each.phase == phase]

    def blocks(self, stream: Stream, phase: Phase, start: int, stop: int) -> Iterator[Block]:
        for part in self._parts:
            recorded = part.table["recorded"]
            index = part.table["index"][recorded]
            chosen = np.flatnonzero((part.table["phase"][recorded] == phase) & (index >= start) & (index < stop))
            if len(chosen) == 0:
                continue
            numbers = part.table["batch"][recorded]
            sealed = part.frames is None
            found = self._of_sealed(part, stream, numbers) if sealed else _of_tail(part, stream, numbers)
            if found is None:
                continue
            for piece in np.split(chosen, range(_BLOCK, len(chosen), _BLOCK)):
                yield found.block(piece, index[piece], stream.axis.bins)

    def _look_for_resume(self) -> None:
        """Forget what was read before the run was resumed, as its end may have been cut off."""
        try:
            described = json.loads((self._rank / files.RANK_FILE).read_bytes())
            resumed = described.get("resumed", [])
            missing = [sentence for entry in resumed for sentence in entry.get("missing", ())]
            self._missing = (*map(str, missing), *map(str, described.get("damaged", ())))
        except (OSError, ValueError, AttributeError, TypeError):
            return
        if len(resumed) != self._resumed:
            self._resumed = len(resumed)
            for known in (self._sealed, self._units, self._tails, self._footers, self._problems):
                known.clear()

    def _compare(self, written: int | None) -> None:
        """Say it if batches are missing that the end of the run counted: a file is gone."""
        self._problems.pop("missing", None)
        found = sum(len(part.table["batch"]) for part in self._parts)
        if (
            written is not None
            and found < written
            and not self._problems
            and not any(t.problems for t in self._tails.values())
        ):
            self._problems["missing"] = (
                f"{self._path}: {written - found} of {written} batches are missing, because a file of the run is gone."
            )

    def _list(self, ended: bool) -> bool:
        """Look at the tails, then at the sealed segments; False if a tail vanished in between."""
        tails = {int(path.stem[5:]): path for path in self._rank.glob("tail-*.cdt") if path.stem[5:].isdecimal()}
        sealed = sorted(
            int(path.stem) for path in (self._rank / files.BATCHES).glob("*.parquet") if path.stem.isdecimal()
        )
        self._take_sealed(sealed, sorted({*tails, *sealed}))
        return self._take_tails(tails, ended)

    def _take_sealed(self, sealed: list[int], firsts: list[int]) -> None:
        for first in sealed:
            if first in self._sealed:
                continue
            name = f"{files.BATCHES}/{files.numbered(first)}.parquet"
            try:
                self._sealed[first] = read_batches(self._rank, first)
                self._problems.pop(name, None)
            except Exception as error:  # a damaged file can fail in any way
                after = [other for other in firsts if other > first]
                self._problems[name] = _left_out(name, first, after[0] - 1 if after else None, error)
        for first in [first for first in self._sealed if first not in sealed]:
            del self._sealed[first]

    def _take_tails(self, tails: Mapping[int, Path], ended: bool) -> bool:
        # A sealed segment supersedes its tail, unless the batches that make it one are damaged.
        live = {first: path for first, path in tails.items() if first not in self._sealed}
        for first in [first for first in self._tails if first not in live]:
            del self._tails[first]
        for first, path in sorted(live.items()):
            tail = self._tails.setdefault(first, TailReader(path, first))
            try:
                tail.refresh(ended)
            except FileNotFoundError:
                return False
            except OSError as error:
                self._problems[path] = f"{path.name}: the batches from {first} on are left out ({error.strerror})."
            else:
                self._problems.pop(path, None)
        return True

    def _of_sealed(self, part: _Part, stream: Stream, numbers: npt.NDArray[np.int64]) -> _Columns | None:
        for folder, key in ((files.COLUMNS, "columns"), (files.MOMENTS_FOLDER, "moments")):
            name = f"{folder}/{files.numbered(part.first)}.parquet"
            try:
                footer = self._footer(self._rank / name, part.first)
                if key == "columns":
                    if stream.id not in footer.group_of:
                        self._problems.pop((name, stream.id), None)
                        return _Columns.unfired()
                    buckets, counts = read_columns(footer, stream.id, len(numbers))
                    if len(buckets) and not 0 <= buckets.min() <= buckets.max() < stream.axis.bins:
                        raise ValueError(f"it has buckets that {stream.axis} has not")
                else:
                    fired, counters, moments = read_moments(footer, stream.id)
            except Exception as error:  # a damaged file can fail in any way
                self._problems[name, stream.id] = _left_out(
                    name, int(numbers[0]), int(numbers[-1]), error, f"the columns of {stream.name!r} in "
                )
                return None
            self._problems.pop((name, stream.id), None)
        return _Columns(buckets, counts, np.searchsorted(numbers, fired), counters, moments)

    def _units_of(self, part: _Part) -> Sequence[Units]:
        if isinstance(part.units, tuple):
            return part.units
        if part.first in self._units:  # a sealed file never changes
            return self._units[part.first]
        if part.units == 0:
            return ()
        name = f"{files.UNITS_FOLDER}/{files.numbered(part.first)}.parquet"
        try:
            units = read_units(self._footer(self._rank / name, part.first))
        except Exception as error:  # a damaged file can fail in any way
            numbers = part.table["batch"]
            self._problems[name] = _left_out(name, int(numbers[0]), int(numbers[-1]), error, "the units of ")
            return ()
        self._problems.pop(name, None)
        self._units[part.first] = units
        return units

    def _footer(self, path: Path, first: int) -> Footer:
        with self._lock:
            footer = self._footers.pop(path, None) or Footer(path, first)
            self._footers[path] = footer
            if len(self._footers) > _FOOTERS:
                self._footers.popitem(last=False)
        return footer

    def _read_end(self) -> dict[str, Any] | None:
        try:
            end = json.loads((self._rank / files.END).read_text(encoding="utf-8"))
            reason, dropped = str(end["reason"]), int(end["dropped"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError) as error:
            self._problems[files.END] = f"{files.END}: why the run ended is unknown ({_first_line(error)})."
            return {"reason": "unknown"}
        if dropped:
            self._problems[files.END] = (
                f"{files.END}: {dropped} batches were never written, because the disk failed while the run was recorded."
            )
        return {"reason": reason, "batches": end.get("batches")}


@dataclass(frozen=True)
class _Columns:
    """The columns of one stream in a part, by occupied bucket, and the moments of those that fired."""

    buckets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    fired: npt.NDArray[np.int64]
    counters: npt.NDArray[np.int64]
    moments: npt.NDArray[np.float64]

    @classmethod
    def unfired(cls) -> _Columns:
        none = np.zeros(0, np.int64)
        return cls(none, none.reshape(0, 0), none, none, np.zeros(0))

    def block(self, chosen: npt.NDArray[np.int64], index: npt.NDArray[np.int64], bins: int) -> Block:
        """Return the columns at the places `chosen`, which ascend."""
        block = Block.unfired(index, bins)
        if len(self.fired):
            block.counts[:, self.buckets] = self.counts[:, chosen].T
            place = np.minimum(np.searchsorted(self.fired, chosen), len(self.fired) - 1)
            hit = self.fired[place] == chosen
            block.counters[hit] = self.counters[place[hit]]
            block.moments[hit] = self.moments[place[hit]]
        return block


def _of_tail(part: _Part, stream: Stream, numbers: npt.NDArray[np.int64]) -> _Columns:
    found = Columns.stream_of(part.frames or (), stream.id)
    if found is None:
        return _Columns.unfired()
    fired = np.flatnonzero(found.fired)
    return _Columns(found.bucket, found.counts, fired, found.counters[fired], found.moments[fired])


def _left_out(name: str, first: int, last: int | None, error: Exception, what: str = "") -> str:
    span = f"the batches from {first} on" if last is None else f"batches {first} to {last}"
    return f"{name}: {what}{span} are left out ({_first_line(error)})."


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


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


def read_info(path: Path) -> dict[str, Any]:
    """Return what was written once of a run; raises as :class:`FolderReader` does."""
    try:
        text = (path / files.RUN).read_bytes()
    except FileNotFoundError:
        raise NotARunError(_no_run(path)) from None
    except NotADirectoryError:
        raise NotARunError(f"{path} is a file: give the folder of a run, which holds a {files.RUN}.") from None
    except OSError as error:
        raise NotARunError(f"the run {path} cannot be read ({error.strerror}): check its permissions.") from error
    info = _parse(path / files.RUN, text)
    schema = info.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise FormatError(f"{path / files.RUN} is damaged: it names no schema; restore it from a copy.")
    if schema > files.SCHEMA:
        raise FormatError(
            f"the run {path} was written by a newer colordim (schema {schema}, this one reads up to {files.SCHEMA}): "
            "update colordim."
        )
    return info


def _no_run(path: Path) -> str:
    if not path.exists():
        return f"there is no folder {path}: check the path."
    below = list(islice(_runs_below(path, _SEARCHED), 3))
    if below:
        return (
            f"{path} is not a run, as it holds no {files.RUN}; there are runs below it: {', '.join(map(str, below))}."
        )
    return f"{path} is not a run, as it holds no {files.RUN}: give the folder that was recorded into."


def read_streams(rank: Path) -> tuple[Stream, ...]:
    """Return the streams that a rank has declared; raises as :class:`FolderReader` does."""
    path = rank / files.STREAMS
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        if not rank.parent.exists():
            raise NotARunError(f"the run {rank.parent} is gone: it was deleted or moved.") from None
        raise FormatError(f"the run {rank.parent} is damaged: {path} is missing; restore it from a copy.") from None
    except OSError as error:
        raise NotARunError(
            f"the run {rank.parent} cannot be read ({error.strerror}): check its permissions."
        ) from error
    try:
        streams = tuple(Stream.from_dict(described) for described in _parse(path, text)["streams"])
    except (LookupError, TypeError, ValueError) as error:
        if isinstance(error, (AxisError, FormatError)):
            raise FormatError(str(error)) from None
        raise FormatError(f"{path} is damaged ({error!r}): restore it from a copy.") from error
    if [stream.id for stream in streams] != list(range(len(streams))):
        raise FormatError(f"{path} is damaged (the ids of its streams are not 0, 1, ...): restore it from a copy.")
    return streams


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{path} is damaged ({error}): restore it from a copy.") from error
    if not isinstance(value, dict):
        raise FormatError(f"{path} is damaged (it holds no JSON object): restore it from a copy.")
    return value


def find_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the runs in `folder`, itself included, sorted by path.

    Folders inside a run and hidden folders are not searched; what cannot be read is skipped.
    """
    return sorted(_runs_below(Path(folder), None))


def _runs_below(folder: Path, limit: int | None) -> Iterator[Path]:
    for path, folders, names in islice(os.walk(folder), limit):
        if files.RUN in names:
            folders.clear()
            yield Path(path)
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))
