"""A signal that dies or explodes layer by layer before the first step."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from torch import nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found, last_loss, rms
from cards.training import fit, sgd

DEPTH, WIDTH = 7, 128
LAYERS = ["fc1", "fc3", "fc5", "fc7"]


def deep(gain: float) -> nn.Sequential:
    """Return hidden layers with ReLU whose weights begin with std · √fan-in = gain."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number in range(1, DEPTH + 1):
        inputs = 784 if number == 1 else WIDTH
        layers[f"fc{number}"] = linear = nn.Linear(inputs, WIDTH)
        nn.init.normal_(linear.weight, std=gain / inputs**0.5)
        nn.init.zeros_(linear.bias)
        layers[f"relu{number}"] = nn.ReLU()
    layers["head"] = nn.Linear(WIDTH, 10)
    return nn.Sequential(layers)


def make(folder: Path) -> Shown:
    """Train with weights that begin too small, and as ReLU likes them; look at the first batch of too large ones."""
    bad, good, large = (
        fit(partial(deep, gain), folder / name, optimizer=sgd(0.05), epochs=epochs)
        for name, gain, epochs in (("small", 0.5, 2), ("kaiming", 2**0.5, 2), ("large", 6.0, 1))
    )
    options: dict[str, Any] = {"window": (-5.0, 5.0), "cols": 4, "figsize": (11.6, 3.1), "colorbar": "shared"}
    first = bad.colorful(LAYERS, title="Too small: weights begin at 0.5 / √fan-in", **options)
    panes = panels(first)
    mark(panes[0], 1, (30, 1.2), (-20, 24))
    mark(panes[1], 2, (30, 0.3), (-20, 34))
    mark(panes[3], 3, (30, 0.0), (-20, 37))
    second = good.colorful(LAYERS, title="Kaiming: weights begin at √2 / √fan-in", **options)
    mark(panels(second)[3], 4, (30, 2.0), (-20, 18))
    small, kaiming, huge = ([float(rms(run, layer)[0]) for layer in LAYERS] for run in (bad, good, large))
    return Shown(
        pictures=[
            Picture(first, "Four of seven hidden layers, all in the same window, two epochs."),
            Picture(second, "The same network, begun with the weights that ReLU likes."),
        ],
        numbers={
            "small": f"{small[0]:.2g}, {small[1]:.1g}, {small[2]:.1g}, {small[3]:.1g}",
            "large": f"{huge[3] / huge[0]:,.0f}",
            "gain": f"{(small[3] / small[0]) ** (1 / (DEPTH - 1)):.2f}",
            "loss": f"{last_loss(bad):.2f}",
            "good": f"{last_loss(good):.2f}",
        },
        claims={
            "the rule finds the initialisation": found(bad, "poor-init") is not None,
            "it finds the one that is too large": found(large, "poor-init") is not None,
            "nothing is found with Kaiming's": good.diagnose().healthy,
            "each shown layer of the first batch has less than a third of the one before": all(
                b < a / 3 for a, b in pairwise(small)
            ),
            "with too large weights each has more than three times as much": all(b > 3 * a for a, b in pairwise(huge)),
            "with Kaiming's the last is within a factor of two of the first": 0.5 < kaiming[3] / kaiming[0] < 2,
            "nothing is learnt": last_loss(bad) > 2.25,
            "with Kaiming's it learns": last_loss(good) < 1.0,
        },
        run=bad,
    )


CARD = Card(
    title="Poor initialisation",
    summary="From the very first batch the signal shrinks (or grows) from layer to layer, by the same factor each: the weights begin with the wrong scale.",
    training="784, seven times 128 with ReLU, 10; weights of std 0.5/√fan-in (second picture: 1.41/√fan-in), biases zero, SGD at 0.05, batches of 128, two epochs of 4,000 digits.",
    make=make,
    see="""
- **1** The first layer has a wide band from batch 0 on.
- **2** Two layers on it is a fraction of that,
- **3** and in the end a line at zero: root mean squares of {small}.
- **4** Begun by Kaiming's rule, the last hidden layer begins as wide as the first.
""",
    meaning="""
Each layer multiplies the spread of its input by a factor, here {gain}; over layers that is a power. Backwards the gradient dies the
same way: after two epochs the loss is still {loss} (ln 10 = 2.30), with Kaiming's rule {good}. With 6/√fan-in the last hidden layer is
{large} times the first.
""",
    look_alike="""
[Vanishing](vanishing.md) is its consequence for gradients. A [dead ReLU](dead_relu.md) becomes a line *at some batch*; here it is one from
the first column on, and more so with every layer.
""",
    remedy="""
`nn.init.kaiming_normal_` for ReLU, Xavier with gain 5/3 for tanh; a normalisation between the layers makes their scale harmless.
""",
    symptom="poor-init",
    rule="It looks at std(weight)·√fan-in (below 0.1, above 4), else at the signal in the first batch (a hundredfold).",
)
