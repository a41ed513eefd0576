"""What is learnt of a model when it first runs: which activation follows which layer, and the shapes of lazy layers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from colordim.errors import SelectionError
from colordim.recording.calls import replaying
from colordim.recording.facts import Moments, describe, identity, moments_of, or_none
from colordim.recording.followers import Followers
from colordim.recording.hooks import InertHook
from colordim.recording.outputs import tensors
from colordim.recording.select import Target, class_name, select

__all__ = ["FirstBatch"]


class FirstBatch:
    """The facts of a model, before its first recorded batch and after it.

    All leaves are hooked until then, also those that are not recorded: without them an activation function would look
    as if it followed the wrong layer. In a compiled model only the recorded layers are seen.

    Parameters
    ----------
    model : Module
    targets : sequence of Target
        The recorded layers, by their numbers.
    optimizers : sequence of Optimizer

    Attributes
    ----------
    facts : dict
        The model as it is now, as :func:`colordim.recording.facts.describe` returns it.
    """

    def __init__(
        self, model: nn.Module, targets: Sequence[Target], optimizers: Sequence[torch.optim.Optimizer] = ()
    ) -> None:
        self._model = model
        self._optimizers = optimizers
        self._layers = [*targets, *_other_leaves(model, targets)]
        self._recorded = len(targets)
        self._lazy = {number for number, layer in enumerate(self._layers) if _has_lazy(layer.module)}
        self._materialises = bool(self._lazy)
        self._handles: list[RemovableHandle] = []
        self._identity = or_none(lambda: identity(model))
        self._moments: dict[int, Moments] = {}
        self.facts = describe(model, optimizers, self._moments)
        self._changed: dict[str, Any] = {}
        self._opened = self._compiled = False
        self._followers = Followers([layer.module for layer in self._layers])

    def attach(self, counting: Callable[[], bool]) -> None:
        """Watch the leaves while `counting` returns true, until the first batch ends."""
        for number, layer in enumerate(self._layers):
            self._handles.append(layer.module.register_forward_hook(_CallHook(self, number, counting)))

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def open(self) -> None:
        """Take note that a batch is about to be recorded: what was changed since the beginning is described again."""
        if self._opened:
            return
        self._opened = True
        if or_none(lambda: identity(self._model)) != self._identity:
            self._moments = {}
            self._changed = describe(self._model, self._optimizers, self._moments)

    def called(self, layer: int, module: nn.Module, output: Any) -> None:
        """Take note that layer number `layer` has returned `output`."""
        if layer in self._lazy:  # its parameters exist only now, and are changed by the first step
            self._lazy.discard(layer)
            self._moments |= {id(parameter): moments_of(parameter) for parameter in module.parameters()}
        _, first = next(iter(tensors(output)), ("", None))
        if first is not None:
            self._followers.called(layer, module, first, threading.get_ident())

    def called_compiled(self, layer: int, output: Tensor) -> None:
        """Take note of an output from inside a compiled graph, where only recorded layers are seen."""
        self._compiled = True
        self.called(layer, self._layers[layer].module, output)

    def discard(self) -> None:
        """Forget the calls of a batch that is not kept."""
        self._followers = Followers([layer.module for layer in self._layers])

    def close(self) -> dict[str, Any] | None:
        """Return what the batch has taught, or None if no layer with parameters ran in it.

        Returns
        -------
        dict
            ``followers``: for every layer with parameters that ran, by its name, the ``name``, ``module`` and
            ``arguments`` of the activation function that follows; None if no such module does. If the model was
            changed since the beginning, or had lazy layers, also all that :attr:`facts` has, as of this batch.
        """
        if not self._followers.ran:
            return None
        self.detach()
        if self._materialises:
            self._changed = describe(self._model, self._optimizers, self._moments)
        return {**self._changed, "followers": or_none(self._named_followers) or {}}

    @property
    def owners(self) -> dict[int, list[int | None]]:
        """Which layer each recorded activation function belongs to, by their numbers and call by call.

        None where no layer was found, or one that is not recorded.
        """
        if self._compiled and self._recorded < len(self._layers):
            return {}
        return {
            layer: [owner if owner is not None and owner < self._recorded else None for owner in owners]
            for layer, owners in self._followers.owners.items()
            if layer < self._recorded
        }

    def _named_followers(self) -> dict[str, Any]:
        if self._compiled and self._recorded < len(self._layers):
            return {}
        layers, found = self._layers, self._followers.found
        by_name = {layers[layer].name: found.get(layer) for layer in sorted(self._followers.ran)}
        return {
            name: None if number is None else {"name": layers[number].name, **_kind(layers[number].module)}
            for name, number in by_name.items()
        }


class _CallHook(InertHook):
    """A forward hook that tells a :class:`FirstBatch` of a call."""

    __slots__ = ("_counting", "_first", "_number")

    def __init__(self, first: FirstBatch, number: int, counting: Callable[[], bool]) -> None:
        self._first = first
        self._number = number
        self._counting = counting

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not self._counting() or replaying():
            return
        try:
            self._first.called(self._number, module, output)
        except Exception:  # facts are extras: nothing that a module returns may stop a training
            self._first.discard()


def _other_leaves(model: nn.Module, targets: Sequence[Target]) -> list[Target]:
    chosen = {id(target.module) for target in targets}
    try:
        return [target for target in select(model) if id(target.module) not in chosen]
    except SelectionError:
        return []


def _has_lazy(module: nn.Module) -> bool:
    return any(is_lazy(parameter) for parameter in module.parameters(recurse=False))


def _kind(module: nn.Module) -> dict[str, str]:
    return {"module": class_name(module), "arguments": module.extra_repr()}
