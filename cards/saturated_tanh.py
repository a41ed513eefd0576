"""Tanh whose inputs are so large that its outputs sit at -1 and 1."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found, last_loss
from cards.training import fit, sgd
from colordim import Run

__all__ = ["CARD", "share_beyond"]

FLAT = 2.0
"""From here on the slope of tanh is below a tenth of the steepest, as the rule takes it."""


def tanh_network(gain: float) -> nn.Sequential:
    """Return three hidden layers with tanh whose weights begin with std · √fan-in = gain."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, inputs in enumerate((784, 128, 128), start=1):
        layers[f"fc{number}"] = linear = nn.Linear(inputs, 128)
        nn.init.normal_(linear.weight, std=gain / inputs**0.5)
        layers[f"tanh{number}"] = nn.Tanh()
    layers["head"] = nn.Linear(128, 10)
    return nn.Sequential(layers)


def share_beyond(run: Run, layer: str, border: float) -> npt.NDArray[np.float64]:
    """Return the share of a layer's outputs beyond a border on either side in each training batch, float64 ``[batches]``."""
    stream = run.stream(layer, "activation")
    counts, edges = run.counts(stream), stream.axis.edges
    beyond = (edges[:-1] >= border) | (edges[1:] <= -border)
    return np.asarray(counts[:, beyond].sum(axis=1) / run.moments(stream)["size"])


def make(folder: Path) -> Shown:
    """Train with weights that begin too large, and as tanh likes them."""
    bad, good = (
        fit(
            partial(tanh_network, gain), folder / name, optimizer=sgd(0.05), epochs=3,
            range={"tanh*": (-1.0, 1.0)}, bins=80,
        )
        for name, gain in (("saturated", 3.9), ("healthy", 5 / 3))
    )  # fmt: skip
    flat, other = (float(share_beyond(run, "fc2", FLAT)[-20:].mean()) for run in (bad, good))
    size: dict[str, Any] = {"figsize": (10.4, 3.9)}
    first = bad.colorful(["fc2", "tanh2"], window="own", title="Saturated: weights begin at 3.9 / √fan-in", **size)
    before, after = panels(first)
    mark(before, 1, (45, 3.6), (-30, 14))
    mark(after, 2, (45, 0.98), (-26, -20))
    mark(after, 3, (45, 0.0), (26, 18))
    second = good.colorful(["fc2", "tanh2"], window="own", title="Healthy: weights begin at 5/3 / √fan-in", **size)
    mark(panels(second)[1], 4, (45, 0.0), (26, 18))
    return Shown(
        pictures=[
            Picture(first, "What goes into the second tanh, and what comes out."),
            Picture(second, "The same network, begun with the weights that tanh likes."),
        ],
        numbers={
            "flat": f"{100 * flat:.0f}",
            "other": f"{100 * other:.0f}",
            "loss": f"{last_loss(bad):.2f}",
            "healthy": f"{last_loss(good):.2f}",
        },
        claims={
            "the rule finds the saturation": found(bad, "saturation") is not None,
            "the second tanh is among its layers": "tanh2" in getattr(found(bad, "saturation"), "layers", ()),
            "nothing is found in the healthy one": good.diagnose().healthy,
            "more than half of the inputs of the second tanh lie where it is flat": flat > 0.5,
            "they are less than a third as many in the healthy one": other < flat / 3,
            "the saturated one learns more slowly": last_loss(bad) > 1.2 * last_loss(good),
        },
        run=bad,
    )


CARD = Card(
    title="Saturated tanh",
    summary="The values that go into a tanh are so large that what comes out is hardly anything but -1 and 1.",
    training="784-128-128-128-10 with tanh, weights of std 3.9/√fan-in (second picture: 1.67/√fan-in), SGD at 0.05, batches of 128, three epochs of 4,000 digits.",
    make=make,
    see="""
- **1** Inputs reach far beyond ±2: {flat} % of them.
- **2** Outputs: two bright lines, at 1 and at -1.
- **3** The middle, where tanh is steep, is the darkest place.
- **4** In health the middle is as bright as the rest ({other} % beyond ±2).
""",
    meaning="""
Beyond ±2 tanh is nearly flat: its output says "yes" or "no" and no longer how much, and less than a tenth of the gradient gets
through. It still learns, slowly: a loss of {loss} beside {healthy}.
""",
    look_alike="""
[Twin peaks](twin_peaks_forming.md) are also two lines, but of the *last* layer, and they form while it learns: there a decision is
wanted. A saturated layer lies further in.
""",
    remedy="""
Xavier initialisation with gain 5/3 and biases of zero; standardised inputs; a lower learning rate, if it came later
([sigmoid](saturated_sigmoid.md)); batch norm before the tanh; ReLU.
""",
    symptom="saturation",
    rule="It takes more than half of the inputs beyond ±2.",
)
