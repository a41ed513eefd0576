"""Keeping what recording costs under the share of the training time that was asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

from colordim.errors import ArgumentError

__all__ = ["Governor", "Meter"]

# Batches of each kind whose costs are remembered: enough for a median, few enough to follow a change.
REMEMBERED = 16
# Recorded batches that are measured before the first decision; the very first makes streams and buffers.
WARM_UP = 3
# Rarest recording: beyond it the cost of the batches that are not recorded is all that is left.
MAX_EVERY = 1 << 12


class Governor:
    """Decides every how many batches one is recorded.

    The interval is a power of two, and the batches whose index is a multiple of it are recorded: what
    ranks record that choose differently stays nested. With an interval n, a training step of s seconds,
    c seconds to record a batch and b seconds to pass one over, recording costs the share
    ``(c + (n - 1) b) / (n s)``; the smallest n is taken for which that is at most the budget.

    Parameters
    ----------
    budget : float or None
        Share of the training time, such as 0.05; None records every batch, and only measures.

    Raises
    ------
    ArgumentError
        If the budget is no share above zero.
    """

    def __init__(self, budget: float | None) -> None:
        if budget is not None and not 0 < budget <= 1:
            raise ArgumentError(
                f"budget={budget} cannot be: it is the share of the training time that recording may cost, such as 0.05.",
                page="options#budget",
            )
        self._budget = budget
        self._recorded: deque[float] = deque(maxlen=REMEMBERED)
        self._passed: deque[float] = deque(maxlen=REMEMBERED)
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        self._warm_up = WARM_UP
        self._since = 0
        self.every = 1

    def batch(self, recorded: bool, spent: float, step: float | None) -> None:
        """Take note of a batch, and decide anew.

        Parameters
        ----------
        recorded : bool
            Whether it was recorded.
        spent : float
            Seconds that recording, or passing over, took, on all threads.
        step : float or None
            Seconds from the beginning of this batch to that of the next, without what was spent; None
            where something else came between.
        """
        if self._budget is None:
            return
        if recorded and self._warm_up:
            self._warm_up -= 1
            return
        (self._recorded if recorded else self._passed).append(spent)
        if step is not None:
            self._steps.append(step)
        self._since += 1
        # Medians are taken seldom: a batch that is passed over should cost less than they do.
        if self._recorded and self._steps and (recorded or self._since >= REMEMBERED or len(self._passed) == 1):
            self._since = 0
            self.every = self._interval(self._budget * median(self._steps))

    def _interval(self, affordable: float) -> int:
        recorded = median(self._recorded)
        passed = min(median(self._passed), recorded) if self._passed else 0.0
        every = 1
        while every < MAX_EVERY and (recorded + (every - 1) * passed) / every > affordable:
            every *= 2
        return every


class Meter:
    """Measures what recording costs, batch by batch, for the governor and for the run.

    Parameters
    ----------
    governor : Governor
    sink_seconds : callable
        Returns the processor seconds that the sink has taken on threads of its own, so far.
    """

    def __init__(self, governor: Governor, sink_seconds: Callable[[], float]) -> None:
        self.governor = governor
        self._sink_seconds = sink_seconds
        self._spent = 0.0
        self._began: float | None = None
        self._batches = 0
        # Handing a batch on is measured when it is over, so its cost is known for the next of its sort.
        self._handing_on = {True: 0.0, False: 0.0}

    def spend(self, seconds: float) -> None:
        """Add what was spent on the batch that is open."""
        self._spent += seconds

    def handed_on(self, recorded: bool, seconds: float) -> None:
        """Take note of how long it took to hand a batch on."""
        self._handing_on[recorded] = seconds

    def close(self, recorded: bool, now: float, uninterrupted: bool) -> dict[str, float]:
        """End a batch where the next one begins; return what is stored with it.

        Parameters
        ----------
        recorded : bool
        now : float
            When the next batch began, in seconds of ``time.perf_counter``.
        uninterrupted : bool
            Whether it followed without anything between, so that the difference is one training step.

        Returns
        -------
        dict of str to float
            ``recording_s``, seconds that recording took for the batch, on all threads; and, if it is
            known, ``step_s``, seconds of the training step without them.
        """
        self._batches += recorded
        spent = self._spent + self._handing_on[recorded]
        if recorded:
            spent += self._sink_seconds() / self._batches
        step = None if self._began is None or not uninterrupted else max(now - self._began - self._spent, 0.0)
        self._spent = 0.0
        self.governor.batch(recorded, spent, step)
        return {"recording_s": spent} if step is None else {"recording_s": spent, "step_s": step}

    def open(self, now: float) -> None:
        """Begin a batch."""
        self._began = now
