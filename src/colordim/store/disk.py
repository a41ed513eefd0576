"""The files of one run being written; every method may raise OSError. Used from one thread."""

from __future__ import annotations

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colordim.column import Stream
from colordim.errors import StoreError
from colordim.store import files
from colordim.store.budget import trim
from colordim.store.chunk import Chunk
from colordim.store.segments import Segment
from colordim.store.spans import Spans
from colordim.store.tail import Frame, TailWriter

__all__ = ["Adopted", "Disk", "create", "describe_rank", "lay_out", "read_json"]

#: Segments whose sealing failed and that stay in memory for another try; older ones stay tails.
_UNSEALED = 2


def create(path: Path, info: Mapping[str, Any]) -> None:
    """Lay out a new run folder, or the part of one that a rank writes.

    Parameters
    ----------
    path : Path
        Folder of the run; or ``run/rank=K``, in a run that other ranks of the same training write as well.
    info : mapping
        For ``run.json``, which the first rank to come writes; except ``rank``, for this rank's ``rank.json``.

    Raises
    ------
    StoreError
        If the path is a file, not empty, already holds a run of which this is no rank, or cannot be written.
    """
    rank, alone = files.rank_folder(path), files.rank_number(path) is None
    run = rank.parent
    described = {"schema": files.SCHEMA} | {k: v for k, v in info.items() if k not in ("schema", "rank")}
    mine = describe_rank(rank, info)
    try:
        if run.is_file():
            raise StoreError(f"{run} is a file: give a folder that is new or empty.")
        if (run / files.RUN).exists():
            if alone:
                raise StoreError(f"{run} already holds a run: give the new one another folder.", page="resume")
            _check_same_training(run, described, mine)
        run.mkdir(parents=True, exist_ok=True)
        # Without a run.json, a rank's folder is of a rank that came before, or what an attempt that failed has left.
        if any(not _is_of_a_run(child) for child in run.iterdir()):
            raise StoreError(f"{run} holds other files and no run: give a folder that is new or empty.")
        lay_out(rank, mine)
        # Last: a folder with a run.json is a run that can be opened.
        if not files.write_new(run / files.RUN, files.to_json(described)):
            if alone:
                raise StoreError(f"{run} already holds a run: give the new one another folder.", page="resume")
            _check_same_training(run, described, mine, begun=True)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"the run folder {run} cannot be written ({error.strerror or error}): give a folder that can.",
            page="clusters#shared-file-systems",
        ) from error


