"""Batches, epochs and steps as a recording numbers them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from colordim.column import PHASES, Batch, Phase, Position

__all__ = ["Clock", "Window"]


@dataclass(slots=True)
class Window:
    """A batch from its opening on: what is counted and logged while it is open belongs to it."""

    phase: Phase
    index: int
    epoch: int
    recorded: bool
    values: dict[str, float | Tensor] = field(default_factory=dict)
    """Numbers; those of a device as tensors of their own, to be read when they can be without waiting."""
    nth: int = 0
    """Number of the recorded batch within its phase, as far as the interval has stayed the same."""
    number: int = -1
    step: int = 0
    time: float = 0.0

    def batch(self, values: Mapping[str, float]) -> Batch:
        """Return the closed batch, with `values` in place of its own."""
        return Batch(self.number, self.index, self.phase, self.epoch, self.step, self.time, self.recorded, values)


_START = Position()


class Clock:
    """Hands out the numbers of batches.

    Epochs are told by :meth:`epoch`, or inferred until its first call: a training batch after
    validation batches begins a new epoch.

    Parameters
    ----------
    every : int
        Every how many batches of a phase one is recorded.
    position : Position
        Where the recording goes on.
    """

    def __init__(self, every: int = 1, position: Position = _START) -> None:
        self.every = every
        self._batches = position.batch
        self._index: dict[Phase, int] = dict(position.index)
        self._epoch = position.epoch
        self._epochs_told = position.told
        self._phases_in_epoch: set[Phase] = set(position.seen)
        # A loop that tells epochs tells the one again in the middle of which it goes on.
        self._goes_on = position.within
        self.steps: int | None = None

    def epoch(self) -> None:
        """Begin a new epoch, unless no batch was seen since the last began, or since it goes on after a resume."""
        self._epochs_told = True
        if not self._goes_on:
            self._next_epoch()

    def state(self, window: Window | None) -> dict[str, Any]:
        """Return what tells the position, in JSON types; `window`, if one is open, counts as closed."""
        index: dict[str, Any] = {phase: self._index[phase] for phase in PHASES}
        seen = set(self._phases_in_epoch)
        if window is not None:
            index[window.phase] += 1
            seen.add(window.phase)
        return {
            **index,
            "epoch": self._epoch,
            "step": index["train"] if self.steps is None else self.steps,
            "seen": sorted(seen),
            "told": self._epochs_told,
        }

    def open(self, phase: Phase) -> Window:
        """Return the window of the next batch; it counts as a batch once it is closed."""
        if phase == "train" and not self._epochs_told and len(self._phases_in_epoch) == len(PHASES):
            self._next_epoch()
        index = self._index[phase]
        return Window(phase, index, self._epoch, recorded=index % self.every == 0, nth=index // self.every)

    def close(self, window: Window) -> None:
        """Give a window, which has become a batch, its number."""
        window.number = self._batches
        self._batches += 1
        self._index[window.phase] += 1
        self._phases_in_epoch.add(window.phase)
        self._goes_on = False
        # Without an optimiser to listen to, every training batch is taken for a step.
        window.step = self._index["train"] if self.steps is None else self.steps
        window.time = time.time()

    @property
    def batches(self) -> int:
        """Number of batches closed so far."""
        return self._batches

    @property
    def current(self) -> int:
        """Number of the epoch."""
        return self._epoch

    def _next_epoch(self) -> None:
        if self._phases_in_epoch:
            self._epoch += 1
            self._phases_in_epoch.clear()


#: Names that a batch has of its own, so that nothing can be logged under them.
RESERVED = frozenset({*Batch.__dataclass_fields__, "recording_s", "step_s"})


def as_number(name: str, value: object, is_device: Callable[[Tensor], bool]) -> float | Tensor:
    """Return what was logged as a float, or as a float64 tensor without dimensions on the device that it is on.

    Raises
    ------
    ValueError
        If the name is a batch's own or the value is not one number; the message is for the user.
    """
    if name in RESERVED:
        raise ValueError(f"{name!r} is a column of every batch and cannot be logged: choose another name.")
    size = getattr(value, "numel", None) or getattr(value, "size", 1)
    count = size() if callable(size) else size
    if count != 1:
        raise ValueError(f"{name!r} has {count} values where one is logged per batch: log its mean.")
    if type(value) in (Tensor, torch.nn.Parameter) and _can_wait(value, is_device):  # type: ignore[arg-type]
        # A copy: a running sum is logged and then added to.
        return value.detach().reshape(()).to(torch.float64, copy=True)  # type: ignore[attr-defined,no-any-return]
    try:
        return float(value.item() if hasattr(value, "item") else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(f"{name!r} is a {type(value).__name__}, not a number: log a number.") from None


def _can_wait(value: Tensor, is_device: Callable[[Tensor], bool]) -> bool:
    return is_device(value) and value.layout is torch.strided and not value.is_complex() and not value.is_quantized


def as_numbers(
    values: Mapping[str, object], is_device: Callable[[Tensor], bool]
) -> tuple[dict[str, float | Tensor], list[str]]:
    """Return the numbers among `values`, and a sentence for each that is none."""
    numbers: dict[str, float | Tensor] = {}
    refused: list[str] = []
    for name, value in values.items():
        try:
            numbers[name] = as_number(name, value, is_device)
        except ValueError as error:
            refused.append(str(error))
    return numbers, refused
