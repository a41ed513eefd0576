"""The writing side of the folder store: a queue, and one thread that does everything on the disk."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import Batch, Stream, Units
from colordim.errors import ColordimWarning, StoreError, warn, with_page
from colordim.store.begin import begin
from colordim.store.chunk import Chunk, Layout
from colordim.store.disk import Disk
from colordim.store.files import rank_folder
from colordim.store.mirror import Mirror
from colordim.store.resume import Resume
from colordim.store.retry import Retry
from colordim.termination import interrupted, unbroken, wait_for

__all__ = ["FolderWriter"]

_MB = 1 << 20
#: What the manual says of disks that fail.
_PAGE = "clusters#shared-file-systems"
_logger = logging.getLogger("colordim")
#: Segments that the bytes of a run are cut into, at least, so that dropping one is a small step.
_SEALS = 16
#: Chunks that were written and are kept to be filled again.
_SPARE = 2

#: Seconds after which a segment is sealed on scratch, and copied: what is lost with a machine.
_SEAL_SECONDS = 60.0

_writers: weakref.WeakSet[FolderWriter] = weakref.WeakSet()


def _forked() -> None:
    """Make the writers of a forked child do nothing: it has their memory and their open files, but not their threads."""
    for writer in _writers:
        writer._closed = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class FolderWriter:
    """Writes a run into a folder, as a :class:`~colordim.column.Sink`.

    The disk never holds up training and its errors never stop it: :meth:`append` only copies the
    rows. While the disk fails, what was appended waits in memory, up to
    `queue_bytes`, and is written as soon as the disk takes data again; what no longer fits is left
    out and counted. There is one :class:`~colordim.errors.ColordimWarning` if the disk fails and
    one if it hangs. In a forked child every method does nothing.

    Parameters
    ----------
    path : path-like
        A folder that does not exist yet or is empty; with `resume_from`, that of a run.
    info : mapping
        What is written once into ``run.json``: name, created, versions, model, in JSON types.
    resume_from : Resume, optional
        Go on in the run that is there; errors are those of :func:`colordim.store.resume.resume`.
    flush_bytes, flush_batches, flush_seconds : int, int, float
        A frame is written when that many bytes of rows or that many batches wait, or when the
        oldest has waited that long.
    seal_bytes, seal_batches : int
        Decoded bytes of a sealed segment, and its recorded batches at most: one stream of it is read at once.
    seal_seconds : float, optional
        After how many seconds a smaller segment is sealed as well; by default never, and with `scratch` after 60.
    max_bytes : int, optional
        Bytes that the folder may take; beyond that the oldest columns are dropped, and their sums stay.
    queue_bytes : int
        Bytes that may wait for the disk.
    patience : float
        Seconds for which :meth:`append` waits for a full queue, summed over the run, and
        :meth:`flush` and :meth:`close` wait for the disk.
    scratch : path-like, optional
        A folder on a disk of this machine: the run is written below it, and what is sealed copied to `path`.

    Raises
    ------
    StoreError
        If the folder cannot be created or written, holds other files, or already holds a run; or if `scratch` is no
        folder, or cannot be written.

    Attributes
    ----------
    position : Position
        Where the recording goes on.
    said : tuple of str
        What is missing of the run that was resumed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        info: Mapping[str, Any],
        resume_from: Resume | None = None,
        /,
        *,
        flush_bytes: int = 8 * _MB,
        flush_batches: int = 64,
        flush_seconds: float = 0.5,
        seal_bytes: int = 64 * _MB,
        seal_batches: int = 4096,
        seal_seconds: float | None = None,
        max_bytes: int | None = None,
        queue_bytes: int = 64 * _MB,
        patience: float = 10.0,
        scratch: str | os.PathLike[str] | None = None,
    ) -> None:
        self.path = Path(path)
        self._closed = False
        if resume_from is not None and any(
            other.path.absolute() == self.path.absolute() and not other._closed for other in _writers
        ):
            raise StoreError(
                f"{self.path} is being recorded by this process: stop that recording first.", page="resume#who-writes"
            )
        self._home, resumed = begin(self.path, info, resume_from, scratch)
        self.position, self.said = resumed.position, resumed.said
        self._flush_bytes = flush_bytes
        self._flush_batches = flush_batches
        self._flush_seconds = flush_seconds
        # A tail is smaller than what is sealed of it would be when decoded; it may be there besides.
        self._seal_bytes = seal_bytes if max_bytes is None else min(seal_bytes, max(max_bytes // _SEALS, 1))
        self._seal_batches = seal_batches
        self._seal_seconds = _SEAL_SECONDS if seal_seconds is None and scratch is not None else seal_seconds
        self._queue_bytes = queue_bytes
        self._patience = patience

        # Shared with the thread, under the lock.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._streams: list[Stream] = list(self.position.streams)
        self._facts: Mapping[str, Any] | None = None
        self._chunk: Chunk | None = None  # that is being filled
        self._queue: deque[Chunk] = deque()  # of those that make a frame
        self._queued_bytes = 0
        self._spare: list[Chunk] = []
        self._layout = Layout(())
        self._asked = 0
        self._answered = 0
        self._reason: str | None = None
        self._hurried = False
        self._done = False
        self._written = resumed.adopted.batches
        self._dropped = 0
        self._hangs = False
        self._writing = Retry()
        self._sealing = Retry()
        self._message: str | None = None
        self._seconds = 0.0

        self._wait_left = patience
        self._warned: set[str] = set()
        self._ended = False
        self._open_since: float | None = None  # since when there is a segment that is not sealed
        limit = None if max_bytes is None else max_bytes - self._seal_bytes
        self._disk = Disk(self._home, resumed.adopted, limit if scratch is None else None)
        self._mirror = (
            None
            if scratch is None
            else Mirror(self._home.parent, self._home, rank_folder(self.path), limit, self._copy_failed)
        )
        _writers.add(self)
        atexit.register(self._at_exit)
        threading.Thread(target=self._work, name="colordim-writer", daemon=True).start()

    @property
    def dropped(self) -> int:
        """Batches that were left out because the disk failed or hung for too long."""
        return self._dropped

    @property
    def seconds(self) -> float:
        return self._seconds

    @unbroken
    def declare(self, stream: Stream) -> None:
        if self._closed:
            return
        with self._changed:
            if stream.id != len(self._streams):
                raise ValueError(f"stream {stream.name!r} has id {stream.id}, but {len(self._streams)} is the next.")
            self._streams.append(stream)

    def describe(self, facts: Mapping[str, Any]) -> None:
        if not self._closed:
            self._facts = facts

    @unbroken
    def append(
        self,
        batch: Batch,
        streams: Sequence[Stream],
        rows: npt.NDArray[np.int64],
        moments: npt.NDArray[np.float64],
        units: Sequence[Units] = (),
    ) -> None:
        if self._closed:
            return
        if not isinstance(streams, list):
            streams = list(streams)
        with self._lock:
            chunk = self._chunk
            if chunk is None or not chunk.put(batch, streams, rows, moments, units):
                chunk = self._begin(streams)
                if chunk is None:
                    self._dropped += 1
                else:
                    chunk.put(batch, streams, rows, moments, units)
                    self._changed.notify_all()  # without a chunk, the thread sleeps without a limit
            if chunk is not None and chunk.full:
                self._enqueue(chunk)
        if self._message:
            self._warn()

    @unbroken
    def flush(self) -> None:
        if self._closed:
            return
        with self._changed:
            self._asked += 1
            asked = self._asked
            self._changed.notify_all()
            # Waiting once for a disk that hangs is enough.
            self._wait_for_disk(lambda: self._answered >= asked, 0 if self._hangs else self._patience)
        if self._mirror:  # what is read is the run folder
            self._mirror.settle(self._patience)
        self._warn()

    @unbroken
    def close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self._at_exit)
        with self._changed:
            self._reason = reason
            self._changed.notify_all()
            self._wait_for_disk(lambda: self._done, self._patience)
            lost = self._dropped + self._waiting()
        if self._mirror and not self._mirror.settle(self._patience, final=self._done) and not interrupted():
            self._message = self._mirror.way_out
        self._warn()
        if lost:  # no second warning: this is the sum, for the log
            _logger.warning(
                "%d batches could not be written to %s; what was written before is readable.", lost, self.path
            )

    def hurry(self, reason: str | None) -> None:
        """Begin to write everything, and end the run if there is a reason; for a signal handler, so it never prints."""
        with self._changed:
            if reason is None:
                self._asked += 1
            elif self._reason is None:
                self._closed = self._hurried = True
                self._reason = reason
            self._changed.notify_all()

    def wait(self, until: float) -> None:
        """Return when what :meth:`hurry` began is done, or at `until`, by :func:`time.monotonic`."""
        with self._changed:
            asked, ending = self._asked, self._reason is not None
            self._changed.wait_for(
                lambda: self._done if ending else self._answered >= asked, max(until - time.monotonic(), 0)
            )
        if self._mirror and not self._mirror.settle(self._patience, final=self._done, until=until) and ending:
            with contextlib.suppress(OSError):  # not through a file, in which the handler may have interrupted a print
                os.write(2, f"colordim: {self._mirror.way_out}\n".encode())

    def _at_exit(self) -> None:
        self.close("the process exited without stopping the recording")

    # What follows runs with the lock held.

    def _begin(self, streams: list[Stream]) -> Chunk | None:
        """Return a new chunk for a batch of these streams, or None if there is no room."""
        if self._chunk is not None:
            self._enqueue(self._chunk)
        if not self._has_room() and not self._wait_for_room():
            return None
        self._layout = self._layout.with_streams(streams)
        self._spare = [chunk for chunk in self._spare if chunk.layout is self._layout]
        self._chunk = self._spare.pop() if self._spare else Chunk(self._layout, self._flush_batches, self._flush_bytes)
        return self._chunk

    def _enqueue(self, chunk: Chunk) -> None:
        """Let the thread write the chunk that was filled last."""
        self._chunk = None
        self._layout = chunk.next_layout()
        self._queue.append(chunk)
        self._queued_bytes += chunk.nbytes
        self._changed.notify_all()

    def _waiting(self) -> int:
        """Return how many batches have not been written."""
        return sum(len(chunk.batches) for chunk in (*self._queue, *([self._chunk] if self._chunk else [])))

    def _has_room(self) -> bool:
        return not self._queue or self._queued_bytes < self._queue_bytes

    def _wait_for_room(self) -> bool:
        # A disk that fails is retried with pauses: no use in waiting for it.
        if self._writing.at is None and self._wait_left > 0:
            began = time.monotonic()
            self._changed.notify_all()
            wait_for(self._changed, lambda: self._has_room() or self._writing.at is not None, self._wait_left)
            self._wait_left -= time.monotonic() - began
        if self._has_room():
            return True
        if self._writing.at is None and not interrupted():
            self._hung()
        return False

    def _wait_for_disk(self, done: Callable[[], bool], seconds: float) -> None:
        if not wait_for(self._changed, done, seconds) and not interrupted():
            self._hung()

    def _hung(self) -> None:
        self._hangs = True
        if "hung" not in self._warned:
            self._warned.add("hung")
            self._message = (
                f"the disk of {self._home} has not taken data for {self._patience:g} s: training goes on, "
                "batches that do not fit into memory are left out until it answers, and what was written stays readable."
            )

    def _warn(self) -> None:
        message, self._message = self._message, None
        if message:
            try:
                warn(message, _PAGE)
            except ColordimWarning:  # warnings are errors here, but ours must not stop a training
                sys.stderr.write(f"colordim: {with_page(message, _PAGE)}\n")

    # What follows runs on the thread.

    def _work(self) -> None:
        while not self._done:
            with self._changed:
                while (delay := self._delay()) is None or delay > 0:
                    self._changed.wait(delay)
                asked, reason = self._asked, self._reason
            # A flush is for readers, and what is only on scratch is not there for them.
            seal = reason is not None or (self._mirror is not None and asked > self._answered)
            self._write()
            self._end_early(reason)
            self._seal(everything=seal)
            if reason is not None and not self._ended:
                self._end(reason)
            if self._mirror:
                self._mirror.look()
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
        if self._open_since is not None and self._seal_seconds is not None:
            times.append(self._open_since + self._seal_seconds)
        if self._writing.at is not None:
            times.append(self._writing.at)
        elif self._queue:
            return 0.0
        elif self._chunk:
            times.append(self._chunk.since + self._flush_seconds)
        return min(times) - time.monotonic() if times else None

    def _write(self, seal: bool = True) -> None:
        """Write everything that waits, a frame at a time, and seal what is full."""
        with self._changed:
            chunk = self._chunk
            asked = self._reason is not None or self._asked > self._answered
            if chunk and (asked or time.monotonic() >= chunk.since + self._flush_seconds):
                self._enqueue(chunk)
            left = len(self._queue)  # what comes meanwhile is written the next time
        while True:
            with self._changed:
                chunk = self._queue[0] if left and self._queue else None  # sealing has written some, if it took long
                streams = tuple(self._streams)
            try:
                self._disk.declare(streams)
                self._disk.describe(self._facts)
                if chunk:
                    self._disk.append(chunk, streams)
                    self._open_since = self._open_since or time.monotonic()
            except OSError as error:
                self._failed(error, self._writing)
                return
            except Exception as error:  # a fault of ours or of what was appended costs this frame, not the training
                self._failed(error, None)
                self._release(chunk, written=False)
            else:
                self._writing.succeeded()
                self._release(chunk, written=True)
                if seal:
                    self._seal(everything=False)
            left -= 1
            if left <= 0 or chunk is None:
                return

    def _seal(self, everything: bool) -> None:
        full = self._disk.open_bytes >= self._seal_bytes or self._disk.open_batches >= self._seal_batches
        overdue = (
            self._open_since is not None
            and self._seal_seconds is not None
            and time.monotonic() >= self._open_since + self._seal_seconds
        )
        if everything or overdue or full:
            self._disk.cut()
            self._open_since = None
        failed = self._sealing.at is not None  # perhaps only what comes behind sealing: levels, trimming
        paused = self._sealing.at is not None and self._sealing.at > time.monotonic()
        if not (self._disk.unsealed or failed) or (paused and not everything):
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
            reason = self._reason
        if due:
            self._write(seal=False)
            self._end_early(reason)

    def _end_early(self, reason: str | None) -> None:
        """Mark the end before all is sealed if that may take longer than there is time: tails are read as well."""
        if reason is not None and self._hurried and not self._ended:
            self._end(reason)
            self._ended = True

    def _end(self, reason: str) -> None:
        try:
            self._disk.end(reason, self._written, self._dropped + self._waiting())
        except OSError as error:
            self._failed(error, None)

    def _failed(self, error: Exception, retry: Retry | None) -> None:
        if retry:
            retry.failed()
        if isinstance(error, OSError):
            message = (
                f"the run folder {self._home} cannot be written ({error.strerror or error}): training goes on, what was "
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

    def _copy_failed(self, error: Exception) -> None:
        """Say it once, called by the mirror's thread."""
        with self._changed:
            if "copy" not in self._warned and not self._closed:  # then close() has more to say
                self._warned.add("copy")
                self._message = (
                    f"the run folder {self.path} cannot be written ({getattr(error, 'strerror', None) or error}): "
                    f"recording goes on in {self._home}, and is copied as soon as the run folder can be written."
                )

    def _release(self, chunk: Chunk | None, written: bool) -> None:
        """Take the oldest chunk off the queue, and keep it to be filled again."""
        if chunk is None:
            return
        with self._changed:
            self._queue.popleft()
            self._queued_bytes -= chunk.nbytes
            if written:
                self._written += len(chunk.batches)
                self._hangs = False
            else:
                self._dropped += len(chunk.batches)
            chunk.clear()
            if len(self._spare) < _SPARE:
                self._spare.append(chunk)
            self._changed.notify_all()
