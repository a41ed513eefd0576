"""The architectures, each with a recipe that trains healthily, and how their layers are named."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from benchmarks.diagnosis.data import CLASSES, SHAPES
from benchmarks.diagnosis.spec import Recipe
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ARCHITECTURES", "HELD_OUT", "Architecture", "Chain", "Unguarded", "build"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": lambda: nn.LeakyReLU(0.1),
}


class Chain(nn.Module):
    """Named children, one after the other; behind one of them the graph may be cut, as by a stray detach()."""

    def __init__(self, children: dict[str, nn.Module], detach: str = "") -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)
        self.detach = detach

    def forward(self, x: Tensor) -> Tensor:
        """Return the last child's output."""
        for name, child in self.named_children():
            out = child(x)
            x = out[0] if isinstance(out, tuple) else out  # a GRU's second value is its state
            if name == self.detach:
                x = x.detach()
        return x


class Unguarded(nn.Module):
    """Adds a little of log, sqrt or a quotient of each row's variance; one row of one batch has none.

    Attributes
    ----------
    batch : int
        Index of the training batch, set by the loop; -1 outside of training.
    """

    def __init__(self, operation: str, at: int, guarded: bool) -> None:
        super().__init__()
        self.operation, self.at, self.epsilon, self.batch = operation, at, 1e-6 if guarded else 0.0, -1

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus one percent of the operation's result."""
        rows = x.detach().flatten(1)
        spread = rows.var(1) + 1e-3
        if self.batch == self.at:
            spread = torch.cat([torch.zeros_like(spread[:1]), spread[1:]])  # a blank picture
        if self.operation == "log":
            term = torch.log(spread + self.epsilon)
        elif self.operation == "sqrt":
            term = torch.sqrt(spread - 1e-7 + self.epsilon)  # E[x^2] - E[x]^2 in float32 falls below zero like this
        else:
            term = spread / (spread + self.epsilon)
        return x + 0.01 * term.view(-1, *[1] * (x.dim() - 1))


class Residual(nn.Module):
    """x + linear2(act(linear1(norm(x))))."""

    def __init__(self, width: int, hidden: int, recipe: Recipe) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if recipe.norm else nn.Identity()
        self.linear1 = nn.Linear(width, hidden)
        self.act = ACTIVATIONS[recipe.activation]()
        self.drop = nn.Dropout(recipe.dropout)
        self.linear2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream with this block's share added."""
        out: Tensor = x + self.linear2(self.drop(self.act(self.linear1(self.norm(x)))))
        return out


class Attention(nn.Module):
    """Self-attention of two heads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream [N, T, width] with what the heads have gathered added."""
        n, t, width = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.proj(mixed.transpose(1, 2).reshape(n, t, width))
        return out


class Block(nn.Module):
    """Attention, then the two-layer part."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.attention = Attention(recipe.width)
        self.mlp = Residual(recipe.width, 2 * recipe.width, recipe)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stream after both."""
        out: Tensor = self.mlp(self.attention(x))
        return out


class Positions(nn.Module):
    """Adds a learnt vector for each token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(tokens, width) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens, marked."""
        return x + self.weight


class Mean(nn.Module):
    """The mean of all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, T, width]."""
        return x.mean(1)


class Last(nn.Module):
    """The last token."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, width] of [N, T, width]."""
        return x[:, -1]


@dataclass(frozen=True)
class Architecture:
    """How an architecture is built.

    Attributes
    ----------
    body : callable
        Recipe to named children, up to the features [N, width]; second, the number of features.
    recipe : Recipe
        The base recipe: it trains healthily.
    groups : str
        Pattern of the names of a hidden layer, its norm and its activation function, with {} for its number.
    """

    name: str
    body: Callable[[Recipe], tuple[dict[str, nn.Module], int]]
    recipe: Recipe
    groups: tuple[str, str, str]

    def hidden(self, number: int, recipe: Recipe | None = None) -> tuple[str, ...]:
        """Return the names of hidden layer `number` (from 1), of its norm if it has one of its own, and of its activation."""
        linear, norm, act = (each.format(number) for each in self.groups)
        return (linear, *((norm,) if (recipe or self.recipe).norm == "batch" and norm else ()), act)


def build(arch: str, recipe: Recipe) -> Chain:
    """Return the model, initialised by PyTorch's generator; see `initialise` for what recipes do to the weights."""
    children, features = ARCHITECTURES[arch].body(recipe)
    if recipe.nan is not None:
        operation, after, batch = recipe.nan
        names = list(children)
        at = names.index(after) + 1
        added = {operation: Unguarded(operation, batch, recipe.guarded)}
        children = {name: children[name] for name in names[:at]} | added | {name: children[name] for name in names[at:]}
    children["output"] = nn.Linear(features, CLASSES[recipe.data] or 1)
    if recipe.shut_output:
        children["output_act"] = nn.ReLU()
    if recipe.softmax:
        children["softmax"] = nn.Softmax(-1)
    return Chain(children, recipe.detach)


def _norm(recipe: Recipe, channels: int, image: bool) -> nn.Module | None:
    if recipe.norm == "batch":
        momentum = recipe.bn_momentum
        return nn.BatchNorm2d(channels, momentum=momentum) if image else nn.BatchNorm1d(channels, momentum=momentum)
    return nn.GroupNorm(4, channels) if recipe.norm == "group" else None


