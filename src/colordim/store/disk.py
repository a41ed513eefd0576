"""The files of one run being written; every method may raise OSError. Used from one thread."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from colordim.column import Stream
from colordim.errors import StoreError
from colordim.store import files
from colordim.store.chunk import Chunk
from colordim.store.segments import Segment
from colordim.store.tail import Frame, TailWriter

__all__ = ["Disk", "create"]

#: Segments whose sealing failed and that stay in memory for another try; older ones stay tails.
_UNSEALED = 2


def create(path: Path, info: Mapping[str, Any]) -> None:
    """Lay out a new run folder.

    Raises
    ------
    StoreError
        If the path is a file, not empty, or cannot be written.
    """
    try:
        if path.is_file():
            raise StoreError(f"{path} is a file: give a folder that is new or empty.")
        if (path / files.RUN).exists():
            raise StoreError(f"{path} already holds a run: give the new one another folder.")
        path.mkdir(parents=True, exist_ok=True)
        # A rank's folder without a run.json is what an attempt that failed on a full disk has left.
        if any(child.name != files.RANK for child in path.iterdir()):
            raise StoreError(f"{path} holds other files and no run: give a folder that is new or empty.")
        rank = path / files.RANK
        for folder in (files.COLUMNS, files.MOMENTS_FOLDER, files.BATCHES):
            (rank / folder).mkdir(parents=True, exist_ok=True)
        files.write_text(rank / files.STREAMS, _json({"schema": files.SCHEMA, "streams": []}))
        # Last: a folder with a run.json is a run that can be opened.
        files.write_text(
            path / files.RUN, _json({"schema": files.SCHEMA} | {k: v for k, v in info.items() if k != "schema"})
        )
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(
            f"the run folder {path} cannot be written ({error.strerror or error}): give a folder that can."
        ) from error


class Disk:
    """Writes frames to the tail, seals segments, marks the end.

    Parameters
    ----------
    path : Path
        Folder of the run, laid out by :func:`create`.
    """

    def __init__(self, path: Path) -> None:
        self._rank = path / files.RANK
        self._declared = 0
        self._segment: Segment | None = None
        self._tail: TailWriter | None = None
        self._unsealed: deque[tuple[Segment, TailWriter]] = deque()

    @property
    def open_bytes(self) -> int:
        """Decoded bytes of the segment that is still open."""
        return self._segment.decoded_bytes if self._segment else 0

    @property
    def unsealed(self) -> bool:
        """Whether closed segments still wait to be sealed."""
        return bool(self._unsealed)

    def declare(self, streams: Sequence[Stream]) -> None:
        """Make the streams of the run known; before the first frame that uses them."""
        if len(streams) != self._declared:
            described = [stream.to_dict() for stream in streams]
            files.write_text(self._rank / files.STREAMS, _json({"schema": files.SCHEMA, "streams": described}))
            self._declared = len(streams)

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
            self._unsealed.popleft()

    def seal(self, streams: Sequence[Stream], between: Callable[[], None]) -> None:
        """Seal what was cut, and remove its tail."""
        while self._unsealed:
            segment, tail = self._unsealed[0]
            segment.seal(self._rank, streams, between)
            tail.remove()
            if self._unsealed and self._unsealed[0][0] is segment:  # `between` may have cut another
                self._unsealed.popleft()

    def end(self, reason: str, batches: int, dropped: int) -> None:
        """Mark the run as ended."""
        described = {"time": time.time(), "reason": reason, "batches": batches, "dropped": dropped}
        files.write_text(self._rank / files.END, _json(described))


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=1, default=str) + "\n"
