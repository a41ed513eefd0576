from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from colordim.demo.figure import LAYERS
from colordim.demo.network import healthy_network, lesson_network


@pytest.mark.parametrize("make", [lesson_network, healthy_network])
def test_every_stage_halves_the_image(make: Callable[[], nn.Sequential]) -> None:
    shapes = []
    x = torch.zeros(2, 1, 28, 28)
    for name, module in make().named_children():
        x = module(x)
        if name.startswith("conv") or name == "head":
            shapes.append(tuple(x.shape))
    assert shapes == [(2, 8, 14, 14), (2, 16, 7, 7), (2, 32, 4, 4), (2, 32, 2, 2), (2, 10)]


def test_only_the_healthy_network_has_batch_norm_and_both_have_the_layers_of_the_figure() -> None:
    bad, good = lesson_network(), healthy_network()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in bad)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in good) == 4
    for network in (bad, good):
        assert set(LAYERS) <= dict(network.named_children()).keys()


def test_the_healthy_network_is_initialised_as_kaiming_has_it() -> None:
    torch.manual_seed(0)
    weight = healthy_network().get_parameter("conv4.weight")
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 3 * 3)), rel=0.05)
