"""Activations that grow without bound, the more the deeper, and gradients with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cards.card import Card, Picture, Shown
from cards.learning_rate_too_high import leaky
from cards.marks import mark, panels
from cards.networks import perceptron
from cards.read import found, last_loss, rms
from cards.training import adam, fit, one_cycle


def make(folder: Path) -> Shown:
    """Train five layers without normalisation with Adam, up to 0.1."""
    run = fit(
        perceptron(64, 64, 64, 64, 64, activation=leaky), folder / "exploding", optimizer=adam(0.1),
        schedule=one_cycle(0.1), epochs=3,
    )  # fmt: skip
    figure = run.colorful(
        ["fc1", "fc5"], window="symlog", colorbar="shared", figsize=(8.6, 3.3), title="Exploding activations"
    )
    first, last = panels(figure)
    deep, shallow = rms(run, "fc5"), rms(run, "fc1")
    gradient = rms(run, "fc1", "gradient")
    mark(first, 1, (21, 90.0), (-36, 22))
    mark(last, 2, (30, 600.0), (-44, 14))
    beside = run.colorful(
        "fc1",
        kind="gradient",
        window="symlog",
        colorbar="shared",
        figsize=(8.6, 2.8),
        title="Exploding gradients, same run",
    )
    (back,) = panels(beside)
    mark(back, 3, (26, 0.01), (-44, 14))
    grown = found(run, "exploding-activations")
    return Shown(
        pictures=[
            Picture(figure, "The first and the fifth layer, on one logarithmic scale."),
            Picture(beside, "The gradients that come back to the first layer."),
        ],
        numbers={
            "deep": f"{deep.max() / deep[:3].mean():,.0f}",
            "shallow": f"{shallow.max() / shallow[:3].mean():,.0f}",
            "gradient": f"{gradient.max() / gradient[:3].mean():,.0f}",
            "loss": f"{last_loss(run):,.0f}",
        },
        claims={
            "the rule finds it, and names the fifth layer": grown is not None and "fc5" in grown.layers,
            "so does the rule on gradients": found(run, "exploding-gradients") is not None,
            "the fifth layer grows a thousandfold": bool(deep.max() > 1000 * deep[:3].mean()),
            "it grows five times as much as the first": bool(
                deep.max() / deep[:3].mean() > 5 * shallow.max() / shallow[:3].mean()
            ),
            "gradients grow a hundredfold": bool(gradient.max() > 100 * gradient[:3].mean()),
            "the loss is worse than guessing": last_loss(run) > np.log(10),
        },
        run=run,
    )


CARD = Card(
    title="Exploding",
    summary="Values grow without bound, the deeper the layer the more, and gradients with them.",
    training="five hidden layers of 64 with leaky ReLU and no normalisation, PyTorch's initialisation, Adam with one cycle up to 0.1, batches of 128, three epochs of 4,000 digits.",
    make=make,
    see="""
- **1** The first layer grows {shallow} times. (Beyond the middle the scale is logarithmic.)
- **2** The fifth grows {deep} times: it multiplies what all before it have grown by.
- **3** What comes back to the first layer grows {gradient} times: gradients pass through the same large weights.
""",
    meaning="""
Larger weights make larger values, those make larger gradients, and so on. SGD would soon reach infinity; steps of Adam are bounded, so one can watch. The loss ends at {loss}.
Values and gradients explode together, since both are multiplied by the same weights.
""",
    look_alike="""
Layers of a [healthy](healthy.md) training grow, too, ten times or so: it is the *loss* that tells. Values beyond the window alone mean [nothing bad](out_of_range.md).
""",
    remedy="""
In this order: a lower learning rate; clipping the gradients; [batch norm](batch_norm_saves_the_day.md); Kaiming initialisation, if it is so from the first batch.
""",
    symptom="exploding-activations",
    rule="A layer becomes a hundred times as large while the network does not learn. It is listed under its cause, with [exploding-gradients](../diagnosis.md#exploding-gradients).",
)
