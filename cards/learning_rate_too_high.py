"""A learning rate that is too high, without a collapse: each step overwrites the last one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.networks import perceptron
from cards.read import found, last_loss, rms
from cards.training import adam, fit
from colordim import Run


def leaky() -> nn.Module:
    """Return an activation function that cannot die."""
    return nn.LeakyReLU(0.1)


def make(folder: Path) -> Shown:
    """Train a small network with Adam at a hundred times its usual learning rate."""
    run = fit(perceptron(64, 64, activation=leaky), folder / "high", optimizer=adam(0.1), epochs=3)
    usual = fit(perceptron(64, 64, activation=leaky), folder / "usual", optimizer=adam(0.001), epochs=3)
    figure = run.colorful(
        ["fc2", "head"],
        window="own",
        colorbar="shared",
        figsize=(8.6, 3.3),
        title="Learning rate too high: Adam at 0.1",
    )
    fc2, head = panels(figure)
    mark(fc2, 1, (2, 0.0), (30, 46))
    mark(head, 2, (45, -0.3 * head.get_ylim()[1]), (0, -26))
    beside = run.updates(figsize=(8.6, 2.8), title="Updates relative to the weights")
    ratio = steps(run)
    mark(beside.axes[0], 3, (0.5, float(np.log10(ratio[0]))), (46, -2))
    scale = rms(run, "fc2")
    return Shown(
        pictures=[
            Picture(figure, "The second hidden layer and the last one, 93 batches."),
            Picture(beside, "How far each step moves the three matrices; a hundredth of their size is -2."),
        ],
        numbers={
            "first": f"{100 * ratio[0]:.0f} %",
            "thrown": f"{scale[2:12].max() / scale[0]:.0f}",
            "usual": f"{last_loss(usual):.1f}",
            "loss": f"{last_loss(run):.1f}",
        },
        claims={
            "the rule finds it": found(run, "learning-rate-too-high") is not None,
            "there is no collapse": found(run, "collapse-and-recover") is None,
            "the second layer is thrown twentyfold within a dozen batches": bool(scale[2:12].max() > 20 * scale[0]),
            "the first step changes the weights by a fifth at least": bool(ratio[0] > 0.2),
            "it learns worse than at the usual rate": last_loss(run) > 2 * last_loss(usual),
        },
        run=run,
    )


def steps(run: Run) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return std(update) / std(weight) of each training batch, the median of all matrices."""
    matrices = [stream for stream in run.select(kind="update") if len(stream.shape) > 1]

    def std(name: str, kind: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        moments = run.moments(run.stream(name, kind))  # type: ignore[arg-type]  # one of the two below
        mean = moments["sum"] / moments["size"]
        return np.asarray(np.sqrt(np.maximum(moments["sum_sq"] / moments["size"] - mean**2, 0.0)))

    return np.median([std(s.name, "update") / std(s.name, "weight") for s in matrices], axis=0)


CARD = Card(
    title="Learning rate too high",
    summary="In the first batches the values are thrown far away, and then they flicker: each step overwrites what the last one learnt.",
    training="two hidden layers of 64 with leaky ReLU, PyTorch's initialisation, Adam at 0.1 (a hundred times its usual rate), batches of 128, three epochs of 4,000 digits.",
    make=make,
    see="""
- **1** A thin line for one or two batches, then a wide band: the second layer is {thrown} times as large within a dozen batches.
- **2** The last layer flickers from batch to batch, like bad reception; a network that learns moves smoothly.
- **3** The reason: the first step changed the weights by {first} of their size. About 0.1 % (-3) is usual, 10 % (-1) is the limit.
""",
    meaning="""
A step follows the slope of the loss where the weights *are*. If it goes far, the slope there is another one, and the step is as good as random. The loss
is {loss} at the end, where the usual rate of 0.001 gets to {usual}; guessing has 2.3.
""",
    look_alike="""
[Collapse and recover](collapse_and_recover.md) builds up over many batches, falls to *zero*, and begins again; here there is one jump, at the start. With
[batch norm](batch_norm_saves_the_day.md) large steps also widen a layer, but what follows stays calm and the loss falls.
""",
    remedy="""
A learning rate that brings the updates to -2 or -3 (the diagnosis names it); then warm-up, clipping, batch norm.
""",
    symptom="learning-rate-too-high",
    rule="The median of the three ratios: above 6 % is a problem while the network does not learn.",
)
