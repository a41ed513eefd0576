"""A layer that begins to change only later: because it was frozen at first; and a whole network that waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found, last_loss, rms
from cards.training import fit, sgd
from colordim.demo.network import lesson_network

LAYER, EPOCH = "conv1", 2
THAW = EPOCH * 31
"""The first batch in which the layer has a learning rate."""


def groups(model: nn.Module) -> torch.optim.Optimizer:
    """Return Adam with a group of its own for the first layer."""
    first = [p for name, p in model.named_parameters() if name.startswith(LAYER)]
    others = [p for name, p in model.named_parameters() if not name.startswith(LAYER)]
    parts: list[dict[str, Any]] = [{"params": first, "lr": 0.01}, {"params": others}]
    return torch.optim.Adam(parts, lr=0.003)


def thaw(steps: torch.optim.Optimizer, _: int) -> torch.optim.lr_scheduler.LRScheduler:
    """Return a schedule that holds the first group at zero for two epochs."""
    return torch.optim.lr_scheduler.LambdaLR(steps, [lambda batch: float(batch >= THAW), lambda _: 1.0])


def make(folder: Path) -> Shown:
    """Train with the first layer held for two epochs; and, for the look-alike, with a plateau."""
    run = fit(lesson_network, folder / "late", optimizer=groups, epochs=5, schedule=thaw)
    waits = fit(lesson_network, folder / "plateau", optimizer=sgd(0.1), epochs=7, kinds="activation")
    figure = run.colorful(
        [LAYER, "conv3"], window="own", mean=True, colorbar="shared", figsize=(8.6, 3.2), title="One layer starts late"
    )
    first, third = panels(figure)
    mark(first, 1, (THAW, 0.3 * first.get_ylim()[1]), (-30, 34))
    mark(third, 2, (6, 0.25 * third.get_ylim()[1]), (20, 40))
    beside = waits.colorful(
        ["conv1", "conv4"],
        window="own",
        colorbar="shared",
        figsize=(8.6, 3.2),
        title="Looks like it: all layers wait together",
    )
    _, fourth = panels(beside)
    mark(fourth, 3, (150, 0.0), (-10, 44))
    scale, other = rms(run, LAYER), rms(waits, "conv4")
    late = found(run, "late-start")
    loss = waits.batches["loss"][waits.batches["phase"] == "train"]
    leaves = int(np.argmax(np.convolve(loss, np.ones(10) / 10, "valid") < 0.95 * np.log(10)))
    return Shown(
        pictures=[
            Picture(figure, "The first and the third convolution; white: mean, and mean ± standard deviation."),
            Picture(beside, "The same network with SGD at 0.1: nothing moves for a long time, then everything does."),
        ],
        numbers={
            "thaw": THAW,
            "growth": f"{scale[-10:].mean() / scale[:10].mean():.1f}",
            "deep": f"{other[-10:].mean() / other[:10].mean():.0f}",
            "leaves": leaves,
            "loss": f"{last_loss(run):.2f}",
        },
        claims={
            "the rule names the first layer alone": late is not None and late.layers == (LAYER,),
            "its first change is in the batch in which it gets a learning rate": bool(
                np.abs(scale[:THAW] / scale[:5].mean() - 1).max() < 0.1
            ),
            "it grows by half then": bool(scale[-10:].mean() > 1.5 * scale[:10].mean()),
            "the others learn meanwhile": last_loss(run) < 1.0,
            "on the plateau no layer is late": found(waits, "late-start") is None,
            "the fourth layer of that one grows tenfold in the end": bool(other[-10:].mean() > 10 * other[:10].mean()),
            "and its loss stays at guessing for two epochs": leaves > 62,
        },
        run=run,
    )


CARD = Card(
    title="Late start",
    summary="A layer stays as it began while others have changed long ago, and then starts to move: it has been waiting for something.",
    training="four strided convolutions with ReLU. Above: Adam at 0.003, the first convolution held at a learning rate of zero for two epochs (as in gradual unfreezing), then at 0.01. "
    "Below: SGD at 0.1 for seven epochs.",
    make=make,
    see="""
- **1** The first layer is a straight band up to batch {thaw}, then widens to {growth} times its size.
- **2** The third one widens from the first batches on.
- **3** The other case: all layers wait, then grow together, the fourth {deep} times; the loss leaves guessing in batch {leaves}.
""",
    meaning="""
A layer waits if its learning rate is zero (here, on purpose), or its gradients are very small at first ([vanishing](vanishing.md)). "Did the network start
to learn later?" In the lower picture, yes: its loss stayed at guessing as long. In the upper one only this layer did.
""",
    look_alike="""
Does the loss wait, too? Then all layers do (**3**): small first weights let little through. [Frozen](frozen_layer.md): it never begins.
""",
    remedy="""
If meant, nothing. Else look at `run.updates()`: none means the optimiser or the schedule; small ones mean gradients. For the plateau: Kaiming
initialisation or batch norm.
""",
    symptom="late-start",
    rule="It compares when each layer leaves 10 % around its first root mean square: at least four times as late as the median layer, and later than an epoch. A note.",
)
