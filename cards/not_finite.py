"""NaN: where it comes from, and how it takes everything."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found
from cards.training import fit, sgd


class Log(nn.Module):
    """Compresses values by a logarithm, and takes for granted that none is below -2."""

    def forward(self, x: Tensor) -> Tensor:
        """Return log(x + 2), NaN below -2."""
        return torch.log(x + 2)


def compressed() -> nn.Sequential:
    """Return a small network with a logarithm in its middle."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    layers["fc1"], layers["relu1"] = nn.Linear(784, 64), nn.ReLU()
    layers["fc2"], layers["log"] = nn.Linear(64, 64), Log()
    layers["head"] = nn.Linear(64, 10)
    return nn.Sequential(layers)


def make(folder: Path) -> Shown:
    """Train it until the first value is below -2, and a little on."""
    run = fit(compressed, folder / "nan", optimizer=sgd(0.05), epochs=1, validate=False)
    nan = {name: run.moments(run.stream(name, "activation"))["nan"] for name in ("fc1", "fc2", "log", "head")}
    first = {name: int(np.flatnonzero(values)[0]) for name, values in nan.items()}
    at, lowest = first["log"], run.moments(run.stream("fc2", "activation"))["min"]
    finding = found(run, "not-finite")
    figure = run.colorful(
        ["fc1", "fc2", "log", "head"],
        window="own",
        cols=2,
        figsize=(10.4, 6.4),
        title="NaN: a logarithm of a negative number",
    )
    one, two, log, head = panels(figure)
    mark(two, 1, (at + 0.5, 0.97 * two.get_ylim()[0]), (34, 12))
    mark(log, 2, (at + 0.5, 0.0), (36, 18))
    mark(head, 3, (at + 0.8, -0.9), (36, 0))
    mark(one, 4, (at + 1.5, 0.0), (36, 18))
    return Shown(
        pictures=[Picture(figure, "Every layer of a small network in one epoch; pink: batches with NaN.")],
        numbers={
            "batch": at,
            "next": first["fc1"],
            "lowest": f"{lowest[at]:.2f}",
            "number": int(nan["log"][at]),
            "size": f"{int(run.moments(run.stream('log', 'activation'))['size'][at]):,}",
            "head": int(nan["head"][at]),
        },
        claims={
            "the rule finds the first layer and its batch": finding is not None
            and finding.layers[0] == "log"
            and finding.first == at,
            "it begins after some healthy batches": at >= 3,
            "the layer before still is finite in that batch": first["fc2"] == at + 1,
            "some of its values are below -2": bool(lowest[at] < -2 <= lowest[:at].min()),
            "few values are NaN at first": bool(nan["log"][at] < 100),
            "the first layer has its first NaN one batch later": first["fc1"] == at + 1,
            "another one later all of it is NaN": int(nan["fc1"][at + 2]) == 128 * 64,
        },
        run=run,
    )


CARD = Card(
    title="NaN",
    summary="An operation without a result gives a single NaN; two steps later every weight is NaN.",
    training="784-64-64-10 with a ReLU, then log(x + 2) behind fc2; SGD at 0.05, batches of 128, one epoch of 4,000 digits.",
    make=make,
    see="""
- **1** The lower edge of fc2 sinks from batch to batch, until it is at {lowest} in batch {batch}.
- **2** `log` takes the logarithm of x + 2: {number} of {size} values are NaN. Pink begins *here*, in batch {batch}.
- **3** The outputs of those samples are NaN in the same batch ({head} values), and so is the loss.
- **4** In batch {next} even the first layer has NaN: the step has put it into the weights. One more, and nothing else is left.
""",
    meaning="""
log of a negative number, 0/0, inf - inf have no result. NaN spreads through every sum that it touches: from two values to the loss, from
the loss to all gradients. Training does not recover; only the *first* batch tells where it came from.
""",
    look_alike="""
NaN in all layers at once from batch 0: it is in the data. Infinities of gradients in single batches: a
[loss scaler](fp16_underflow.md) that tries its scale, and skips. [Exploding](exploding.md) values end as infinities, but grow first.
""",
    remedy="""
Guard the operation (`x.clamp(min=1e-6)` before the log, 1e-8 below the fraction); then begin again from a checkpoint before. Lower the
learning rate or clip if values had grown.
""",
    symptom="not-finite",
    rule="It takes the first batch, and in it the first layer in the order of computing.",
)
