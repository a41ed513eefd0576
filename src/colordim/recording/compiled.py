"""Counting inside compiled models: operators that torch.compile keeps in its one graph.

A hook that is traced by torch.compile leaves behind calls of these operators. To the compiler they
are opaque and change :data:`ORDER`, so it can neither drop nor reorder them; when the graph runs,
they find the recording that is attached to the module now, if any.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

__all__ = [
    "ORDER",
    "CompiledTarget",
    "connect",
    "count",
    "disconnect",
    "enter",
    "gradient",
    "is_compiled",
    "is_compiled_itself",
    "is_exporting",
    "leave",
    "traces_hooks",
]

#: Whether torch.export traces the model; PyTorch below 2.7 cannot tell, and leaves counting in what it exports.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)


class CompiledTarget(Protocol):
    """What the operators report to."""

    def on_tensor(self, layer: int, suffix: str, tensor: Tensor) -> None:
        """Take note of a tensor in the output of layer number `layer`."""

    def on_gradient(self, layer: int, suffix: str, gradient: Tensor) -> None:
        """Take note of the gradient of a tensor in the output of layer number `layer`."""

    def on_compiled_enter(self, training: bool, gradients: bool) -> None:
        """Take note that a compiled root of the model is about to run."""

    def on_compiled_exit(self) -> None:
        """Take note that a compiled root of the model has run."""


#: Changed by every operator, as far as the compiler knows.
ORDER = torch.zeros(1, dtype=torch.int64, device="cpu")

# A graph outlives the recording during which it was traced, so it refers to modules by number.
_numbers: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_connected: dict[int, dict[CompiledTarget, int]] = {}
_next_number = itertools.count()

_library: Any = torch.library.Library("colordim", "DEF")  # type: ignore[no-untyped-call]
_library.define("count(Tensor tensor, Tensor(a!) order, int module, str suffix) -> ()")
_library.define("gradient(Tensor gradient, Tensor(a!) order, int module, str suffix) -> ()")
_library.define("enter(Tensor(a!) order, int module, bool training, bool gradients) -> ()")
_library.define("leave(Tensor(a!) order, int module) -> ()")


def connect(module: nn.Module, target: CompiledTarget, layer: int) -> int:
    """Return the number under which graphs know `module`; what it does is reported to `target` from now on.

    A module that is a root and a layer keeps the layer under which it was connected first.
    """
    number = _numbers.get(module)
    if number is None:
        number = _numbers[module] = next(_next_number)
    _connected.setdefault(number, {}).setdefault(target, layer)
    return number


def disconnect(target: CompiledTarget) -> None:
    """Let graphs report to `target` no longer."""
    for number in list(_connected):
        _connected[number].pop(target, None)
        if not _connected[number]:
            del _connected[number]


def is_compiled(model: nn.Module) -> bool:
    """Return whether the model or a part of it was given to torch.compile."""
    return any(is_compiled_itself(module) for module in model.modules())


def is_compiled_itself(module: nn.Module) -> bool:
    """Return whether this very module was given to torch.compile."""
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def traces_hooks(root: nn.Module, wrapper: nn.Module | None) -> bool:
    """Return whether a root is compiled together with its own hooks.

    torch.compile puts a frame of its own around what is one of torch's classes (``nn.Sequential``), and
    traces the call with its hooks; around other modules they run outside of the graph.

    Parameters
    ----------
    root : Module
    wrapper : Module or None
        The module around it, if there is one.
    """
    entry = getattr(root, "_compiled_call_impl", None) or getattr(wrapper, "forward", None)
    return hasattr(getattr(entry, "_torchdynamo_orig_callable", None), "__wrapped__")


def _targets(module: int) -> list[tuple[CompiledTarget, int]]:
    return list(_connected.get(module, {}).items())


def _count(tensor: Tensor, order: Tensor, module: int, suffix: str) -> None:
    for target, layer in _targets(module):
        target.on_tensor(layer, suffix, tensor)


def _gradient(gradient: Tensor, order: Tensor, module: int, suffix: str) -> None:
    for target, layer in _targets(module):
        target.on_gradient(layer, suffix, gradient)


def _enter(order: Tensor, module: int, training: bool, gradients: bool) -> None:
    for target, _ in _targets(module):
        target.on_compiled_enter(training, gradients)


def _leave(order: Tensor, module: int) -> None:
    for target, _ in _targets(module):
        target.on_compiled_exit()


def _nothing(*_: Any) -> None:
    """Stand for the operators while they are traced."""


for _name, _function in (("count", _count), ("gradient", _gradient), ("enter", _enter), ("leave", _leave)):
    _library.impl(_name, _function, "CompositeExplicitAutograd")
    torch.library.register_fake(f"colordim::{_name}", _nothing, lib=_library)

count = torch.ops.colordim.count
gradient = torch.ops.colordim.gradient
enter = torch.ops.colordim.enter
leave = torch.ops.colordim.leave
