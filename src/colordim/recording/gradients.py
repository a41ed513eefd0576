"""Gradients of what layers return, counted as backward produces them.

Each output that requires a gradient gets a hook of its own, on the tensor. Full backward hooks of modules are no
alternative: they make what follows in place fail, and torch.compile refuses them.
"""

from __future__ import annotations

import time
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.utils.hooks import RemovableHandle

from colordim.recording import compiled
from colordim.recording.hooks import InertHook
from colordim.recording.kinds import Host
from colordim.recording.outputs import is_countable, tensors
from colordim.recording.scaling import Scale
from colordim.recording.transport import is_capturing

__all__ = ["GradientHook", "Gradients"]

#: Batches with other gradients after which an output whose own never came is given up.
PATIENCE = 3

Output = tuple[int, str]
"""Number of the layer, and which of its outputs."""


def produced(module: nn.Module, tensor: Tensor) -> Tensor:
    """Return the tensor on which the gradient of an output is seen.

    Nobody sees the gradient of a view that is modified in place afterwards. For inputs of more than two dimensions
    nn.Linear returns a view of all of a matrix that nobody else has: that has the same gradient.
    """
    if type(module).forward is nn.Linear.forward and tensor.dim() != 2:
        matrix = tensor._base
        if matrix is not None and matrix.requires_grad:
            return matrix
    return tensor


class GradientHook(InertHook):
    """A forward hook that gives each output of a layer a hook for its gradient."""

    __slots__ = ("_gradients", "_layer", "_number")

    def __init__(self, gradients: Gradients, layer: int, number: int) -> None:
        self._gradients = gradients
        self._layer = layer
        self._number = number

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._gradients.watch(self._layer, module, output)
        elif not compiled.is_exporting():
            for suffix, tensor in tensors(output):
                if is_countable(tensor) and tensor.requires_grad:
                    produced(module, tensor).register_hook(  # type: ignore[no-untyped-call]
                        _CompiledTensorHook(self._number, suffix)
                    )


class _TensorHook:
    """A hook of a tensor; a graph that outlives the recording does not keep it alive."""

    __slots__ = ("_gradients", "_output")
    __torch_unserializable__ = True  # dropped without a word when the tensor is saved

    def __init__(self, gradients: ReferenceType[Gradients], output: Output) -> None:
        self._gradients = gradients
        self._output = output

    def __call__(self, gradient: Tensor | None) -> None:
        gradients = self._gradients()
        if gradients is not None:
            gradients.arrive(*self._output, gradient)


class _CompiledTensorHook:
    """What torch.compile makes an operator of the backward graph."""

    __slots__ = ("_number", "_suffix")

    def __init__(self, number: int, suffix: str) -> None:
        self._number = number
        self._suffix = suffix

    def __call__(self, gradient: Tensor) -> None:
        compiled.gradient(gradient.detach(), compiled.ORDER, self._number, self._suffix)


