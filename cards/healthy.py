"""What a good training looks like: dull."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import last_loss, rms
from cards.training import fit, one_cycle, sgd
from colordim.demo.network import healthy_network

LAYERS = ("conv1", "conv4", "relu4", "head")


def make(folder: Path) -> Shown:
    """Train the lesson's network with batch norm, Kaiming initialisation and one cycle."""
    run = fit(healthy_network, folder / "healthy", optimizer=sgd(0.6), epochs=4, schedule=one_cycle(0.6))
    figure = run.colorful(LAYERS, window="own", colorbar="shared", figsize=(8.6, 5.6), title="A healthy training")
    conv1, conv4, relu4, head = panels(figure)
    half = [ax.get_ylim()[1] for ax in (conv1, conv4, relu4, head)]
    mark(conv1, 1, (40, 0.02 * half[0]), (0, 34))
    mark(conv4, 1, (40, 0.02 * half[1]), (0, 34))
    mark(relu4, 2, (60, 0.0), (0, -26))
    mark(head, 3, (100, -0.28 * half[3]), (-40, -22))
    growth = [scale[-10:].mean() / scale[:3].mean() for scale in (rms(run, layer) for layer in LAYERS[:2])]
    start, end = rms(run, "head")[:3].mean(), rms(run, "head")[-10:].mean()
    jump = max(float(np.abs(np.diff(np.log2(rms(run, layer)[5:]))).max()) for layer in LAYERS[:2])
    diagnosis = run.diagnose()
    return Shown(
        pictures=[Picture(figure, "Four of the {layers} layers of a small network that learns to read digits.")],
        numbers={
            "layers": len(run.select()),
            "head": f"{end / start:.0f}",
            "first": f"{run.batches['loss'][0]:.1f}",
            "last": f"{last_loss(run):.2f}",
        },
        claims={
            "the diagnosis finds nothing": diagnosis.healthy,
            "convolutions stay within a factor of two of where they began": all(0.5 < g < 2 for g in growth),
            "no batch differs from the one before by half": jump < np.log2(1.5),
            "the last layer grows at least threefold": bool(end > 3 * start),
            "the loss falls to a quarter of guessing": last_loss(run) < 0.25 * np.log(10),
        },
        run=run,
    )


CARD = Card(
    title="Healthy",
    summary="Each band spreads early, then stays: nothing jumps, and nothing sticks to zero.",
    training="four strided convolutions with batch norm and ReLU, Kaiming initialisation, SGD with one cycle up to 0.6, "
    "batches of 128, four epochs of 4,000 digits.",
    make=make,
    see="""
- **1** The first and the fourth convolution have a band that is bright near zero and fades to both sides, as wide at the end as at the start. (The lines in
  conv1 are blank paper: each of its 8 channels turns it into one value.)
- **2** A ReLU has a bright line at zero, nothing below, and a band above that lives on.
- **3** Only the last layer changes its shape: it grows {head} times, into a broad belt below zero (the nine classes that a digit is not) and a
  thinner one above (the one that it is).
""",
    meaning="""
Each layer gets numbers of about the same size all the time, so one learning rate suits all of them, and each step builds on the last one. The loss
went from {first} to {last}. Health is dull; a picture that looks exciting is mostly a bad sign.
""",
    look_alike="""
A network whose [learning rate is too low](learning_rate_too_low.md) is as calm, but its *last* layer does not change either. A calm normalised layer can hide a convolution that
[grows behind it](batch_norm_saves_the_day.md). And calm activations say nothing about overfitting: compare [training with validation](twin_peaks_apart.md).
""",
    remedy="""
Nothing. Keep the run: the next one, with a change in it, is easiest to judge beside a healthy one.
""",
    rule="A diagnosis without problems and warnings is what each rule should say here; below is all that it says.",
)
