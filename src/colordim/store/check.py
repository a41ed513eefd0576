"""Whether a run is whole: every checksum, every sum; and mending what can be mended without losing anything."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colordim.column import COUNTERS, PHASES, Phase, Stream
from colordim.errors import FormatError
from colordim.store import files
from colordim.store.base import Block
from colordim.store.budget import read_dropped
from colordim.store.description import read_info, read_streams
from colordim.store.folder import FolderReader
from colordim.store.levels import Groups, level_names, levels_in, parse_name, read_level
from colordim.store.parquet import Footer
from colordim.store.place import LocalPlace
from colordim.store.pyramid import FACTOR
from colordim.store.resume import check_writer
from colordim.store.segments import batches_in
from colordim.store.spans import Spans, dropped_until, sealed_segments
from colordim.store.tail import tails_in

__all__ = ["Finding", "examine", "repair"]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong in a run.

    Attributes
    ----------
    path : Path
        File that it is about, or the folder of the rank.
    sentence : str
        What is wrong, and what it costs.
    mendable : bool
        Whether :func:`repair` mends it; what is lost is lost, and is left out and named by every reader.
    """

    path: Path
    sentence: str
    mendable: bool


def examine(run: Path) -> Iterator[Finding]:
    """Read everything in a run and yield what is wrong.

    Parameters
    ----------
    run : Path
        Folder of the run; it is only read.

    Raises
    ------
    NotARunError, FormatError
        If there is no run, or its description is damaged.
    """
    read_info(LocalPlace(run))
    for rank in _ranks(run):
        try:
            reader = FolderReader(run, files.rank_number(rank) or 0)
        except FormatError as error:
            yield Finding(rank, str(error), mendable=False)
            continue
        yield from _leftovers(rank)
        yield from _lost(rank, reader)
        yield from _for_others(rank)
        yield from _levels(rank, reader)


def repair(run: Path) -> Iterator[str]:
    """Mend a run that nobody is writing, and yield what was done, sentence by sentence.

    What a writer that was cut off has left half written is removed; levels that are damaged, stale or missing are
    summed up again. Damaged columns and batches stay where they are: readers leave them out and say so.

    Raises
    ------
    NotARunError, FormatError
        If there is no run, or its description is damaged.
    StoreError
        If a process of this machine is writing it.
    OSError
        If the folder cannot be written.
    """
    read_info(LocalPlace(run))
    for rank in _ranks(run):
        check_writer(rank)
    for finding in list(examine(run)):
        if finding.mendable and finding.path.is_file():
            finding.path.unlink()
            yield f"removed {finding.path.relative_to(run)}"
    for rank in _ranks(run):
        spans = Spans(rank)
        missing = spans.restore()
        unread = spans.rebuild(missing, read_streams(LocalPlace(run), rank.name), lambda: None)
        if len(missing) > len(unread):
            yield f"summed up {len(missing) - len(unread)} segments of {rank.name} again"


def _ranks(run: Path) -> list[Path]:
    return sorted(path for path in run.iterdir() if files.rank_number(path) is not None and path.is_dir())


def _leftovers(rank: Path) -> Iterator[Finding]:
    """Yield what was not written to its end, or belongs to no segment."""
    for path in sorted(rank.rglob(".*.tmp")):
        yield Finding(path, "it was being written when the recording was cut off", mendable=True)
    named = {first for first, _, _ in batches_in(path.name for path in (rank / files.BATCHES).glob("*.parquet"))}
    tails = tails_in(path.name for path in rank.glob("tail-*"))
    dropped = dropped_until(LocalPlace(rank))
    last = {segment.first: segment.last for segment in sealed_segments(rank)}
    for folder in (files.COLUMNS, files.MOMENTS_FOLDER):
        for path in sorted((rank / folder).glob("[0-9]*.parquet")):
            first = int(path.stem)
            if first not in last and first not in named and first in tails:
                yield Finding(
                    path, "its segment was being sealed when the recording was cut off; the tail has it", True
                )
            elif last.get(first, dropped + 1) <= dropped:
                yield Finding(path, "it was being dropped when the recording was cut off", True)


def _lost(rank: Path, reader: FolderReader) -> Iterator[Finding]:
    """Read every column, and yield what cannot be read or does not add up."""
    reader.batches()
    for stream in reader.streams:
        for phase in PHASES:
            reader.units(stream, phase)
            for block in reader.blocks(stream, phase, reader.kept(phase, 0), reader.extent(phase)[0]):
                if (wrong := _unbalanced(block)) is not None:
                    yield Finding(
                        rank,
                        f"{phase} batch {wrong} of {stream.name!r} does not add up: bins, under, over, NaN and infinities "
                        "are not its size; please report this to the developers of colordim",
                        mendable=False,
                    )
    for sentence in reader.problems:
        yield Finding(rank, sentence.rstrip("."), mendable=False)
    try:
        files.from_json((rank / files.RANK_FILE).read_bytes())
    except FileNotFoundError:
        pass
    except ValueError as error:
        yield Finding(rank / files.RANK_FILE, f"it is damaged ({error})", mendable=False)


