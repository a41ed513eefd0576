"""Sigmoid that large steps drive to its ends."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found, rms
from cards.saturated_tanh import share_beyond
from cards.training import adam, fit

FLAT = 4.0
"""From here on the slope of the sigmoid is below a tenth of the steepest, as the rule takes it."""


def sigmoid_network() -> nn.Sequential:
    """Return two hidden layers with sigmoid, as PyTorch initialises them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, inputs in enumerate((784, 64), start=1):
        layers[f"fc{number}"], layers[f"sigmoid{number}"] = nn.Linear(inputs, 64), nn.Sigmoid()
    layers["head"] = nn.Linear(64, 10)
    return nn.Sequential(layers)


def make(folder: Path) -> Shown:
    """Train with steps that are too large for the first layer, and with smaller ones."""
    bad, good = (
        fit(
            sigmoid_network, folder / name, optimizer=adam(lr), epochs=4,
            range={"sigmoid*": (0.0, 1.0)}, bins=80,
        )
        for name, lr in (("saturated", 0.03), ("healthy", 0.0005))
    )  # fmt: skip
    flat, other = share_beyond(bad, "fc1", FLAT), share_beyond(good, "fc1", FLAT)
    passed = [
        float(np.median((rms(run, "fc1", "gradient") / rms(run, "sigmoid1", "gradient"))[-20:])) for run in (bad, good)
    ]
    size: dict[str, Any] = {"figsize": (10.4, 3.9)}
    first = bad.colorful(["fc1", "sigmoid1"], window="own", title="Saturated: Adam at 0.03", **size)
    before, after = panels(first)
    mark(before, 1, (8, 0.5 * before.get_ylim()[1]), (34, 16))
    mark(after, 2, (70, 0.98), (-26, -20))
    mark(after, 3, (70, 0.5), (26, 16))
    second = good.colorful(["fc1", "sigmoid1"], window="own", title="Healthy: Adam at 0.0005", **size)
    mark(panels(second)[1], 4, (70, 0.5), (26, 16))
    return Shown(
        pictures=[
            Picture(first, "What goes into the first sigmoid, and what comes out."),
            Picture(second, "The same network with steps a sixtieth as large."),
        ],
        numbers={
            "start": f"{100 * flat[0]:.0f}",
            "flat": f"{100 * flat[-20:].mean():.0f}",
            "other": f"{100 * other[-20:].mean():.0f}",
            "passed": f"{100 * passed[0]:.1f}",
            "healthy": f"{100 * passed[1]:.0f}",
        },
        claims={
            "the rule finds the saturation": found(bad, "saturation") is not None,
            "the first sigmoid is among its layers": "sigmoid1" in getattr(found(bad, "saturation"), "layers", ()),
            "nothing is found in the healthy one": good.diagnose().healthy,
            "it began with hardly a value where the sigmoid is flat": bool(flat[0] < 0.05),
            "most lie there within the first epoch": bool(flat[31] > 0.6),
            "most lie there in the end": bool(flat[-20:].mean() > 0.8),
            "few do in the healthy one": bool(other[-20:].mean() < 0.3),
            "less of the gradient gets through": passed[0] < passed[1] / 2,
        },
        run=bad,
    )


CARD = Card(
    title="Saturated sigmoid",
    summary="Steps that are too large drive the inputs of a sigmoid apart, until what comes out is only zeros and ones.",
    training="784-64-64-10 with sigmoid, PyTorch's initialisation, Adam at 0.03 (second picture: 0.0005), batches of 128, four epochs of 4,000 digits.",
    make=make,
    see="""
- **1** Within the first batches the inputs run apart: from {start} % beyond ±4 to {flat} % in the end.
- **2** Outputs: a bright line at 1 and one at 0.
- **3** Between them next to nothing.
- **4** In health everything between is in use ({other} % beyond ±4).
""",
    meaning="""
At its ends a sigmoid is flat. Of the gradient of its output {passed} % get through to its input, in the healthy network {healthy} %
(a sigmoid lets at most 25 % through). What lies before it hardly learns any more.
""",
    look_alike="""
A [saturated tanh](saturated_tanh.md) that *begins* so has its two lines from batch 0: the initialisation. Here they form: the steps.
A sigmoid as *last* layer is meant to decide.
""",
    remedy="""
A lower learning rate or warm-up; standardised inputs; batch norm before the sigmoid; ReLU in hidden layers.
""",
    symptom="saturation",
    rule="It takes more than half of the inputs beyond ±4, and says since which batch.",
)
