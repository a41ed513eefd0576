"""The rows of all streams, filled during a batch and taken out at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from colordim.axis import Axis, SignedLogAxis
from colordim.binning import Row, bin_into
from colordim.binning.rows import no_moments
from colordim.column import MOMENTS, NO_MOMENTS, Facet, Kind, Reduction, Stream
from colordim.errors import ArgumentError
from colordim.recording.transport import Transport
from colordim.recording.units import Judged

__all__ = ["Columns", "Counters", "Staged", "Taken"]


@dataclass(slots=True, eq=False)
class _Slot:
    """A stream and its rows: one on the host, one on each device that it was ever on."""

    stream: Stream
    host: Row | None = None
    devices: dict[torch.device, Row] = field(default_factory=dict)
    fired: bool = False

    def clear(self) -> None:
        self.fired = False
        if self.host is not None:
            self.host.clear()
        for row in self.devices.values():
            with contextlib.suppress(Exception):  # of a device that is out of order: its own error is on the way
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
        if not parts:  # a batch that was passed over
            return _NO_COLUMNS
        if len(parts) == 1 and len({stream.id for stream in parts[0].streams}) == len(parts[0].streams):
            return parts[0]
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


# Ranges are those of activations: gradients and updates are smaller by orders of magnitude.
_ANY_MAGNITUDE = SignedLogAxis()

_NO_COLUMNS = Columns([], np.zeros(0, np.int64), np.zeros((0, len(MOMENTS))))


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
    units: list[Judged] = field(default_factory=list)

    def kept(self) -> Taken:
        """Return the same with columns of its own instead of lent ones."""
        return Taken([Columns(c.streams, c.rows.copy(), c.moments.copy()) for c in self.host], self.staged, self.units)

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
    known : sequence of Stream
        Those that were declared before, by id: of a run that is gone on with.
    """

    def __init__(
        self,
        axis_of: Callable[[str], Axis],
        declare: Callable[[Stream], None],
        transport: Transport,
        known: Sequence[Stream] = (),
    ) -> None:
        self._axis_of = axis_of
        self._declare = declare
        self._transport = transport
        self._slots: dict[object, _Slot] = {}
        self._declared: dict[object, Stream] = {_key(stream.kind, stream.name): stream for stream in known}
        self._fired: list[_Slot] = []
        self._arena = _Arena([])
        self._uses_devices = False
        self._moved_in = True  # nobody waits for a place in the arena

    def count(
        self,
        name: str,
        tensor: Tensor,
        module: str,
        arguments: str,
        kind: Kind = "activation",
        reduction: Reduction = "sum",
        facet: Facet | None = None,
        order: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> bool:
        """Add all elements of `tensor` to a stream.

        Parameters
        ----------
        name, module, arguments, kind, reduction, facet, order, shape
            Of the stream; see :class:`colordim.column.Stream`. By default it follows those that there are, and has
            the shape of the tensor.
        tensor : Tensor

        Returns
        -------
        bool
            False if the tensor has no values that could be read.
        """
        key = name if kind == "activation" else (kind, name)
        slot = self._slots.get(key)
        if slot is None:
            stream = self._declared.get(key)
            if stream is None:
                number = len(self._declared)
                shape, order = _shape(tensor) if shape is None else shape, number if order is None else order
                whole = name if facet is None else facet.of
                axis = self._axis_of(whole) if kind == "activation" else _ANY_MAGNITUDE
                stream = Stream(number, name, kind, module, arguments, shape, order, axis, reduction, facet)
            elif (stream.facet is None) != (facet is None):
                raise ArgumentError(
                    f"the run that is resumed has a stream {name!r} that is {'no' if stream.facet is None else 'a'} facet: "
                    "resume with the same facets=",
                    page="facets",
                )
            slot = _Slot(stream)
        row = slot.host if tensor.is_cpu else None
        if row is None:
            row = self._row(slot, tensor.device)
        try:
            if not bin_into(tensor, slot.stream.axis, row):
                return False
        except BaseException:
            self._forget(slot)  # half a tensor in the row would break the sum rule
            raise
        if not slot.fired:
            if key not in self._slots:
                if key not in self._declared:
                    self._declare(slot.stream)
                    self._declared[key] = slot.stream
                self._slots[key] = slot
            slot.fired = True
            self._fired.append(slot)
        row.add_call()
        return True

    def has(self, kind: Kind, name: str) -> bool:
        """Return whether there is such a stream."""
        return _key(kind, name) in self._slots

    def forget(self, kind: Kind, names: Collection[str]) -> None:
        """Forget what was counted of these streams since the last :meth:`clear`."""
        for slot in [slot for slot in self._fired if slot.stream.kind == kind and slot.stream.name in names]:
            self._forget(slot)

    def rows(self, kind: Kind) -> dict[str, list[Row]]:
        """Return what was counted of a kind since the last :meth:`clear`, by the name of the stream; not to be changed."""
        return {
            slot.stream.name: [*([slot.host] if slot.host is not None else []), *slot.devices.values()]
            for slot in self._fired
            if slot.stream.kind == kind
        }

    def take(self) -> Taken:
        """Return what was counted since the last :meth:`clear`, to be called next.

        What was counted on the host is only lent until then; what was counted on a device is copied there.
        """
        fired = self._fired
        on_devices: dict[torch.device, list[tuple[Stream, Row]]] = {}
        if self._uses_devices:
            on_host = []
            for slot in sorted(fired, key=lambda slot: slot.stream.id):
                if slot.host is not None and not self._transport.is_device(slot.host.counts):
                    on_host.append(slot)
                elif slot.host is not None:
                    on_devices.setdefault(slot.host.counts.device, []).append((slot.stream, slot.host))
                for row in slot.devices.values():
                    on_devices.setdefault(row.counts.device, []).append((slot.stream, row))
            fired = on_host
        staged = [self._stage(device, rows) for device, rows in on_devices.items()]
        return Taken([self._arena.columns(fired)] if fired else [], staged)

    def stream(self, name: str) -> Stream | None:
        """Return the stream of the activations of that name, if it has been declared."""
        slot = self._slots.get(name)
        return None if slot is None else slot.stream

    def clear(self) -> None:
        """Start again from nothing."""
        arena, fired = self._arena, self._fired
        if len(fired) == len(arena.slots) and not self._uses_devices:
            arena.clear()
            for slot in fired:
                slot.fired = False
        else:
            for slot in fired:
                slot.clear()
        fired.clear()
        if not self._moved_in:
            self._arena = _Arena(sorted(self._slots.values(), key=lambda slot: slot.stream.id))
            self._moved_in = True

    def _forget(self, slot: _Slot) -> None:
        """Forget what was counted of a stream, and of its facets, which add up to it."""
        kind, name = slot.stream.kind, slot.stream.name
        for each in [slot, *self._fired]:
            stream = each.stream
            if each is slot or (stream.facet is not None and stream.facet.of == name and stream.kind == kind):
                each.clear()
        self._fired = [each for each in self._fired if each.fired]

    def _row(self, slot: _Slot, device: torch.device) -> Row:
        on_host = device.type in ("cpu", "mps")  # MPS has no float64: counted on the host
        if not on_host:
            self._transport.enter(device)
        row = slot.host if on_host else slot.devices.get(device)
        if row is None:
            row = Row.new(slot.stream.axis, device)
            self._uses_devices |= self._transport.is_device(row.counts)
            if on_host:
                slot.host = row
                self._moved_in = False
            else:
                slot.devices[device] = row
        return row

    def _stage(self, device: torch.device, rows: list[tuple[Stream, Row]]) -> Staged:
        self._transport.enter(device)
        counts, moments = [row.counts for _, row in rows], [row.moments for _, row in rows]
        with torch.no_grad():
            staged = Staged([stream for stream, _ in rows], torch.cat(counts), torch.stack(moments))
            torch._foreach_zero_(counts)
            torch._foreach_copy_(moments, [no_moments(device)] * len(moments))
        return staged


class _Arena:
    """Memory in which the host's rows of all streams lie one after the other, so that a batch is one array.

    Parameters
    ----------
    slots : list of _Slot
        By the id of their streams; those with a row on the host, which is empty, get one here in its place.
    """

    def __init__(self, slots: list[_Slot]) -> None:
        self.slots = [slot for slot in slots if slot.host is not None]
        self._streams = [slot.stream for slot in self.slots]
        axes = [stream.axis for stream in self._streams]
        rows, counts, moments = Row.together(axes)
        self._counts, self._moments = counts, moments
        for slot, row in zip(self.slots, rows, strict=True):
            slot.host = row

    def columns(self, fired: list[_Slot]) -> Columns:
        """Return the columns of streams that have a row on the host; those of all of them are only lent."""
        if len(fired) == len(self.slots) and all(slot.fired for slot in self.slots):
            return Columns(self._streams, self._counts, self._moments)
        fired = sorted(fired, key=lambda slot: slot.stream.id)
        rows = [slot.host.peek() for slot in fired if slot.host is not None]
        return Columns(
            [slot.stream for slot in fired],
            np.concatenate([counts for counts, _ in rows]),
            np.concatenate([moments for _, moments in rows]).reshape(-1, len(MOMENTS)),
        )

    def clear(self) -> None:
        """Set all rows back to nothing counted."""
        self._counts.fill(0)
        self._moments[:] = NO_MOMENTS


def _key(kind: Kind, name: str) -> object:
    return name if kind == "activation" else (kind, name)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    if tensor.is_nested:  # ragged: only the number of its parts is one number
        return (tensor.size(0),)
    return tuple(int(size) for size in tensor.shape)


def _add(moments: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    sums = np.stack(moments)
    return np.array([sums[:, 0].sum(), sums[:, 1].sum(), sums[:, 2].min(), sums[:, 3].max()])