def describe_rank(rank: Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``rank.json`` says of a rank that begins now."""
    return {
        "schema": files.SCHEMA,
        "rank": files.rank_number(rank),
        "world_size": 1,
        **info.get("rank", {}),
        "host": platform.node(),
        "pid": os.getpid(),
        "begun": time.time(),
    }


def lay_out(rank: Path, described: Mapping[str, Any]) -> None:
    """Make the folder of a rank that holds nothing yet."""
    for folder in (files.COLUMNS, files.MOMENTS_FOLDER, files.BATCHES):
        (rank / folder).mkdir(parents=True, exist_ok=True)
    files.write_text(rank / files.STREAMS, files.to_json({"schema": files.SCHEMA, "streams": []}))
    files.write_text(rank / files.RANK_FILE, files.to_json(described))


def _is_of_a_run(child: Path) -> bool:
    return files.rank_number(child) is not None or child.name == files.RUN or child.name.startswith(f".{files.RUN}.")


def _check_same_training(run: Path, described: Mapping[str, Any], mine: Mapping[str, Any], begun: bool = False) -> None:
    """Raise a StoreError if the run that is there is not the one of which this process is a rank."""
    there = read_json(run / files.RUN)
    if there and there.get("job") != described.get("job"):
        raise StoreError(
            f"{run} holds the run of another training ({there.get('job') or 'unnamed'}; this one is "
            f"{described.get('job') or 'unnamed'}): give this one another folder.",
            page="ranks#which-rank-which-folder",
        )
    for path in sorted(run.glob(f"rank=*/{files.RANK_FILE}")):
        other = read_json(path)
        if path.parent.name == files.rank_name(mine["rank"]):
            if not begun:
                raise StoreError(
                    f"{path.parent} was written by another run (process {other.get('pid')} on {other.get('host')}): "
                    "give this one another folder.",
                    page="ranks#which-rank-which-folder",
                )
        elif other and other.get("world_size") != mine["world_size"]:
            raise StoreError(
                f"{run} holds a run of {other.get('world_size')} ranks, and this one has {mine['world_size']}: "
                "give this one another folder.",
                page="ranks#which-rank-which-folder",
            )


def read_json(path: Path) -> dict[str, Any]:
    """Return what one of the small files says; nothing if it is damaged.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    try:
        return files.from_json(path.read_bytes())
    except ValueError:  # damaged, or written by a file system without links this very moment
        return {}


@dataclass(frozen=True)
class Adopted:
    """What is taken over of a run that is resumed.

    Attributes
    ----------
    streams : int
        How many are declared.
    batches : int
        How many there are.
    tails : sequence of (Segment, TailWriter)
        Tails behind the last sealed segment, with what they hold; the last of them goes on.
    """

    streams: int = 0
    batches: int = 0
    tails: Sequence[tuple[Segment, TailWriter]] = ()


_NOTHING = Adopted()


class Disk:
    """Writes frames to the tail, seals segments, marks the end.

    Parameters
    ----------
    path : Path
        Folder of the run, or of a rank in it, laid out by :func:`create`.
    adopted : Adopted
        What it holds already.
    max_bytes : int, optional
        Bytes that the sealed files of the rank may take.
    """

    def __init__(self, path: Path, adopted: Adopted = _NOTHING, max_bytes: int | None = None) -> None:
        self._rank = files.rank_folder(path)
        self._max_bytes = max_bytes
        self._declared = adopted.streams
        self._facts: Mapping[str, Any] | None = None
        self._unsealed: deque[tuple[Segment, TailWriter]] = deque(adopted.tails)
        self._segment: Segment | None = None
        self._tail: TailWriter | None = None
        if self._unsealed:
            self._segment, self._tail = self._unsealed.pop()
        self._spans = Spans(self._rank)
        self._restored = adopted == _NOTHING  # the writing thread reads what there is of spans

    @property
    def open_bytes(self) -> int:
        """Decoded bytes of the segment that is still open."""
        return self._segment.decoded_bytes if self._segment else 0

    @property
    def open_batches(self) -> int:
        """Recorded batches of the segment that is still open."""
        return self._segment.recorded if self._segment else 0

    @property
    def unsealed(self) -> bool:
        """Whether closed segments still wait to be sealed."""
        return bool(self._unsealed)

    def declare(self, streams: Sequence[Stream]) -> None:
        """Make the streams of the run known; before the first frame that uses them."""
        if len(streams) != self._declared:
            described = [stream.to_dict() for stream in streams]
            files.write_text(self._rank / files.STREAMS, files.to_json({"schema": files.SCHEMA, "streams": described}))
            self._declared = len(streams)

    def describe(self, facts: Mapping[str, Any] | None) -> None:
        """Write down the facts of the model, unless they are the ones that were written last."""
        if facts is self._facts or facts is None:
            return
        # A run that is resumed keeps those of its beginning: what the weights were before the training.
        if self._facts is not None or not (self._rank / files.FACTS).exists():
            files.write_text(self._rank / files.FACTS, files.to_json(facts))
        self._facts = facts

    def append(self, chunk: Chunk, streams: Sequence[Stream]) -> None:
        """Write one frame."""
        frame = Frame.of(chunk)
        if self._tail is None:
            self._tail = TailWriter(self._rank / f"tail-{files.numbered(frame.first)}.cdt")
        if self._segment is None:
            self._segment = Segment(frame.first)
        self._tail.append(frame)
        self._segment.add(frame, streams)

    def cut(self) -> None:
        """Close the open segment; the next frame begins another tail."""
        if self._segment is None or self._tail is None:
            return
        self._tail.close()
        self._unsealed.append((self._segment, self._tail))
        self._segment = self._tail = None
        if len(self._unsealed) > _UNSEALED:
            self.give_up()

    def give_up(self) -> None:
        """Leave the oldest segment that waits as the tail that it is; readers read it there."""
        if self._unsealed:
            segment, _ = self._unsealed.popleft()
            self._spans.skip(segment.first)

    def seal(self, streams: Sequence[Stream], between: Callable[[], None]) -> None:
        """Seal what was cut, and remove its tail."""
        while self._unsealed:
            segment, tail = self._unsealed[0]
            span = segment.seal(self._rank, streams, between)
            tail.remove()
            if self._unsealed and self._unsealed[0][0] is segment:  # `between` may have cut another
                self._unsealed.popleft()
            if span is not None:
                self._spans.add(span)
        if not self._restored:
            self._restored = True
            self._spans.rebuild(self._spans.restore(), streams, between)
        self._spans.join(streams, between)
        if self._max_bytes is not None:
            trim(self._rank, self._max_bytes)

    def end(self, reason: str, batches: int, dropped: int) -> None:
        """Mark the run as ended."""
        described = {"time": time.time(), "reason": reason, "batches": batches, "dropped": dropped}
        files.write_text(self._rank / files.END, files.to_json(described))