def _mlp(recipe: Recipe) -> tuple[dict[str, nn.Module], int]:
    children: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    last = math.prod(SHAPES[recipe.data])
    for number in range(1, recipe.depth + 1):
        children[f"linear{number}"] = nn.Linear(last, recipe.width)
        if (norm := _norm(recipe, recipe.width, image=False)) is not None:
            children[f"norm{number}"] = norm
        children[f"act{number}"] = ACTIVATIONS[recipe.activation]()
        if recipe.dropout:
            children[f"drop{number}"] = nn.Dropout(recipe.dropout)
        last = recipe.width
    return children, last


def _cnn(recipe: Recipe) -> tuple[dict[str, nn.Module], int]:
    children: dict[str, nn.Module] = {"image": nn.Unflatten(1, (1, SHAPES[recipe.data][0]))}
    last = 1
    for number in range(1, recipe.depth + 1):  # width is that of the last layer: 8, 16, 32, 64
        size, kernel = recipe.width >> (recipe.depth - number), 5 if number == 1 else 3
        children[f"conv{number}"] = nn.Conv2d(
            last, size, kernel, stride=2, padding=kernel // 2, bias=recipe.norm != "batch"
        )
        if (norm := _norm(recipe, size, image=True)) is not None:
            children[f"norm{number}"] = norm
        children[f"act{number}"] = ACTIVATIONS[recipe.activation]()
        last = size
    children["pool"] = nn.AdaptiveAvgPool2d(1)
    children["flatten"] = nn.Flatten()
    if recipe.dropout:
        children["drop"] = nn.Dropout(recipe.dropout)
    return children, last


def _resmlp(recipe: Recipe) -> tuple[dict[str, nn.Module], int]:
    children: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    children["stem"] = nn.Linear(math.prod(SHAPES[recipe.data]), recipe.width)
    for number in range(1, recipe.depth + 1):
        children[f"block{number}"] = Residual(recipe.width, recipe.width, recipe)
    if recipe.norm == "layer":
        children["norm"] = nn.LayerNorm(recipe.width)
    return children, recipe.width


def _transformer(recipe: Recipe) -> tuple[dict[str, nn.Module], int]:
    rows, columns = SHAPES[recipe.data]
    children: dict[str, nn.Module] = {
        "embed": nn.Linear(columns, recipe.width),
        "positions": Positions(rows, recipe.width),
    }
    for number in range(1, recipe.depth + 1):
        children[f"block{number}"] = Block(recipe)
    children["norm"] = nn.LayerNorm(recipe.width)
    children["mean"] = Mean()
    return children, recipe.width


def _gru(recipe: Recipe) -> tuple[dict[str, nn.Module], int]:
    columns = SHAPES[recipe.data][1]
    children: dict[str, nn.Module] = {"gru": nn.GRU(columns, recipe.width, batch_first=True), "last": Last()}
    for number in range(1, recipe.depth + 1):
        children[f"linear{number}"] = nn.Linear(recipe.width, recipe.width)
        if (norm := _norm(recipe, recipe.width, image=False)) is not None:
            children[f"norm{number}"] = norm
        children[f"act{number}"] = ACTIVATIONS[recipe.activation]()
        if recipe.dropout:
            children[f"drop{number}"] = nn.Dropout(recipe.dropout)
    return children, recipe.width


FLAT = ("linear{}", "norm{}", "act{}")
CONV = ("conv{}", "norm{}", "act{}")

REGRESSION: dict[str, Any] = {
    "data": "diabetes",
    "batch_size": 32,
    "epochs": 30,
    "optimizer": "sgd",
    "lr": 5e-3,
    "weight_decay": 0.03,
}
IMAGES: dict[str, Any] = {"data": "mnist", "batch_size": 100, "epochs": 8}

_ALL = (
    Architecture("mlp3", _mlp, Recipe(data="digits", depth=2, lr=3e-3), FLAT),
    Architecture("mlp8", _mlp, Recipe(**IMAGES, depth=7, width=128, lr=5e-4), FLAT),
    Architecture("tanh5", _mlp, Recipe(data="digits", depth=4, activation="tanh", optimizer="sgd", lr=0.03), FLAT),
    Architecture("wine", _mlp, Recipe(batch_size=8, epochs=20, data="wine", depth=2, width=32, lr=5e-3), FLAT),
    Architecture("regression", _mlp, Recipe(**REGRESSION, depth=2, width=32, init="default"), FLAT),
    Architecture("cnn", _cnn, Recipe(**IMAGES, depth=4, lr=3e-3), CONV),
    Architecture("cnn_bn", _cnn, Recipe(**IMAGES, depth=4, lr=3e-3, norm="batch"), CONV),
    Architecture("resmlp_ln", _resmlp, Recipe(**IMAGES, depth=3, norm="layer"), ("block{}.linear1", "", "block{}.act")),
    Architecture(
        "transformer",
        _transformer,
        Recipe(**IMAGES, width=32, activation="gelu", norm="layer", init="default", lr=3e-3),
        ("block{}.mlp.linear1", "", "block{}.mlp.act"),
    ),
    Architecture("gru", _gru, Recipe(depth=1, init="default", lr=5e-3), FLAT),
    Architecture(
        "mlp_gelu",
        _mlp,
        Recipe(batch_size=16, epochs=15, data="cancer", depth=3, width=48, activation="gelu", dropout=0.2),
        FLAT,
    ),
    Architecture("cnn_gn", _cnn, Recipe(depth=3, norm="group", activation="leaky_relu", lr=3e-3, epochs=15), CONV),
)
ARCHITECTURES = {each.name: each for each in _ALL}
HELD_OUT = ("mlp_gelu", "cnn_gn")  # in no part but the held-out one
