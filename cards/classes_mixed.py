"""The outputs for each class: healthy ones, and two that the network cannot tell apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import last_loss
from cards.training import digits, fit, sgd
from colordim import Run
from colordim.demo.network import healthy_network

PAIR = (4, 9)
YES = 5.0
"""Outputs above this one count as a yes; the valley between a healthy class's no and yes lies below."""


def yes(run: Run, number: int) -> float:
    """Return the share of a class's outputs above YES in the last quarter of the last epoch's batches."""
    stream = run.stream(f"head[{number}]")
    counts, edges = run.counts(stream, "train", -8), stream.axis.edges
    return float(counts[:, edges[:-1] >= YES].sum() / counts.sum())


def make(folder: Path) -> Shown:
    """Train on digits, and on digits of which half the 4s are called 9 and half the 9s 4."""
    data = digits()
    pair = torch.isin(data.train_labels, torch.tensor(PAIR))
    swapped = torch.where(pair & (torch.arange(len(pair)) % 2 == 0), sum(PAIR) - data.train_labels, data.train_labels)
    options: dict[str, Any] = {
        "optimizer": sgd(0.1, 0.9),
        "epochs": 5,
        "facets": {"head": "class"},
        "kinds": "activation",
    }
    good = fit(healthy_network, folder / "healthy", data=data, **options)
    bad = fit(healthy_network, folder / "mixed", data=replace(data, train_labels=swapped), **options)
    healthy, mixed = ([yes(run, number) for number in range(10)] for run in (good, bad))
    rest = [share for number, share in enumerate(mixed) if number not in PAIR]
    size: dict[str, Any] = {"by": "class", "window": (-12.0, 12.0), "figsize": (11.0, 5.6)}
    first = good.colorful("head", title="Ten classes, told apart", **size)
    mark(panels(first)[0], 1, (140, 8.0), (-30, -4))
    (one,) = (ax for ax in first.axes if [text.get_text() for text in ax.texts] == ["1"])
    mark(one, 2, (0.12 * one.get_xlim()[1], 8.5), (24, -10))
    second = bad.colorful("head", title="4 and 9 mixed", **size)
    for ax in (ax for ax in second.axes if [text.get_text() for text in ax.texts] in (["4"], ["9"])):
        mark(ax, 3, (0.22 * ax.get_xlim()[1], 7.0), (24, -8))
    loss, other = last_loss(bad), last_loss(good)
    return Shown(
        pictures=[
            Picture(first, "The outputs, and those of each class; the black line is the whole layer."),
            Picture(second, "The same network, but half of the 4s are labelled 9, and half of the 9s 4."),
        ],
        numbers={
            "healthy": f"{100 * min(healthy):.0f} to {100 * max(healthy):.0f}",
            "four": f"{100 * mixed[4]:.0f}",
            "nine": f"{100 * mixed[9]:.0f}",
            "rest": f"{100 * min(rest):.0f} to {100 * max(rest):.0f}",
            "yes": f"{YES:.0f}",
            "loss": f"{loss:.2f}",
            "other": f"{other:.2f}",
        },
        claims={
            "in health each class says yes to about a tenth of the images": all(0.05 < each < 0.17 for each in healthy),
            "4 and 9 say yes far more often than any other class": min(mixed[4], mixed[9]) > 1.3 * max(rest),
            "the loss stays higher": loss > other + 0.07,
            "no rule says anything": bad.diagnose().healthy and good.diagnose().healthy,
        },
        run=bad,
    )


CARD = Card(
    title="Mixed classes",
    summary="Two classes say yes to each other's images: their profiles have the same shoulder, twice as full as those of the others.",
    training='four strided convolutions with batch norm and ReLU (1-8-16-32-32 channels), Kaiming\'s initialisation, SGD at 0.1 with momentum 0.9, batches of 128, five epochs of 4,000 digits; `record(facets={{"head": "class"}})`.',
    make=make,
    see="""
- **1** Ten classes have one yes to nine no: a bright band at and below zero, a thin shoulder above.
- **2** Class by class: the shoulder is what the class says of its own digits. {healthy} % of its values are above {yes}.
- **3** 4 and 9 have a shoulder twice as full: {four} and {nine} % of the values, the others {rest} %.
""",
    meaning="""
A profile is one *output* over all images, not the images of one class. An output that says yes twice as often as there are such images
says it to those of another class, too: of a 4 both say "half". The loss stays at {loss} (without the mix {other}).
""",
    look_alike="""
A class that is twice as frequent has a fuller shoulder as well, but alone: mixing needs two. A class whose shoulder is missing was not
learnt yet, or is not in the data.
""",
    remedy="""
Look at images and labels of the two classes: labels (as here), a crop that cuts off what tells them apart, too small an image. Confirm
with a confusion matrix, which says who is taken for whom.
""",
    rule="The loss is low and the insides are sound; what the labels should be no recording can know.",
)
