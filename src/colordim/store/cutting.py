"""Cutting batches off the end of what a rank has written; a crash at any instant leaves a run that opens.

First a copy of all that is going to change is kept aside. Then segments go from the newest to the oldest, each with its
table of batches first, without which it does not count. Of the segment in which the cut lies, what stays is written as
a tail before the segment goes, and counts from then on.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from colordim.column import COUNTERS, MOMENTS, NO_MOMENTS, PHASES, Phase, Stream, Units
from colordim.store import files
from colordim.store.disk import read_json
from colordim.store.folder import FolderReader
from colordim.store.place import LocalPlace
from colordim.store.sparse import Columns
from colordim.store.table import join_batches, numbers, units_of
from colordim.store.tail import MAGIC, Frame, TailReader

__all__ = ["cut", "keep_aside", "sealed", "tail_path", "tails"]

_SEALED = (files.BATCHES, files.COLUMNS, files.MOMENTS_FOLDER, files.UNITS_FOLDER)


def tail_path(rank: Path, first: int) -> Path:
    """Return where the tail is that begins with batch `first`."""
    return rank / f"tail-{files.numbered(first)}.cdt"


def tails(rank: Path) -> list[int]:
    """Return the first batches of all tails, ascending."""
    return sorted(int(path.stem[5:]) for path in rank.glob("tail-*.cdt") if path.stem[5:].isdecimal())


def sealed(rank: Path, folder: str = files.BATCHES) -> list[int]:
    """Return the first batches of all sealed segments, ascending; or of those that have a file in another folder."""
    return sorted(int(path.stem) for path in (rank / folder).glob("*.parquet") if path.stem.isdecimal())


def keep_aside(
    reader: FolderReader, rank: Path, stop: int, attempt: str | None, described: Mapping[str, Any]
) -> str | None:
    """Keep whole what holds batches from number `stop` on, in a run of its own within the run.

    Its segments and tails are there as they were, so that it begins up to a segment before the cut.

    Parameters
    ----------
    reader : FolderReader
        Of the rank, as it is.
    rank : Path
        Its folder.
    stop : int
        Number of the first batch that is cut off.
    attempt : str or None
        What tells that other ranks cut theirs off for the same reason: these share a folder.
    described : mapping
        Of the cut, for its ``run.json``.

    Returns
    -------
    str or None
        Name of its folder in the run; None if there is nothing to be kept.

    Raises
    ------
    OSError
        If it cannot be written; nothing has changed then.
    """
    split = _split(reader, rank, stop)
    touched = [first for first in _firsts(rank) if first >= stop or first == split]
    if not touched:
        return None
    run = rank.parent
    temporary = run / f".cut.{rank.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    part = temporary / rank.name
    part.mkdir(parents=True)
    info = read_json(run / files.RUN)
    about = {**info, "name": f"{info.get('name', run.name)} (cut off)", "attempt": attempt, "cut": dict(described)}
    files.write_text(temporary / files.RUN, files.to_json(about))
    for name in (files.STREAMS, files.RANK_FILE, files.FACTS):
        if (rank / name).exists():
            files.write_text(part / name, (rank / name).read_text(encoding="utf-8"))
    files.write_text(part / files.END, files.to_json({"reason": "cut off when the run was resumed", "dropped": 0}))
    for first in touched:
        for path in _files(rank, first):
            if path.exists():
                _copy(path, part / path.relative_to(rank), link=path.suffix == ".parquet")
    for folder in (part, temporary):
        files.sync_folder(folder)
    return _publish(temporary, part, attempt)


def _publish(temporary: Path, part: Path, attempt: str | None) -> str:
    """Give the folder its name; of ranks that cut in the same attempt the first does, and the others join it."""
    run = temporary.parent
    while True:
        cuts = sorted(path for path in run.glob("cut-*") if path.name[4:].isdecimal())
        shared = [
            cut
            for cut in cuts
            if attempt is not None
            and read_json(cut / files.RUN).get("attempt") == attempt
            and not (cut / part.name).exists()
        ]
        target = run / f"cut-{max((int(path.name[4:]) for path in cuts), default=0) + 1:04d}"
        try:
            if shared:
                target = shared[0]
                part.replace(target / part.name)
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.replace(target)
        except OSError:
            if shared or not target.exists():  # else another rank was faster
                raise
        else:
            files.sync_folder(run)
            return target.name


def _copy(source: Path, target: Path, link: bool) -> None:
    """Copy a file onto the disk; a sealed one, which never changes, as a link where that can be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if link:
        with contextlib.suppress(OSError, NotImplementedError):
            os.link(source, target)
            return
    with files.replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def cut(
    reader: FolderReader, rank: Path, stop: int, ends: Mapping[Phase, int], lost: Callable[[list[str]], None]
) -> None:
    """Take away all batches from number `stop` on.

    Parameters
    ----------
    reader : FolderReader
        Of the rank, as it is.
    rank : Path
        Its folder.
    stop : int
    ends : mapping of str to int
        The first index of each phase that is cut off.
    lost : callable
        Is told a sentence for each damaged part of the segment in which the cut lies, before it is nowhere but in what
        was kept aside.
    """
    for path in _coarser(rank, stop):
        path.unlink()
    split = _split(reader, rank, stop)
    for first in reversed(_firsts(rank)):
        if first >= stop:
            for path in _files(rank, first):
                path.unlink(missing_ok=True)
    if split is None:
        return
    frame, damaged = _kept(reader, rank, split, stop, ends)
    if damaged:
        lost(damaged)
    with files.replacing(tail_path(rank, split)) as temporary:
        temporary.write_bytes(MAGIC + frame.to_bytes())
    for path in _files(rank, split)[1:]:
        path.unlink(missing_ok=True)


