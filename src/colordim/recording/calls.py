"""Calls of the model: which one is outermost, and which are no forward passes at all."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import FrameType

import torch
from torch import nn

from colordim.recording.transport import is_capturing

__all__ = ["Call", "calling_frame", "recomputing", "replaying"]


# Looked up once, since every hook asks.
_graph_task = torch._C._current_graph_task_id
_is_tracing = torch._C._is_tracing


@dataclass
class Call:
    """An outermost call of the model that is under way."""

    module: nn.Module | None
    """The root that was called; None inside a compiled graph, which has neither modules nor frames."""
    frame: FrameType | None
    thread: int
    handled: BaseException | None
    """What was being handled when the call began, to tell it from an exception of the call."""
    depth: int = 1


def calling_frame() -> FrameType | None:
    """Return the frame in which torch calls the hooks of a module; it lives until the call of the module ends."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "torch.nn.modules.module":
        frame = frame.f_back
    return frame


def replaying() -> bool:
    """Whether modules run for another purpose than a forward pass: recomputed in backward, traced, captured."""
    return _graph_task() != -1 or _is_tracing() or is_capturing()


def recomputing() -> bool:
    """Whether a checkpoint runs a part of the forward pass once more; the hook of a gradient is no part of it."""
    if torch._C._current_graph_task_id() == -1:
        return False
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        where = frame.f_globals.get("__name__")
        if where in ("torch.utils.checkpoint", "torch.autograd.graph"):  # the latter runs backward, and its hooks
            return bool(where == "torch.utils.checkpoint")
        frame = frame.f_back
    return False
