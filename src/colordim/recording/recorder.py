"""The only long-lived mutable state: windows are opened and closed here, and columns handed on."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from colordim.axis import Axis
from colordim.column import PHASES, Batch, Phase, Sink, Stream
from colordim.errors import ArgumentError, RecordingError
from colordim.recording import compiled
from colordim.recording.counters import Columns, Counters
from colordim.recording.hooks import OutputHook, root_hooks
from colordim.recording.notices import Notices
from colordim.recording.outputs import is_countable, tensors
from colordim.recording.select import Target, roots
from colordim.recording.window import Clock, Window, as_numbers

__all__ = ["Recorder"]


@dataclass
class _Call:
    """An outermost call of the model that is under way."""

    module: nn.Module | None
    """The root that was called; None inside a compiled graph, which has neither modules nor frames."""
    frame: FrameType | None
    thread: int
    handled: BaseException | None
    """What was being handled when the call began, to tell it from an exception of the call."""
    depth: int = 1


class Recorder:
    """Counts what the chosen layers of a model return, batch by batch, into a sink.

    Only what happens inside a window is counted. Windows are explicit, by :meth:`begin`,
    :meth:`commit` and :meth:`discard`; until the first of these, each outermost call of the model
    is a window of its own: of phase ``train`` in training mode with gradients, ``valid`` in
    evaluation mode, and none in training mode without gradients. A closed batch is handed to the
    sink when the next one opens, so that what is logged after the forward pass still belongs to it.

    Parameters
    ----------
    model : Module
    targets : sequence of Target
        The modules to record.
    sink : Sink
    axis_of : callable
        Returns the axis for the name of a stream.
    every : int
        Record every n-th batch of each phase.
    optimizers : iterable of Optimizer
        Their steps are counted; without any, each training batch counts as a step.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Iterable[Target],
        sink: Sink,
        axis_of: Callable[[str], Axis],
        *,
        every: int = 1,
        optimizers: Iterable[torch.optim.Optimizer] = (),
    ) -> None:
        self.notices = Notices()
        self._model: nn.Module | None = model
        self._is_compiled = compiled.is_compiled(model)
        self._targets = list(targets)
        self._layers = [(t.name, type(t.module).__name__, t.module.extra_repr()) for t in self._targets]
        self._optimizers = list(optimizers)
        self._sink = sink
        self._counters = Counters(axis_of, self._declare)
        self._clock = Clock(every)
        self._lock = threading.RLock()
        self._process = os.getpid()
        self._handles: list[Any] = []
        self._disabled: set[int] = set()
        self._explicit = False
        self._counting = False
        self._window: Window | None = None
        self._closed: tuple[Batch, Columns] | None = None
        self._early: dict[str, object] = {}
        self._call: _Call | None = None

    def attach(self) -> None:
        """Register the hooks."""
        if self._model is None or self._handles:
            raise RecordingError("this recording is used up: begin another with colordim.record(...).")
        for number, target in enumerate(self._targets):
            hook = OutputHook(self, number, compiled.connect(target.module, self, number))
            self._handles.append(target.module.register_forward_hook(hook))
        untraced = False
        for root in roots(self._model):  # from the outside in: what a compiled wrapper wraps is compiled as well
            untraced = untraced or compiled.is_compiled_itself(root)
            enter, leave = root_hooks(self, compiled.connect(root, self, 0), untraced)
            self._handles.append(root.register_forward_pre_hook(enter, prepend=True))
            self._handles.append(root.register_forward_hook(leave, always_call=True))
        if self._optimizers:
            self._clock.steps = 0
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_post_hook(self._on_step))

    def detach(self, reason: str = "stopped") -> None:
        """Remove all hooks, hand on the last batch, and close the sink; a second call does nothing."""
        if self._model is None or not self._here():
            return
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        compiled.disconnect(self)
        self._model = None
        self._targets.clear()
        self._optimizers.clear()
        if self._call is not None and not self._explicit:
            self.discard()  # a call that never came to its end
        self._call = None
        with self._lock:
            self._close_window()
            self._hand_on()
        if not self._clock.batches:
            self.notices.say(
                "nothing",
                "Nothing was recorded: the model itself was never called in training mode with gradients or in "
                "evaluation mode; "
                + self._way_out('put the batches into `with rec.batch("train"):`, or record the module that is called')
                + ".",
            )
        self._sink.close(reason)

    def begin(self, phase: Phase) -> None:
        """Open a window; from the first one on, calls of the model open none by themselves.

        Raises
        ------
        ArgumentError
            If there is no such phase.
        RecordingError
            If an explicit window is open.
        """
        if phase not in PHASES:
            raise ArgumentError(f"{phase!r} is not a phase: take one of {', '.join(map(repr, PHASES))}.")
        if self._explicit and self._window is not None:
            raise RecordingError("a batch is open already: windows do not nest, so close that one first.")
        if not self._here():
            return
        with self._lock:
            self._explicit = True
            self._open(phase)
            self._counting = self._window is not None and self._window.recorded

    def commit(self) -> None:
        """Close the explicit window and keep its batch."""
        if self._here():
            with self._lock:
                self._close_window()

    def discard(self) -> None:
        """Close the window and forget what was counted in it."""
        if self._here():
            with self._lock:
                self._counting = False
                self._window = None
                self._counters.clear()

    def epoch(self) -> None:
        """Begin a new epoch with the next batch."""
        if not self._here():
            return
        with self._lock:
            if not self._explicit:
                self._close_window()
            self._hand_on()
            self._clock.epoch()

    def log(self, values: dict[str, object]) -> None:
        """Log numbers with the batch that is open, or else with the last one."""
        if not self._here():
            return
        with self._lock:
            if self._window is None and self._closed is None:
                self._early.update(values)
                return
            numbers, refused = as_numbers(values)
            for sentence in refused:
                self.notices.say(f"log:{sentence}", f"Not logged: {sentence}")
            if self._window is not None:
                self._window.values.update(numbers)
            elif self._closed is not None:
                batch, columns = self._closed
                self._closed = (batch.with_values(numbers), columns)

    def observe(self, name: str, tensor: Any) -> None:
        """Count a tensor that no hook sees, as a stream of its own."""
        if self._counting and self._here():
            value = tensor if isinstance(tensor, Tensor) else torch.as_tensor(tensor)
            try:
                self._count(name, value, "", "")
            except Exception as error:
                self._failed(name, None, error)

    def flush(self) -> None:
        """Make everything up to the last closed batch readable."""
        if self._here():
            with self._lock:
                if self._window is None:
                    self._hand_on()
            self._sink.flush()

    # Called by the hooks.

    def on_output(self, layer: int, output: Any) -> None:
        if self._counts(layer):
            try:
                if isinstance(output, Tensor):  # as nearly always: no need to walk
                    self._count_output(layer, "", output)
                else:
                    for suffix, tensor in tensors(output):
                        self._count_output(layer, suffix, tensor)
            except Exception as error:
                self._failed(self._layers[layer][0], layer, error)

    def on_tensor(self, layer: int, suffix: str, tensor: Tensor) -> None:
        if self._counts(layer):
            try:
                self._count_output(layer, suffix, tensor)
            except Exception as error:
                self._failed(self._layers[layer][0], layer, error)

    def on_root_enter(self, module: nn.Module) -> None:
        if self._explicit or _replaying() or not self._here() or self._inside_call(module):
            return
        self._call = _Call(module, _calling_frame(), threading.get_ident(), sys.exc_info()[1])
        self._open_for_call(module.training, torch.is_grad_enabled())

    def on_compiled_enter(self, training: bool, gradients: bool) -> None:
        if self._explicit or not self._here() or (self._call is not None and self._call.module is not None):
            return
        if self._call is not None:  # a compiled call before this one that ended in an exception
            self.discard()
        self._call = _Call(None, None, threading.get_ident(), None)
        self._open_for_call(training, gradients)

    def on_compiled_exit(self) -> None:
        if self._call is not None and self._call.module is None:
            self._call = None
            self._counting = self._counting and self._explicit

    def on_root_exit(self, module: nn.Module) -> None:
        call = self._call
        if call is None or module is not call.module or threading.get_ident() != call.thread:
            return
        call.depth -= 1
        if call.depth or not self._here():
            return
        self._call = None
        if self._explicit:
            return
        self._counting = False
        error = sys.exc_info()[1]
        if error is not None and error is not call.handled:
            self.discard()

    # Windows.

    def _open_for_call(self, training: bool, gradients: bool) -> None:
        if training and not gradients:
            return
        with self._lock:
            self._open("train" if training else "valid")
            self._counting = self._window is not None and self._window.recorded

    def _open(self, phase: Phase) -> None:
        self._close_window()
        self._hand_on()
        self._counters.clear()
        self._window = self._clock.open(phase)
        if self._early:
            early, self._early = self._early, {}
            self.log(early)

    def _close_window(self) -> None:
        self._counting = False
        if self._window is not None:
            self._hand_on()
            batch, columns = self._clock.close(self._window), self._counters.take()
            self._closed = batch, columns
            self._window = None
            if batch.recorded and not columns.streams:
                self.notices.say(
                    "unfired",
                    f"No recorded layer ran in {batch.phase} batch {batch.index}: {self._way_out('choose layers that are called')}.",
                )

    def _hand_on(self) -> None:
        if self._closed is not None:
            batch, columns = self._closed
            self._closed = None
            self._sink.append(batch, columns.streams, columns.rows, columns.moments)

    # Counting.

    def _counts(self, layer: int) -> bool:
        """Whether what a layer returns now belongs to the batch that is open."""
        if not self._counting:
            if (self._window if self._explicit else self._call) is None:
                self._fired_outside(layer)
            return False
        return layer not in self._disabled and self._here() and not _replaying()

    def _count_output(self, layer: int, suffix: str, tensor: Tensor) -> None:
        if is_countable(tensor):
            name, module, arguments = self._layers[layer]
            self._count(name + suffix, tensor, module, arguments)

    def _count(self, name: str, tensor: Tensor, module: str, arguments: str) -> None:
        with self._lock:
            if not self._counters.count(name, tensor, module, arguments):
                self.notices.say(
                    f"unreadable:{name}",
                    f"{name!r} is not recorded: its values cannot be read here "
                    f"({type(tensor).__name__} of {tensor.dtype} on {tensor.device}).",
                )

    def _failed(self, name: str, layer: int | None, error: Exception) -> None:
        if layer is not None:
            self._disabled.add(layer)
        self.notices.say(
            f"failed:{name}",
            f"{name!r} is no longer recorded, because counting it failed ({type(error).__name__}: {error}); "
            "training goes on.",
        )

    def _declare(self, stream: Stream) -> None:
        self._sink.declare(stream)

    def _fired_outside(self, layer: int) -> None:
        if not self._here() or _replaying():
            return
        name = self._layers[layer][0]
        way_out = (
            'put it into `with rec.batch("train"):` or `with rec.batch("valid"):` if it belongs to the training'
            if self._explicit
            else 'call the recorded model itself, or put the batch into `with rec.batch("train"):`'
        )
        self.notices.say("outside", f"{name!r} ran outside of a batch and was not counted: {way_out}.")

    def _way_out(self, otherwise: str) -> str:
        if not self._is_compiled:
            return otherwise
        return (
            "the model was compiled and called before, and torch ignores hooks that are added after that: "
            "begin recording before the first call, or call torch._dynamo.reset() after record(...)"
        )

    def _on_step(self, *_: object) -> None:
        if self._here() and self._clock.steps is not None:
            self._clock.steps += 1

    def _here(self) -> bool:
        """Whether this is the process that records; forked workers inherit the hooks."""
        return os.getpid() == self._process

    def _inside_call(self, module: nn.Module) -> bool:
        """Whether an outermost call of the model is under way, so that this one is inside it."""
        call = self._call
        if call is None:
            return False
        if threading.get_ident() != call.thread:
            return True  # a replica in a thread of its own
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if frame is call.frame:
                call.depth += module is call.module
                return True
            frame = frame.f_back
        # That call was left by an exception that runs no hooks (KeyboardInterrupt): its batch is void.
        self._call = None
        self.discard()
        return False


def _calling_frame() -> FrameType | None:
    """Return the frame in which torch calls the hooks of a module; it lives until the call of the module ends."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "torch.nn.modules.module":
        frame = frame.f_back
    return frame


def _replaying() -> bool:
    """Whether modules run for another purpose than a forward pass: recomputed in backward, traced, exported."""
    return torch.compiler.is_compiling() or torch._C._current_graph_task_id() != -1 or torch._C._is_tracing()
