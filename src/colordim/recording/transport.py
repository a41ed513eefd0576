"""How numbers leave a device: copied into pinned memory behind the training's own work, and never waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["DeviceTransport", "Transfer", "Transport", "is_capturing"]

# Their tensors are counted on the CPU, so that nothing has to be fetched: there is no float64 on MPS.
_HOSTS = frozenset({"cpu", "mps", "meta"})


class Transfer(Protocol):
    """Copies to the host that are under way."""

    def done(self) -> bool:
        """Return whether all copies have arrived, without waiting."""

    def wait(self) -> list[npt.NDArray[Any]]:
        """Return the copies as arrays of their own, in the order of the tensors, once they have arrived."""


class Transport(Protocol):
    """What the recorder asks about devices; tests put one of their own in its place."""

    def is_device(self, tensor: Tensor) -> bool:
        """Return whether reading the tensor would make the host wait."""

    def enter(self, device: torch.device) -> None:
        """Take note that counters on a device are about to be used by the work that is launched now."""

    def begin(self, tensors: Sequence[Tensor]) -> Transfer:
        """Begin to copy tensors to the host; they must not change any more."""


def is_capturing() -> bool:
    """Return whether what is launched now only becomes part of a CUDA graph."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()  # type: ignore[no-untyped-call]


class DeviceTransport:
    """The transport of CUDA devices; for devices of other makers it waits."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def is_device(self, tensor: Tensor) -> bool:
        return tensor.device.type not in _HOSTS

    def enter(self, device: torch.device) -> None:
        # Where a model runs on several streams, ours is the only memory that they share without its knowing.
        if device.type != "cuda" or is_capturing():
            return
        stream = torch.cuda.current_stream(device)
        last = self._streams.get(device)
        if last is not None and last != stream:
            stream.wait_stream(last)
        self._streams[device] = stream

    def begin(self, tensors: Sequence[Tensor]) -> Transfer:
        transfer = _Copies(len(tensors))
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for number, tensor in enumerate(tensors):
            groups.setdefault((tensor.device, tensor.dtype), []).append(number)
        for (device, _), numbers in groups.items():
            self.enter(device)
            transfer.add(numbers, [tensors[number] for number in numbers], device)
        return transfer


class _Copies:
    """Copies of many small tensors, one for each device and dtype."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._parts: list[tuple[list[int], list[torch.Size], Tensor, Tensor]] = []
        self._events: list[torch.cuda.Event] = []

    def add(self, numbers: list[int], tensors: list[Tensor], device: torch.device) -> None:
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        if device.type == "cuda":
            # torch keeps pinned memory for the next time, since getting it from the system takes long.
            host = torch.empty(together.shape, dtype=together.dtype, device="cpu", pin_memory=True)
            host.copy_(together, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(device))
            self._events.append(event)
        else:
            host = together.cpu()
        # The source is kept until it has been read: its memory belongs to the stream that it was made on.
        self._parts.append((numbers, [tensor.shape for tensor in tensors], together, host))

    def done(self) -> bool:
        if self._events and is_capturing():  # asking would spoil the capture
            return False
        return all(event.query() for event in self._events)  # type: ignore[no-untyped-call]

    def wait(self) -> list[npt.NDArray[Any]]:
        for event in self._events:
            event.synchronize()
        arrays: list[npt.NDArray[Any]] = [np.empty(0)] * self._number
        for numbers, shapes, _, host in self._parts:
            flat, start = host.numpy(), 0
            for number, shape in zip(numbers, shapes, strict=True):
                stop = start + shape.numel()
                arrays[number] = flat[start:stop].reshape(shape).copy()  # pinned memory is scarce
                start = stop
        return arrays
