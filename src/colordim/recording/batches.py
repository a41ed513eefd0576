"""Batches from the opening of their window until they are handed on, with what is logged meanwhile and what they cost.

A closed batch is handed on when the next one opens, so that what is logged after the forward pass still belongs to
it. Until then its columns stay where they were counted: nothing counts between two windows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from colordim.column import Phase
from colordim.recording.counters import Counters, Taken
from colordim.recording.delivery import Delivery
from colordim.recording.governor import Meter
from colordim.recording.notices import Notices
from colordim.recording.units import Activity, Judged
from colordim.recording.window import Clock, Window, as_numbers

__all__ = ["Batches"]


class Batches:
    """One window at a time, and the batch before it.

    Parameters
    ----------
    counters : Counters
        Count what belongs to the window.
    activity : Activity
        Knows which units were active in it.
    delivery : Delivery
        Takes the batches, in order.
    clock : Clock
        Numbers them.
    meter : Meter
        Measures what recording costs, and says every how many batches one is recorded.
    notices : Notices
    is_device : callable
        Whether reading a tensor would make the host wait.
    unfired : callable
        Is told of each batch in which nothing was counted although it was to be recorded.
    closing : callable
        Is told when a batch is about to be closed, and may still count.
    lost : callable
        Is told of an error of a device on account of which columns were lost.
    every : int
        Record every n-th batch of each phase, or more seldom if the meter says so.
    """

    def __init__(
        self,
        counters: Counters,
        activity: Activity,
        delivery: Delivery,
        clock: Clock,
        meter: Meter,
        notices: Notices,
        *,
        is_device: Callable[[Tensor], bool],
        unfired: Callable[[Window], None],
        closing: Callable[[], None],
        lost: Callable[[Exception], None],
        every: int = 1,
    ) -> None:
        self.window: Window | None = None
        self._counters = counters
        self._activity = activity
        self._delivery = delivery
        self._clock = clock
        self._meter = meter
        self._notices = notices
        self._is_device = is_device
        self._unfired = unfired
        self._closing = closing
        self._lost = lost
        self._every = every
        self._closed: tuple[Window, Taken | None] | None = None
        self._judged: list[Judged] = []
        self._early: dict[str, object] = {}

    @property
    def batches(self) -> int:
        """Number of batches closed so far, over all phases."""
        return self._clock.batches

    def state(self) -> dict[str, Any]:
        """Return what tells the position, the batch that is open included, in JSON types."""
        return self._clock.state(self.window)

    def open(self, phase: Phase) -> bool:
        """Open a window, closing the one that is open; return whether its batch is recorded."""
        began = time.perf_counter()
        self.close()
        self._hand_on(began, phase)
        clock, meter = self._clock, self._meter
        clock.every = self._every * meter.governor.every
        self.window = window = clock.open(phase)
        if window.recorded:
            self._judged += self._activity.open(phase, window.index, window.epoch)
        if self._early:
            early, self._early = self._early, {}
            self.log(early)
        meter.open(began)
        meter.spend(time.perf_counter() - began)
        return window.recorded

    def close(self) -> None:
        """Close the window that is open, if any, and keep its batch."""
        if self.window is None:
            return
        self._closing()
        window, self.window = self.window, None
        began = time.perf_counter()
        self._clock.close(window)
        taken = None
        if window.recorded:
            self._activity.close(window.phase, window.index)
            taken = self._take()
            if taken.empty:
                self._unfired(window)
        self._closed = window, taken
        self._meter.spend(time.perf_counter() - began)

    def discard(self) -> None:
        """Forget the window that is open, and what was counted in it."""
        if self.window is not None:
            self.window = None
            self._counters.clear()
            self._activity.discard()

    def epoch(self) -> None:
        """Begin a new epoch with the next batch."""
        self._hand_on()
        self._clock.epoch()

    def suggest(self, values: Mapping[str, object]) -> None:
        """Log numbers with the batch that is open, except under names that have one."""
        logged = self.window.values if self.window else {}
        new = {name: value for name, value in values.items() if name not in logged}
        if new and self.window is not None:
            self.log(new)

    def log(self, values: dict[str, object]) -> None:
        """Log numbers with the batch that is open, or else with the last one, or else with the first."""
        window = self.window or (self._closed[0] if self._closed else None)
        if window is None:
            self._early.update(values)
            return
        numbers, refused = as_numbers(values, self._is_device)
        for sentence in refused:
            self._notices.say(f"log:{sentence}", f"Not logged: {sentence}")
        window.values.update(numbers)

    def drain(self, last: bool = True) -> None:
        """Hand on everything that is closed, waiting for devices; without the last batch, it can still be logged to."""
        if last and self.window is None:
            self._hand_on()
        self._delivery.drain()

    def _hand_on(self, now: float | None = None, following: Phase | None = None) -> None:
        """Hand the closed batch on; `now` is when the batch that follows began, if one does."""
        if self._closed is None:
            return
        window, taken = self._closed
        self._closed = None
        began = time.perf_counter()
        uninterrupted = window.phase == following == "train"
        window.values.update(self._meter.close(window.recorded, began if now is None else now, uninterrupted))
        # Where none follows, somebody wants to read: what is known of unfinished windows goes along.
        judged, self._judged = [*self._judged, *self._activity.due(None if following is None else window.phase)], []
        if judged:
            taken = taken or Taken([], [])
            taken.units.extend(judged)
        self._delivery.put(window, taken)
        if taken is not None:
            self._counters.clear()
        self._meter.handed_on(window.recorded, time.perf_counter() - began)

    def _take(self) -> Taken:
        try:
            return self._counters.take()
        except Exception as error:  # a device may fail at any time
            self._lost(error)
            return Taken([], [])
