"""Which units of a layer were active, judged on the activation function that follows it, window by window of batches.

The hooks see an activation function's output, not which layer it belongs to: that is learnt from the first recorded
batch (:mod:`colordim.recording.followers`), so units are judged from the second one on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from colordim.binning.units import mark_active
from colordim.column import PHASES, Phase, Stream

__all__ = ["WINDOW", "Activity", "Judged"]

#: Batches of a window. A power of four, so that windows are columns of a level of the store.
WINDOW = 64
#: Recorded batches after which an unfinished window is handed on as far as it has come.
_UNFINISHED = 16

_Key = tuple[int, torch.device]


@dataclass(frozen=True)
class Judged:
    """What is known of a layer's units in a window; `active` may be on a device, and changes no more.

    Attributes
    ----------
    stream : Stream
        That of the layer.
    judged_on : str
        Name of the stream of the activation function.
    phase : {"train", "valid"}
    first, last : int
        Batches, by their index within the phase.
    active : Tensor of bool, shape ``[units]``
    """

    stream: Stream
    judged_on: str
    phase: Phase
    first: int
    last: int
    active: Tensor


@dataclass
class _Window:
    """The window of a phase that is open."""

    number: tuple[int, int] = (-1, -1)
    first: int = 0
    last: int = 0
    active: dict[_Key, Tensor] = field(default_factory=dict)
    all_active: set[_Key] = field(default_factory=set)
    """Layers whose units are all known to be active: there is nothing left to look for."""
    unsaid: int = 0
    """Batches since it was last handed on."""


class Activity:
    """Marks the units that are active, and hands on what it knows of a window.

    Parameters
    ----------
    names : sequence of str
        Of the recorded layers, by their numbers.
    stream : callable
        Returns the stream of a layer's output by its name, None if there is none.

    Attributes
    ----------
    owners : mapping of int to sequence
        For each activation function that is judged, the layers that its calls in a batch belong to.
    """

    def __init__(self, names: Sequence[str], stream: Callable[[str], Stream | None]) -> None:
        self._names = names
        self._stream = stream
        self.owners: Mapping[int, Sequence[tuple[int, int] | None]] = {}
        self._on: dict[int, int] = {}
        self._calls: dict[int, int] = {}
        self._batch: dict[_Key, Tensor] = {}
        self._all_active: set[_Key] = set()
        self._ran = False
        self._windows: dict[Phase, _Window] = {phase: _Window() for phase in PHASES}

    def learn(self, owners: Mapping[int, Sequence[tuple[int, int] | None]]) -> None:
        """Take the layers that each activation function belongs to, with the dimension of their units, call by call."""
        self.owners = {layer: calls for layer, calls in owners.items() if any(owner is not None for owner in calls)}

    def called(self, layer: int, output: Tensor, phase: Phase) -> None:
        """Mark the active units in the output of an activation function; other layers are passed over."""
        owners = self.owners.get(layer)
        if owners is None:
            return
        call = self._calls.get(layer, 0)
        self._calls[layer] = call + 1
        found = owners[call] if call < len(owners) else owners[-1] if len(set(owners)) == 1 else None
        if found is None or not _has_units(output):
            return
        owner, dim = found
        if not -output.dim() <= dim < output.dim():
            return
        window, key = self._windows[phase], (owner, output.device)
        if key in window.all_active or key in self._all_active:
            self._ran = True
            return
        active = self._batch.get(key)
        if active is None:
            # A copy: a batch that is discarded must leave no mark. What is active already need not be looked at.
            known = window.active.get(key)
            with torch.inference_mode(False), torch.no_grad():
                active = (
                    torch.zeros(output.shape[dim], dtype=torch.bool, device=output.device)
                    if known is None or len(known) != output.shape[dim]
                    else known.clone()
                )
            self._batch[key] = active
            self._on[owner] = layer
        self._ran = True
        if len(active) == output.shape[dim] and mark_active(output.detach(), dim, active):
            self._all_active.add(key)

    def discard(self) -> None:
        """Forget the batch that is open."""
        self._ran = False
        self._calls.clear()
        self._batch.clear()
        self._all_active.clear()

    def close(self, phase: Phase, index: int) -> None:
        """Add the batch that is open to its window; the window must be open."""
        window = self._windows[phase]
        if self._ran:
            window.active.update(self._batch)
            window.all_active |= self._all_active
            window.last = index
            window.unsaid += 1
        self.discard()

    def open(self, phase: Phase, index: int, epoch: int = 0) -> list[Judged]:
        """Begin a batch; return what is known of the window before, if the batch begins another."""
        window = self._windows[phase]
        # A validation pass is short, and is judged by itself.
        number = (index // WINDOW, epoch if phase == "valid" else 0)
        if number == window.number:
            return []
        found = self._told(phase)
        self._windows[phase] = _Window(number, first=index)
        return found

    def due(self, phase: Phase | None) -> list[Judged]:
        """Return what is known of the window of a phase, if it is time to hand it on; of all phases at once if None."""
        if phase is None:
            return [judged for each in PHASES for judged in self._told(each)]
        return self._told(phase) if self._windows[phase].unsaid >= _UNFINISHED else []

    def _told(self, phase: Phase) -> list[Judged]:
        window = self._windows[phase]
        if not window.unsaid:
            return []
        window.unsaid = 0
        found = []
        for (owner, _), active in window.active.items():
            stream = self._stream(self._names[owner])
            if stream is not None:
                judged_on = self._names[self._on[owner]]
                found.append(Judged(stream, judged_on, phase, window.first, window.last, active))
        return found


def _has_units(output: Tensor) -> bool:
    """Whether a tensor holds all units itself: no shard, nothing sparse or ragged."""
    whole = type(output).__torch_dispatch__ is Tensor.__torch_dispatch__
    return whole and output.layout is torch.strided and not output.is_nested
