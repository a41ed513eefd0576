"""Training and validation that say different things: another preprocessing, and overfitting."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cards.card import Card, Picture, Shown
from cards.marks import mark
from cards.read import found, last_loss
from cards.training import fit, sgd
from cards.twin_peaks_forming import bce, odd_or_even, yes_or_no
from colordim import Run
from colordim.column import Phase
from colordim.diagnosis.read import gather
from colordim.diagnosis.rules.train_valid_mismatch import coarse, divergence


def apart(run: Run, layer: str) -> float:
    """Return the divergence between the last epoch's training and validation in bits, from 0 (alike) to 1."""
    passes = gather(run).passes[layer]
    return float(divergence(*coarse(passes.train[-1], passes.valid[-1])))


def spread(run: Run, phase: Phase) -> float:
    """Return the root mean square of the last layer's outputs in the last batches of a phase."""
    moments = run.moments("head", phase, -2)
    return float((moments["sum_sq"].sum() / moments["size"].sum()) ** 0.5)


def valley(run: Run, phase: Phase) -> float:
    """Return the share of the last layer's outputs within one of zero, in the last batches of a phase."""
    counts, edges = run.counts("head", phase, -2), run.stream("head").axis.edges
    return float(counts[:, (edges[:-1] >= -1) & (edges[1:] <= 1)].sum() / counts.sum())


def make(folder: Path) -> Shown:
    """Train with validation digits that are inverted, and on too few digits."""
    data = odd_or_even()
    inverted = replace(data, valid_images=-data.valid_images)
    few = replace(data, train_images=data.train_images[::8], train_labels=data.train_labels[::8])
    options: dict[str, Any] = {"optimizer": sgd(0.02, 0.9), "loss_function": bce, "kinds": "activation"}
    bad = fit(yes_or_no, folder / "inverted", epochs=6, data=inverted, **options)
    overfit = fit(yes_or_no, folder / "overfit", epochs=40, batch_size=50, data=few, **options)
    finding = found(bad, "train-valid-mismatch")
    first = bad.twin_peaks(title="Apart: the validation digits are inverted", figsize=(7.2, 4.0))
    ax = first.axes[0]
    mark(ax, 1, (0.045, -4.4), (44, -16))
    mark(ax, 2, (0.17, 1.0), (40, 24))
    second = overfit.twin_peaks(title="Looks like it: overfitting", figsize=(7.2, 4.0))
    low, high = second.axes[0].get_xlim()
    mark(second.axes[0], 3, (0.3 * (high - low), 0.0), (44, -6))
    losses = {name: (last_loss(run), last_loss(run, "valid", 2)) for name, run in (("bad", bad), ("overfit", overfit))}
    return Shown(
        pictures=[
            Picture(first, "The last layer at the end of an epoch's training, and in its validation."),
            Picture(second, "The same of a network that has learnt 500 digits by heart."),
        ],
        numbers={
            "bad": f"{losses['bad'][1]:.2f} beside {losses['bad'][0]:.2f}",
            "overfit": f"{losses['overfit'][1]:.2f} beside {losses['overfit'][0]:.3f}",
            "input": f"{apart(bad, 'conv1'):.2f}",
            "same": f"{apart(overfit, 'conv1'):.4f}",
            "head": f"{apart(overfit, 'head'):.2f}",
        },
        claims={
            "the rule finds the first, at the input": finding is not None and finding.layers[0] == "input",
            "the rule finds nothing in the second": overfit.diagnose().healthy,
            "both have a validation loss above one and a half times that of training": all(
                valid > 1.5 * train for train, valid in losses.values()
            ),
            "in the first the peaks of validation lie closer to zero": spread(bad, "valid")
            < 0.6 * spread(bad, "train"),
            "in the second validation fills the valley": valley(overfit, "valid") > 2 * valley(overfit, "train"),
            "in the first the first convolution parts": apart(bad, "conv1") > 0.05,
            "in the second it does not": apart(overfit, "conv1") < 0.004,
            "in the second the last layer parts": apart(overfit, "head") > 0.02,
        },
        run=bad,
    )


CARD = Card(
    title="Twin peaks, apart",
    summary="Training and validation have their peaks in different places: in validation the network sees something else than in training, or it has learnt by heart.",
    training="three strided convolutions (1-8-16-32) and one output, odd or even digits, SGD at 0.02 with momentum 0.9; first: 4,000 digits, six epochs, validation digits with black and white swapped; second: 500 digits, 40 epochs.",
    make=make,
    see="""
- **1** In training two peaks: yes and no.
- **2** In validation one peak near zero: of inverted digits it cannot say anything. The loss there is {bad}.
- **3** The look-alike: in training the valley at zero is empty, and validation fills it: digits it is not sure of. The loss is {overfit}.
""",
    meaning="""
The two histograms should be nearly the same. Where they are not, validation does not measure what was trained: its digits were
prepared otherwise, `model.eval()` is missing, or they are simply new to a network that knows the old ones by heart.
""",
    look_alike="""
The last layer parts in both; go back to the first. Of the other preprocessing conv1 already differs by {input} bits (Jensen-Shannon), of
overfitting by {same}, and only the last layer by {head}. Noise of small validation sets looks like the second.
""",
    remedy="""
Apart from the first layer on: the same scaling and the same channels for both, `model.eval()`. In the last layer alone: more data,
augmentation, weight decay, fewer epochs.
""",
    symptom="train-valid-mismatch",
    rule="It names the first layer that parts. This network begins with `nn.Identity()`, so that its input is recorded, too.",
)
