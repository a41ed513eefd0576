"""Plain networks of fully connected layers, which several cards train."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

from torch import nn

__all__ = ["perceptron"]


def perceptron(
    *hidden: int, activation: Callable[[], nn.Module] = nn.ReLU, norm: bool = False
) -> Callable[[], nn.Sequential]:
    """Return what makes a network of fully connected layers for digits, as PyTorch initialises it.

    Parameters
    ----------
    *hidden : int
        Width of each hidden layer.
    activation : callable
        Makes an activation function.
    norm : bool
        Whether a batch norm stands between each hidden layer and its activation function.

    Returns
    -------
    callable
        Its layers are ``fc1``, ``norm1``, ``act1``, ``fc2``, ..., ``head``.
    """

    def build() -> nn.Sequential:
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for number, (inputs, outputs) in enumerate(pairwise((784, *hidden)), 1):
            layers[f"fc{number}"] = nn.Linear(inputs, outputs)
            if norm:
                layers[f"norm{number}"] = nn.BatchNorm1d(outputs)
            layers[f"act{number}"] = activation()
        layers["head"] = nn.Linear(hidden[-1], 10)
        return nn.Sequential(layers)

    return build
