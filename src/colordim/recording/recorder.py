"""The only long-lived mutable state: windows are opened and closed here, and columns handed on."""

from __future__ import annotations

import sys
import threading
import time
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from colordim.axis import Axis
from colordim.binning import Row
from colordim.binning.tensors import as_tensor
from colordim.column import PHASES, Kind, Phase, Position, Reduction, Sink
from colordim.errors import ArgumentError, RecordingError
from colordim.recording import compiled
from colordim.recording.alarm import Alarm
from colordim.recording.batches import Batches
from colordim.recording.calls import Call, calling_frame, recomputing, replaying
from colordim.recording.counters import Counters
from colordim.recording.delivery import Delivery
from colordim.recording.facets import Facets, Rule
from colordim.recording.first_batch import FirstBatch
from colordim.recording.governor import Governor, Meter
from colordim.recording.gradients import GradientHook, Gradients
from colordim.recording.hooks import OutputHook, root_hooks
from colordim.recording.layers import Layers
from colordim.recording.notices import Notices
from colordim.recording.outputs import tensors
from colordim.recording.parameters import Parameters, replicated
from colordim.recording.process import generation
from colordim.recording.select import Target, roots
from colordim.recording.transport import DeviceTransport, Transport, is_capturing
from colordim.recording.units import Activity
from colordim.recording.watch import worth_a_look
from colordim.recording.window import Clock, Window

