"""Recording on a node-local disk: what is sealed there is copied to the run folder, by a thread of its own.

The part of a rank on scratch has the layout of the one in the run folder, which never holds a tail while the run goes on.
Files are copied in an order in which readers of the run folder see what they would see where it is written: streams
before the segments that name them, of a segment the batches last, levels behind the segments of which they are sums,
the end last. Of what was copied, levels are removed there once coarser ones have taken their place, and the oldest
columns to keep within ``max_bytes``; scratch keeps everything until the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from colordim.errors import StoreError
from colordim.store import files
from colordim.store.budget import trim
from colordim.store.retry import Retry
from colordim.termination import interrupted

__all__ = ["Mirror", "make_scratch"]

Signature = tuple[int, int, int]

#: Bytes that are copied at once.
_PIECE = 1 << 20
#: Seconds after which a wait looks whether there is progress.
_SLICE = 0.1


def make_scratch(scratch: str | os.PathLike[str], run: Path) -> Path:
    """Return a new folder below `scratch`, for this rank's part of the run folder `run`.

    Raises
    ------
    StoreError
        If `scratch` is no folder, cannot be written, or is in the run folder.
    """
    folder = Path(scratch)
    if not folder.is_dir():
        raise StoreError(
            f"scratch={str(folder)!r} is no folder: give one that exists on a disk of this machine.",
            page="clusters#a-scratch-disk",
        )
    if folder.resolve().is_relative_to(run.resolve()):
        raise StoreError(
            f"scratch={str(folder)!r} is in the run folder {run}: give one on a disk of this machine.",
            page="clusters#a-scratch-disk",
        )
    try:
        return Path(tempfile.mkdtemp(prefix=f"{run.name}-", dir=folder))
    except OSError as error:
        raise StoreError(
            f"scratch={str(folder)!r} cannot be written ({error.strerror or error}): give a folder that can, or leave "
            "scratch out.",
            page="clusters#a-scratch-disk",
        ) from error


class Mirror:
    """Keeps a rank's part of the run folder in line with the one on scratch.

    Parameters
    ----------
    home : Path
        The folder that :func:`make_scratch` made; it is removed when everything has been copied at the end.
    source, target : Path
        Folder of the rank on scratch, and in the run folder.
    max_bytes : int or None
        Bytes that `target` may take.
    failed : callable
        Is told of each error; the next try follows by itself, after longer and longer pauses.
    """

    def __init__(
        self, home: Path, source: Path, target: Path, max_bytes: int | None, failed: Callable[[Exception], None]
    ) -> None:
        self._home, self._source, self._target, self._failed = home, source, target, failed
        self._max_bytes = max_bytes
        self._copied: dict[str, Signature] = {}
        self._seen: dict[Path, int] = {}
        self._changed = threading.Condition()
        self._asked = 0
        self._answered = 0
        self._tries = 0
        self._urgent = False
        self._final = False
        self._error: Exception | None = None
        self._retry = Retry()
        self._moved = time.monotonic()  # when something was copied last
        self._gave_up = -1.0  # when waiting was no use last
        self.finished = False
        threading.Thread(target=self._work, name="colordim-mirror", daemon=True).start()

    @property
    def way_out(self) -> str:
        """Return what to say if copying has not come to its end: where the data are, and how to bring them over."""
        reason = f" ({_reason(self._error)})" if self._error else ""
        command = f"cp -ru {shlex.quote(f'{self._home}/.')} {shlex.quote(str(self._target.parent))}"
        return (
            f"not everything could be copied to {self._target.parent}{reason}; it stays in {self._home}: "
            f"bring it over with `{command}`."
        )

    def look(self) -> None:
        """Copy what has changed on scratch since the last time, without waiting for it."""
        # A file that is new or renamed changes its folder. What is missed, as clocks are coarse, comes along next time.
        with contextlib.suppress(OSError):
            parts = [path for folder in ("columns", "moments") for path in (self._source / folder).iterdir()]
            folders = [self._source, self._source / files.BATCHES, *parts]
            seen = {path: path.stat().st_mtime_ns for path in folders}
            if seen != self._seen:
                self._seen = seen
                with self._changed:
                    self._asked += 1
                    self._changed.notify_all()

    def settle(self, patience: float, final: bool = False, until: float = float("inf")) -> bool:
        """Wait until everything is copied; return whether it is.

        Parameters
        ----------
        patience : float
            Seconds to wait while nothing moves.
        final : bool
            Whether the run has ended: copies its end, and tails that could not be sealed, and removes the scratch
            folder. Then copying is tried again while there is patience; else one failure is enough.
        until : float
            When to give up, by :func:`time.monotonic`.
        """
        with self._changed:
            self._asked += 1
            asked, tries = self._asked, self._tries
            self._final = self._final or final
            self._urgent = True
            self._changed.notify_all()
            began = time.monotonic()
            hung = self._gave_up >= self._moved and not final  # waiting once for a disk that hangs is enough
            while self._answered < asked:
                left = min(max(began, self._moved) + (0 if hung else patience), until) - time.monotonic()
                if interrupted() or (not final and self._error and self._tries > tries):
                    return False
                if left <= 0:
                    self._gave_up = time.monotonic()
                    return False
                self._changed.wait(min(left, _SLICE))
            return True

    def _work(self) -> None:
        while not self.finished:
            with self._changed:
                while (delay := self._delay()) is None or delay > 0:
                    self._changed.wait(delay)
                asked, final, self._urgent = self._asked, self._final, False
            try:
                self._copy_all(final)
            except Exception as error:  # one of ours must not stop copying either
                self._error = error
                self._retry.failed()
                self._failed(error)
            else:
                self._error = None
                self._retry.succeeded()
                self.finished = final
            if self.finished:
                shutil.rmtree(self._home, ignore_errors=True)
            with self._changed:
                self._tries += 1
                if self._error is None:
                    self._answered = asked
                self._changed.notify_all()

    def _delay(self) -> float | None:
        if self._urgent:
            return 0.0
        if self._asked == self._answered:
            return None
        return 0.0 if self._retry.at is None else self._retry.at - time.monotonic()

    def _copy_all(self, final: bool) -> None:
        found = self._list(final)
        for name in sorted(found, key=_place):
            if self._copied.get(name) != found[name] and self._copy(name):
                self._copied[name] = found[name]
        for name in [name for name in self._copied if name not in found and _level(name) > 0]:
            (self._target / name).unlink(missing_ok=True)
            del self._copied[name]
        if self._max_bytes is not None:
            trim(self._target, self._max_bytes)

    def _list(self, final: bool) -> dict[str, Signature]:
        """Return the files to be there, each with what changes when it is replaced.

        Scratch is written meanwhile, in the order of :func:`_place`, so that it is listed against this order: whatever
        is found, what it needs is found after it. Finer levels come before coarser ones, by which they are replaced.
        """
        found: dict[str, Signature] = {}

        def look(folder: Path) -> None:
            for entry in os.scandir(folder):
                path = Path(entry)
                name = path.relative_to(self._source).as_posix()
                ours = not path.name.startswith(".") and entry.is_file()
                if ours and (final or not (_is_tail(name) or name == files.END)):
                    with contextlib.suppress(FileNotFoundError):
                        status = path.stat()  # the entry's own may be from before
                        found[name] = status.st_mtime_ns, status.st_size, status.st_ino

        level = 1
        while folders := sorted(self._source.glob(f"*/level={level}")):
            for folder in folders:
                look(folder)
            level += 1
        look(self._source / files.BATCHES)
        for folder in (*self._source.glob("*/level=0"), *self._source.glob("*")):
            if folder.is_dir() and folder.name != files.BATCHES:
                look(folder)
        look(self._source)
        return found

    def _copy(self, name: str) -> bool:
        """Copy a file whole; False if it is gone from scratch."""
        try:
            data = (self._source / name).open("rb")
        except FileNotFoundError:
            return False
        target = self._target / name
        with data:
            if not target.parent.is_dir():
                target.parent.mkdir()
            with files.replacing(target) as temporary:
                with temporary.open("wb") as copy:
                    while piece := data.read(_PIECE):
                        copy.write(piece)
                        self._moved = time.monotonic()
                with contextlib.suppress(OSError):  # so that `cp -u` takes only what is newer on scratch
                    status = os.fstat(data.fileno())
                    os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        self._moved = time.monotonic()
        return True


def _place(name: str) -> tuple[int, str, int, str]:
    """Return the place of a file in the order of copying."""
    path = Path(name)
    if path.parent == Path():
        stage = 3 if _is_tail(name) else 4 if name == files.END else 0
        return stage, "", 0, name
    if _level(name) > 0:
        return 2, "", 0, name
    return 1, path.stem, int(path.parent.name == files.BATCHES), name


def _level(name: str) -> int:
    """Return of which level a file or folder is; 0 too for what is of none."""
    found = re.search(r"level=(\d+)(?:/|$)", name)
    return int(found[1]) if found else 0


def _is_tail(name: str) -> bool:
    return name.startswith("tail-")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
