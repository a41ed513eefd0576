"""Batches on their way to the sink: in order, and as late as their numbers need to arrive from a device.

A batch that was counted on the CPU is handed on at once; batches that were passed over, a few together. Rows of a
device stay there until several batches wait; then they are copied together, and handed on when a later batch finds that
they have arrived. Nothing waits for a device, except at the end, when somebody wants to read, or when too much is under
way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from colordim.column import Sink, Units
from colordim.recording.counters import Columns, Taken
from colordim.recording.transport import Transfer, Transport, is_capturing
from colordim.recording.units import Judged
from colordim.recording.window import Window

__all__ = ["Delivery"]


#: Batches that were passed over and wait to be handed on together: a batch of nothing is mostly cold code.
_TOGETHER = 64


@dataclass(slots=True)
class _Parcel:
    """A batch with what belongs to it, some of it still on a device."""

    window: Window
    taken: Taken
    since: float

    @property
    def on_device(self) -> list[Tensor]:
        rows = [tensor for part in self.taken.staged for tensor in (part.counts, part.moments)]
        values = [value for value in self.window.values.values() if isinstance(value, Tensor)]
        return rows + values + [judged.active for judged in self.taken.units if not judged.active.is_cpu]


class Delivery:
    """Hands batches to a sink in the order in which they are put.

    Parameters
    ----------
    sink : Sink
    transport : Transport
    failed : callable
        Is told of an error of a device, on account of which columns were lost; their batches are handed on without.
    batches : int
        How many batches wait on the device until they are copied together.
    seconds : float
        How long they wait at most, as far as batches come at all.
    transfers : int
        How many copies are under way at once; before one more, the oldest is waited for.
    clock : callable
        Returns seconds.
    look : callable, optional
        Is shown the columns of each batch, with its number, before the sink takes them.
    """

    def __init__(
        self,
        sink: Sink,
        transport: Transport,
        failed: Callable[[Exception], None],
        *,
        batches: int = 8,
        seconds: float = 0.5,
        transfers: int = 2,
        clock: Callable[[], float] = time.monotonic,
        look: Callable[[int, Columns], None] | None = None,
    ) -> None:
        self._look = look
        self._sink = sink
        self._transport = transport
        self._failed = failed
        self._batches = batches
        self._seconds = seconds
        self._transfers = transfers
        self._clock = clock
        self._passed: list[Window] = []
        self._passed_since = 0.0
        self._waiting: deque[_Parcel] = deque()
        self._under_way: deque[tuple[Transfer, deque[_Parcel]]] = deque()

    def put(self, window: Window, taken: Taken | None) -> None:
        """Take over a closed batch.

        Parameters
        ----------
        window : Window
        taken : Taken or None
            Its columns, only lent until this returns; None for a batch that was passed over.
        """
        now = self._clock()
        if taken is None:
            if not self._passed:
                self._passed_since = now
            self._passed.append(window)
            if len(self._passed) >= _TOGETHER or now - self._passed_since >= self._seconds:
                self._hand_on_passed(now)
            return
        self._hand_on_passed(now)
        self._put(_Parcel(window, taken, now))

    def _hand_on_passed(self, now: float) -> None:
        passed, self._passed = self._passed, []
        for window in passed:
            self._put(_Parcel(window, _NOTHING, now))

    def _put(self, parcel: _Parcel) -> None:
        if not self._waiting and not self._under_way and not parcel.on_device:
            self._append(parcel, [])
            return
        parcel.taken = parcel.taken.kept()
        self._waiting.append(parcel)
        while self._under_way and self._has_arrived():
            self._receive()
        overdue = self._clock() - self._waiting[0].since >= self._seconds
        if (len(self._waiting) >= self._batches or overdue) and not is_capturing():
            self._send()

    def drain(self) -> None:
        """Hand on everything, waiting for what is under way."""
        self._hand_on_passed(self._clock())
        if self._waiting:
            self._send()
        while self._under_way:
            self._receive()

    def _send(self) -> None:
        while len(self._under_way) >= self._transfers:
            self._receive()
        parcels, self._waiting = self._waiting, deque()
        try:
            transfer = self._transport.begin([tensor for parcel in parcels for tensor in parcel.on_device])
        except Exception as error:
            transfer = _Failed(error)  # received in its turn, so that the order stays
        self._under_way.append((transfer, parcels))

    def _has_arrived(self) -> bool:
        try:
            return self._under_way[0][0].done()
        except Exception:
            return True  # receiving it says what is wrong

    def _receive(self) -> None:
        transfer, parcels = self._under_way[0]
        try:
            arrays = deque(transfer.wait())
        except Exception as error:
            self._failed(error)
            arrays = None
        self._under_way.popleft()  # only now: waiting may be interrupted
        while parcels:
            parcel = parcels.popleft()
            self._append(parcel, None if arrays is None else [arrays.popleft() for _ in parcel.on_device])

    def _append(self, parcel: _Parcel, arrays: list[npt.NDArray[Any]] | None) -> None:
        """Give a batch to the sink, with the arrays of its tensors on devices, or without what is on devices."""
        window, taken = parcel.window, parcel.taken
        values = {name: value for name, value in window.values.items() if not isinstance(value, Tensor)}
        parts = list(taken.host)
        found = iter(arrays or ())
        if arrays:
            parts += [Columns(staged.streams, next(found), next(found)) for staged in taken.staged]
            values = {
                name: float(next(found)) if isinstance(value, Tensor) else value
                for name, value in window.values.items()
            }
        units = [_packed(each, None if each.active.is_cpu else next(found, None)) for each in taken.units]
        columns = parts[0] if len(parts) == 1 and not arrays else Columns.together(parts)
        if self._look is not None:
            self._look(window.number, columns)
        self._sink.append(
            window.batch(values), columns.streams, columns.rows, columns.moments, [each for each in units if each]
        )


_NOTHING = Taken([], [])


def _packed(judged: Judged, fetched: npt.NDArray[Any] | None) -> Units | None:
    """Return active units as a sink takes them; None if they were lost with their device."""
    if fetched is None and not judged.active.is_cpu:
        return None
    active = judged.active.numpy() if fetched is None else fetched
    return Units(
        stream=judged.stream.id,
        judged_on=judged.judged_on,
        phase=judged.phase,
        first=judged.first,
        last=judged.last,
        number=len(active),
        active=np.packbits(active).tobytes(),
    )


class _Failed:
    """A transfer that could not be begun."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def done(self) -> bool:
        return True

    def wait(self) -> list[npt.NDArray[Any]]:
        raise self._error
