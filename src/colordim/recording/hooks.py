"""The hook objects that are registered on modules.

A model is pickled and deep-copied with its hooks. These turn into a do-nothing function of the
standard library in every copy, so that a copy records nothing and loads without colordim. Traced
by torch.compile, they leave an operator in the graph instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn

from colordim.recording import compiled
from colordim.recording.outputs import is_countable, tensors

__all__ = ["HookTarget", "InertHook", "OutputHook", "RootEnterHook", "RootExitHook", "root_hooks"]


class HookTarget(Protocol):
    """What the hooks report to."""

    def on_output(self, layer: int, output: Any) -> None:
        """Take note that layer number `layer` has returned `output`."""

    def on_root_enter(self, module: nn.Module) -> None:
        """Take note that a root of the model is about to run."""

    def on_root_exit(self, module: nn.Module) -> None:
        """Take note that a root of the model has run, or has raised."""


class InertHook:
    """Pickles and copies as ``contextlib.nullcontext().__exit__``, which takes anything and returns None."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return getattr, (contextlib.nullcontext(), "__exit__")


class OutputHook(InertHook):
    """A forward hook; it knows its layer by number, since replicas of a module are other objects."""

    __slots__ = ("_layer", "_number", "_target")

    def __init__(self, target: HookTarget, layer: int, number: int) -> None:
        self._target = target
        self._layer = layer
        self._number = number

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._target.on_output(self._layer, output)
        elif not compiled.is_exporting():
            for suffix, tensor in tensors(output):
                if is_countable(tensor):
                    compiled.count(tensor.detach(), compiled.ORDER, self._number, suffix)


def root_hooks(target: HookTarget, number: int, compiled_root: bool) -> tuple[RootEnterHook, RootExitHook]:
    """Return the hooks of a root.

    The hooks of a submodule become part of the graph that is traced around it. Those of the module
    that was compiled itself would become graphs of their own, so they are kept from the compiler.
    """
    if not compiled_root:
        return RootEnterHook(target, number), RootExitHook(target, number)
    untraced: Any = torch._dynamo.disable  # loaded already, since something is compiled

    class UntracedEnterHook(RootEnterHook):
        __call__ = untraced(RootEnterHook.__call__)

    class UntracedExitHook(RootExitHook):
        __call__ = untraced(RootExitHook.__call__)

    return UntracedEnterHook(target, number), UntracedExitHook(target, number)


class RootEnterHook(InertHook):
    """A forward pre-hook of a root."""

    __slots__ = ("_number", "_target")

    def __init__(self, target: HookTarget, number: int) -> None:
        self._target = target
        self._number = number

    def __call__(self, module: nn.Module, args: Any) -> None:
        if not torch.compiler.is_compiling():
            self._target.on_root_enter(module)
        elif not compiled.is_exporting():
            compiled.enter(compiled.ORDER, self._number, module.training, torch.is_grad_enabled())


class RootExitHook(InertHook):
    """A forward hook of a root, called after exceptions as well."""

    __slots__ = ("_number", "_target")

    def __init__(self, target: HookTarget, number: int) -> None:
        self._target = target
        self._number = number

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if not torch.compiler.is_compiling():
            self._target.on_root_exit(module)
        elif not compiled.is_exporting():
            compiled.leave(compiled.ORDER, self._number)
