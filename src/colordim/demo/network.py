"""The network of the lesson: four strided convolutions, once as it comes and once looked after."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["STAGES", "healthy_network", "lesson_network"]

#: Input channels, output channels and kernel of each stage; every stage halves the image.
STAGES = ((1, 8, 5), (8, 16, 3), (16, 32, 3), (32, 32, 3))


def lesson_network() -> nn.Sequential:
    """Return the network as PyTorch initialises it."""
    return _network(norm=False)


def healthy_network() -> nn.Sequential:
    """Return it with Kaiming initialisation, and batch norm after every convolution."""
    network = _network(norm=True)
    for module in network:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def _network(norm: bool) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs, kernel) in enumerate(STAGES, start=1):
        # A bias in front of a batch norm is subtracted again at once.
        layers[f"conv{number}"] = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=not norm)
        if norm:
            layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
        layers[f"relu{number}"] = nn.ReLU()
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(STAGES[-1][1], 10)
    return nn.Sequential(layers)
