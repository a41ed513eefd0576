"""Units that never fire again, after steps that were far too large."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from torch import nn, optim

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found, last_loss, share_of_zeros
from cards.training import adam, fit
from colordim import Run

__all__ = ["CARD", "SPIKE", "perceptron", "train_dead"]

SPIKE = (40, 48)
"""The batches in which the learning rate is 300 times too high."""


def perceptron(width: int = 64) -> nn.Sequential:
    """Return two hidden layers with ReLU, as PyTorch initialises them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    layers["fc1"], layers["relu1"] = nn.Linear(784, width), nn.ReLU()
    layers["fc2"], layers["relu2"] = nn.Linear(width, width), nn.ReLU()
    layers["head"] = nn.Linear(width, 10)
    return nn.Sequential(layers)


def train_dead(folder: Path) -> Run:
    """Train a perceptron whose schedule has a slip in a few batches."""

    def slip(steps: optim.Optimizer, _: int) -> optim.lr_scheduler.LRScheduler:
        return optim.lr_scheduler.LambdaLR(steps, lambda batch: 300.0 if SPIKE[0] <= batch < SPIKE[1] else 1.0)

    return fit(
        perceptron, folder, optimizer=adam(1e-3), epochs=5, schedule=slip,
        kinds="activation",
    )  # fmt: skip


def make(folder: Path) -> Shown:
    """Train, and draw the values and their zeros."""
    run = train_dead(folder / "dead")
    zeros = share_of_zeros(run, "relu1")
    since = int(np.flatnonzero(zeros < 0.99)[-1]) + 1
    windows = run.units("fc1")
    loss = last_loss(run)
    figure = run.colorful(["relu1", "head"], window=(-8, 8), figsize=(10.4, 3.9), title="Dead ReLU")
    relu, head = panels(figure)
    mark(relu, 1, (SPIKE[0], 5.0), (-30, 10))
    mark(relu, 2, (since + 45, 0.0), (14, 44))
    mark(head, 3, (since + 45, -0.4), (14, -44))
    dead = run.dead(["relu1", "relu2"], figsize=(10.4, 3.2), title="")
    mark(dead.axes[0], 4, (115, float(windows.dead_share[-1])), (-18, -34))
    return Shown(
        pictures=[
            Picture(figure, "The first ReLU and the outputs of a small network, five epochs."),
            Picture(dead, "The share of exact zeros, and (line) of units that did not fire even once in a window."),
        ],
        numbers={
            "before": f"{100 * zeros[SPIKE[0] - 10 : SPIKE[0]].mean():.0f}",
            "since": since,
            "loss": f"{loss:.2f}",
            "dead": int((~windows.active[-1]).sum()),
            "units": windows.active.shape[1],
        },
        claims={
            "the rule finds dead units": found(run, "dead-units") is not None,
            "the first ReLU returns next to nothing but zeros since the slip": since < SPIKE[1] + 8,
            "it had less than half as many before": bool(zeros[SPIKE[0] - 10 : SPIKE[0]].mean() < 0.5),
            "nearly all of its units are dead": bool(windows.dead_share[-1] > 0.9),
            "the loss ends far from learnt": bool(loss > 1.5),
        },
        run=run,
    )


CARD = Card(
    title="Dead ReLU",
    summary="From one batch on a ReLU returns nothing but zeros: its units got an input below zero for every sample, and can never be corrected again.",
    training="784-64-64-10 with ReLU, Adam at 0.001, batches of 128, five epochs of 4,000 digits; in batches 40 to 47 the schedule says 0.3.",
    make=make,
    see="""
- **1** The learning rate slips, and for a few batches values fly out of the window.
- **2** Since batch {since} one bright line at zero, blank above it. Before, {before} % were zeros.
- **3** The outputs are thin level lines, the same for every image. The loss stays at {loss}.
- **4** What decides: {dead} of {units} units did not fire even once.
""",
    meaning="""
A ReLU passes zero where its input is negative, and a gradient of zero. A unit whose input is negative for *every* sample is never
corrected again.
""",
    look_alike="""
A [sparse ReLU](sparse_relu.md) has many zeros in good health: count units, not zeros.
[Collapse and recover](collapse_and_recover.md) comes back.
""",
    remedy="""
Mend what threw them: schedule, warm-up, clipping. Then a leaky ReLU, Kaiming initialisation, batch norm. Dead units do not revive:
start from a checkpoint before the slip.
""",
    symptom="dead-units",
    rule="It asks for half of a layer's units silent in a whole window of batches; here its cause is named first.",
)
