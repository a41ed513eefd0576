"""A linear layer that explodes, and a batch norm that brings it back; and the same without."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.networks import perceptron
from cards.read import found, last_loss, rms
from cards.training import adam, fit, one_cycle

RATE = 0.3


def make(folder: Path) -> Shown:
    """Train the same network with batch norm and without."""
    with_norm = fit(
        perceptron(128, 128, norm=True), folder / "with", optimizer=adam(RATE), schedule=one_cycle(RATE), epochs=4
    )
    without = fit(perceptron(128, 128), folder / "without", optimizer=adam(RATE), schedule=one_cycle(RATE), epochs=4)
    figure = with_norm.colorful(
        ["fc2", "norm2"], window="shared", colorbar="shared", figsize=(8.6, 3.2), title="With batch norm: it learns"
    )
    linear, norm = panels(figure)
    high = linear.get_ylim()[1]
    mark(linear, 1, (26, 0.2 * high), (-34, 30))
    mark(norm, 2, (60, 0.06 * high), (0, 38))
    beside = without.colorful(
        ["fc2", "head"], window="symlog", colorbar="shared", figsize=(8.6, 3.2), title="Without: it learns nothing"
    )
    alone, _ = panels(beside)
    mark(alone, 3, (60, -100.0), (0, 44))
    grown = {layer: rms(with_norm, layer)[-10:].mean() / rms(with_norm, layer)[:3].mean() for layer in ("fc2", "norm2")}
    fatal = rms(without, "fc2")
    return Shown(
        pictures=[
            Picture(figure, "The second linear layer and the batch norm after it, on one scale."),
            Picture(beside, "The same training without batch norm, on a logarithmic scale."),
        ],
        numbers={
            "linear": f"{grown['fc2']:.0f}",
            "norm": f"{grown['norm2']:.1f}",
            "fatal": f"{fatal.max() / fatal[:3].mean():,.0f}",
            "learnt": f"{last_loss(with_norm):.2f}",
            "stuck": f"{last_loss(without):.2f}",
        },
        claims={
            "the linear layer grows tenfold": bool(grown["fc2"] > 10),
            "the norm does not triple": bool(grown["norm2"] < 3),
            "the rule names the linear layer": "fc2"
            in getattr(found(with_norm, "batch-norm-hides-drift"), "layers", ()),
            "it learns with batch norm": last_loss(with_norm) < 0.5,
            "it learns nothing without": last_loss(without) > 0.9 * np.log(10),
            "without, the linear layer grows a hundredfold": bool(fatal.max() > 100 * fatal[:3].mean()),
        },
        run=with_norm,
    )


CARD = Card(
    title="Batch norm saves the day",
    summary="A linear layer explodes; the batch norm after it returns numbers of unit size all the same, and the training goes well.",
    training="two hidden layers of 128 with ReLU, with batch norm and without, PyTorch's initialisation, Adam with one cycle up to "
    "0.3 (a hundred times the usual), batches of 128, four epochs of 4,000 digits.",
    make=make,
    see="""
- **1** The linear layer widens {linear} times, and leaves the window.
- **2** The batch norm after it stays near unit size: {norm} times what it was.
- **3** The same layer without a norm grows {fatal} times; loss {stuck}, which is guessing (2.30). With batch norm it is {learnt}.
""",
    meaning="""
Large steps make weights grow. Batch norm divides by the spread of each unit in the batch, so that the scale is divided out again; and the larger the weights, the
*less* a step of the same length turns them. So it also tames the learning rate.
""",
    look_alike="""
[Exploding](exploding.md) activations: there the *next* layer grows, too, and the loss with it. Compare the layer before a normalisation with the one after, on one scale (`window="shared"`).
""",
    remedy="""
Nothing, while it learns. Before you remove the norm: a lower learning rate, or weight decay.
""",
    symptom="batch-norm-hides-drift",
    rule="A note: the input of the norm has grown tenfold, its output less than three times.",
)