def _coarser(rank: Path, stop: int) -> Iterator[Path]:
    """Yield the files of sums of batches that hold some from number `stop` on; readers add these up anew."""
    for kind in ("columns", "moments"):
        for path in rank.glob(f"{kind}/level=*/*-*.parquet"):
            found = re.fullmatch(r"\d+-(\d+)", path.stem)
            if found and int(found[1]) >= stop:
                yield path


def _files(rank: Path, first: int) -> list[Path]:
    """Return all files of a segment, in the order in which they go.

    A tail that was left behind would count again without the batches; columns do not count without them.
    """
    name = f"{files.numbered(first)}.parquet"
    return [tail_path(rank, first), *(rank / folder / name for folder in _SEALED)]


def _firsts(rank: Path) -> list[int]:
    return sorted({*tails(rank), *(first for folder in _SEALED for first in sealed(rank, folder))})


def _split(reader: FolderReader, rank: Path, stop: int) -> int | None:
    """Return the first batch of the segment that holds batches on both sides of the cut, if there is one."""
    table = reader.batches()["batch"]
    before = [first for first in sorted({*tails(rank), *sealed(rank)}) if first < stop]
    if not before or not len(table) or table[-1] < stop:
        return None
    try:
        mine = numbers(_content(rank, before[-1])[0].column("batch"))
    except Exception:  # a damaged file can fail in any way: it stays as it is, and is reported as before
        return None
    # What the reader has left out is damaged as well.
    return before[-1] if mine[-1] >= stop and np.isin(mine, table).all() else None


def _content(rank: Path, first: int) -> tuple[pa.Table, Sequence[Units]]:
    """Return the batches of a segment, and what is known of units in it."""
    name = f"{files.numbered(first)}.parquet"
    try:
        table = _read(rank / files.BATCHES / name)
    except Exception:  # none, or a damaged one: readers take the tail then
        tail = TailReader(LocalPlace(rank), tail_path(rank, first).name, first)
        tail.refresh(ended=False)
        return join_batches(frame.batches for frame in tail.frames), [u for frame in tail.frames for u in frame.units]
    path = rank / files.UNITS_FOLDER / name
    return table, units_of(_read(path)) if path.exists() else ()


def _read(path: Path) -> pa.Table:
    with pq.ParquetFile(path.absolute(), page_checksum_verification=True) as file:
        return file.read(use_threads=False).replace_schema_metadata(None)


def _kept(
    reader: FolderReader, rank: Path, first: int, stop: int, ends: Mapping[Phase, int]
) -> tuple[Frame, list[str]]:
    """Return what a segment holds before the cut, and a sentence for each damaged part."""
    table, units = _content(rank, first)
    table = table.slice(0, int(np.searchsorted(numbers(table.column("batch")), stop)))
    # What was logged only behind the cut is a column without a value.
    table = table.drop_columns([name for name in table.column_names if table.column(name).null_count == len(table)])
    known = set(reader.problems)
    columns = _columns(reader, table)
    damaged = [problem for problem in reader.problems if problem not in known]
    return Frame(table, columns, [each for each in units if each.last < ends[each.phase]]), damaged


def _columns(reader: FolderReader, table: pa.Table) -> Columns | None:
    """Return the columns of the recorded batches of a table, without their empty buckets."""
    recorded = numbers(table.column("recorded"))
    if not recorded.any():
        return None
    index = numbers(table.column("index"))[recorded]
    phase = np.array(table.column("phase").to_pylist())[recorded]
    found = [each for stream in reader.streams if (each := _of_stream(reader, stream, phase, index)) is not None]
    lengths = [len(bucket) for _, _, _, _, bucket, _ in found]
    m = len(index)
    return Columns(
        stream=np.array([stream for stream, *_ in found], np.int32),
        fired=np.array([fired for _, fired, *_ in found], np.bool_).reshape(-1, m),
        counters=np.array([each[2] for each in found], np.int64).reshape(-1, m, len(COUNTERS)),
        moments=np.array([each[3] for each in found], np.float64).reshape(-1, m, len(MOMENTS)),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        bucket=np.concatenate([np.zeros(0, np.int32), *(each[4] for each in found)]).astype(np.int32),
        counts=np.concatenate([np.zeros((0, m), np.int64), *(each[5] for each in found)]),
    )


def _of_stream(
    reader: FolderReader, stream: Stream, phase: npt.NDArray[np.str_], index: npt.NDArray[np.int64]
) -> tuple[int, Any, Any, Any, Any, Any] | None:
    counts = np.zeros((len(index), stream.axis.bins), np.int64)
    counters = np.zeros((len(index), len(COUNTERS)), np.int64)
    moments = np.tile(np.array(NO_MOMENTS), (len(index), 1))
    for each in PHASES:
        mine = np.flatnonzero(phase == each)
        if not len(mine):
            continue
        for block in reader.blocks(stream, each, int(index[mine[0]]), int(index[mine[-1]]) + 1):
            at = mine[np.searchsorted(index[mine], block.first)]
            counts[at], counters[at], moments[at] = block.counts, block.counters, block.moments
    fired = counters.any(axis=1) | (moments != NO_MOMENTS).any(axis=1)
    if not fired.any():
        return None
    bucket = np.flatnonzero(counts.any(axis=0))
    return stream.id, fired, counters, moments, bucket, counts.T[bucket]
