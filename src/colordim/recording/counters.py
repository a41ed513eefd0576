"""The rows of all streams, filled during a batch and taken out at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from colordim.axis import Axis
from colordim.binning import Row, bin_into
from colordim.column import COUNTERS, MOMENTS, Stream

__all__ = ["Columns", "Counters"]

_CALLS = COUNTERS.index("calls") - len(COUNTERS)


@dataclass
class _Slot:
    stream: Stream
    rows: dict[torch.device, Row] = field(default_factory=dict)
    calls: int = 0  # kept here, because adding to one element of a row costs as much as counting a small tensor

    def peek(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the row, added over devices; it may change when the slot is cleared."""
        parts = [row.peek() for row in self.rows.values()]
        counts, moments = parts[0]
        if len(parts) > 1:
            counts = np.sum([part for part, _ in parts], axis=0)
            sums = np.stack([part for _, part in parts])
            moments = np.array([sums[:, 0].sum(), sums[:, 1].sum(), sums[:, 2].min(), sums[:, 3].max()])
        counts[_CALLS] = self.calls
        return counts, moments

    def clear(self) -> None:
        self.calls = 0
        for row in self.rows.values():
            row.clear()


@dataclass(frozen=True)
class Columns:
    """The columns of one batch, as :meth:`colordim.column.Sink.append` takes them."""

    streams: list[Stream]
    rows: npt.NDArray[np.int64]
    moments: npt.NDArray[np.float64]


class Counters:
    """Counts tensors by stream; a stream is made when its first tensor is seen.

    Parameters
    ----------
    axis_of : callable
        Returns the axis for the name of a stream.
    declare : callable
        Is told of each new stream before its first column is taken.
    """

    def __init__(self, axis_of: Callable[[str], Axis], declare: Callable[[Stream], None]) -> None:
        self._axis_of = axis_of
        self._declare = declare
        self._slots: dict[str, _Slot] = {}

    def count(self, name: str, tensor: Tensor, module: str, arguments: str) -> bool:
        """Add all elements of `tensor` to the stream `name`.

        Returns
        -------
        bool
            False if the tensor has no values that could be read.
        """
        slot = self._slots.get(name)
        if slot is None:
            slot = _Slot(self._new_stream(name, tensor, module, arguments))
        device = tensor.device
        row = slot.rows.get(device)
        if row is None:
            row = Row.new(slot.stream.axis, device)
        try:
            if not bin_into(tensor, slot.stream.axis, row):
                return False
        except BaseException:
            slot.clear()  # half a tensor in the row would break the sum rule
            raise
        if name not in self._slots:
            self._declare(slot.stream)
            self._slots[name] = slot
        slot.rows[device] = row
        slot.calls += 1
        return True

    def take(self) -> Columns:
        """Return what was counted since the last time, and start again from nothing."""
        fired = [slot for slot in self._slots.values() if slot.calls]
        if not fired:
            return Columns([], np.zeros(0, np.int64), np.zeros((0, len(MOMENTS))))
        parts = [slot.peek() for slot in fired]
        rows = np.concatenate([counts for counts, _ in parts])
        moments = np.concatenate([moments for _, moments in parts]).reshape(-1, len(MOMENTS))
        for slot in fired:
            slot.clear()
        return Columns([slot.stream for slot in fired], rows, moments)

    def clear(self) -> None:
        """Forget what was counted since the last time."""
        for slot in self._slots.values():
            if slot.calls:
                slot.clear()

    def _new_stream(self, name: str, tensor: Tensor, module: str, arguments: str) -> Stream:
        number = len(self._slots)
        return Stream(
            id=number,
            name=name,
            kind="activation",
            module=module,
            arguments=arguments,
            shape=_shape(tensor),
            order=number,
            axis=self._axis_of(name),
        )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    if tensor.is_nested:  # ragged: only the number of its parts is one number
        return (tensor.size(0),)
    return tuple(int(size) for size in tensor.shape)
