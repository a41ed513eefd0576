"""The writing side of the folder store: a queue, and one thread that does everything on the disk."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import Batch, Stream, Units
from colordim.errors import ColordimWarning
from colordim.store.disk import Disk, create
from colordim.store.sparse import Appended

__all__ = ["FolderWriter"]

_MB = 1 << 20
_logger = logging.getLogger("colordim")
#: Seconds until a failed write is tried again: the first time, and at most.
_FIRST_RETRY, _LAST_RETRY = 0.5, 30.0


class _Retry:
    """When to try again what has failed, after longer and longer pauses."""

    def __init__(self) -> None:
        self.succeeded()

    def succeeded(self) -> None:
        self.at: float | None = None
        self._pause = _FIRST_RETRY

    def failed(self) -> None:
        self.at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LAST_RETRY)


class FolderWriter:
    """Writes a run into a folder, as a :class:`~colordim.column.Sink`.

    The disk never holds up training and its errors never stop it: :meth:`append` only drops the
    zeros and queues the rest. While the disk fails, what was appended waits in memory, up to
    `queue_bytes`, and is written as soon as the disk takes data again; what no longer fits is left
    out and counted. There is one :class:`~colordim.errors.ColordimWarning` if the disk fails and
    one if it hangs. In a forked child every method does nothing.

    Parameters
    ----------
    path : path-like
        A folder that does not exist yet or is empty.
    info : mapping
        What is written once into ``run.json``: name, created, versions, model, in JSON types.
    flush_bytes, flush_batches, flush_seconds : int, int, float
        A frame is written when that many bytes of rows or that many batches wait, or when the
        oldest has waited that long.
    seal_bytes : int
        Decoded bytes of a sealed segment.
    queue_bytes : int
        Bytes that may wait for the disk.
    patience : float
        Seconds for which :meth:`append` waits for a full queue, summed over the run, and
        :meth:`flush` and :meth:`close` wait for the disk.

    Raises
    ------
    StoreError
        If the folder cannot be created or written, holds other files, or already holds a run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: Mapping[str, Any],
        *,
        flush_bytes: int = 8 * _MB,
        flush_batches: int = 64,
        flush_seconds: float = 0.5,
        seal_bytes: int = 64 * _MB,
        queue_bytes: int = 64 * _MB,
        patience: float = 10.0,
    ) -> None:
        self.path = Path(path)
        create(self.path, info)
        self._flush_bytes = flush_bytes
        self._flush_batches = flush_batches
        self._flush_seconds = flush_seconds
        self._seal_bytes = seal_bytes
        self._queue_bytes = queue_bytes
        self._patience = patience
        self._pid = os.getpid()

        # Shared with the thread, under the lock of `_changed`.
        self._changed = threading.Condition()
        self._streams: list[Stream] = []
        self._facts: Mapping[str, Any] | None = None
        self._queue: deque[tuple[float, Appended]] = deque()
        self._waiting_bytes = 0
        self._dense_bytes = 0
        self._asked = 0
        self._answered = 0
        self._reason: str | None = None
        self._done = False
        self._written = 0
        self._dropped = 0
        self._hangs = False
        self._writing = _Retry()
        self._sealing = _Retry()
        self._message: str | None = None
        self._seconds = 0.0

        self._wait_left = patience
        self._warned: set[str] = set()
        self._closed = False
        self._disk = Disk(self.path)
        atexit.register(self._at_exit)
        threading.Thread(target=self._work, name="colordim-writer", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Batches that were left out because the disk failed or hung for too long."""
        return self._dropped

    @property
    def seconds(self) -> float:
        return self._seconds

    def declare(self, stream: Stream) -> None:
        if self._inert():
            return
        with self._changed:
            if stream.id != len(self._streams):
                raise ValueError(f"stream {stream.name!r} has id {stream.id}, but {len(self._streams)} is the next.")
            self._streams.append(stream)

    def describe(self, facts: Mapping[str, Any]) -> None:
        if not self._inert():
            self._facts = facts

    def append(
        self,
        batch: Batch,
        streams: Sequence[Stream],
        rows: npt.NDArray[np.int64],
        moments: npt.NDArray[np.float64],
        units: Sequence[Units] = (),
    ) -> None:
        if self._inert():
            return
        appended = Appended.of(batch, tuple(streams), rows, moments.copy())
        with self._changed:
            if self._has_room(appended.nbytes) or self._wait_for_room(appended.nbytes):
                self._queue.append((time.monotonic(), appended))
                self._waiting_bytes += appended.nbytes
                self._dense_bytes += appended.dense_bytes
                # The thread sleeps without a limit only while nothing waits: wake it for the first, and when it is due.
                if len(self._queue) == 1 or self._full_frame():
                    self._changed.notify_all()
            else:
                self._dropped += 1
        self._warn()

    def flush(self) -> None:
        if self._inert():
            return
        with self._changed:
            self._asked += 1
            asked = self._asked
            self._changed.notify_all()
            # Waiting once for a disk that hangs is enough.
            if not self._changed.wait_for(lambda: self._answered >= asked, 0 if self._hangs else self._patience):
                self._hung()
        self._warn()

    def close(self, reason: str) -> None:
        if self._inert():
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        with self._changed:
            self._reason = reason
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._done, self._patience):
                self._hung()
            lost = self._dropped + len(self._queue)
        self._warn()
        if lost:  # no second warning: this is the sum, for the log
            _logger.warning(
                "%d batches could not be written to %s; what was written before is readable.", lost, self.path
            )

    def _inert(self) -> bool:
        # A forked child has the queue and the open file, but neither the thread nor the right to write.
        return self._closed or os.getpid() != self._pid

    def _at_exit(self) -> None:
        self.close("the process exited without stopping the recording")

    # What follows runs on the training thread, with the lock held.

    def _has_room(self, size: int) -> bool:
        return not self._queue or self._waiting_bytes + size <= self._queue_bytes

    def _full_frame(self) -> bool:
        return len(self._queue) >= self._flush_batches or self._dense_bytes >= self._flush_bytes

    def _wait_for_room(self, size: int) -> bool:
        # A disk that fails is retried with pauses: no use in waiting for it.
        if self._writing.at is None and self._wait_left > 0:
            began = time.monotonic()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._has_room(size) or self._writing.at is not None, self._wait_left)
            self._wait_left -= time.monotonic() - began
        if self._has_room(size):
            return True
        if self._writing.at is None:
            self._hung()
        return False

    def _hung(self) -> None:
        self._hangs = True
        if "hung" not in self._warned:
            self._warned.add("hung")
            self._message = (
                f"the disk of {self.path} has not taken data for {self._patience:g} s: training goes on, "
                "batches that do not fit into memory are left out until it answers, and what was written stays readable."
            )

    def _warn(self) -> None:
        message, self._message = self._message, None
        if message:
            try:
                warnings.warn(message, ColordimWarning, stacklevel=3)
            except ColordimWarning:  # warnings are errors here, but ours must not stop a training
                sys.stderr.write(f"colordim: {message}\n")

    # What follows runs on the thread.

    def _work(self) -> None:
        while not self._done:
            with self._changed:
                while (delay := self._delay()) is None or delay > 0:
                    self._changed.wait(delay)
                asked, reason = self._asked, self._reason
            self._write()
            self._seal(everything=reason is not None)
            if reason is not None:
                self._end(reason)
            self._seconds = time.thread_time()
            with self._changed:
                self._answered = asked
                self._done = reason is not None
                self._changed.notify_all()

    def _delay(self) -> float | None:
        """Return the seconds until there is something to do, None if only a call can bring something."""
        if self._reason is not None or self._asked > self._answered:
            return 0.0
        times = [] if self._sealing.at is None else [self._sealing.at]
        if self._writing.at is not None:
            times.append(self._writing.at)
        elif self._full_frame():
            return 0.0
        elif self._queue:
            times.append(self._queue[0][0] + self._flush_seconds)
        return min(times) - time.monotonic() if times else None

    def _write(self, seal: bool = True) -> None:
        """Write everything that waits, a frame at a time, and seal what is full."""
        left = len(self._queue)  # what comes meanwhile is left for a full frame of its own
        while True:
            with self._changed:
                chosen: list[Appended] = []
                dense = 0
                for _, appended in self._queue:
                    if len(chosen) == self._flush_batches or (chosen and dense >= self._flush_bytes):
                        break
                    chosen.append(appended)
                    dense += appended.dense_bytes
                streams = tuple(self._streams)
            try:
                self._disk.declare(streams)
                self._disk.describe(self._facts)
                if chosen:
                    self._disk.append(chosen, streams)
            except OSError as error:
                self._failed(error, self._writing)
                return
            except Exception as error:  # a fault of ours or of what was appended costs this frame, not the training
                self._failed(error, None)
                self._release(len(chosen), written=False)
            else:
                self._writing.succeeded()
                self._release(len(chosen), written=True)
                if seal:
                    self._seal(everything=False)
            left -= len(chosen)
            if left <= 0 or not chosen:
                return

    def _seal(self, everything: bool) -> None:
        if everything or self._disk.open_bytes >= self._seal_bytes:
            self._disk.cut()
        paused = self._sealing.at is not None and self._sealing.at > time.monotonic()
        if not self._disk.unsealed or (paused and not everything):
            return
        try:
            self._disk.seal(tuple(self._streams), self._write_if_due)
            self._sealing.succeeded()
        except OSError as error:
            self._failed(error, self._sealing)
        except Exception as error:  # a fault of ours: the segment stays readable as a tail
            self._failed(error, None)
            self._disk.give_up()

    def _write_if_due(self) -> None:
        """Keep the tail flowing while a long segment is being sealed."""
        with self._changed:
            due = self._writing.at is None and (delay := self._delay()) is not None and delay <= 0
        if due:
            self._write(seal=False)

    def _end(self, reason: str) -> None:
        try:
            self._disk.end(reason, self._written, self._dropped + len(self._queue))
        except OSError as error:
            self._failed(error, None)

    def _failed(self, error: Exception, retry: _Retry | None) -> None:
        if retry:
            retry.failed()
        if isinstance(error, OSError):
            message = (
                f"the run folder {self.path} cannot be written ({error.strerror or error}): training goes on, what was "
                f"written stays readable and up to {self._queue_bytes / _MB:g} MB wait in memory; free space or make "
                "the folder writable, and writing goes on by itself."
            )
        else:
            message = (
                f"a part of the run {self.path} could not be written ({type(error).__name__}: {error}): training and "
                "recording go on; please report this to the developers of colordim."
            )
        with self._changed:
            if "failed" not in self._warned:
                self._warned.add("failed")
                self._message = message
            self._changed.notify_all()

    def _release(self, number: int, written: bool) -> None:
        with self._changed:
            for _ in range(number):
                _, appended = self._queue.popleft()
                self._waiting_bytes -= appended.nbytes
                self._dense_bytes -= appended.dense_bytes
            if written:
                self._written += number
                self._hangs = False
            else:
                self._dropped += number
            self._changed.notify_all()
