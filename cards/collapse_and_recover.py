"""The seed's bad training: activations rise, crash to zero, and begin again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found, rms
from cards.training import fit, sgd
from colordim.demo.network import lesson_network

LAYER = "conv4"


def make(folder: Path) -> Shown:
    """Train the lesson's network with SGD at 0.6."""
    run = fit(lesson_network, folder / "collapse", optimizer=sgd(0.6), epochs=4, kinds="activation")
    scale = rms(run, LAYER)
    peak = int(np.argmax(scale))
    after = peak + int(np.argmin(scale[peak : peak + 30]))
    figure = run.colorful(["conv2", LAYER], window="own", title="Collapse and recover: SGD, learning rate 0.6")
    _, ax = panels(figure)
    high = ax.get_ylim()[1]
    mark(ax, 1, (peak - 6, 0.45 * high), (-24, 14))
    mark(ax, 2, (after, 0.05 * high), (22, 26))
    return Shown(
        pictures=[
            Picture(figure, "The second and the fourth convolution of one small network, 124 batches of digits.")
        ],
        numbers={"peak": peak, "factor": f"{scale[peak] / scale[after]:.0f}"},
        claims={
            "the rule finds the collapse": found(run, "collapse-and-recover") is not None,
            "the fourth convolution falls at least tenfold within 30 batches": bool(scale[peak] > 10 * scale[after]),
        },
        run=run,
    )


CARD = Card(
    title="Collapse and recover",
    summary="Values rise from batch to batch, crash to zero, and begin again: the steps are too large for how the network began.",
    training="four strided convolutions with ReLU (1-8-16-32-32 channels) and PyTorch's initialisation, SGD at 0.6, batches of 128, four epochs of 4,000 digits.",
    make=make,
    see="""
- **1** The band widens like a trumpet: batch for batch more activations are larger.
- **2** Then everything falls onto a bright line at zero, by a factor of {factor} after batch {peak}; later it begins again.
""",
    meaning="""
The layer's scale grew until one step threw the weights to where almost nothing fires. What was learned up to there is lost:
each crash is a new beginning from a worse place.
""",
    look_alike="""
A [dead ReLU](dead_relu.md) also ends as a line at zero, but does not come back. In a [healthy](healthy.md) training the band widens once, and stays.
""",
    remedy="""
Normalise between the layers (batch norm), initialise for ReLU (Kaiming), warm up or lower the learning rate.
""",
    symptom="collapse-and-recover",
)
