"""Diagnosing beside a training, in a thread that takes less than a millisecond a batch."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from colordim.diagnosis.diagnosing import diagnose
from colordim.diagnosis.finding import Diagnosis
from colordim.diagnosis.read import gather
from colordim.publish.telling import Telling
from colordim.run import Run
from colordim.store.ranks import RunReader

__all__ = ["Pace", "Watch", "Watched"]

#: Seconds between two looks at the number of the batch and of the epoch.
_INTERVAL = 0.25
#: Seconds of processor time that diagnosing may take a batch, on average, half of the promised
#: millisecond: the training may wait for Python's lock besides.
_ALLOWED = 0.5e-3
#: Batches before the first diagnosis, and what that is expected to take: seconds, and seconds a layer.
_FIRST, _GUESS, _GUESS_LAYER = 16, 0.01, 0.002
#: Seconds for which a batch that is known to hold NaN is waited for in the folder, about four flushes of the writer.
_ARRIVES = 2.0
#: Seconds for which the end of a recording waits for the last diagnosis.
_PATIENCE = 60.0


class Watched(Protocol):
    """What is asked of a recorder, by another thread: it must cost nothing."""

    @property
    def closed_batches(self) -> int:
        """Number of batches closed so far, over all phases."""

    @property
    def current_epoch(self) -> int:
        """Number of the epoch."""

    @property
    def layers(self) -> int:
        """How many are recorded."""


class Pace:
    """Says when to diagnose: at the end of an epoch, and when there are twice as many batches; never at too high a price.

    Parameters
    ----------
    epoch : int
        Number of the epoch at the beginning.
    layers : int
        How many are recorded.
    """

    def __init__(self, epoch: int, layers: int = 1) -> None:
        self.seconds = 0.0
        self._epoch = epoch
        self._next = _FIRST
        self._last, self._at = _GUESS + _GUESS_LAYER * layers, 0

    def due(self, batches: int, epoch: int) -> bool:
        """Return whether to diagnose after so many batches since the beginning, in this epoch."""
        expected = self._last * batches / self._at if self._at else self._last  # in proportion at worst
        affordable = self.seconds + expected <= _ALLOWED * batches
        return affordable and batches > 0 and (epoch != self._epoch or batches >= self._next)

    def hurry(self) -> None:
        """Diagnose as soon as it is affordable."""
        self._next = 1

    def took(self, seconds: float, batches: int, epoch: int) -> None:
        """Take note of a diagnosis, and of where the training was when it began."""
        self.seconds += seconds
        self._last, self._at = seconds, batches
        self._epoch, self._next = epoch, max(2 * batches, _FIRST)


class Watch:
    """Diagnoses a run that this process records, as anybody would who reads its folder.

    The training thread is asked for nothing, and no error reaches it.

    Parameters
    ----------
    mute : collection of str
        As :func:`colordim.diagnosis.diagnose` takes it.

    Attributes
    ----------
    diagnosis : Diagnosis or None
        The last one.
    """

    def __init__(self, mute: Collection[str] = ()) -> None:
        self.diagnosis: Diagnosis | None = None
        self._mute = tuple(mute)
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._alarm: int | None = None  # number of the batch in which a stream was not finite for the first time
        self._thread: threading.Thread | None = None
        self._run: Run | None = None
        self._pid = 0
        self._pace = Pace(0)
        self._batches = 0

    def start(self, folder: Path, recorder: Watched, tell: Telling, say: Callable[[str, str, str], None]) -> None:
        """Begin to watch.

        Parameters
        ----------
        folder : Path
            Of the run.
        recorder : Watched
        tell : Telling
        say : callable
            Takes a key and a sentence for the user.
        """
        self._folder, self._recorder, self._tell, self._say = folder, recorder, tell, say
        self._since = recorder.closed_batches
        self._pace = Pace(recorder.current_epoch, recorder.layers)
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name="colordim-diagnosis", daemon=True)
        self._thread.start()

    def alarm(self, batch: int) -> None:
        """Diagnose as soon as this batch can be read: a stream is not finite in it that was finite before."""
        self._alarm = batch
        self._wake.set()

    def stop(self) -> None:
        """Diagnose a run whose recording has ended once more, and end the thread."""
        if self._thread is None or self._pid != os.getpid():
            return
        self._ended.set()
        self._wake.set()
        self._thread.join(_PATIENCE)
        self._thread = None

    @property
    def milliseconds(self) -> float:
        """What diagnosing has taken so far, in ms of processor time a batch, without the last one, after the training."""
        return 1000 * self._pace.seconds / self._batches if self._batches else 0.0

    def _work(self) -> None:
        alarmed = False
        while not self._ended.is_set():
            self._wake.wait(_INTERVAL)
            self._wake.clear()
            if self._ended.is_set():
                break
            self._batches = batches = self._recorder.closed_batches - self._since
            epoch = self._recorder.current_epoch
            alarm, self._alarm = self._alarm, None
            urgent = alarm is not None and not alarmed  # the first time at any price
            if urgent:
                alarmed = True
            elif alarm is not None:  # later ones as soon as there is time
                self._pace.hurry()
            if urgent or self._pace.due(batches, epoch):
                began = time.thread_time()
                self._look(alarm)
                self._pace.took(time.thread_time() - began, batches, epoch)
        self._batches = self._recorder.closed_batches - self._since
        self._look(None)

    def _look(self, batch: int | None) -> None:
        """Diagnose the run as it is in its folder; where a batch is given, as soon as it is there."""
        try:
            self._run = self._run.refresh() if self._run else Run(RunReader(self._folder))
            until = time.monotonic() + _ARRIVES
            while batch is not None and not self._ended.is_set() and time.monotonic() < until:
                known = self._run.batches["batch"]
                if len(known) and known[-1] >= batch:
                    break
                time.sleep(_INTERVAL / 2)
                self._run.refresh()
            if self._run.length("train"):
                self.diagnosis = diagnose(gather(self._run), self._mute)
                self._tell(self.diagnosis)
        except Exception as error:
            self._say(
                "diagnosis",
                f"The run could not be diagnosed while it is recorded ({type(error).__name__}: {error}); the training goes "
                f"on, and colordim diagnose {self._folder} says later what it can.",
                "diagnose#while-it-trains",
            )
