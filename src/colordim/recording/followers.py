"""Which activation function follows which layer, read off the order in which modules are called.

Hooks see calls, not the graph: an activation function belongs to the last layer with parameters that ran before it, in
its thread, and whose output has as many channels. What has no parameters lies between (dropout, pooling, identity,
flatten, and whatever is computed without modules), and so do normalisations. A functional activation (``F.relu(x)``)
is not seen, and the next layer ends the search for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules import activation
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

from colordim.recording.channels import channel_dim, leads_with_channels
from colordim.recording.select import is_leaf

__all__ = ["Followers", "is_activation", "is_normalisation"]

_ACTIVATIONS = tuple(
    function
    for function in vars(activation).values()
    if isinstance(function, type)
    and function.__module__ == activation.__name__
    and function is not nn.MultiheadAttention
)
_NORMALISATIONS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)

# Those of other libraries by their names: NewGELUActivation, HardSwish.
_NAMED_ACTIVATION = re.compile("activation|elu|silu|swish|mish|tanh|sigmoid|soft(max|plus|sign)", re.IGNORECASE)


@dataclass(frozen=True)
class _Ran:
    """A layer with parameters that has run, with no activation function behind it yet."""

    layer: int
    dim: int  # from the end if the channels come last
    channels: int
    normalises: bool


class Followers:
    """Assigns each call of an activation function to the layer that it follows.

    Parameters
    ----------
    modules : sequence of Module
        The layers, by their numbers. All leaves of the model must be among them: behind one that is missing, an
        activation function looks as if it followed the layer before.

    Attributes
    ----------
    found : dict of int to int
        For layers with parameters, normalisations included, the activation function that followed them first, if no
        other layer ran in between.
    ran : set of int
        Layers with parameters that ran.
    owners : dict of int to list
        For activation functions, call by call, the layer that the call belongs to and the dimension of the output
        that holds its channels (negative if they come last), or None.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.found: dict[int, int] = {}
        self.ran: set[int] = set()
        self.owners: dict[int, list[tuple[int, int] | None]] = {}
        self._roles = [_role(module) for module in modules]
        self._before: dict[int, list[_Ran]] = {}

    def called(self, layer: int, module: nn.Module, output: Tensor, thread: int = 0) -> int | None:
        """Take note of a call; calls are told in their order.

        Parameters
        ----------
        layer : int
            Number of the layer that was called.
        module : Module
            The module that ran; in DataParallel a replica.
        output : Tensor
            What it returned; of several tensors the first.
        thread : int
            Each thread has an order of its own.

        Returns
        -------
        int or None
            For an activation function the number of the layer with parameters, no normalisation, that this call
            belongs to; None if there is none. For other modules None.
        """
        role = self._roles[layer]
        if role is None or not output.dim():
            return None
        before = self._before.setdefault(thread, [])
        if role == "activation":
            owner = self._assign(layer, output, before)
            self.owners.setdefault(layer, []).append(None if owner is None else (owner.layer, owner.dim))
            return None if owner is None else owner.layer
        self.ran.add(layer)
        dim = channel_dim(module, output.dim())
        before.append(
            _Ran(layer, dim if leads_with_channels(module) else -1, output.shape[dim], role == "normalisation")
        )
        return None

    def clear(self) -> None:
        """Forget what ran: the calls that come belong to another batch."""
        self._before.clear()
        self.owners.clear()

    def _assign(self, activation: int, output: Tensor, before: list[_Ran]) -> _Ran | None:
        belongs: _Ran | None = None
        matched = between = False
        for ran in reversed(before):
            if ran.dim < output.dim() and output.shape[ran.dim] == ran.channels:
                matched = True
                if not between:
                    self.found.setdefault(ran.layer, activation)
                if not ran.normalises:
                    belongs = ran
                    break
            between = between or not ran.normalises
        if matched:  # an activation function ends the search for all that ran before it
            before.clear()
        return belongs


def is_activation(module: nn.Module) -> bool:
    """Return whether a module is an activation function: one of torch's, or a leaf without parameters named as one."""
    if isinstance(module, _ACTIVATIONS):
        return True
    named = _NAMED_ACTIVATION.search(type(module).__name__) is not None
    return named and is_leaf(module) and next(module.parameters(), None) is None


def is_normalisation(module: nn.Module) -> bool:
    """Return whether a module normalises: one of torch's, or a leaf named so whose parameters are vectors."""
    if isinstance(module, _NORMALISATIONS):
        return True
    named = "norm" in type(module).__name__.lower() and is_leaf(module)
    return named and all(not is_lazy(parameter) and parameter.dim() <= 1 for parameter in module.parameters())


def _role(module: nn.Module) -> Literal["activation", "normalisation", "layer"] | None:
    """Return what a module is to its neighbours; None for what lies between, and for what is made of others."""
    if not is_leaf(module):
        return None
    if is_activation(module):
        return "activation"
    if next(module.parameters(), None) is None:
        return None
    return "normalisation" if is_normalisation(module) else "layer"