def _for_others(rank: Path) -> Iterator[Finding]:
    """Yield files of single batches with damage that only readers other than ours would meet."""
    place = LocalPlace(rank)
    for folder in (files.COLUMNS, files.MOMENTS_FOLDER):
        for name in sorted(place.names(folder)):
            if name.endswith(".parquet") and not name.startswith("."):
                try:
                    _read_all(Footer(place, f"{folder}/{name}", int(name.removesuffix(".parquet"))))
                except Exception as error:  # a damaged file can fail in any way
                    yield Finding(rank / folder / name, f"it is damaged ({_first_line(error)})", mendable=False)


def _read_all(footer: Footer) -> None:
    """Read everything in a file, also the columns that no reader of ours takes; raises as Footer does."""
    for group in range(footer.groups):
        footer.read(group, None)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__


def _unbalanced(block: Block) -> int | None:
    """Return the first batch whose counts are not the size of the tensor, or None."""
    at = {name: block.counters[:, i] for i, name in enumerate(COUNTERS)}
    known = block.counts.sum(axis=1) + sum(at[name] for name in ("under", "over", "nan", "pos_inf", "neg_inf"))
    wrong = np.flatnonzero(known != at["size"])
    return int(block.first[wrong[0]]) if len(wrong) else None


def _levels(rank: Path, reader: FolderReader) -> Iterator[Finding]:
    """Yield levels that are damaged, stale or missing, and whether they can be summed up again."""
    place = LocalPlace(rank)
    there = {(segment.first, segment.crc) for segment in sealed_segments(rank)}
    try:
        dropped = read_dropped(place.read(files.DROPPED))
    except (OSError, ValueError):  # there is none, or the reader has said it
        dropped = {}
    for level in levels_in(place):
        names = {*place.names(files.columns_folder(level)), *place.names(files.moments_folder(level))}
        for name in sorted(names):
            if (ends := parse_name(name)) is None:
                continue
            first = ends[0]
            paths = [rank / each for each in level_names(level, name)]
            # Only a finer level has what it takes to sum it up again.
            again = first > min(dropped.get(finer, -1) for finer in range(level))
            gone = [path for path in paths if not path.exists()]
            if gone:
                yield Finding(
                    next(path for path in paths if path.exists()),
                    f"{gone[0].relative_to(rank)} is missing",
                    again,
                )
                continue
            try:
                wrong = _level_differs(place, level, name, there, reader)
            except Exception as error:  # a damaged file can fail in any way
                wrong = f"it is damaged ({_first_line(error)})"
            if wrong:
                for path in paths:
                    yield Finding(path, wrong, again)
    missing = [segment for segment in Spans(rank).restore() if segment.last > dropped.get(0, -1)]
    if missing:
        yield Finding(rank, f"{len(missing)} segments have no levels: overviews are slower than they could be", True)


def _level_differs(
    place: LocalPlace, level: int, name: str, there: Container[tuple[int, int]], reader: FolderReader
) -> str:
    """Return what is wrong with a file of a level, "" if nothing is; raises as Footer does."""
    ends = parse_name(name)
    assert ends is not None
    columns, moments = (Footer(place, each, ends[0]) for each in level_names(level, name))
    for footer in (columns, moments):
        if not all((first, crc) in there for first, crc in footer.facts["sources"]):
            return "it sums up segments that are not there"
        _read_all(footer)
    every = Groups.from_json(moments.facts["columns"])
    for stream in reader.streams:
        for phase in PHASES:
            groups, where = every.of_phase(phase)
            if len(groups) == 0:
                continue
            found = read_level(columns, moments, stream.id, len(every), where)
            first, last = int(groups.first[0]), int(groups.last[-1])
            if reader.kept(phase, level - 1) > first:
                continue  # nothing is left to compare with
            counts = found.block(groups.first, groups.last, groups.number, stream.axis.bins) if found else None
            if _sums_differ(counts, groups, reader, stream, phase, (first, last + 1), level):
                return f"its sums of {stream.name!r} are not those of its columns"
    return ""


def _sums_differ(
    block: Block | None,
    groups: Groups,
    reader: FolderReader,
    stream: Stream,
    phase: Phase,
    span: tuple[int, int],
    level: int,
) -> bool:
    """Whether sums differ from the columns that can be read of the same batches."""
    counts = np.zeros((len(groups), stream.axis.bins), np.int64)
    number = np.zeros(len(groups), np.int64)
    keys = groups.first // FACTOR**level
    for piece in reader.blocks(stream, phase, *span, level - 1):  # which is checked as well
        place = np.searchsorted(keys, piece.first // FACTOR**level)
        np.add.at(counts, place, piece.counts)
        np.add.at(number, place, piece.number)
    whole = number == groups.number  # of what is damaged the sums cannot be checked
    return bool((counts[whole] != (0 if block is None else block.counts[whole])).any())