__all__ = ["Recorder"]


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
    budget : float, optional
        Share of the training time that recording may cost; the interval is raised until it holds.
    optimizers : iterable of Optimizer
        Their steps are counted; without any, each training batch counts as a step.
    kinds : mapping of str to int
        Every how many recorded batches each kind is recorded.
    scaler : GradScaler, optional
        By whose scale gradients of outputs are divided.
    transport : Transport, optional
        Fetches what was counted on a device.
    first : FirstBatch, optional
        Learns facts of the model from its first recorded batch.
    facets : mapping of str to Rule, optional
        How the outputs of some layers are cut into parts that are counted besides, by the name of the layer.
    position : Position, optional
        Where to go on, in a run that the sink holds already.
    alarm : callable, optional
        Is told the number of each batch in which a stream is not finite for the first time.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Iterable[Target],
        sink: Sink,
        axis_of: Callable[[str], Axis],
        *,
        every: int = 1,
        budget: float | None = None,
        optimizers: Iterable[torch.optim.Optimizer] = (),
        kinds: Mapping[Kind, int] = {"activation": 1},
        scaler: Any = None,
        transport: Transport | None = None,
        first: FirstBatch | None = None,
        facets: Mapping[str, Rule] | None = None,
        position: Position | None = None,
        alarm: Callable[[int], None] | None = None,
    ) -> None:
        self.notices = Notices()
        self.halt: Exception | None = None
        """What the next training batch is to raise instead of being recorded; set by another thread."""
        self._managed = False
        self._position = position = position or Position()
        self._model: nn.Module | None = model
        self._is_compiled = compiled.is_compiled(model)
        targets = list(targets)
        names = [target.name for target in targets]
        self._optimizers = list(optimizers)
        self._sink = sink
        self._transport = transport or DeviceTransport()
        self._counters = Counters(axis_of, sink.declare, self._transport, position.streams)
        self._activity = Activity(names, self._counters.stream)
        self._clock = Clock(every, position)
        self._meter = Meter(Governor(budget), lambda: sink.seconds)
        self._batches = Batches(
            self._counters,
            self._activity,
            Delivery(sink, self._transport, self._lost, look=Alarm(alarm) if alarm else None),
            self._clock,
            self._meter,
            self.notices,
            is_device=self._transport.is_device,
            unfired=self._unfired,
            closing=self._closing,
            lost=self._lost,
            every=every,
        )
        self._lock = threading.RLock()
        parts = Facets(facets, names, self._counters, self.notices) if facets else None
        self._layers = Layers(targets, self._counters, self._activity, parts, self.notices, self._lock)
        self._kinds = dict(kinds)
        self._gradients = Gradients(self, scaler) if "gradient" in kinds else None
        self._parameters = Parameters(
            self, targets, self._optimizers, kinds, replicated(model), batches=position.stepped
        )
        self._generation = generation()
        self._handles: list[Any] = []
        self._hooked: dict[int, list[Any]] = {}
        self._explicit = False
        self._expected: tuple[Phase, Callable[[], bool] | None] | None = None
        self._unless: Callable[[], bool] | None = None
        self._counting = False
        self._phase: Phase = "train"
        self._activations = True
        self._call: Call | None = None
        self._first = first

    def attach(self) -> None:
        """Register the hooks."""
        if self._model is None or self._handles:
            raise RecordingError("this recording is used up: begin another with colordim.record(...).")
        for number, module in enumerate(self._layers.modules):
            self._hook(number, module)
        if self._first is not None:
            self._first.attach(lambda: self._counting)
        untraced = False
        wrapper: nn.Module | None = None
        for root in roots(self._model):  # from the outside in: what a compiled wrapper wraps is compiled as well
            untraced = untraced or compiled.is_compiled_itself(root)
            if compiled.traces_hooks(root, wrapper):
                untraced = False
            wrapper = root
            enter, leave = root_hooks(self, compiled.connect(root, self, 0), untraced)
            self._handles.append(root.register_forward_pre_hook(enter, prepend=True))
            self._handles.append(root.register_forward_hook(leave, always_call=True))
        if self._optimizers:
            self._clock.steps = self._position.step
        for optimizer in self._optimizers:
            self._handles.append(optimizer.register_step_post_hook(self._on_step))
        self._handles += self._parameters.attach()

    def _hook(self, number: int, module: nn.Module) -> None:
        for handle in self._hooked.get(number, ()):  # on a module that is no part of the model any more
            handle.remove()
        known = compiled.connect(module, self, number)
        hooks: list[Callable[..., None]] = []
        if "activation" in self._kinds:
            hooks.append(OutputHook(self, number, known))
        if self._gradients is not None:
            hooks.append(GradientHook(self._gradients, number, known))
        self._hooked[number] = [module.register_forward_hook(hook) for hook in hooks]

    def detach(self, reason: str = "stopped") -> None:
        """Remove all hooks, hand on the last batch, and close the sink; a second call does nothing."""
        if self._model is None or not self._here():
            return
        if self._first is not None:
            self._first.detach()
        if self._explicit or self._call is not None:
            self.discard()  # a batch that was never committed, or a call that never came to its end
        self._call = None
        # A framework may fail, or give up, before its first batch.
        idle = self._managed and self._clock.batches == self._position.batch
        with self._lock:
            if self._gradients is not None and not idle:
                self._gradients.end()
            self._close()
            if not idle:
                self._parameters.end()
        for handle in chain(self._handles, *self._hooked.values()):
            handle.remove()
        self._handles.clear()
        self._hooked.clear()
        compiled.disconnect(self)
        self._model = None
        self._layers.release()
        self._optimizers.clear()
        with self._lock:
            self._batches.drain()
        if self._clock.batches == self._position.batch and not idle:
            why = (
                "the model itself was never called in training mode with gradients or in evaluation mode; "
                + self._way_out('put the batches into `with rec.batch("train"):`, or record the module that is called')
                if self._layers.names
                else 'there was no `with rec.batch("train"):`, within which observe() counts'
            )
            self.notices.say("nothing", f"Nothing was recorded: {why}.", "recording#what-a-batch-is")
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
        self._check(phase)
        if not self._here():
            return
        if self._model is None:
            self.notices.say(
                "ended", "The recording has ended, so this batch is not recorded: begin another recording."
            )
            return
        with self._lock:
            self._explicit, self._expected = True, None
            self._counting = self._open(phase)

    def expect(self, phase: Phase, when: Callable[[], bool] | None = None) -> None:
        """Open a window with the first output for which `when` is true, or with :meth:`commit` if there is none."""
        self._check(phase)
        self._explicit, self._expected = True, (phase, when)

    def manage(self, unless: Callable[[], bool] | None = None) -> None:
        """Let windows be explicit from now on, as a framework's events open them: what runs outside of them is meant to.

        Where `unless` is true, nothing is counted in a window either.
        """
        self._managed = self._explicit = True
        self._unless = unless

    def forward_over(self) -> None:
        """Count no further outputs into the window, while what backward and the optimiser bring still belongs to it."""
        self._activations = False

    def commit(self) -> None:
        """Close the explicit window and keep its batch."""
        if self._here():
            with self._lock:
                if self._expected is not None:
                    self.begin(self._expected[0])
                self._close()

    def discard(self) -> None:
        """Close the window and forget what was counted in it."""
        if self._here():
            with self._lock:
                self._counting, self._expected = False, None
                self._batches.discard()
                if self._gradients is not None:
                    self._gradients.forget()
                if self._first is not None:
                    self._first.discard()

    def epoch(self) -> None:
        """Begin a new epoch with the next batch."""
        if not self._here():
            return
        with self._lock:
            if not self._explicit:
                self._close()
            self._batches.epoch()

    @property
    def current_epoch(self) -> int:
        """Number of the epoch; may be asked for by any thread."""
        return self._clock.current

    @property
    def closed_batches(self) -> int:
        """Number of batches closed so far, over all phases; may be asked for by any thread."""
        return self._batches.batches

    @property
    def layers(self) -> int:
        """How many are recorded."""
        return len(self._layers.names)

    @property
    def managed(self) -> bool:
        """Whether a framework runs the training."""
        return self._managed

    def stop_here(self) -> None:
        """Raise :attr:`halt`, once, where a training batch is about to begin."""
        if self.halt is not None and self._here():
            error, self.halt = self.halt, None
            raise error

    def log(self, values: dict[str, object]) -> None:
        """Log numbers with the batch that is open, or else with the last one."""
        if self._here():
            with self._lock:
                self._batches.log(values)

    def observe(self, name: str, tensor: Any) -> None:
        """Count a tensor that no hook sees, as a stream of its own."""
        if self._belongs() and self._activations and self._here() and not recomputing():
            try:
                self._layers.count(name, as_tensor(tensor), "", "")
            except Exception as error:
                self._layers.failed(name, None, error)

    def state(self) -> dict[str, Any]:
        """Return the position in JSON types, and make everything up to there readable.

        A batch that no block holds open is closed first: its forward and backward passes are over.
        """
        if not self._here():
            return {}
        with self._lock:
            if not self._explicit and self._call is None and self._model is not None:
                self._close()
            state = self._batches.state()
        self.flush()
        return state

    def flush(self) -> None:
        """Make everything up to the last closed batch readable."""
        if self._here():
            with self._lock:
                self._batches.drain()
            self._sink.flush()

    def hand_on(self, everything: bool, seconds: float = 0.3) -> None:
        """Give the sink the batches that are closed, from a signal handler, which must not wait for much.

        Parameters
        ----------
        everything : bool
            Whether no batch will follow; if one may, the last closed one waits for what is logged with it.
        seconds : float
            How long to wait at most.
        """
        if not self._here() or is_capturing():
            return
        done = allocate_lock()
        done.acquire()

        def drain() -> None:
            try:
                # If the main thread has it, the handler has interrupted us: then batches may be half handed on.
                if self._lock.acquire(timeout=seconds / 3):
                    try:
                        self._batches.drain(everything)
                    finally:
                        self._lock.release()
            finally:
                done.release()

        # In another thread, as a device that hangs would be waited for without end, and as the main thread may be inside
        # a mode of torch; not by `threading`, in the midst of whose locks the main thread may be.
        start_new_thread(drain, ())
        done.acquire(timeout=seconds)

    # Called by the hooks.

    def on_output(self, layer: int, output: Any) -> None:
        if self._counts(layer):
            began = time.perf_counter()
            try:
                if isinstance(output, Tensor):  # as nearly always: no need to walk
                    self._layers.count_output(layer, "", output, self._phase)
                else:
                    for suffix, tensor in tensors(output):
                        self._layers.count_output(layer, suffix, tensor, self._phase)
            except Exception as error:
                self._layers.failed(self._layers.names[layer], layer, error)
            self._meter.spend(time.perf_counter() - began)

    def on_tensor(self, layer: int, suffix: str, tensor: Tensor) -> None:
        if self._counts(layer):
            began = time.perf_counter()
            try:
                self._layers.count_output(layer, suffix, tensor, self._phase)
                if self._first is not None:
                    self._first.called_compiled(layer, tensor)
            except Exception as error:
                self._layers.failed(self._layers.names[layer], layer, error)
            self._meter.spend(time.perf_counter() - began)

    def on_root_enter(self, module: nn.Module) -> None:
        if self._explicit or replaying() or not self._here() or self._inside_call(module):
            return
        if self.halt is not None and module.training and torch.is_grad_enabled():
            self.stop_here()
        self._call = Call(module, calling_frame(), threading.get_ident(), sys.exc_info()[1])
        self._open_for_call(module.training, torch.is_grad_enabled())

    def on_compiled_enter(self, training: bool, gradients: bool) -> None:
        if self._explicit or is_capturing() or not self._here():
            return
        if self._call is not None and self._call.module is not None:
            return
        if self._call is not None:  # a compiled call before this one that ended in an exception
            self.discard()
        if self.halt is not None and training and gradients:
            self.stop_here()
        self._call = Call(None, None, threading.get_ident(), None)
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

    def on_gradient(self, layer: int, suffix: str, gradient: Tensor) -> None:
        if self._gradients is not None:
            self._gradients.arrive(layer, suffix, gradient)

    # What gradients and parameters use.

    @property
    def window(self) -> Window | None:
        return self._batches.window

    def here(self) -> bool:
        return self._model is not None and self._here()

    def describe(self, layer: int) -> tuple[str, str, str]:
        return self._layers.describe(layer)

    def inside(self) -> bool:
        return self._counting

    def is_due(self, kind: Kind) -> bool:
        window, every = self._batches.window, self._kinds.get(kind)
        return window is not None and every is not None and window.recorded and window.nth % every == 0

    def count(
        self,
        kind: Kind,
        name: str,
        tensor: Tensor,
        module: str,
        arguments: str,
        reduction: Reduction = "sum",
        order: int | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self._layers.count(name, tensor, module, arguments, kind, reduction, order, shape)

    def rows(self, kind: Kind) -> Mapping[str, list[Row]]:
        return self._counters.rows(kind)

    def suggest(self, values: Mapping[str, object]) -> None:
        self._batches.suggest(values)

    def spend(self, seconds: float) -> None:
        self._meter.spend(seconds)

    # Windows.

    def _check(self, phase: Phase) -> None:
        if phase not in PHASES:
            raise ArgumentError(f"{phase!r} is not a phase: take one of {', '.join(map(repr, PHASES))}.")
        if self._explicit and self._batches.window is not None:
            raise RecordingError("a batch is open already: windows do not nest, so close that one first.")

    def _open_for_call(self, training: bool, gradients: bool) -> None:
        if training and not gradients:
            return
        with self._lock:
            self._counting = self._open("train" if training else "valid")

    def _open(self, phase: Phase) -> bool:
        self._counting = False
        self._learn()
        recorded = self._batches.open(phase)
        self._phase = phase
        if worth_a_look(self._batches.batches) and self._model is not None:
            for number, module in self._layers.follow(self._model):
                self._hook(number, module)
        self._activations = self.is_due("activation")
        if recorded and self._first is not None:
            self._first.open()
        return recorded

    def _close(self) -> None:
        self._counting = False
        self._learn()
        self._batches.close()

    def _closing(self) -> None:
        if self._gradients is not None:
            self._gradients.close()
        self._parameters.close()

    def _learn(self) -> None:
        """Tell the sink what the first batch has taught, once it is over."""
        if self._first is not None and (facts := self._first.close()) is not None:
            self._sink.describe(facts)
            self._activity.learn(self._first.owners)
            self._first = None

    def _unfired(self, window: Window) -> None:
        every = self._kinds.get("activation")
        if every is None or window.nth % every:
            return
        self.notices.say(
            "unfired",
            f"No recorded layer ran in {window.phase} batch {window.index}: {self._way_out('choose layers that are called')}.",
            "recording#what-a-batch-is",
        )

    def _lost(self, error: Exception) -> None:
        self.notices.say(
            "lost",
            f"Columns were lost, because reading them from the device failed ({type(error).__name__}: {error}); "
            "training goes on.",
            "performance#gpu",
        )

    # Counting.

    def _counts(self, layer: int) -> bool:
        """Whether what a layer returns now belongs to the batch that is open."""
        if not self._belongs():
            if (self._batches.window if self._explicit else self._call) is None:
                self._fired_outside(layer)
            return False
        return self._activations and layer not in self._layers.disabled and self._here() and not replaying()

    def _belongs(self) -> bool:
        """Whether what runs now belongs to a batch; the one that is expected opens with it."""
        if self._expected is None:
            return self._counting and (self._unless is None or not self._unless())
        if not self._here() or replaying() or (self._unless is not None and self._unless()):
            return False
        with self._lock:  # replicas of a model run in threads
            if self._expected is not None:
                phase, when = self._expected
                if when is not None and not when():
                    return False
                self.begin(phase)
        return self._counting

    def _fired_outside(self, layer: int) -> None:
        if self._managed or not self._here() or replaying():
            return
        name = self._layers.names[layer]
        way_out = (
            'put it into `with rec.batch("train"):` or `with rec.batch("valid"):` if it belongs to the training'
            if self._explicit
            else 'call the recorded model itself, or put the batch into `with rec.batch("train"):`'
        )
        self.notices.say(
            "outside",
            f"{name!r} ran outside of a batch and was not counted: {way_out}.",
            "recording#what-a-batch-is",
        )

    def _way_out(self, otherwise: str) -> str:
        if not self._is_compiled:
            # A compiled wrapper that was made of the model elsewhere cannot be seen from here.
            hint = (
                "; of a compiled model, begin recording before its first call" if "torch._dynamo" in sys.modules else ""
            )
            return otherwise + hint
        return (
            "the model was compiled and called before, and torch ignores hooks that are added after that: "
            "begin recording before the first call, or call torch._dynamo.reset() after record(...)"
        )

    def _on_step(self, *_: object) -> None:
        if self._managed and self._batches.window is None:
            return  # of a learning rate finder
        if self._here() and self._clock.steps is not None:
            self._clock.steps += 1

    def _here(self) -> bool:
        """Whether this is the process that records; forked workers inherit the hooks."""
        return generation() == self._generation

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
