"""Outputs that are sure of themselves before anything was learnt."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cards.card import Card, Picture, Shown
from cards.dead_relu import perceptron
from cards.marks import mark, panels
from cards.read import found, last_loss, rms
from cards.training import adam, fit, sgd

FACTOR = 60.0


def wide(factor: float) -> nn.Sequential:
    """Return the perceptron with a last layer whose weights are larger by a factor."""
    model = perceptron(128)
    with torch.no_grad():
        model.get_parameter("head.weight").mul_(factor)
    return model


def make(folder: Path) -> Shown:
    """Train with a last layer that begins too wide, and as PyTorch begins it."""
    bad, good = (
        fit(
            partial(wide, factor), folder / name, optimizer=adam(1e-3),
            epochs=3,
        )
        for name, factor in (("wide", FACTOR), ("default", 1.0))
    )  # fmt: skip
    loss, other = (run.batches["loss"][run.batches["phase"] == "train"] for run in (bad, good))
    back = int(np.flatnonzero(loss < math.log(10))[0])
    leap = fit(lambda: wide(FACTOR), folder / "sgd", optimizer=sgd(0.05), epochs=1, kinds="activation").batches["loss"]
    outputs, healthy = rms(bad, "head"), rms(good, "head")
    size: dict[str, Any] = {"window": (-20.0, 20.0), "figsize": (10.4, 3.9)}
    first = bad.colorful(["fc2", "head"], title="Over-confident: the last layer begins 60 times too wide", **size)
    before, head = panels(first)
    mark(before, 1, (4, 0.8), (28, 40))
    mark(head, 2, (1, 13), (34, 12))
    second = good.colorful(["fc2", "head"], title="As PyTorch begins it", **size)
    mark(panels(second)[1], 3, (1, 0.4), (34, 44))
    return Shown(
        pictures=[
            Picture(first, "The last hidden layer and the outputs, in one window."),
            Picture(second, "The same, with the last layer as PyTorch initialises it."),
        ],
        numbers={
            "size": f"{outputs[0]:.1f}",
            "before": f"{rms(bad, 'fc2')[0]:.2f}",
            "healthy": f"{healthy[0]:.2f}",
            "loss": f"{loss[0]:.1f}",
            "other": f"{other[0]:.2f}",
            "back": back,
            "leap": f"{np.nanmax(leap):.0f}",
            "valid": f"{last_loss(bad, 'valid', 2):.2f}",
            "valid_other": f"{last_loss(good, 'valid', 2):.2f}",
        },
        claims={
            "the rule finds the start": found(bad, "overconfident-start") is not None,
            "nothing is found in the other": good.diagnose().healthy,
            "the first loss is more than twice ln 10": bool(loss[0] > 2 * math.log(10)),
            "the other's is ln 10 within a tenth": bool(abs(other[0] / math.log(10) - 1) < 0.1),
            "the outputs are more than ten times as large as the layer before": bool(
                outputs[0] > 10 * rms(bad, "fc2")[0]
            ),
            "the first batches only take back the certainty": 2 <= back <= 15,
            "it learns as well in the end": last_loss(bad, "valid", 2) < 1.3 * last_loss(good, "valid", 2),
            "with SGD at 0.05 the loss leaps first": bool(np.nanmax(leap) > 3 * loss[0]),
        },
        run=bad,
    )


CARD = Card(
    title="Over-confident start",
    summary="The outputs are huge before anything was learnt: the network is sure, mostly wrong, and the first batches go into unlearning that.",
    training="784-128-128-10 with ReLU, weights of the last layer times 60, Adam at 0.001, batches of 128, three epochs of 4,000 digits.",
    make=make,
    see="""
- **1** The layer before the last begins narrow, as it should ({before}, root mean square).
- **2** The outputs begin wide: {size}, in the very first column.
- **3** In health they begin as a thin line ({healthy}) and open like a fan, as far as what was learnt deserves.
""",
    meaning="""
Who knows nothing of 10 classes should say so: equal outputs, a loss of ln 10 = 2.30. It is {other} in health, and {loss} here; {back} batches
only take that back. With Adam that is all the harm (validation loss {valid}, without the fault {valid_other}); with SGD at 0.05 the first
gradients are so large that the loss leaps to {leap}.
""",
    look_alike="""
[Values out of range](out_of_range.md) get large *later*. With [too large weights everywhere](poor_initialisation.md) the layers before
are wide, too. A wide, learnt output is [twin peaks](twin_peaks_forming.md).
""",
    remedy="""
Make the last layer's weights smaller (PyTorch's default, or std 0.01), its bias zero. Then look at the first loss: is it ln K?
""",
    symptom="overconfident-start",
    rule="It compares the first loss with twice ln K, and the first outputs with 3 and with the layer before.",
)
