"""Gradients that vanish on their way back through sigmoids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.networks import perceptron
from cards.read import found, last_loss, rms
from cards.training import fit, sgd

DEEP = (64,) * 6


def make(folder: Path) -> Shown:
    """Train six layers of sigmoids, and of ReLU."""
    run = fit(perceptron(*DEEP, activation=nn.Sigmoid), folder / "sigmoid", optimizer=sgd(0.5), epochs=3)
    figure = run.colorful(
        ["fc1", "fc3", "fc5", "head"], kind="gradient", window="symlog", colorbar="shared", figsize=(8.6, 5.4),
        title="Vanishing gradients: six layers of sigmoid",
    )  # fmt: skip
    first, _, _, head = panels(figure)
    mark(head, 1, (60, 2e-4), (0, -36))
    mark(first, 2, (60, 3e-8), (0, 30))
    sizes = {layer: np.median(rms(run, layer, "gradient")) for layer in ("fc1", "fc2", "fc5", "head")}
    scale = rms(run, "fc1")
    grad = found(run, "vanishing-gradients")
    return Shown(
        pictures=[
            Picture(
                figure,
                "What comes back to four of seven layers, on one scale: linear in the middle, logarithmic beyond.",
            )
        ],
        numbers={
            "ratio": f"{sizes['head'] / sizes['fc1']:,.0f}",
            "head": f"{sizes['head']:.1g}",
            "each": f"{(sizes['fc5'] / sizes['fc1']) ** (1 / 4):.0f}",
            "loss": f"{last_loss(run):.2f}",
            "drift": f"{100 * abs(scale[-10:].mean() / scale[:10].mean() - 1):.1f} %",
        },
        claims={
            "the rule finds it, first layer first": grad is not None and grad.layers[0] == "fc1",
            "the first layer gets less than a thousandth of the last": bool(sizes["head"] > 1000 * sizes["fc1"]),
            "each layer makes it at least four times smaller": bool((sizes["fc5"] / sizes["fc1"]) ** (1 / 4) > 4),
            "activations of the first layer do not move": bool(abs(scale[-10:].mean() / scale[:10].mean() - 1) < 0.05),
            "it learns nothing": last_loss(run) > 0.95 * np.log(10),
        },
        run=run,
    )


CARD = Card(
    title="Vanishing",
    summary="Gradients shrink from layer to layer on their way back, until the first layers get nothing to learn from.",
    training="six hidden layers of 64 with sigmoid, PyTorch's initialisation, SGD at 0.5, batches of 128, three epochs of 4,000 digits.",
    make=make,
    see="""
These are gradients, not activations. Read the panels from the *last* layer backwards.

- **1** At the head they are about ±{head}. On this scale the distance from zero is what counts.
- **2** From panel to panel the bands move in; at the first layer they are {ratio} times smaller.
""",
    meaning="""
A sigmoid is nowhere steeper than 1/4. Going back, each layer multiplies the gradient by that slope and by its weights; here each leaves one {each}th. The first
layers stay as random as they began (their activations change by {drift}), and the later ones learn from noise: loss {loss}, guessing is 2.30.
""",
    look_alike="""
Activations alone do not show it: they are as calm as those of a [learning rate that is too low](learning_rate_too_low.md). Draw `kind="gradient"` and compare layers on
one scale. All layers small alike: the training is done, or the loss is scaled. Sharp ends in float16: [underflow](fp16_underflow.md).
""",
    remedy="""
In this order: ReLU (or GELU) with its initialisation in the place of sigmoid; normalisation between the layers; residual connections. A higher learning rate does not
help: it would have to be another one for each layer.
""",
    symptom="vanishing-gradients",
    rule="The first matrix gets less than a thousandth of the gradient of the last, and the network does not learn.",
)
