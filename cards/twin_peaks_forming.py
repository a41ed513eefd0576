"""The last layer of a binary classifier: its no and its yes come apart."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.training import digits, fit, sgd
from colordim import Run
from colordim.demo.data import Digits

__all__ = ["CARD", "bce", "odd_or_even", "yes_or_no"]


def odd_or_even() -> Digits:
    """Return the digits with the label 1 for odd ones and 0 for even ones."""
    whole = digits()
    return replace(whole, train_labels=whole.train_labels % 2, valid_labels=whole.valid_labels % 2)


def yes_or_no() -> nn.Sequential:
    """Return a small convolutional network with one output, and a first layer that has its input recorded."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(input=nn.Identity())
    for number, (inputs, outputs) in enumerate(((1, 8), (8, 16), (16, 32)), start=1):
        layers[f"conv{number}"], layers[f"relu{number}"] = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.ReLU()
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(32 * 16, 1)
    return nn.Sequential(layers)


def bce(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy of one output."""
    return binary_cross_entropy_with_logits(outputs[:, 0], labels.float())


def density(run: Run, low: float, high: float, batches: slice = slice(-31, None)) -> float:
    """Return the share of the last layer's outputs with a magnitude from `low` to `high`, per unit."""
    counts, edges = run.counts("head")[batches], run.stream("head").axis.edges
    size = np.maximum(np.abs(edges[:-1]), np.abs(edges[1:]))
    inside = (size > low) & (size <= high)
    return float(counts[:, inside].sum() / counts.sum() / (high - low))


def make(folder: Path) -> Shown:
    """Train to tell odd digits from even ones."""
    run = fit(
        yes_or_no, folder / "twins", optimizer=sgd(0.02, 0.9), epochs=6, data=odd_or_even(), loss_function=bce,
        kinds="activation",
    )  # fmt: skip
    start, valley, peaks = density(run, 0, 0.5, slice(0, 4)), density(run, 0, 1), density(run, 2, 4)
    valid = run.batches["phase"] == "valid"
    figure = run.colorful(
        "head", window="own", profiles=True, figsize=(9.6, 4.6), title="Twin peaks: is the digit odd?"
    )
    (ax,) = panels(figure)
    mark(ax, 1, (16, 0.1), (-8, 44))
    mark(ax, 2, (46, 2.8), (-26, 26))
    mark(ax, 3, (174, 0.0), (24, -52))
    twins = run.twin_peaks(title="The last epoch", figsize=(7.2, 4.6))
    mark(twins.axes[0], 4, (0.019, 0.8), (-34, 10))
    return Shown(
        pictures=[
            Picture(figure, "The one output of a network that says yes (above zero) or no (below)."),
            Picture(twins, "The same as histograms: the end of the last epoch's training, and its validation."),
        ],
        numbers={"times": f"{peaks / valley:.1f}", "valid": f"{run.batches['loss'][valid][-2:].mean():.2f}"},
        claims={
            "nothing is wrong": run.diagnose().healthy,
            "it begins as one line near zero": start > 1.9,
            "in the last epoch there is less at zero than beside it": peaks > 1.3 * valley,
            "it learns": bool(run.batches["loss"][valid][-2:].mean() < 0.3),
        },
        run=run,
    )


CARD = Card(
    title="Twin peaks, forming",
    summary="The outputs of a binary classifier part into two bands: the network learns to say yes, and to say no.",
    training="three strided convolutions with ReLU (1-8-16-32 channels) and one output, binary cross-entropy, SGD at 0.02 with momentum 0.9, batches of 128, six epochs of 4,000 digits.",
    make=make,
    see="""
- **1** At first one thin line near zero: the network knows nothing, and says so.
- **2** It opens, and forks: above zero its yes, below its no.
- **3** Between them the picture darkens and gets holes: there are fewer and fewer images about which it cannot decide.
- **4** The same as a valley. The histogram is {times} times as high between 2 and 4 as below 1 (either sign); arrows and numbers say where
  the peaks are, and how far apart.
""",
    meaning="""
An output of +3.5 is a probability of 97 %. Training and validation have their peaks in the same places (validation loss {valid}): what
it says of new digits is as sure as what it says of known ones.
""",
    look_alike="""
Peaks that are [apart](twin_peaks_apart.md) between training and validation. A [saturated tanh](saturated_tanh.md), further in: two
lines where none is wanted. Of ten classes there is one yes to nine no: a band and a [shoulder](classes_mixed.md).
""",
    remedy="""
Nothing: watch the valley deepen. If it fills up, or never opens, look at the layers before.
""",
    rule="Two peaks are no fault.",
)
