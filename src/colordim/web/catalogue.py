"""The runs that are served: listing them, and opening one, once for all who look at it."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from colordim import listing
from colordim.column import PHASES
from colordim.errors import ColordimError, FormatError, NotARunError
from colordim.run import Run
from colordim.store import files
from colordim.store.place import reason
from colordim.store.ranks import RunReader
from colordim.web.answers import answer, to_json
from colordim.web.confined import ConfinedPlace, inside

__all__ = ["Catalogue", "OpenRun"]

#: Runs that are listed, folders that are searched for them, and runs that are held open.
MOST_RUNS = 500
_MOST_FOLDERS = 50_000
_MOST_OPEN = 16

#: Seconds for which a snapshot of a run, and a list of runs, is fresh.
FRESH = 0.25
_FRESH_LIST = 1.0
#: Seconds after which a run that could not be opened is tried again.
_FRESH_ERROR = 2.0
#: Seconds that a list takes at most: what is not read by then is in a later one.
_LIST_SECONDS = 2.0

_Result = TypeVar("_Result")


class _Quiet(Run):
    """A run that tells what is wrong with it by `problems` alone: nobody reads the server's terminal."""

    def _tell(self, sentence: str, page: str) -> None:
        pass


class OpenRun:
    """A run that several may look at; one at a time.

    Parameters
    ----------
    place : ConfinedPlace
        Raises as :class:`~colordim.store.ranks.RunReader` does.
    """

    def __init__(self, place: ConfinedPlace) -> None:
        self._lock = threading.Lock()
        self._run = _guarded(lambda: _Quiet(RunReader(place)), str(place))
        self._looked = time.monotonic()

    def answer(self, route: str, parameters: Mapping[str, str]) -> bytes:
        """Return the answer to a question; raises as :func:`colordim.web.answers.answer` and the run's reader do."""
        return self._do(lambda run: answer(run, route, parameters))

    def grown(self, seen: object) -> tuple[object, bytes, bool] | None:
        """Return what tells this state from another, what has grown, and whether the run ended; None in the state `seen`."""

        def look(run: Run) -> tuple[object, bytes, bool] | None:
            known = (
                len(run.streams), run.ended, run.problems,
                *(run.extent(phase) for phase in PHASES), *(run.kept(phase) for phase in PHASES),
                int(run.batches["ranks"].sum()) if run.ranks > 1 and "ranks" in run.batches else 0,
            )  # fmt: skip
            return None if known == seen else (known, answer(run, "growth", {}), run.ended is not None)

        return self._do(look)

    def _do(self, function: Callable[[Run], _Result]) -> _Result:
        def work() -> _Result:
            if time.monotonic() - self._looked >= FRESH:
                self._run.refresh()
                self._looked = time.monotonic()
            return function(self._run)

        with self._lock:
            return _guarded(work, self._run.path)


