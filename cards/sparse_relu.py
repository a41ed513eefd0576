"""A ReLU with many zeros whose units all fire now and then: health that looks like death."""

from __future__ import annotations

from pathlib import Path

from cards.card import Card, Picture, Shown
from cards.dead_relu import perceptron, train_dead
from cards.marks import mark, panels
from cards.read import found, last_loss, share_of_zeros
from cards.training import fit, sgd


def make(folder: Path) -> Shown:
    """Train a wide network, and the one whose units die."""
    run = fit(
        lambda: perceptron(256), folder / "sparse", optimizer=sgd(0.1, 0.9), epochs=5, kinds="activation"
    )  # fmt: skip
    other = train_dead(folder / "dead")
    zeros, windows, dead = share_of_zeros(run, "relu1"), run.units("fc1"), other.units("fc1")
    figure = run.colorful(["fc1", "relu1"], window="own", figsize=(10.4, 3.9), title="Sparse and healthy")
    before, after = panels(figure)
    mark(before, 1, (100, 0.55 * before.get_ylim()[0]), (-30, -6))
    mark(after, 2, (100, 0.0), (16, -30))
    mark(after, 3, (100, 0.5 * after.get_ylim()[1]), (26, 14))
    shares = run.dead(["relu1", "relu2"], figsize=(10.4, 3.2), title="")
    mark(shares.axes[0], 4, (115, 0.0), (-18, 34))
    return Shown(
        pictures=[
            Picture(figure, "The first layer of a wide network, before and after its ReLU."),
            Picture(shares, "Many exact zeros, and (line) no units that did not fire even once in a window."),
        ],
        numbers={
            "zeros": f"{100 * zeros[-20:].mean():.0f}",
            "window": int(windows.last[-1] - windows.first[-1] + 1),
            "units": windows.active.shape[1],
            "silent": int((~windows.active[-1]).sum()),
            "dead": int((~dead.active[-1]).sum()),
            "dead_units": dead.active.shape[1],
            "loss": f"{last_loss(run):.2g}",
        },
        claims={
            "the diagnosis finds it healthy": run.diagnose().healthy,
            "between 50 and 90 % of the values of the first ReLU are zeros": bool(0.5 < zeros[-20:].mean() < 0.9),
            "nearly every unit fires now and then": bool(windows.dead_share[-1] < 0.05),
            "it learns": last_loss(run) < 0.3,
            "beside it nearly all units of the dead ReLU are silent": bool(dead.dead_share[-1] > 0.9),
            "the rule tells the two apart": found(run, "dead-units") is None and found(other, "dead-units") is not None,
        },
        run=run,
    )


CARD = Card(
    title="Sparse, and healthy",
    summary="Most values of a ReLU are exactly zero, and nothing is wrong: each unit is silent for most samples and fires for some.",
    training="784-256-256-10 with ReLU, SGD at 0.1 with momentum 0.9, batches of 128, five epochs of 4,000 digits.",
    make=make,
    see="""
- **1** Before the ReLU most values are negative.
- **2** They become the bright line at zero: {zeros} % of the values.
- **3** Above it the picture goes on, wide and soft.
- **4** The line of silent units lies at the floor: {silent} of {units} did not fire in the last {window} batches.
""",
    meaning="""
A unit that answers to one stroke is zero for all digits without it, and the zeros of one image are not those of the next. The loss is
{loss}.
""",
    look_alike="""
In a [dead ReLU](dead_relu.md) the share of zeros jumps within a few batches, nothing is left above the line, and {dead} of
{dead_units} units are silent for *all* samples. `run.dead()` draws both; zeros alone cannot tell.
""",
    remedy="""
Nothing. Tools that warn from 50 or 70 % zeros on warn of this. Look again if silent units become more from window to window.
""",
    rule="That for [dead units](../diagnosis.md#dead-units) counts units that never fire, and rightly stays silent here.",
)
