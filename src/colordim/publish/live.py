"""Publishing beside a training, in a thread that only wakes up when an epoch is over."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from colordim.column import PHASES
from colordim.diagnosis.finding import Diagnosis
from colordim.publish.drawing import draw_beside
from colordim.publish.publisher import Publisher
from colordim.publish.target import Target
from colordim.store.ranks import RunReader
from colordim.views import Run

__all__ = ["Live"]

#: Seconds between two looks at the number of the epoch, and at most between two at the folder while one is awaited.
_INTERVAL = 0.25
_LONGEST = 4.0
#: Seconds for which the end of a recording waits until everything is published.
_PATIENCE = 120.0
#: Seconds for which the last epochs wait for what other ranks still write.
_OTHER_RANKS = 5.0


class Live:
    """Publishes a run that is being recorded by this process.

    What is published is read from the folder of the run, as anybody else would read it: the training thread is asked
    for nothing, and no error reaches it.

    Parameters
    ----------
    targets : sequence of Target
    diagnosis : callable
        Returns the last diagnosis of the run, if there is one.
    """

    def __init__(self, targets: Sequence[Target], diagnosis: Callable[[], Diagnosis | None] = lambda: None) -> None:
        self._targets = targets
        self._diagnosis = diagnosis
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._run: Run | None = None
        self._pid = 0

    def start(self, folder: Path, since: int, epoch: Callable[[], int], say: Callable[[str, str, str], None]) -> None:
        """Begin to publish.

        Parameters
        ----------
        folder : Path
            Of the run.
        since : int
            Number of the first batch that this process records.
        epoch : callable
            Returns the number of the epoch that is being recorded; must cost nothing.
        say : callable
            Takes a key and a sentence for the user.
        """
        self._folder, self._since, self._epoch, self._say = folder, since, epoch, say
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._work, name="colordim-publisher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Publish the rest of a run whose recording has ended, and close the targets."""
        if self._thread is None or self._pid != os.getpid():
            return
        self._ended.set()
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            self._say(
                "publish",
                f"The last epoch is still not published after {_PATIENCE:.0f} seconds, and is not waited for any longer: "
                f"colordim export {self._folder} publishes it later.",
                "exports#live",
            )
        self._thread = None

    def _work(self) -> None:
        publisher = Publisher(
            self._targets,
            since=self._since,
            failed=self._failed,
            draw=draw_beside,
            diagnosis=lambda _: self._diagnosis(),
        )
        publisher.epoch = self._epoch() - 1
        pause = _INTERVAL
        while not self._ended.wait(pause) and not publisher.idle:
            if self._epoch() - 1 > publisher.epoch:
                self._update(publisher)
                # The batches of an epoch are on the disk when one of the next is: soon, if no pass lies in between.
                pause = _INTERVAL if self._epoch() - 1 <= publisher.epoch else min(2 * pause, _LONGEST)
        if not publisher.idle:
            self._update(publisher, final=True)
        publisher.close()

    def _update(self, publisher: Publisher, final: bool = False) -> None:
        try:
            self._run = self._run.refresh() if self._run else Run(RunReader(self._folder))
            until = time.monotonic() + _OTHER_RANKS
            while final and any(self._run.partial(phase).any() for phase in PHASES) and time.monotonic() < until:
                time.sleep(_INTERVAL)
                self._run.refresh()
            publisher.update(self._run, final=final, figures=1)  # where epochs are shorter than drawing, of the last
        except Exception as error:
            self._failed("anything", error)

    def _failed(self, what: str, error: Exception) -> None:
        missing = {"figures": "figures are not drawn", "anything": "an epoch could not be read"}
        self._say(
            f"publish:{what}",
            f"Of what is published, {missing.get(what, f'{what} gets nothing more')} ({type(error).__name__}: {error}); "
            f"the training goes on, and colordim export {self._folder} publishes it later.",
            "exports#live",
        )
