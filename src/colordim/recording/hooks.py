"""The hook objects that are registered on modules.

A model is pickled and deep-copied with its hooks. These turn into a do-nothing function of the
standard library in every copy, so that a copy records nothing and loads without colordim.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from torch import nn

__all__ = ["HookTarget", "OutputHook", "RootEnterHook", "RootExitHook"]


class HookTarget(Protocol):
    """What the hooks report to."""

    def on_output(self, layer: int, output: Any) -> None:
        """Take note that layer number `layer` has returned `output`."""

    def on_root_enter(self, module: nn.Module) -> None:
        """Take note that a root of the model is about to run."""

    def on_root_exit(self, module: nn.Module) -> None:
        """Take note that a root of the model has run, or has raised."""


class _Hook:
    """Pickles and copies as ``contextlib.nullcontext().__exit__``, which takes anything and returns None."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return getattr, (contextlib.nullcontext(), "__exit__")


class OutputHook(_Hook):
    """A forward hook; it knows its layer by number, since replicas of a module are other objects."""

    __slots__ = ("_layer", "_target")

    def __init__(self, target: HookTarget, layer: int) -> None:
        self._target = target
        self._layer = layer

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self._target.on_output(self._layer, output)


class RootEnterHook(_Hook):
    """A forward pre-hook of a root."""

    __slots__ = ("_target",)

    def __init__(self, target: HookTarget) -> None:
        self._target = target

    def __call__(self, module: nn.Module, args: Any) -> None:
        self._target.on_root_enter(module)


class RootExitHook(_Hook):
    """A forward hook of a root, called after exceptions as well."""

    __slots__ = ("_target",)

    def __init__(self, target: HookTarget) -> None:
        self._target = target

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        self._target.on_root_exit(module)
