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
    peak = int(np.argmax(scale[:62]))  # the first two epochs
    after = peak + int(np.argmin(scale[peak : peak + 30]))
    begins = after + int(np.argmax(scale[after:] > 4 * scale[after]))
    figure = run.colorful(
        ["conv2", LAYER], window="own", colorbar="shared", figsize=(8.6, 3.6),
        title="Collapse and recover: SGD with learning rate 0.6",
    )  # fmt: skip
    _, ax = panels(figure)
    high = ax.get_ylim()[1]
    mark(ax, 1, (peak - 7, 0.3 * high), (-32, 24))
    mark(ax, 2, (after, -0.09 * high), (12, -40))
    mark(ax, 3, (begins, 0.25 * high), (-16, 30))
    finding = found(run, "collapse-and-recover")
    return Shown(
        pictures=[
            Picture(figure, "The second and the fourth convolution of one small network, 124 batches of digits.")
        ],
        numbers={
            "peak": peak,
            "factor": f"{scale[peak] / scale[after]:.0f}",
            "rise": f"{scale[peak] / scale[:3].mean():.0f}",
            "begins": begins,
        },
        claims={
            "the rule finds the collapse in the fourth convolution": finding is not None and LAYER in finding.layers,
            "the fourth convolution grows at least tenfold first": bool(scale[peak] > 10 * scale[:3].mean()),
            "it falls at least tenfold within 30 batches": bool(scale[peak] > 10 * scale[after]),
            "it rises again": bool(scale[after:].max() > 4 * scale[after]),
        },
        run=run,
    )


CARD = Card(
    title="Collapse and recover",
    summary="Values rise from batch to batch, crash to zero, and begin again: the steps are too large for how the network began.",
    training="four strided convolutions with ReLU (1-8-16-32-32 channels) and PyTorch's initialisation, SGD at 0.6, batches of 128, four epochs of 4,000 digits.",
    make=make,
    see="""
- **1** The band widens like a trumpet: until batch {peak} the fourth convolution grows {rise} times. The second one does the same in slow motion.
- **2** Within a batch or two all of it falls onto a bright line at zero, {factor} times smaller.
- **3** About batch {begins} it rises again, and crashes again.
""",
    meaning="""
The network began with values that shrink from layer to layer, so for many batches next to nothing reaches the end. Each step makes every layer larger, and their growth multiplies:
what the fourth returns grows faster and faster. Then one step, made for small values, throws the weights to where almost nothing fires.
What was learnt up to there is lost. Which batch it happens in depends on the seed; that it happens does not.
""",
    look_alike="""
A [dead ReLU](dead_relu.md) also ends as a line at zero, but does not come back. In a [healthy](healthy.md) training the band widens once, and stays. One
large batch of *data* gives a spike of a single column, and the loss comes back at once.
""",
    remedy="""
In this order: batch norm between the layers; Kaiming initialisation; a lower learning rate, or one that warms up.
""",
    symptom="collapse-and-recover",
    rule="It looks for two or more layers that fall to less than half of their peak within five batches, while the loss gives back what it had gained.",
)
