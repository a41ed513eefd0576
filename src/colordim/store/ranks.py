"""Several ranks read as one run: their columns added, batch by batch, in integers."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import PHASES, Phase, Stream, Units
from colordim.errors import FormatError
from colordim.store import files
from colordim.store.base import BATCH_COLUMNS, Block, Reader
from colordim.store.description import read_info
from colordim.store.folder import FolderReader
from colordim.store.place import Place, place_of
from colordim.store.pyramid import FACTOR, merge

__all__ = ["AddedRanks", "RunReader"]

IntArray = npt.NDArray[np.int64]

#: Columns of a block at most.
_BLOCK = 1024
#: Seconds for which a rank may lack what another has written: more than a slow disk takes for a flush.
_BEHIND_SECONDS = 60.0
#: Bits of an index, in a number that stands for phase and index.
_INDEX_BITS = 48


class RunReader:
    """Reads a run folder with all its ranks, as a :class:`~colordim.store.base.Reader`; also while it is written.

    Parameters
    ----------
    path : path-like, str or Place
        Folder of the run, or its address.

    Raises
    ------
    NotARunError, StoreError, FormatError
        As :class:`~colordim.store.folder.FolderReader` does, if no rank can be read.
    """

    def __init__(self, path: str | os.PathLike[str] | Place) -> None:
        self._path = place_of(path)
        self._info = read_info(self._path)
        self._readers: dict[int, FolderReader] = {}
        self._world = 1
        self.refresh()

    def reopen(self) -> RunReader:
        """Return another reader of the same run, with a snapshot of its own."""
        return RunReader(self._path)

    @property
    def path(self) -> str:
        return str(self._path)

    @property
    def info(self) -> Mapping[str, Any]:
        return self._info

    @property
    def ranks(self) -> int:
        """How many ranks the run has, those that have written nothing yet included."""
        return self._world

    @property
    def facts(self) -> Mapping[str, Any]:
        return self._ranks.facts

    @property
    def ended(self) -> str | None:
        return self._ranks.ended

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self._ranks.streams

    @property
    def problems(self) -> tuple[str, ...]:
        return (*self._ranks.problems, *self._left_out)

    def refresh(self) -> None:
        readers: dict[int, FolderReader] = {}
        errors: list[FormatError] = []
        for rank in _ranks_in(self._path) or [0]:  # without any, the reader of rank 0 says what is wrong
            try:
                reader = self._readers.get(rank)
                if reader is None:
                    reader = FolderReader(self._path, rank)
                    self._world = max(self._world, _world_size(self._path.at(files.rank_name(rank))))
                else:
                    reader.refresh()
                readers[rank] = reader
            except FormatError as error:
                errors.append(error)
        if not readers:
            try:
                raise errors[0]
            finally:
                errors.clear()  # its traceback holds this frame, and what was read of the run
        self._left_out = tuple(str(error) for error in errors)
        self._readers = readers
        self._world = max(self._world, len(readers))
        # A single rank is read as it is, at no cost.
        self._ranks: Reader = AddedRanks(readers, self._world) if self._world > 1 else next(iter(readers.values()))

    def batches(self) -> Mapping[str, npt.NDArray[Any]]:
        return self._ranks.batches()

    def extent(self, phase: Phase) -> tuple[int, int]:
        return self._ranks.extent(phase)

    def kept(self, phase: Phase, level: int) -> int:
        return self._ranks.kept(phase, level)

    def blocks(self, stream: Stream, phase: Phase, start: int, stop: int, level: int = 0) -> Iterator[Block]:
        return self._ranks.blocks(stream, phase, start, stop, level)

    def columns(self, stream: Stream, phase: Phase, start: int, stop: int, level: int) -> Block:
        return self._ranks.columns(stream, phase, start, stop, level)

    def units(self, stream: Stream, phase: Phase) -> Sequence[Units]:
        return self._ranks.units(stream, phase)


def _ranks_in(run: Place) -> list[int]:
    """Return the ranks that have a folder which is complete, or was."""
    try:
        found = {rank: name for name in run.names() if (rank := files.rank_number(name)) is not None}
        return sorted(rank for rank, name in found.items() if {files.STREAMS, files.RANK_FILE} & {*run.names(name)})
    except OSError:  # gone: the readers say so
        return []


def _world_size(rank: Place) -> int:
    try:
        return int(files.from_json(rank.read(files.RANK_FILE))["world_size"])
    except (OSError, ValueError, LookupError, TypeError):  # written before there were several, or damaged
        return 1


@dataclass(frozen=True)
class _Joined:
    """The batches of all ranks, by phase and index; `holds` says of each rank which of them it has.

    Of every rank, the index within the phase names the batch: its number over all phases differs between
    ranks as soon as one of them validates alone.
    """

    phase: IntArray
    index: IntArray
    recorded: npt.NDArray[np.bool_]
    time: npt.NDArray[np.float64]
    holds: Mapping[int, npt.NDArray[np.bool_]]
    table: dict[str, npt.NDArray[Any]]
    out_of_step: Sequence[str]


class AddedRanks:
    """Several readers, each of one rank, as a :class:`~colordim.store.base.Reader` of all.

    Streams belong together if kind, name and facet are the same. Of a stream that is added (``"sum"``),
    the counts, counters and sums of a batch are those of all ranks that hold the batch; of one that is
    ``"replicated"``, those of the lowest rank that holds it. A column is there for the batches that all
    of their holders recorded. In the table of batches, ``ranks`` is the number of holders, and
    ``partial`` says whether they are not all; what was logged is the mean over the ranks that logged it,
    ``time`` the latest.

    Parameters
    ----------
    readers : mapping of int to Reader
        The ranks that have written something, by number.
    world_size : int
        How many ranks there should be.
    """

    def __init__(self, readers: Mapping[int, Reader], world_size: int) -> None:
        self._readers = dict(sorted(readers.items()))
        self._world = world_size
        self._unequal: list[str] = []
        self._sources: list[list[tuple[int, Stream]]] = []
        numbers: dict[object, int] = {}
        streams: list[Stream] = []
        for rank, reader in self._readers.items():
            for stream in reader.streams:
                number = numbers.setdefault(
                    (stream.kind, stream.name, stream.facet and stream.facet.index), len(streams)
                )
                if number == len(streams):
                    streams.append(replace(stream, id=number))
                    self._sources.append([(rank, stream)])
                elif stream.axis == streams[number].axis:
                    self._sources[number].append((rank, stream))
                else:
                    self._unequal.append(
                        f"{stream.name!r} is counted on {stream.axis} by rank {rank} and on {streams[number].axis} by rank "
                        f"{self._sources[number][0][0]}, so that of rank {rank} is left out: record with one range on all ranks."
                    )
        self._streams = tuple(streams)

    @property
    def path(self) -> str:
        return next(iter(self._readers.values())).path

    @property
    def info(self) -> Mapping[str, Any]:
        return next(iter(self._readers.values())).info

    @property
    def facts(self) -> Mapping[str, Any]:
        """Those of the lowest rank that has any: the model is the same on all."""
        return next((reader.facts for reader in self._readers.values() if reader.facts), {})

    @property
    def ended(self) -> str | None:
        """Why the run ended: as most ranks did, or the first that did not; None while one has not ended."""
        reasons = {rank: reader.ended for rank, reader in self._readers.items()}
        if None in reasons.values() or len(reasons) < self._world:
            return None
        if len(set(reasons.values())) == 1:
            return next(iter(reasons.values()))
        return next(f"rank {rank}: {reason}" for rank, reason in reasons.items() if reason != "stopped")

    @property
    def streams(self) -> tuple[Stream, ...]:
        return self._streams

    @property
    def problems(self) -> tuple[str, ...]:
        theirs = [f"rank {rank}: {text}" for rank, reader in self._readers.items() for text in reader.problems]
        return (*theirs, *self._unequal, *self._joined.out_of_step, *self._missing)

    def refresh(self) -> None:
        """Do nothing: this is a view of the readers' snapshots."""

    def batches(self) -> Mapping[str, npt.NDArray[Any]]:
        return self._joined.table

    def units(self, stream: Stream, phase: Phase) -> Sequence[Units]:
        return [
            replace(units, stream=stream.id)
            for rank, theirs in self._sources[stream.id]
            for units in self._readers[rank].units(theirs, phase)
        ]

    def extent(self, phase: Phase) -> tuple[int, int]:
        mine = self._joined.phase == PHASES.index(phase)
        index = self._joined.index[mine]
        return int(index.max(initial=-1)) + 1, int(np.count_nonzero(self._joined.recorded[mine]))

    def kept(self, phase: Phase, level: int) -> int:
        return max(reader.kept(phase, level) for reader in self._readers.values())

    def blocks(self, stream: Stream, phase: Phase, start: int, stop: int, level: int = 0) -> Iterator[Block]:
        joined = self._joined
        rows = np.flatnonzero(
            (joined.phase == PHASES.index(phase)) & joined.recorded & (joined.index >= start) & (joined.index < stop)
        )
        if level == 0:
            yield from self._columns(stream, phase, rows, stop)
        elif len(rows):
            width = FACTOR**level
            keys = joined.index[rows] // width
            for low in range(int(keys[0]), int(keys[-1]) + 1, _BLOCK):
                piece = rows[slice(*np.searchsorted(keys, [low, low + _BLOCK]))]
                if len(piece):
                    span = max(start, low * width), min(stop, (low + _BLOCK) * width)
                    yield from self._sums(stream, phase, piece, span, level)

    def columns(self, stream: Stream, phase: Phase, start: int, stop: int, level: int) -> Block:
        return merge(self.blocks(stream, phase, start, stop, level), level, stream.axis.bins)

    def _sums(self, stream: Stream, phase: Phase, rows: IntArray, span: tuple[int, int], level: int) -> Iterator[Block]:
        """Yield columns of a level: the ranks' own, where they hold the same batches, else summed up from level 0."""
        joined, add = self._joined, stream.reduction == "sum"
        index = joined.index[rows]
        keys, starts, number = np.unique(index // FACTOR**level, return_index=True, return_counts=True)
        block = replace(Block.unfired(index[starts], stream.axis.bins), last=index[starts + number - 1], number=number)
        fits, parts = np.ones(len(keys), np.bool_), []
        for rank, theirs in self._sources[stream.id] if add else self._sources[stream.id][:1]:
            part = self._readers[rank].columns(theirs, phase, *span, level)
            holds = joined.holds[rank][rows]
            mine = np.logical_and.reduceat(holds, starts)
            none = ~np.logical_or.reduceat(holds, starts) if add else False
            if len(part):
                place = np.minimum(np.searchsorted(part.first, block.first), len(part) - 1)
                for name in ("first", "last", "number"):
                    mine &= getattr(part, name)[place] == getattr(block, name)
                parts.append((part, place, mine))
            else:
                mine[:] = False
            fits &= mine | none
        for part, place, mine in parts:
            wanted = fits & mine
            _add(_chosen(part, place[wanted]), block, wanted, np.zeros(len(block), np.int64))
        edges = np.flatnonzero(np.diff(fits, prepend=~fits[:1]))
        for low, high in zip(edges, [*edges[1:], len(fits)], strict=True):
            if fits[low]:
                yield _chosen(block, slice(low, high))
            else:
                here = rows[starts[low] : starts[high - 1] + number[high - 1]]
                yield merge(self._columns(stream, phase, here, span[1]), level, stream.axis.bins)

    def _columns(self, stream: Stream, phase: Phase, rows: IntArray, stop: int) -> Iterator[Block]:
        """Yield the columns of level 0 of these rows."""
        joined = self._joined
        sources = self._sources[stream.id]
        add = stream.reduction == "sum"
        cursors: dict[int, _Cursor] = {}
        for piece in np.split(rows, range(_BLOCK, len(rows), _BLOCK)) if len(rows) else []:
            index = joined.index[piece]
            block = Block.unfired(index, stream.axis.bins)
            seen, expected = np.zeros(len(piece), np.int64), np.zeros(len(piece), np.int64)
            for rank, theirs in sources:
                wanted = joined.holds[rank][piece]
                expected += wanted
                if not add:
                    wanted = wanted & (seen == 0)
                if not wanted.any():
                    continue
                if rank not in cursors:
                    cursors[rank] = _Cursor(self._readers[rank].blocks(theirs, phase, int(index[0]), stop))
                for part in cursors[rank].until(int(index[-1])):
                    _add(part, block, wanted, seen)
            whole = seen == expected if add else (seen > 0) | (expected == 0)
            yield block if whole.all() else _chosen(block, whole)

    @cached_property
    def _missing(self) -> tuple[str, ...]:
        return tuple(self._find_missing(self._joined, time.time()))

    def _find_missing(self, joined: _Joined, now: float) -> Iterator[str]:
        """Say which ranks lack batches that others hold, other than those that are being written now."""
        ended = {rank: reader.ended for rank, reader in self._readers.items()}
        absent = self._world - len(self._readers)
        late = len(joined.time) > 0 and now - joined.time.min() > _BEHIND_SECONDS
        if absent and (late or None not in ended.values()):
            there = ", ".join(files.rank_name(rank) for rank in self._readers)
            yield f"{absent} of {self._world} ranks have written nothing: only {there} is there."
        totals = {rank: int(np.count_nonzero(holds)) for rank, holds in joined.holds.items()}
        final = ended[max(totals, key=totals.__getitem__)] is not None
        for rank, holds in joined.holds.items():
            # A phase that a rank never runs, as validation often is rank 0's alone, is nothing that it lacks.
            due = np.ones(len(holds), np.bool_)
            for mine in (joined.phase == phase for phase in range(len(PHASES))):
                if totals[rank] and not holds[mine].any():
                    due &= ~mine
            lacking = due & ~holds
            if not lacking.any() or self._readers[rank].problems:
                continue
            why = ended[rank]
            if why is None and now - joined.time[lacking].min() <= _BEHIND_SECONDS:
                continue
            found = int(np.count_nonzero(due & holds))
            # No number that grows while the others go on: a sentence is told once.
            number = f"{found} of {np.count_nonzero(due)} batches" if final else f"{found} batches and others more"
            yield f"rank {rank} holds {number}: " + (
                "it was cut off, or is more than a minute behind." if why is None else f"it ended with {why!r}."
            )

    @cached_property
    def _joined(self) -> _Joined:
        tables = {rank: reader.batches() for rank, reader in self._readers.items()}
        codes = {rank: _codes(table) for rank, table in tables.items()}
        code = np.unique(np.concatenate(list(codes.values())))
        rows = {rank: np.searchsorted(code, mine) for rank, mine in codes.items()}
        holds = {rank: np.bincount(row, minlength=len(code)).astype(np.bool_) for rank, row in rows.items()}
        phase, index = code >> _INDEX_BITS, code & ((1 << _INDEX_BITS) - 1)

        def latest(name: str, dtype: Any) -> npt.NDArray[Any]:
            values = np.full(len(code), -1, dtype)
            for rank, table in tables.items():
                values[rows[rank]] = np.maximum(values[rows[rank]], table[name])
            return values

        recorded, ranks = np.ones(len(code), np.bool_), np.zeros(len(code), np.int64)
        for rank, table in tables.items():
            recorded[rows[rank]] &= table["recorded"]
            ranks[rows[rank]] += 1
        ended_at = latest("time", np.float64)
        columns: dict[str, npt.NDArray[Any]] = {
            "batch": _numbers(tables, rows, phase, ended_at),
            "index": index,
            "epoch": latest("epoch", np.int64),
            "step": latest("step", np.int64),
            "phase": np.array(PHASES)[phase],
            "time": ended_at,
            "recorded": recorded,
            "ranks": ranks,
            "partial": np.asarray(ranks < self._world),
        }
        for name in dict.fromkeys(name for table in tables.values() for name in table if name not in BATCH_COLUMNS):
            columns[name] = _mean(
                [(rows[rank], table[name]) for rank, table in tables.items() if name in table], len(code)
            )
        order = np.argsort(columns["batch"], kind="stable")
        return _Joined(
            phase=phase,
            index=index,
            recorded=recorded,
            time=ended_at,
            holds=holds,
            table={name: values[order] for name, values in columns.items()},
            out_of_step=list(_out_of_step(tables, rows, columns)),
        )


class _Cursor:
    """Hands out ascending blocks up to one index after the other, each read once."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._left: Block | None = None

    def until(self, last: int) -> Iterator[Block]:
        """Yield the columns up to the index `last` that were not handed out yet."""
        while (block := self._left or next(self._blocks, None)) is not None:
            cut = int(np.searchsorted(block.first, last, side="right"))
            self._left = _chosen(block, slice(cut, None)) if cut < len(block) else None
            yield _chosen(block, slice(cut))
            if self._left is not None:
                return


def _chosen(block: Block, which: slice | npt.NDArray[np.bool_]) -> Block:
    return Block(
        block.first[which],
        block.last[which],
        block.number[which],
        block.counts[which],
        block.counters[which],
        block.moments[which],
    )


def _add(part: Block, block: Block, wanted: npt.NDArray[np.bool_], seen: IntArray) -> None:
    """Add to a block, in place, those columns of another that are `wanted`."""
    place = np.minimum(np.searchsorted(block.first, part.first), len(block) - 1)
    hit = (block.first[place] == part.first) & wanted[place]
    at: Any = place[hit]
    if len(at) == 0:
        return
    source = part if hit.all() else _chosen(part, hit)
    if at[-1] - at[0] + 1 == len(at):  # as nearly always; half the time of single rows
        at = slice(int(at[0]), int(at[-1]) + 1)
    block.counts[at] += source.counts
    block.counters[at] += source.counters
    block.moments[at, :2] += source.moments[:, :2]
    block.moments[at, 2] = np.minimum(block.moments[at, 2], source.moments[:, 2])
    block.moments[at, 3] = np.maximum(block.moments[at, 3], source.moments[:, 3])
    seen[at] += 1


def _codes(table: Mapping[str, npt.NDArray[Any]]) -> IntArray:
    """Return a number for phase and index of each batch, ascending within a phase."""
    code = np.array(table["index"], np.int64)
    for number, phase in enumerate(PHASES):
        code[table["phase"] == phase] += number << _INDEX_BITS
    return code


def _numbers(
    tables: Mapping[int, Mapping[str, npt.NDArray[Any]]],
    rows: Mapping[int, IntArray],
    phase: IntArray,
    ended_at: npt.NDArray[np.float64],
) -> IntArray:
    """Return the number of each batch over all phases: that of a rank that holds all, else by time."""
    numbers = np.zeros(len(phase), np.int64)
    longest = max(tables, key=lambda rank: len(rows[rank]))
    if len(rows[longest]) == len(phase):
        numbers[rows[longest]] = tables[longest]["batch"]
        return numbers
    when = ended_at.copy()
    for number in np.unique(phase):  # a rank that is missing must not turn two batches of a phase round
        when[phase == number] = np.maximum.accumulate(when[phase == number])
    numbers[np.argsort(when, kind="stable")] = np.arange(len(phase))
    return numbers


def _mean(logged: Sequence[tuple[IntArray, npt.NDArray[np.float64]]], length: int) -> npt.NDArray[np.float64]:
    """Return the mean of what was logged of each batch; NaN where nothing was."""
    total, number = np.zeros(length), np.zeros(length)
    for rows, values in logged:
        there = ~np.isnan(values)
        total[rows[there]] += values[there]
        number[rows[there]] += 1
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _out_of_step(
    tables: Mapping[int, Mapping[str, npt.NDArray[Any]]], rows: Mapping[int, IntArray], columns: Mapping[str, Any]
) -> Iterator[str]:
    """Say it if one batch belongs to different epochs, as after an epoch in which a rank ran fewer batches.

    A rank that saw no second epoch is left out: where it runs no validation, it cannot tell them.
    """
    first, known = -1, np.zeros(0, np.int64)
    for rank, table in tables.items():
        epoch = np.full(len(columns["index"]), -1, np.int64)
        epoch[rows[rank]] = table["epoch"]
        if epoch.max(initial=0) == 0:
            continue
        if first < 0:
            first, known = rank, epoch
            continue
        differs = (epoch >= 0) & (known >= 0) & (epoch != known)
        if differs.any():
            at = int(np.argmax(differs))
            yield (
                f"the ranks are out of step: {columns['phase'][at]} batch {columns['index'][at]} is of epoch {known[at]} "
                f"on rank {first} and of epoch {epoch[at]} on rank {rank}, so columns add batches of different epochs."
            )
            return
