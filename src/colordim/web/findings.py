"""What is wrong with a run, for the page: found in a thread of its own, so that no other question waits for it."""

from __future__ import annotations

import threading
import time
from typing import Any
from weakref import WeakKeyDictionary

from colordim.column import PHASES
from colordim.diagnosis.diagnosing import diagnose
from colordim.diagnosis.muting import project_mute
from colordim.diagnosis.read import gather
from colordim.diagnosis.text import explanation
from colordim.errors import ColordimError
from colordim.run import Run

__all__ = ["findings", "findings_now"]

#: Seconds after which the page is to ask again while a diagnosis is under way.
_SOON = 0.3
#: Seconds between two diagnoses of a run that grows; more if that is more than a tenth of the time.
_REST, _SHARE = 5.0, 0.1
#: Streams of a run that is diagnosed by itself: what is read of them lies in memory at once.
_MOST_STREAMS = 4000
#: Items of each list (findings, layers, consequences) and characters of each text that are told at most.
_MOST, _MOST_TEXT = 64, 2000

#: One diagnosis at a time, however many runs are on show.
_turn = threading.Lock()


class _Finder:
    """The last diagnosis of a run, and the thread that makes the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._answer: dict[str, Any] = {"diagnosis": None, "error": None}
        self._seen: object = None  # what the answer is of
        self._next = 0.0

    def ask(self, run: Run) -> dict[str, Any]:
        """Return what is known, and after how many seconds it is worth asking again (None: it will stay so)."""
        now = (run.ended, *(run.length(phase) for phase in PHASES))
        with self._lock:
            current = now == self._seen
            if not current and self._thread is None and time.monotonic() >= self._next:
                # through a reader of its own: this one may be refreshed meanwhile
                self._thread = threading.Thread(
                    target=self._work, args=(run, now), name="colordim-diagnose", daemon=True
                )
                self._thread.start()
            wait = _SOON if self._thread is not None else max(self._next - time.monotonic(), _SOON)
            return {**self._answer, "again": None if current and run.ended is not None else wait}

    def _work(self, run: Run, now: object) -> None:
        with _turn:
            began = time.monotonic()
            answer = findings_now(run, apart=True)
        with self._lock:
            self._answer, self._seen, self._thread = answer, now, None
            self._next = time.monotonic() + max(_REST, (time.monotonic() - began) / _SHARE)


_finders: WeakKeyDictionary[Run, _Finder] = WeakKeyDictionary()
_finding = threading.Lock()


def findings(run: Run) -> dict[str, Any]:
    """Return what is known to be wrong with a run, without waiting for it.

    Returns
    -------
    dict
        ``diagnosis`` (:meth:`colordim.diagnosis.Diagnosis.to_dict`, bounded; null before the first), with it ``explained``
        (paragraphs of the manual by symptom), ``error`` (a sentence, or null), ``again``: seconds after which to ask again, null if the answer will stay as it is.
    """
    with _finding:
        finder = _finders.setdefault(run, _Finder())
    return finder.ask(run)


def findings_now(run: Run, apart: bool = False) -> dict[str, Any]:
    """Return what is wrong with a run, found at once; if `apart`, through a reader of its own."""
    if len(run.streams) > _MOST_STREAMS:
        return {
            "diagnosis": None,
            "error": f"the run has more than {_MOST_STREAMS:,} streams: colordim diagnose judges it.",
            "again": None,
        }
    try:
        found = diagnose(gather(run.apart() if apart else run), project_mute()).to_dict()
    except ColordimError as error:
        return {"diagnosis": None, "error": str(error), "again": None}
    except Exception as error:  # whatever is wrong with a run, all else of it can be shown
        return {"diagnosis": None, "error": f"{type(error).__name__}: {error}", "again": None}
    symptoms = {each["symptom"] for each in found["findings"]}
    explained = {symptom: explanation(symptom) for symptom in sorted(symptoms)}
    return {"diagnosis": _bounded(found), "explained": explained, "error": None, "again": None}


def _bounded(value: Any) -> Any:
    """Cut what is too long; names of layers may be anything."""
    if isinstance(value, str):
        return value if len(value) <= _MOST_TEXT else value[:_MOST_TEXT] + "…"
    if isinstance(value, dict):
        return {key: _bounded(each) for key, each in value.items() if key != "epochs"}
    if isinstance(value, (list, tuple)):
        return [_bounded(each) for each in value[:_MOST]]
    return value
