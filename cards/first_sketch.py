"""The first sketch of the idea, a bad and a good training, from real runs."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
from torch import nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import last_loss, rms
from cards.training import fit, one_cycle, sgd
from colordim import reading
from colordim.charts.colorful_grid import colorful_grid, grid_of
from colordim.demo.network import STAGES, lesson_network
from colordim.diagnosis.rules.collapse_and_recover import crashes

SLOPE = 0.1
WINDOW = (-2.5, 8.0)


def leaky_network() -> nn.Sequential:
    """Return the lesson's network with leaky ReLU, and the initialisation that goes with it."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs, kernel) in enumerate(STAGES, 1):
        layers[f"conv{number}"] = convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)
        nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
        layers[f"leaky{number}"] = nn.LeakyReLU(SLOPE)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "head": nn.Linear(STAGES[-1][1], 10)}
    return nn.Sequential(layers)


def make(folder: Path) -> Shown:
    """Train both, and draw their last activation function side by side."""
    bad = fit(lesson_network, folder / "bad", optimizer=sgd(0.6), epochs=4, kinds="activation")
    good = fit(
        leaky_network, folder / "good", optimizer=sgd(0.6), schedule=one_cycle(0.15), epochs=4, kinds="activation"
    )
    grid, bar = grid_of(2, window=WINDOW, bar="shared", figsize=(8.6, 4.0))
    drawn = [
        reading.panel(
            run, run.stream(layer), "train", (0, run.length()), reading.epochs(run, "train"), grid.panel_width
        )
        for run, layer in ((bad, "relu4"), (good, "leaky4"))
    ]
    figure = colorful_grid(drawn, grid, window=WINDOW, bar=bar, title="Bad (ReLU, left) and good (leaky ReLU, right)")
    left, right = panels(figure)
    scale = rms(bad, "relu4")
    falls = [place for place, _ in crashes(scale)]
    mark(left, 1, (29, 2.0), (-24, 36))
    mark(left, 2, (falls[0] + 8, 0.05), (10, 44))
    mark(left, 3, (70, -0.1), (0, -26))
    mark(right, 4, (60, 3.5), (0, 0))
    mark(right, 5, (46, -0.45), (0, -26))
    end = rms(good, "leaky4")[-62:]
    below = good.moments("leaky4")
    return Shown(
        pictures=[Picture(figure, "What the last ReLU of one network returns, and the last leaky ReLU of another.")],
        numbers={
            "falls": len(falls),
            "first": falls[0],
            "bad": f"{last_loss(bad):.2f}",
            "good": f"{last_loss(good):.2f}",
            "least": f"{below['min'].min():.1f}",
            "most": f"{below['max'].max():.0f}",
        },
        claims={
            "the bad one rises and falls at least three times": len(falls) >= 3,
            "it returns nothing below zero": bool((bad.moments("relu4")["min"] >= 0).all()),
            "the good one does": bool(below["min"].min() < 0),
            "it keeps its spread": bool(end.max() < 2 * end.min()),
            "the diagnosis finds nothing there": good.diagnose().healthy,
            "it learns better": last_loss(good) < last_loss(bad),
            "its negative side is a tenth as wide or so": bool(-below["min"].min() < 0.3 * below["max"].max()),
            "the first fall comes where the circle is": bool(np.isclose(falls[0], 36, atol=12)),
        },
        run=bad,
    )


CARD = Card(
    title="The first sketch, from real runs",
    summary="The idea began as a drawing of two trainings, one bad and one good. Here both are real.",
    training="four strided convolutions, SGD, batches of 128, four epochs of 4,000 digits. Bad: ReLU, PyTorch's initialisation, a learning rate of 0.6. "
    "Good: leaky ReLU (slope 0.1), Kaiming initialisation, one cycle up to 0.15; no batch norm.",
    make=make,
    see="""
- **1** Bad, as drawn: values sweep upwards, faster and faster,
- **2** fall to the bottom (first in batch {first}), and sweep up again, {falls} times in all.
- **3** Below zero there is nothing: ReLU > 0.
- **4** Good, as drawn: the values spread, and then keep their distribution.
- **5** Below zero the leaky ReLU lets a tenth through.
""",
    meaning="""
The sketch by Stefano Giomo had the signature of a bad training right before there was a chart. In three things reality differs: sweeps begin from almost nothing and each has its own height, not three alike.
What a leaky ReLU returns is not normal: positive values reach {most}, negative ones are pressed together down to {least}. And it is not the leak alone that
makes it good: initialisation and schedule do as much. Loss at the end: {bad} and {good}; guessing has 2.30.
""",
    look_alike="""
See [collapse and recover](collapse_and_recover.md) for the left one, [healthy](healthy.md) for the right one. A ReLU that stays a bright line at zero and shows little above may be [sparse](sparse_relu.md), which is fine.
""",
    remedy="""
In this order: initialise for the activation function, let the learning rate warm up, keep a slope below zero; or batch norm.
""",
    symptom="collapse-and-recover",
    rule="It finds the bad one; in the good one nothing.",
)
