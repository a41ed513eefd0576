"""Initial weights: the recipe's own, then what was planted, then what a remedy does over."""

from __future__ import annotations

import torch
from benchmarks.diagnosis.spec import Recipe
from benchmarks.diagnosis.zoo import Chain
from torch import nn

__all__ = ["initialise"]

DEAD_BIAS = -20.0  # far below what standardised inputs can lift


@torch.no_grad()
def initialise(model: Chain, recipe: Recipe) -> None:
    """Set the weights of a model that PyTorch has just initialised."""
    if recipe.init == "kaiming":
        _kaiming(model, recipe)
    for name, module in _weighted(model):
        module.weight.mul_(recipe.output_gain if name == "output" else recipe.gain)
        if recipe.constant is not None:
            module.weight.fill_(recipe.constant)
        if recipe.bias and name != "output" and module.bias is not None:
            module.bias.fill_(recipe.bias)
    if recipe.dead is not None:
        name, share = recipe.dead
        bias = model.get_submodule(name).bias
        assert isinstance(bias, torch.Tensor)
        bias[: round(share * len(bias))] = DEAD_BIAS
    output = model.get_submodule("output")
    assert isinstance(output, nn.Linear)
    if recipe.shut_output:
        output.bias.fill_(DEAD_BIAS)
    if "kaiming" in recipe.again:
        _kaiming(model, recipe)
        for each in model.modules():  # norms and the GRU begin as usual, too
            if isinstance(each, (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.GRU)):
                each.reset_parameters()
    if "output" in recipe.again:
        nn.init.normal_(output.weight, std=0.01)
        nn.init.zeros_(output.bias)


def _weighted(model: nn.Module) -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    return [(name, each) for name, each in model.named_modules() if isinstance(each, (nn.Linear, nn.Conv2d))]


def _kaiming(model: nn.Module, recipe: Recipe) -> None:
    for name, module in _weighted(model):
        if recipe.activation in ("relu", "leaky_relu", "gelu") and name != "output":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:  # Glorot, with tanh's gain of 5/3
            gain = nn.init.calculate_gain("tanh") if recipe.activation == "tanh" and name != "output" else 1.0
            nn.init.xavier_normal_(module.weight, gain=gain)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