class Gradients:
    """Counts the gradients of a model's outputs into the batch that is open when they arrive.

    Parameters
    ----------
    host : Host
    scaler : GradScaler, optional
        By whose scale gradients are divided.
    """

    def __init__(self, host: Host, scaler: Any = None) -> None:
        self._host = host
        self._scale = Scale(scaler)
        self._hooks: dict[Output, _TensorHook] = {}
        self._outputs: dict[Output, tuple[int, tuple[int, ...]]] = {}  # in the order of the calls, with their shapes
        self._handles: list[RemovableHandle] = []
        self._disabled: set[int] = set()
        self._arrived = False
        self._seen: set[Output] = set()
        self._waiting: set[Output] = set()
        self._missed: dict[Output, int] = {}

    def watch(self, layer: int, module: nn.Module, output: Any) -> None:
        """Wait for the gradients of what a layer has just returned.

        When a checkpoint is recomputed in backward it is watched as well: where the first pass ran without
        gradients, this is the only graph; where it did not, this one is thrown away.
        """
        if (
            not self._host.is_due("gradient")
            or layer in self._disabled
            or not (self._host.inside() or torch._C._current_graph_task_id() != -1)
            or not self._host.here()
            or torch._C._is_tracing()
            or is_capturing()
        ):
            return
        began = time.perf_counter()
        try:
            for suffix, tensor in tensors(output):
                if tensor.requires_grad and is_countable(tensor) and not is_functorch_wrapped_tensor(tensor):
                    self._watch((layer, suffix), module, tensor)
        except Exception as error:
            self._failed(layer, error)
        self._host.spend(time.perf_counter() - began)

    def arrive(self, layer: int, suffix: str, gradient: Tensor | None) -> None:
        """Count a gradient that has been computed."""
        if gradient is None or layer in self._disabled or not self._host.here() or is_capturing():
            return
        if self._host.window is None:
            self._host.notices.say(
                "gradients outside",
                f"The gradient of {self._host.describe(layer)[0] + suffix!r} came after its batch was closed and was not "
                'counted: let backward() run inside of `with rec.batch("train"):`, and before rec.epoch().',
                "kinds#gradients-of-outputs",
            )
        elif self._host.is_due("gradient"):
            began = time.perf_counter()
            output = (layer, suffix)
            try:
                with torch.no_grad():
                    self._count(output, self._scale.divide(gradient.detach()))
            except Exception as error:
                self._failed(layer, error)
            self._arrived = True
            self._seen.add(output)
            self._host.spend(time.perf_counter() - began)

    def close(self) -> None:
        """Take note that the batch is about to be closed."""
        if self._waiting and self._arrived:
            for output in self._waiting - self._seen:
                self._missed[output] = self._missed.get(output, 0) + 1
            self._give_up(PATIENCE)
        self.forget()

    def forget(self) -> None:
        """Take note that what was watched belongs to no batch any more."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._waiting.clear()
        self._arrived = False

    def end(self) -> None:
        """Take note that the recording is about to end."""
        self.close()
        self._give_up(1)
        if not self._seen and not self._disabled:
            self._host.notices.say(
                "no gradient",
                "No gradient was recorded: no backward pass ran through a recorded layer within a recorded batch.",
                "kinds#gradients-of-outputs",
            )

    def _watch(self, output: Output, module: nn.Module, tensor: Tensor) -> None:
        hook = self._hooks.get(output)
        if hook is None:
            hook = self._hooks[output] = _TensorHook(ref(self), output)
            self._outputs[output] = len(self._outputs), tuple(tensor.shape)
        source = produced(module, tensor)
        handle: RemovableHandle = source.register_hook(hook)  # type: ignore[no-untyped-call]
        if source.is_leaf:  # it outlives the batch: a parameter, or an input
            self._handles.append(handle)
        if output not in self._seen and source._is_view():
            self._waiting.add(output)

    def _count(self, output: Output, gradient: Tensor) -> None:
        layer, suffix = output
        name, module, arguments = self._host.describe(layer)
        order, shape = self._outputs.get(output, (layer, None))  # of a compiled model there are no calls to go by
        self._host.count("gradient", name + suffix, gradient, module, arguments, order=order, shape=shape)

    def _give_up(self, patience: int) -> None:
        """Say which gradients cannot be seen, and leave an empty column of each, so that the run knows it as well."""
        outputs = [each for each, n in self._missed.items() if n >= patience and each not in self._seen]
        if not outputs:
            return
        self._seen.update(outputs)  # said once
        names = ", ".join(repr(self._host.describe(layer)[0] + suffix) for layer, suffix in outputs)
        self._host.notices.say(
            f"unobservable:{names}",
            f"The gradients of {names} cannot be observed, because these outputs are views that are modified in place "
            "afterwards (or nothing that the loss depends on uses them): let what follows them work out of place, "
            "as nn.ReLU(inplace=False) does.",
            "kinds#gradients-of-outputs",
        )
        if self._host.is_due("gradient"):
            for output in outputs:
                self._count(output, torch.empty(0))

    def _failed(self, layer: int, error: Exception) -> None:
        self._disabled.add(layer)
        name = self._host.describe(layer)[0]
        self._host.notices.say(
            f"failed gradient:{name}",
            f"The gradient of {name!r} is no longer recorded, because counting it failed "
            f"({type(error).__name__}: {error}); training goes on.",
            "kinds#gradients-of-outputs",
        )
