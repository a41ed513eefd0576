"""The reading side of the folder store: the columns of what one rank has written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from colordim.column import Phase, Stream
from colordim.store import files
from colordim.store.base import Block
from colordim.store.levels import Groups, read_level
from colordim.store.parquet import read_columns, read_moments
from colordim.store.pieces import Piece, gather
from colordim.store.snapshot import LevelFiles, Part, Snapshot, left_out
from colordim.store.sparse import Columns, StreamColumns

__all__ = ["FolderReader"]

IntArray = npt.NDArray[np.int64]

#: Columns of a block at most, so that a block of the default axis stays below 10 MB.
_BLOCK = 1024
#: How often the levels are listed again because the writer has replaced a file meanwhile.
_LISTINGS = 100


class FolderReader(Snapshot):
    """Reads what one rank has written, as a :class:`~colordim.store.base.Reader`; also while it writes.

    Sealed files are read when they are asked for; damage in them is found, and added to
    :attr:`problems`, then. The columns of a damaged part are left out of :meth:`blocks`; a level that
    is missing, stale or damaged is summed up from the one below. What the writer replaces or drops after the
    snapshot was taken is read where it is now, or known to be dropped. Several threads may use one reader.

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

    def blocks(self, stream: Stream, phase: Phase, start: int, stop: int, level: int = 0) -> Iterator[Block]:
        for piece in self._pieces(stream, phase, start, stop, level):
            yield gather([piece], level, stream.axis.bins)

    def columns(self, stream: Stream, phase: Phase, start: int, stop: int, level: int) -> Block:
        return gather(self._pieces(stream, phase, start, stop, level), level, stream.axis.bins)

    def _pieces(self, stream: Stream, phase: Phase, start: int, stop: int, level: int) -> Iterator[Piece]:
        segments = [segment for part in self._parts for segment in part.segments()]
        if level == 0:
            return self._over(segments, stream, phase, start, stop, 0, 0)
        return iter(self._sums(segments, stream, phase, start, stop, level))

    def _sums(
        self, segments: Sequence[Part], stream: Stream, phase: Phase, start: int, stop: int, level: int
    ) -> list[Piece]:
        """Return the columns of a level; from the beginning where the writer replaces a file while it is read."""
        for _ in range(_LISTINGS):
            before = self._levels, self._dropped
            try:
                return list(self._over(segments, stream, phase, start, stop, level, level, vanishing=True))
            except FileNotFoundError:
                with self._lock:
                    self._take_levels()
                if before == (self._levels, self._dropped):  # it is missing
                    break
        return list(self._over(segments, stream, phase, start, stop, level, level))

    def _over(
        self,
        parts: Sequence[Part],
        stream: Stream,
        phase: Phase,
        start: int,
        stop: int,
        level: int,
        wanted: int,
        vanishing: bool = False,
    ) -> Iterator[Piece]:
        """Yield the columns of adjacent parts at the level `wanted`, read from files of up to `level`.

        With `vanishing`, raises a FileNotFoundError if a file of a level is gone; else reads what it sums up.
        """
        at = 0
        while at < len(parts):
            file, number = self._coarsest(parts[at:], phase, start, stop, level, vanishing)
            if file is not None:
                mine = parts[at : at + number]
                yield from self._of_level(file, mine, stream, phase, start, stop, wanted, vanishing)
            elif parts[at].has(phase, start, stop):
                yield from self._of_part(parts[at], stream, phase, start, stop, wanted, vanishing)
            at += number

    def _coarsest(
        self, parts: Sequence[Part], phase: Phase, start: int, stop: int, level: int, vanishing: bool
    ) -> tuple[LevelFiles | None, int]:
        """Return the coarsest file that begins with these parts, if there is one, and how many of them it sums up."""
        for file in self._levels.get(parts[0].first, ()) if level else ():
            if file.level > level or file.last > parts[-1].summary.last:
                continue
            mine = [part for part in parts if part.first <= file.last]
            if not any(part.has(phase, start, stop) for part in mine):
                return None, len(mine)
            try:
                sources = self._footer(file.names[1], file.first).facts["sources"]
            except Exception as error:  # removed meanwhile, or damaged: what it sums up is elsewhere
                if vanishing and isinstance(error, FileNotFoundError):
                    raise
                continue
            if any(part.frames for part in mine):  # could not be sealed, and so is in no sum
                continue
            if sources == [[first, crc] for part in mine for first, crc, recorded in part.sources if recorded]:
                return file, len(mine)
        return None, 1

    def _of_level(
        self,
        file: LevelFiles,
        parts: Sequence[Part],
        stream: Stream,
        phase: Phase,
        start: int,
        stop: int,
        wanted: int,
        vanishing: bool,
    ) -> Iterator[Piece]:
        def below(first: int, last: int) -> Iterator[Piece]:
            first, last = max(start, first), min(stop, last + 1)
            return self._over(parts, stream, phase, first, last, file.level - 1, wanted, vanishing)

        try:
            columns, moments = (self._footer(name, file.first) for name in file.names)
            every = Groups.from_json(moments.facts["columns"])
            groups, where = every.of_phase(phase)
            touched = np.flatnonzero((groups.last >= start) & (groups.first < stop))
            if len(touched) == 0:
                return
            inside = np.flatnonzero((groups.first >= start) & (groups.last < stop))
            found = read_level(columns, moments, stream.id, len(every), where) if len(inside) else None
            _check_buckets(found, stream)
        except Exception as error:  # removed meanwhile, or damaged: what it sums up is elsewhere
            if vanishing and isinstance(error, FileNotFoundError):
                raise
            self._forget(file.names)
            yield from below(start, stop)
            return
        if len(inside) == 0:
            yield from below(start, stop)
            return
        # A column that is cut by the ends of what is wanted is summed up anew.
        if touched[0] < inside[0]:
            yield from below(int(groups.first[touched[0]]), int(groups.last[inside[0] - 1]))
        whole = slice(int(inside[0]), int(inside[-1]) + 1)
        yield Piece(groups.chosen(whole), found and found.chosen(whole)).at_level(wanted, file.level)
        if inside[-1] < touched[-1]:
            yield from below(int(groups.first[inside[-1] + 1]), int(groups.last[touched[-1]]))

    def _of_part(
        self, part: Part, stream: Stream, phase: Phase, start: int, stop: int, wanted: int, vanishing: bool
    ) -> Iterator[Piece]:
        if self._is_dropped(part):
            self._miss(part, wanted, vanishing)
            return
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
                if self._is_dropped(part):  # since the snapshot was taken
                    self._miss(part, wanted, vanishing)
                return
        else:
            found = Columns.stream_of(part.frames, stream.id)
        for piece in [chosen] if wanted else np.split(chosen, range(_BLOCK, len(chosen), _BLOCK)):
            groups = Groups.of_index(index[piece])
            # A slice is not copied.
            which = slice(piece[0], piece[-1] + 1) if piece[-1] - piece[0] + 1 == len(piece) else piece
            yield Piece(groups, found and found.chosen(which)).at_level(wanted)

    def _of_sealed(self, part: Part, stream: Stream, numbers: IntArray) -> tuple[bool, StreamColumns | None]:
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
                    found = StreamColumns.of_fired(
                        buckets, counts, np.searchsorted(numbers, batches), counters, moments
                    )
                    _check_buckets(found, stream)
            except Exception as error:  # a damaged file can fail in any way
                self._forget([name])
                if isinstance(error, FileNotFoundError):
                    self._take_dropped()
                    if self._is_dropped(part):  # since the snapshot was taken
                        return False, None
                self._problems[name, stream.id] = left_out(
                    name, int(numbers[0]), int(numbers[-1]), error, f"the columns of {stream.name!r} in "
                )
                return False, None
            self._problems.pop((name, stream.id), None)
        return True, found

    def _miss(self, part: Part, wanted: int, vanishing: bool) -> None:
        """Say it if a part that was dropped should be in sums of the level `wanted`."""
        if all(part.summary.last <= self._dropped.get(finer, -1) for finer in range(wanted + 1)):
            return
        if vanishing:
            raise FileNotFoundError
        self._problems["sums", part.first] = (
            f"{self._rank}: batches {part.first} to {part.summary.last} are left out of sums: they were dropped at "
            "finer levels, and this one is damaged or has grown beyond the snapshot; refresh() takes a new one."
        )

    def _is_dropped(self, part: Part) -> bool:
        return part.frames is None and part.summary.last <= self._dropped.get(0, -1)


def _check_buckets(found: StreamColumns | None, stream: Stream) -> None:
    if found is not None and len(found.bucket) and not 0 <= found.bucket.min() <= found.bucket.max() < stream.axis.bins:
        raise ValueError(f"it has buckets that {stream.axis} has not")
