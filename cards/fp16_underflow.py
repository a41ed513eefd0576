"""Gradients that float16 rounds to zero, and a loss scaler that saves them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import colordim
from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found, last_loss
from cards.training import digits
from colordim import Run
from colordim.demo.training import settled

WEIGHT = 5e-5
SMALLEST = 2.0**-24
"""The smallest positive number of float16."""


def half_precision(folder: Path, scaled: bool, epochs: int = 3) -> Run:
    """Train under autocast to float16, with or without a loss scaler."""
    data = digits()
    with settled(7):
        layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        layers["fc1"], layers["relu1"] = nn.Linear(784, 64), nn.ReLU()
        layers["fc2"], layers["relu2"] = nn.Linear(64, 64), nn.ReLU()
        layers["head"] = nn.Linear(64, 10)
        model = nn.Sequential(layers)
        steps = torch.optim.Adam(model.parameters(), 1e-3)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=2.0**16)
        order = torch.Generator().manual_seed(7)
        with colordim.record(
            model, folder=folder, name=folder.name, optimizer=steps, kinds="all", scaler=scaler
        ) as rec:
            for _ in range(epochs):
                for chosen in torch.randperm(len(data.train_labels), generator=order)[:3968].view(-1, 128):
                    with torch.autocast("cpu", torch.float16):
                        loss = WEIGHT * cross_entropy(model(data.train_images[chosen]), data.train_labels[chosen])
                    steps.zero_grad()
                    scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                    scaler.step(steps)
                    scaler.update()
                    rec.log(loss=loss / WEIGHT)
        return rec.run


def lost(run: Run, name: str) -> float:
    """Return the share of a weight's gradients that are exactly zero."""
    moments = run.moments(run.stream(name, "weight_gradient"))
    return float(moments["zeros"].sum() / moments["size"].sum())


def make(folder: Path) -> Shown:
    """Train without a scaler, and with one."""
    bad, good = (half_precision(folder / name, scaled) for name, scaled in (("plain", False), ("scaled", True)))
    zeros, saved = (lost(run, "fc1.weight") for run in (bad, good))
    finding = found(bad, "precision")
    stream = bad.stream("fc1.weight", "weight_gradient")
    edges, counts = stream.axis.edges, bad.counts(stream).sum(axis=0)
    smaller = counts[(edges[1:] <= SMALLEST) & (edges[:-1] > 0)].sum()
    size: dict[str, Any] = {"kind": "weight_gradient", "window": (-4e-7, 4e-7), "figsize": (10.4, 3.9)}
    first = bad.colorful(["fc1.weight", "fc2.weight"], title="float16 without a loss scaler", **size)
    one, _ = panels(first)
    mark(one, 1, (45, 0.0), (-34, 34))
    mark(one, 2, (60, 1.5 * SMALLEST), (30, 44))
    second = good.colorful(["fc1.weight", "fc2.weight"], title="With a loss scaler", **size)
    mark(panels(second)[0], 3, (45, 0.6e-7), (-34, 34))
    return Shown(
        pictures=[
            Picture(first, "Gradients of two weight matrices, close to zero."),
            Picture(second, "The same with `torch.amp.GradScaler`, as they are once they are unscaled."),
        ],
        numbers={
            "zeros": f"{100 * zeros:.0f}",
            "saved": f"{100 * saved:.0f}",
            "weight": f"{WEIGHT:g}",
            "smallest": "6.0e-8",
            "loss": f"{last_loss(bad):.2f}",
            "scaled": f"{last_loss(good):.2f}",
        },
        claims={
            "the rule finds the underflow": finding is not None,
            "it is float16's": finding is not None and "float16" in finding.title,
            "the rule finds nothing with the scaler": found(good, "precision") is None,
            "no gradient is smaller than float16's smallest number": int(smaller) == 0,
            "without the scaler there are more than twice as many zeros": zeros > 2 * saved,
            "it learns less well without": last_loss(bad) > 1.1 * last_loss(good),
        },
        run=bad,
    )


CARD = Card(
    title="float16 underflow",
    summary="Gradients smaller than the smallest number of float16 become exactly zero, and what they would have taught is lost.",
    training="784-64-64-10 with ReLU under `torch.autocast(dtype=torch.float16)` on a CPU, the loss times {weight} (as one term of several may be), Adam at 0.001, batches of 128, three epochs of 4,000 digits.",
    make=make,
    see="""
- **1** A bright line at zero: {zeros} % of the gradients.
- **2** Beside it blank stripes: near its end float16 has only multiples of {smallest}, and nothing between them.
- **3** With a scaler the picture is filled, and {saved} % are zero.
""",
    meaning="""
float16 ends at 2⁻²⁴, about {smallest}. A loss scaler multiplies the loss, and so all gradients, by a large number (65,536 at first) before the
backward pass, and divides by it in float32 before the step. The loss ends at {loss} without, at {scaled} with it.
""",
    look_alike="""
[Vanishing](vanishing.md) gradients are small, but have all sizes: no stripes, no sharp end. Zeros behind a [ReLU](sparse_relu.md) are meant;
here they are in the weights' gradients.
""",
    remedy="""
`torch.amp.GradScaler`, or bfloat16, which reaches as far down as float32. Infinite gradients in a few first batches are the scaler
trying its scale.
""",
    symptom="precision",
    rule="It looks for a sharp end at 2⁻²⁴ (and at the ends of two float8 formats) with zeros below it.",
)
