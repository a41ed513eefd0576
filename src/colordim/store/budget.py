"""Keeping a run within a number of bytes: the oldest columns are dropped, finest level first; their sums stay."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from colordim.store import files
from colordim.store.levels import first_of, level_names, parse_name, span_name
from colordim.store.parquet import Footer
from colordim.store.place import LocalPlace
from colordim.store.pyramid import FACTOR
from colordim.store.segments import Summary, batches_in, read_units, sources_of, write_batches
from colordim.store.table import batch_arrays, join_batches
from colordim.store.tail import tails_in

__all__ = ["read_dropped", "trim"]

#: Files of a level that always stay, so that the newest columns are there in full.
_NEWEST = 2
#: Batches of a file of batches from which on it is not put together with others: it is read as a whole.
_FOLDED = 1 << 18


@dataclass(frozen=True)
class _Pair:
    """The columns and the moments of a segment or a span at a level."""

    level: int
    first: int
    last: int
    name: str
    nbytes: int


def trim(rank: Path, max_bytes: int) -> int:
    """Drop the oldest columns of a rank until it is small enough.

    What is dropped is written down before it is removed. A column is dropped only where a coarser level has its sum;
    what is known of the batches stays, in fewer and fewer files.

    Parameters
    ----------
    rank : Path
        Folder of the rank; its writer calls this.
    max_bytes : int
        Bytes that all its files may take.

    Returns
    -------
    int
        Bytes that its files take now.

    Raises
    ------
    OSError
        If the folder cannot be read or written; what was dropped by then is written down.
    """
    total = sum(path.stat().st_size for path in rank.rglob("*") if path.is_file())
    # On the way of every segment that is sealed: not every file is looked at again while there is room.
    pairs = list(_pairs(rank)) if total > max_bytes else []
    try:
        dropped = dict(read_dropped(_read(rank / files.DROPPED)))
    except ValueError:  # damaged: what is dropped is what lies before what there is
        pairs = pairs or list(_pairs(rank))
        begin = {pair.level: pair.first for pair in reversed(pairs)}
        dropped = {level: first - 1 for level, first in begin.items() if first > min(begin.values())}
    for pair in _oldest_first(pairs):
        if total <= max_bytes:
            break
        dropped[pair.level] = pair.last
        files.write_text(rank / files.DROPPED, files.to_json({str(level): last for level, last in dropped.items()}))
        for name in reversed(level_names(pair.level, pair.name)):
            with contextlib.suppress(FileNotFoundError):
                (rank / name).unlink()
        total -= pair.nbytes
    if dropped:  # by an earlier call, too, which may have been cut off
        _fold(rank, dropped.get(0, -1))
    return total


def _oldest_first(pairs: Sequence[_Pair]) -> Iterator[_Pair]:
    """Yield what may be dropped, in turn; nothing of which the sums are not written yet, and nothing after that."""
    for level in range(max((pair.level for pair in pairs), default=0)):
        coarser = [pair for pair in pairs if pair.level > level]
        for pair in [pair for pair in pairs if pair.level == level][:-_NEWEST]:
            if not any(other.first <= pair.first and pair.last <= other.last for other in coarser):
                return
            yield pair


def _fold(rank: Path, last: int) -> None:
    """Put the batches and units of four dropped segments into one file, those of four such files into one, ..."""
    damaged: set[str] = set()
    while (four := _four_alike(rank, last, damaged)) is not None:
        tables, units, sources = [], [], []
        for first, old in four:
            footer = Footer(LocalPlace(rank), f"{files.BATCHES}/{old}", first)
            try:
                tables.append(footer.read(0, None))
                footer.check(0, batch_arrays(tables[-1]))
                if footer.facts["units"]:
                    units += read_units(Footer(LocalPlace(rank), f"{files.UNITS_FOLDER}/{old}", first))
            except (FileNotFoundError, ValueError, LookupError):  # it stays what it is, and readers say so
                damaged.add(old)
                break
            sources += sources_of(footer)
        else:
            end = Summary.from_json(footer.facts).last
            write_batches(rank, span_name(four[0][0], end), four[0][0], join_batches(tables), units, sources)
            for _, old in four:
                _remove_batches(rank, old)


def _remove_batches(rank: Path, name: str) -> None:
    for folder in (files.BATCHES, files.UNITS_FOLDER):
        with contextlib.suppress(OSError):
            (rank / folder / name).unlink()


def _four_alike(rank: Path, last: int, damaged: Container[str]) -> list[tuple[int, str]] | None:
    """Return four adjacent files of batches up to the batch `last` that hold equally many segments, roughly."""
    place = LocalPlace(rank)
    tails = tails_in(place.names())
    sealed: set[int] = set()
    alike: list[tuple[int, str]] = []
    size, end = -1, -1
    for first, _, name in batches_in(place.names(files.BATCHES)):
        if first <= end:  # what the file before was made of, from a writer that was cut off
            _remove_batches(rank, name)
            continue
        try:
            if name in damaged:
                raise ValueError
            footer = Footer(place, f"{files.BATCHES}/{name}", first)
        except (ValueError, LookupError):  # nothing is put together over it
            alike = []
            continue
        if alike and any(alike[0][0] < tail < first and tail not in sealed for tail in tails):
            alike = []  # nor over what could not be sealed
        sealed |= {source for source, _, _ in sources_of(footer)}
        end = Summary.from_json(footer.facts).last
        if end > last:
            return None
        number = len(sources_of(footer)).bit_length() // 2  # 0 of one, 1 of four, 2 of sixteen, ...
        alike = [*alike, (first, name)] if number == size else [(first, name)]
        size = number
        if len(alike) == FACTOR and footer.facts["batches"] <= _FOLDED:
            return alike
    return None


def read_dropped(text: bytes) -> Mapping[int, int]:
    """Return the last batch that was dropped, by level; empty where nothing was.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    if not text:
        return {}
    try:
        return {int(level): int(last) for level, last in files.from_json(text).items()}
    except TypeError as error:
        raise ValueError(str(error)) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _pairs(rank: Path) -> Iterator[_Pair]:
    """Yield what there is of each level, by level, the oldest first."""
    level = 0
    while (folder := rank / files.moments_folder(level)).exists() or level == 0:
        names = sorted(path.name for path in folder.glob("[0-9]*.parquet"))
        starts = [first_of(name) for name in names]
        for at, name in enumerate(names):
            # A segment's name has no last batch: it ends before the next one, and the newest is never asked for.
            ends = parse_name(name) or (starts[at], starts[at + 1] - 1 if at + 1 < len(starts) else starts[at])
            sizes = []
            for path in (rank / each for each in level_names(level, name)):
                with contextlib.suppress(FileNotFoundError):
                    sizes.append(path.stat().st_size)
            yield _Pair(level, *ends, name, sum(sizes))
        level += 1
