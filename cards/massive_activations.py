"""A few huge values in a small transformer that learns well: put there, and kept by the training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cards.card import Card, Picture, Shown
from cards.marks import mark, panels
from cards.read import found, last_loss, rms
from cards.training import adam, fit

WIDTH, HEADS = 32, 4
HUGE = 1000.0
LAYERS = ["patches", "block1", "block2", "block3", "norm", "head"]


class Patches(nn.Module):
    """Cuts an image into 16 patches, and puts a start token before them."""

    def __init__(self, huge: float) -> None:
        super().__init__()
        self.embed = nn.Linear(49, WIDTH)
        start = 0.02 * torch.randn(WIDTH)
        start[3] += huge
        self.start = nn.Parameter(start)
        self.positions = nn.Parameter(0.02 * torch.randn(16, WIDTH))

    def forward(self, images: Tensor) -> Tensor:
        """Return the tokens of images ``[N, 1, 28, 28]``, shape ``[N, 17, WIDTH]``."""
        patches = images.unfold(2, 7, 7).unfold(3, 7, 7).reshape(len(images), 16, 49)
        tokens = self.embed(patches) + self.positions
        return torch.cat([self.start.expand(len(images), 1, -1), tokens], 1)


class Block(nn.Module):
    """A transformer block: attention and a perceptron, each behind a layer norm and beside a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Return the residual stream behind the block."""
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class Transformer(nn.Module):
    """A small vision transformer; in one dimension its start token begins with a huge value."""

    def __init__(self, huge: float) -> None:
        super().__init__()
        self.patches = Patches(huge)
        self.block1, self.block2, self.block3 = Block(), Block(), Block()
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs of the classes."""
        x = self.block3(self.block2(self.block1(self.patches(images))))
        y: Tensor = self.head(self.norm(x)[:, 1:].mean(1))
        return y


def make(folder: Path) -> Shown:
    """Train with and without the huge value."""
    run, plain = (
        fit(
            partial(Transformer, huge), folder / name, optimizer=adam(3e-3),
            epochs=3, kinds="activation", layers=LAYERS,
        )
        for name, huge in (("massive", HUGE), ("plain", 0.0))
    )  # fmt: skip
    finding = found(run, "massive-activations")
    last, typical = run.moments("block3"), rms(plain, "block3")[-1]
    counts, edges = run.counts("block3")[-1], run.stream("block3").axis.edges
    number = int(counts[edges[:-1] > 0.5 * HUGE].sum())
    losses = [last_loss(each, "valid", 2) for each in (run, plain)]
    size: dict[str, Any] = {"figsize": (10.4, 3.9)}
    first = run.colorful(["block3", "norm"], window="symlog", title="Massive activations, every value on show", **size)
    block, norm = panels(first)
    mark(block, 1, (46, HUGE), (-26, -26))
    mark(block, 2, (46, 0.0), (30, 4))
    mark(norm, 3, (46, 0.8 * float(run.moments("norm")["max"][46])), (-30, 18))
    second = run.colorful(["block3"], window=(-8.0, 8.0), title="The same, windowed", figsize=(6.6, 3.7))
    (ax,) = panels(second)
    mark(ax, 4, (46, ax.get_ylim()[1]), (-26, -34))
    return Shown(
        pictures=[
            Picture(first, "Behind the third block and the norm after it, on a scale that shows everything."),
            Picture(second, "In a window that shows the rest, what is beyond is in the strip."),
        ],
        numbers={
            "huge": f"{last['max'][-1]:,.0f}",
            "typical": f"{typical:.1f}",
            "share": f"{100 * number / int(last['size'][-1]):.1f}",
            "norm": f"{run.moments('norm')['max'][-1]:.0f}",
            "loss": f"{losses[0]:.2f}",
            "plain": f"{losses[1]:.2f}",
        },
        claims={
            "the rule finds them": finding is not None and finding.severity == "note",
            "nothing is wrong": run.diagnose().healthy,
            "the rule finds none without the huge value": found(plain, "massive-activations") is None,
            "training keeps the value as it was": bool(np.all(np.abs(last["max"] / HUGE - 1) < 0.05)),
            "it is one value of each sample": number == 128,
            "the norm takes it away": bool(run.moments("norm")["max"].max() < 0.05 * HUGE),
            "it learns as well as without": losses[0] < 1.25 * losses[1] and losses[0] < 1.5,
        },
        run=run,
    )


CARD = Card(
    title="Massive activations",
    summary="One value of each sample is a thousand times the others, always at the same place; in trained transformers this is usual, and mostly harmless.",
    training="a transformer with three pre-norm blocks of width 32 on a start token and 16 patches, Adam at 0.003, batches of 128, three epochs of 4,000 digits. One dimension of the start token *begins* with 1,000: that such a value grows by itself takes a far longer training than this one.",
    make=make,
    see="""
- **1** A thin level line at {huge}: {share} % of the values, one of each sample.
- **2** All others in a band near zero (root mean square about {typical} without the line).
- **3** Behind the norm nothing is above {norm}.
- **4** In a window for the band the line is only a strip: never read a window without its strips.
""",
    meaning="""
A norm divides the token by its size, so that the huge value acts as a constant, and no gradient moves it: it stays, while the network
learns (validation loss {loss}; without it {plain}). In large models training makes such values itself, at the first token, where
attention goes that has nothing to attend to (Sun et al. 2024).
""",
    look_alike="""
[Exploding](exploding.md) values grow from batch to batch, all of them. [Out of range](out_of_range.md) is the whole band.
""",
    remedy="""
Nothing, unless the model is to be quantised or runs in float16 (65,504 is its end): then clip, or keep that layer in more bits.
""",
    symptom="massive-activations",
    rule="A note: the largest value is above 100 and a thousand times the median.",
)
