"""Where the channels or features of a layer's output are."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

__all__ = ["channel_dim", "leads_with_channels"]


def leads_with_channels(module: nn.Module) -> bool:
    """Return whether a layer's channels come before the places in space: convolutions and their normalisations."""
    return isinstance(module, (_ConvNd, _NormBase, nn.GroupNorm))


def channel_dim(module: nn.Module, dims: int) -> int:
    """Return which dimension of a layer's output holds its channels or features.

    Parameters
    ----------
    module : Module
    dims : int
        Number of dimensions of the output, at least one.

    Returns
    -------
    int
        From 0. Of a convolution the one before the places in space: 1, or 0 without a batch dimension. Of batch,
        instance and group norm 1. Of modules without parameters, which say nothing about it, 1 from four dimensions
        up. Otherwise the last: linear layers, embeddings, recurrent layers, attention, layer norm.
    """
    if isinstance(module, _ConvNd):
        return max(dims - 1 - len(module.kernel_size), 0)
    images = dims >= 4 and next(module.parameters(), None) is None
    if leads_with_channels(module) or images:
        return min(1, dims - 1)
    return dims - 1
