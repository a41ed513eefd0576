"""The rows of all streams, filled during a batch and taken out at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from colordim.axis import Axis
from colordim.binning import Row, bin_into
from colordim.binning.rows import no_moments
from colordim.column import MOMENTS, Stream
from colordim.recording.transport import Transport

__all__ = ["Columns", "Counters", "Staged", "Taken"]


@dataclass
class _Slot:
    stream: Stream
    rows: dict[torch.device, Row] = field(default_factory=dict)
    fired: bool = False

    def clear(self) -> None:
        self.fired = False
        for row in self.rows.values():
            row.clear()


@dataclass(frozen=True)
class Columns:
    """The columns of one batch, as :meth:`colordim.column.Sink.append` takes them."""

    streams: list[Stream]
    rows: npt.NDArray[np.int64]
    moments: npt.NDArray[np.float64]

    @classmethod
    def together(cls, parts: Sequence[Columns]) -> Columns:
        """Return the columns of several devices as those of one batch: by ascending id, added over the devices."""
        if len(parts) == 1 and len({stream.id for stream in parts[0].streams}) == len(parts[0].streams):
            return parts[0]
        if not parts:  # a batch that was passed over
            return cls([], np.zeros(0, np.int64), np.zeros((0, len(MOMENTS))))
        found: dict[int, list[tuple[Stream, npt.NDArray[np.int64], npt.NDArray[np.float64]]]] = {}
        for part in parts:
            ends = np.cumsum([stream.width for stream in part.streams], dtype=np.int64)
            rows = np.split(part.rows, ends[:-1]) if part.streams else []
            for stream, row, moments in zip(part.streams, rows, part.moments, strict=True):
                found.setdefault(stream.id, []).append((stream, row, moments))
        same = [found[number] for number in sorted(found)]
        return cls(
            [each[0][0] for each in same],
            np.concatenate([np.sum([row for _, row, _ in each], axis=0) for each in same] or [np.zeros(0, np.int64)]),
            np.array([_add([moments for _, _, moments in each]) for each in same]).reshape(-1, len(MOMENTS)),
        )


@dataclass(frozen=True)
class Staged:
    """The columns of one batch on one device; nothing changes them any more."""

    streams: list[Stream]
    counts: Tensor
    moments: Tensor


@dataclass(frozen=True)
class Taken:
    """What was counted in one batch, by where it is."""

    host: list[Columns]
    staged: list[Staged]

    @property
    def empty(self) -> bool:
        """Whether no stream has a column."""
        return not self.staged and not any(columns.streams for columns in self.host)


class Counters:
    """Counts tensors by stream; a stream is made when its first tensor is seen.

    Parameters
    ----------
    axis_of : callable
        Returns the axis for the name of a stream.
    declare : callable
        Is told of each new stream before its first column is taken.
    transport : Transport
        Knows which rows are on a device.
    """

    def __init__(self, axis_of: Callable[[str], Axis], declare: Callable[[Stream], None], transport: Transport) -> None:
        self._axis_of = axis_of
        self._declare = declare
        self._transport = transport
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
        if not tensor.is_cpu:
            self._transport.enter(device)
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
        row.add_call()
        slot.fired = True
        return True

    def take(self) -> Taken:
        """Return what was counted since the last time, and start again from nothing; rows of a device stay there."""
        fired = [slot for slot in self._slots.values() if slot.fired]
        host: list[tuple[Stream, Row]] = []
        on_devices: dict[torch.device, list[tuple[Stream, Row]]] = {}
        for slot in fired:
            slot.fired = False
            for row in slot.rows.values():
                if self._transport.is_device(row.counts):
                    on_devices.setdefault(row.counts.device, []).append((slot.stream, row))
                else:
                    host.append((slot.stream, row))
        try:
            staged = [self._stage(device, rows) for device, rows in on_devices.items()]
            return Taken(_take(host), staged)
        except BaseException:
            for slot in fired:
                with contextlib.suppress(Exception):  # of the device that failed before
                    slot.clear()
            raise

    def clear(self) -> None:
        """Forget what was counted since the last time."""
        for slot in self._slots.values():
            if slot.fired:
                with contextlib.suppress(Exception):  # of a device that is out of order: its own error is on the way
                    slot.clear()

    def _stage(self, device: torch.device, rows: list[tuple[Stream, Row]]) -> Staged:
        self._transport.enter(device)
        counts, moments = [row.counts for _, row in rows], [row.moments for _, row in rows]
        with torch.no_grad():
            staged = Staged([stream for stream, _ in rows], torch.cat(counts), torch.stack(moments))
            torch._foreach_zero_(counts)
            torch._foreach_copy_(moments, [no_moments(device)] * len(moments))
        return staged

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


def _take(rows: list[tuple[Stream, Row]]) -> list[Columns]:
    """Return the columns of rows on the host, where a stream may have several, and clear them."""
    if not rows:
        return []
    parts = [row.peek() for _, row in rows]
    columns = Columns(
        [stream for stream, _ in rows],
        np.concatenate([counts for counts, _ in parts]),
        np.concatenate([moments for _, moments in parts]).reshape(-1, len(MOMENTS)),
    )
    for _, row in rows:
        row.clear()
    return [columns]


def _add(moments: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    sums = np.stack(moments)
    return np.array([sums[:, 0].sum(), sums[:, 1].sum(), sums[:, 2].min(), sums[:, 3].max()])
