"""The spans of a rank, as its writer goes on: summed up together by fours, found again after a restart, rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colordim.column import Stream
from colordim.store import files
from colordim.store.budget import read_dropped
from colordim.store.levels import Groups, Span, SpanWriter, join, level_names, levels_in, parse_name
from colordim.store.parquet import Footer, read_columns, read_moments
from colordim.store.place import LocalPlace
from colordim.store.pyramid import FACTOR
from colordim.store.segments import Summary, batches_in, read_batches, sources_of
from colordim.store.sparse import StreamColumns
from colordim.store.tail import tails_in

__all__ = ["SealedSegment", "Spans", "dropped_until", "sealed_segments", "sum_up"]


@dataclass(frozen=True)
class SealedSegment:
    """A sealed segment of which anything was recorded.

    Attributes
    ----------
    first, last : int
        Numbers of its first and its last batch.
    crc : int
        Checksum of its batches.
    """

    first: int
    last: int
    crc: int


def sealed_segments(rank: Path) -> Iterator[SealedSegment]:
    """Yield the segments of a rank, ascending; those whose batches cannot be read are left out."""
    yield from _segments_of(_batch_files(LocalPlace(rank)))


def _segments_of(found: Iterable[tuple[int, list[tuple[int, int, int]], int]]) -> Iterator[SealedSegment]:
    for _, sources, end in found:
        lasts = [*(source[0] - 1 for source in sources[1:]), *([end] if sources else [])]
        for (start, crc, recorded), last in zip(sources, lasts, strict=True):
            if recorded:
                yield SealedSegment(start, last, crc)


def _batch_files(place: LocalPlace) -> Iterator[tuple[int, list[tuple[int, int, int]], int]]:
    """Yield the first batch, the segments and the last batch of each file of batches; of a damaged one no segments."""
    end = -1
    for first, _, name in batches_in(place.names(files.BATCHES)):
        if first <= end:  # the file before was made of it
            continue
        try:
            footer = Footer(place, f"{files.BATCHES}/{name}", first)
            sources, end = sources_of(footer), Summary.from_json(footer.facts).last
        except Exception:  # a damaged file can fail in any way
            yield first, [], first
        else:
            yield first, sources, end


@dataclass(frozen=True)
class _Files:
    """The spans that a rank has files of, by level: first and last batch of each, with columns and moments."""

    by_level: dict[int, list[tuple[int, int]]]

    @classmethod
    def of(cls, place: LocalPlace) -> _Files:
        found = {}
        for level in levels_in(place):
            folders = files.columns_folder(level), files.moments_folder(level)
            both = set.intersection(*({*place.names(folder)} for folder in folders))
            found[level] = sorted(ends for name in both if (ends := parse_name(name)) is not None)
        return cls(found)

    def largest(self, place: LocalPlace, segments: Sequence[SealedSegment], dropped: int) -> Span | None:
        """Return the largest span that begins with these segments and whose levels are all there.

        Where the segments' own columns were dropped, levels that are gone cannot be had again and are not missed.
        """
        lasts = {
            last: level for level, ends in self.by_level.items() for first, last in ends if first == segments[0].first
        }
        for last in sorted(lasts, reverse=True):
            mine = [each for each in segments if each.first <= last]
            sources = tuple((each.first, each.crc) for each in mine)
            names = level_names(lasts[last], Span(segments[0].first, last, ()).name)
            try:
                footers = [Footer(place, name, segments[0].first) for name in names]
                order = int(footers[0].facts["order"])
            except Exception:  # damaged
                continue
            if any(footer.facts["sources"] != [list(each) for each in sources] for footer in footers):
                continue
            span = Span(segments[0].first, last, sources, order)
            # Without its own files it was being written when the writer was cut off.
            own = all((span.first, last) in self.by_level.get(level, ()) for level in span.levels)
            if mine[0].last <= dropped or (
                own and all(self._cover(level, mine) for level in range(1, span.levels.start))
            ):
                return span
        return None

    def _cover(self, level: int, segments: Sequence[SealedSegment]) -> bool:
        ends = self.by_level.get(level, [])
        return all(any(first <= each.first and each.last <= last for first, last in ends) for each in segments)


class Spans:
    """The spans of a rank that are not part of a larger one, by their batches.

    Parameters
    ----------
    rank : Path
        Folder of the rank, which this writes.
    """

    def __init__(self, rank: Path) -> None:
        self._rank = rank
        self._spans: list[Span] = []
        self._holes: set[int] = set()

    def add(self, span: Span) -> None:
        """Take one more span, of the newest segment."""
        self._spans.append(span)

    def skip(self, first: int) -> None:
        """Take note that what begins with the batch `first` is in no span: no span may reach over it."""
        self._holes.add(first)

    def join(self, streams: Sequence[Stream], between: Callable[[], None]) -> None:
        """Sum up four adjacent spans of an order together, wherever there are so many.

        Raises
        ------
        OSError
            If the disk does not take the sums.
        """
        at = 0
        while at + FACTOR <= len(self._spans):
            four = self._spans[at : at + FACTOR]
            over = any(four[0].first < hole < four[-1].first for hole in self._holes)
            if over or len({span.order for span in four}) > 1:
                at += 1
                continue
            try:
                self._spans[at : at + FACTOR] = [join(self._rank, four, streams, between)]
            except (FileNotFoundError, ValueError, LookupError):  # taken away or damaged: readers do without
                self._spans[at : at + FACTOR] = []
                self.skip(four[0].first)
            at = 0

    def restore(self) -> list[SealedSegment]:
        """Find the spans that an earlier writer has left; return the segments that lack a level they should have."""
        place = LocalPlace(self._rank)
        there = _Files.of(place)
        dropped = dropped_until(place)
        self._spans = []
        missing: list[SealedSegment] = []
        found = list(_batch_files(place))
        segments = list(_segments_of(found))
        self._holes = {first for first, sources, _ in found if not sources}
        self._holes |= tails_in(place.names()).keys() - {source[0] for _, sources, _ in found for source in sources}
        while segments:
            span = there.largest(place, segments, dropped)
            if span is None:
                missing.append(segments.pop(0))
            else:
                self._spans.append(span)
                del segments[: len(span.sources)]
        return missing

    def rebuild(
        self, missing: Sequence[SealedSegment], streams: Sequence[Stream], between: Callable[[], None]
    ) -> list[SealedSegment]:
        """Sum up segments that are in no span; return those that cannot be read.

        Raises
        ------
        OSError
            If the disk does not take the sums.
        """
        unread = []
        for segment in missing:
            try:
                self._spans.append(sum_up(self._rank, segment, streams, between))
            except (FileNotFoundError, ValueError, LookupError):
                unread.append(segment)
                self.skip(segment.first)
        self._spans.sort(key=lambda span: span.first)
        self.join(streams, between)
        return unread


def dropped_until(place: LocalPlace) -> int:
    """Return the last batch whose own columns were dropped, -1 if none were."""
    try:
        return read_dropped(place.read(files.DROPPED)).get(0, -1)
    except (OSError, ValueError):
        return -1


def sum_up(rank: Path, segment: SealedSegment, streams: Sequence[Stream], between: Callable[[], None]) -> Span:
    """Write the levels of one segment, from its columns.

    Raises
    ------
    OSError, ValueError, LookupError
        If a file cannot be read or written, or is damaged.
    """
    place, name = LocalPlace(rank), f"{files.numbered(segment.first)}.parquet"
    table = read_batches(Footer(place, f"{files.BATCHES}/{name}", segment.first))
    columns, moments = (Footer(place, each, segment.first) for each in level_names(0, name))
    numbers = table["batch"][table["recorded"]]
    span = Span(segment.first, segment.last, ((segment.first, segment.crc),))
    with SpanWriter(rank, span, Groups.of_batches(table), len(columns.group_of)) as writer:
        for stream in sorted(columns.group_of):
            bucket, counts = read_columns(columns, stream, len(numbers))
            batches, counters, sums = read_moments(moments, stream)
            place_of = np.searchsorted(numbers, batches)
            writer.write(streams[stream], StreamColumns.of_fired(bucket, counts, place_of, counters, sums))
            between()
    return span