class Catalogue:
    """The runs below a folder.

    Parameters
    ----------
    folder : path-like
        May be a run itself; links in its own path are followed once, here.
    only : sequence of str, optional
        Paths, relative to it, of the only runs that are served; by default all.
    """

    def __init__(self, folder: str | os.PathLike[str], only: Sequence[str] | None = None) -> None:
        self.root = os.path.realpath(folder)
        self._only = None if only is None else tuple(only)
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._open: OrderedDict[str, OpenRun] = OrderedDict()
        self._failed: OrderedDict[str, tuple[float, type[ColordimError], str]] = OrderedDict()
        self._listing = threading.Lock()
        self._rows: dict[str, tuple[listing.Files, dict[str, Any]]] = {}
        self._list: tuple[float, bytes] | None = None

    def open(self, name: str) -> OpenRun:
        """Return a run.

        Parameters
        ----------
        name : str
            Its path relative to the folder, with slashes; "" or "." is the folder itself.

        Raises
        ------
        NotARunError
            If there is none in the folder.
        ColordimError
            If it cannot be read.
        """
        place = self._place(name)
        with self._lock:
            known = self._open.get(key := str(place))
            if known is not None:
                self._open.move_to_end(key)
                return known
        return self._opened(place, key)

    def _opened(self, place: ConfinedPlace, key: str) -> OpenRun:
        """Open a run, or raise what kept it from being opened a moment ago: a page asks many questions at once."""
        with self._opening:  # one at a time, as a damaged one may take much memory
            with self._lock:
                if (known := self._open.get(key)) is not None:
                    return known
            failed = self._failed.get(key)
            if failed is not None and time.monotonic() - failed[0] < _FRESH_ERROR:
                raise failed[1](failed[2])
            try:
                found = OpenRun(place)
            except ColordimError as error:
                self._failed[key] = time.monotonic(), type(error), str(error)  # what caused it may hold much
                self._failed.move_to_end(key)
                if len(self._failed) > _MOST_OPEN:
                    self._failed.popitem(last=False)
                raise
            with self._lock:
                self._open[key] = found
                if len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            return found

    def _place(self, name: str) -> ConfinedPlace:
        path = PurePosixPath(name)
        missing = NotARunError(f"there is no run {name[:200]!r} in the folder that is served.")
        if len(name) > 4096 or "\0" in name or path.is_absolute() or ".." in path.parts:
            raise missing
        if os.name == "nt" and any(each in name for each in ":\\"):
            raise missing
        if self._only is not None and str(path) not in self._only:
            raise missing
        try:
            real = inside(Path(self.root, *path.parts), self.root)
            there = real is not None and Path(real, files.RUN).exists()
        except (OSError, ValueError):  # such as a name that is too long
            there = False
        if real is None or not there:
            raise missing
        # Two runs that are compared may have nothing above them but the root of the disk.
        return ConfinedPlace(real, self.root if self._only is None else real)

    def listed(self) -> bytes:
        """Return the list of runs as JSON.

        ``runs`` has a row for each, the newest first: ``path, name, state`` (live, ended, cut off or unreadable), ``ended``
        (why), ``problem`` (a sentence, of one that is unreadable), ``batches`` (by phase), ``epochs, streams, last_loss,
        created, written`` (seconds since the epoch of the clock), ``size`` (bytes). ``more``: how many are not listed;
        ``pending``: how many will be, once they are read; ``searched``: whether all folders were.
        """
        with self._listing:
            if self._list is None or time.monotonic() - self._list[0] > _FRESH_LIST:
                made = to_json(self._make_list())
                self._list = time.monotonic(), made
            return self._list[1]

    def _make_list(self) -> dict[str, Any]:
        found, searched = self._find()
        chosen = sorted(found, key=lambda each: each[1], reverse=True)[:MOST_RUNS]
        self._rows = {name: self._rows[name] for name, _ in chosen if name in self._rows}
        until = time.monotonic() + _LIST_SECONDS
        rows, pending = [], 0
        for name, _ in chosen:
            files_now = listing.files_of(Path(self.root, name))
            known = self._rows.get(name)
            if known is None or known[0] != files_now:
                if time.monotonic() > until:
                    pending += 1
                    continue
                known = self._rows[name] = files_now, self._read(name)
            row = known[1]
            state = row["state"] or listing.state(row["ended"], files_now.written)
            rows.append({**row, "state": state, "size": files_now.size, "written": files_now.written})
        return {"runs": rows, "more": len(found) - len(chosen), "pending": pending, "searched": searched}

    def _find(self) -> tuple[list[tuple[str, float]], bool]:
        """Return path and age of each run, and whether all folders were searched."""
        if self._only is not None:
            return [(name, 0.0) for name in self._only], True
        found = []
        number = 0
        for path, folders, names in islice(os.walk(self.root), _MOST_FOLDERS):
            number += 1
            if files.RUN in names:
                folders.clear()
                try:
                    created = Path(path, files.RUN).lstat()
                except OSError:
                    continue
                if stat.S_ISREG(created.st_mode):
                    found.append((Path(path).relative_to(self.root).as_posix(), created.st_mtime))
            else:
                folders[:] = sorted(name for name in folders if not name.startswith("."))
        return found, number < _MOST_FOLDERS

    def _read(self, name: str) -> dict[str, Any]:
        row = {"path": name, "name": "", "state": None, "ended": None, "problem": None, "batches": None, "epochs": None,
               "streams": None, "last_loss": None, "created": None}  # fmt: skip
        try:
            place = self._place(name)
            seen = _guarded(lambda: listing.summary(_Quiet(RunReader(place))), name)
        except ColordimError as error:
            return {**row, "state": "unreadable", "problem": str(error)}
        return row | asdict(seen)


def _guarded(work: Callable[[], _Result], path: str) -> _Result:
    """Do something with a run; whatever a damaged one makes fail becomes a FormatError."""
    try:
        return work()
    except ColordimError:
        raise
    except Exception as error:
        raise FormatError(
            f"the run {path} is damaged or was not written by colordim ({type(error).__name__}: {reason(error)[:200]}): "
            "colordim doctor says more."
        ) from error
