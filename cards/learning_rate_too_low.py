"""A learning rate that is too low: nothing moves, not even the last layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cards.card import Card, Picture, Shown
from cards.learning_rate_too_high import steps
from cards.marks import mark, panels
from cards.read import found, last_loss, rms
from cards.training import fit, sgd
from colordim.demo.network import healthy_network


def make(folder: Path) -> Shown:
    """Train the healthy network with a learning rate of 0.0001."""
    run = fit(healthy_network, folder / "low", optimizer=sgd(1e-4), epochs=3)
    figure = run.colorful(
        ["conv4", "head"],
        window="own",
        colorbar="shared",
        figsize=(8.6, 3.3),
        title="Learning rate too low: SGD at 0.0001",
    )
    _, head = panels(figure)
    mark(head, 1, (20, 0.1 * head.get_ylim()[1]), (0, 44))
    beside = run.updates(figsize=(8.6, 2.8), title="Updates relative to the weights")
    mark(beside.axes[0], 2, (46, float(np.log10(np.median(steps(run))))), (0, 30))
    scale = rms(run, "head")
    return Shown(
        pictures=[
            Picture(figure, "The fourth convolution and the last layer, 93 batches."),
            Picture(beside, "How far each step moves each matrix; the rule of thumb is -3."),
        ],
        numbers={
            "change": f"{100 * abs(scale[-10:].mean() / scale[:10].mean() - 1):.1f} %",
            "power": f"{np.log10(np.median(steps(run))):.1f}",
            "loss": f"{last_loss(run):.2f}",
        },
        claims={
            "the rule finds it": found(run, "learning-rate-too-low") is not None,
            "the last layer stays within a tenth of where it began": bool(
                abs(scale[-10:].mean() / scale[:10].mean() - 1) < 0.1
            ),
            "typical steps are below a ten-thousandth": bool(np.median(steps(run)) < 1e-4),
            "it learns nothing": last_loss(run) > 0.95 * np.log(10),
        },
        run=run,
    )


CARD = Card(
    title="Learning rate too low",
    summary="Perfectly calm, and nothing is learnt: not even the last layer changes.",
    training="the network of [healthy](healthy.md) (batch norm, Kaiming initialisation), SGD at 0.0001 instead of one cycle up to 0.6, batches of 128, three epochs of 4,000 digits.",
    make=make,
    see="""
- **1** The last layer looks at the end as it did at the start; its size has changed by {change}.
- **2** The reason: steps are 10^{power} of the weights. The rule of thumb is 10^-3.
""",
    meaning="""
The steps go the right way, but are so small that it would take hundreds of times as many. The loss is {loss}; guessing has 2.30. What flickers in the
columns is the difference between batches, no learning.
""",
    look_alike="""
A [healthy](healthy.md) training is as calm in its hidden layers: *look at the last layer*, which must change its shape. In a [frozen layer](frozen_layer.md) or one outside of the
optimiser updates are exactly zero; here they are small. With [vanishing](vanishing.md) gradients they are small in the *first* layers alone.
""",
    remedy="""
A learning rate that brings the updates to about -2.5 (the diagnosis names it). Check the schedule, too: a warm-up or decay that was set
for another number of batches ends up here.
""",
    symptom="learning-rate-too-low",
    rule="Even the largest steps of the fastest matrices stay below 10^-4, and the loss hardly falls. A schedule that fades out at the end is not meant.",
)
