"""From a batch of activations to one column of the chart, in three steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.colors import LogNorm
from matplotlib.patches import ConnectionPatch, Rectangle
from torch import Tensor, nn

from cards.card import Card, Picture, Shown
from cards.marks import INK
from cards.training import fit, one_cycle, sgd
from colordim import Run
from colordim.charts.style import ChartFigure, colormap, new_figure, settings
from colordim.demo.network import healthy_network

LAYER, BATCH = "conv2", 60
RANGE, BINS = (-8.0, 8.0), 80
SAMPLES, CHANNELS = 5, 4


def make(folder: Path) -> Shown:
    """Train, keep one batch of activations, and follow it into the chart."""
    batches: list[Tensor] = []

    def build() -> nn.Module:
        network = healthy_network()

        def keep(module: nn.Module, _: object, output: Tensor) -> None:
            if module.training:
                batches.append(output.detach().clone())

        network.get_submodule(LAYER).register_forward_hook(keep)
        return network

    run = fit(
        build, folder / "steps", optimizer=sgd(0.6), schedule=one_cycle(0.6), epochs=3, range=RANGE, bins=BINS,
        kinds="activation",
    )  # fmt: skip
    values = batches[BATCH].numpy()
    edges = np.linspace(*RANGE, BINS + 1)
    expected = np.histogram(values, edges)[0]
    counts, moments = run.counts(LAYER), run.moments(LAYER)
    figure = draw(run, values, counts)
    stored = counts[BATCH]
    peak = int(np.argmax(stored))
    return Shown(
        pictures=[Picture(figure, "Batch {batch} of a training, from its values to its place in the chart.")],
        numbers={
            "batch": BATCH,
            "shape": "[" + ", ".join(map(str, values.shape)) + "]",
            "size": f"{values.size:,}",
            "bins": BINS,
            "width": f"{edges[1] - edges[0]:g}",
            "peak": f"{stored[peak]:,}",
            "few": int(stored[stored > 0].min()),
            "outside": f"{moments['under'][BATCH] + moments['over'][BATCH]:,}",
        },
        claims={
            # a value at an edge may go to either side: the axis is float32 there
            "the stored column is the histogram of that batch": bool(
                np.abs(stored - expected).sum() <= 0.001 * values.size
            ),
            "no value is lost": bool(stored.sum() + moments["under"][BATCH] + moments["over"][BATCH] == values.size),
            "counts are whole numbers": bool(np.issubdtype(counts.dtype, np.integer)),
            "the fullest bin has a hundred times the emptiest": bool(stored.max() > 100 * stored[stored > 0].min()),
            "the batch is the one that trained": torch.isfinite(batches[BATCH]).all().item() is True,
        },
    )


def draw(run: Run, values: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]) -> ChartFigure:
    """Return the figure: values, histogram, column, chart."""
    norm, low, high = LogNorm(1, counts.max()), *RANGE
    edges = np.linspace(low, high, BINS + 1)
    column = np.ma.masked_equal(counts[BATCH], 0)
    with settings():
        figure = new_figure(8.6, 5.7)
        figure.text(0.06, 0.985, "Three steps from a batch to a column", fontsize=12, fontweight="bold", va="top")
        steps = ("1  Get a batch of activations", "2  Compute its histogram", "3  Log, for the eye only")
        for left, text in zip((0.06, 0.46, 0.76), steps, strict=True):
            figure.text(left, 0.935, text, fontsize=9.5, fontweight="bold", color=INK, va="top")
        for sample in range(SAMPLES):
            for channel in range(CHANNELS):
                ax = figure.add_axes((0.095 + 0.052 * sample, 0.79 - 0.0815 * channel, 0.049, 0.0765))
                shown = ax.imshow(values[sample, channel], cmap="RdBu_r", vmin=-3, vmax=3, origin="upper")
                ax.set_xticks([])
                ax.set_yticks([])
                if sample == 0:
                    ax.set_ylabel(f"NF {channel}", fontsize=7, rotation=0, ha="right", va="center")
                if channel == CHANNELS - 1:
                    ax.set_xlabel(f"BS {sample}", fontsize=7)
        bar = figure.add_axes((0.367, 0.56, 0.011, 0.3))
        figure.colorbar(shown, cax=bar).ax.tick_params(labelsize=6.5)
        bar.set_title("value", fontsize=7, loc="left")
        bars = figure.add_axes((0.485, 0.545, 0.22, 0.32))
        bars.barh((edges[:-1] + edges[1:]) / 2, counts[BATCH], height=edges[1] - edges[0], color="#8FA3B5")
        bars.set_ylim(low, high)
        bars.set_xlabel("count (linear)", fontsize=7.5)
        bars.tick_params(labelsize=6.5)
        one = figure.add_axes((0.79, 0.545, 0.05, 0.32))
        mesh = one.pcolormesh([0, 1], edges, column[:, None], cmap=colormap(), norm=norm)
        one.set_xticks([])
        one.set_ylim(low, high)
        one.tick_params(labelsize=6.5)
        scale = figure.add_axes((0.88, 0.545, 0.012, 0.32))
        figure.colorbar(mesh, cax=scale).ax.tick_params(labelsize=6.5)
        scale.set_title("count (log)", fontsize=7, loc="left")
        chart = figure.add_axes((0.095, 0.09, 0.8, 0.32))
        cells = np.ma.masked_equal(counts.T, 0)
        chart.pcolormesh(np.arange(len(counts) + 1), edges, cells, cmap=colormap(), norm=norm, rasterized=True)
        chart.set_ylim(low, high)
        chart.tick_params(labelsize=6.5)
        chart.set_xlabel("batch", fontsize=7.5)
        chart.set_ylabel(f"activation of {LAYER}", fontsize=7.5)
        chart.set_title("The chart: a column for each batch", fontsize=9.5, fontweight="bold", color=INK, loc="left")
        chart.add_patch(Rectangle((BATCH, low), 1, high - low, fill=False, edgecolor="#D62728", linewidth=1.1))
        arrow = ConnectionPatch(
            (0.5, low), (BATCH + 0.5, high), one.transData, chart.transData, arrowstyle="-|>", color="#D62728",
            linewidth=1.1, shrinkA=4, mutation_scale=10,
        )  # fmt: skip
        figure.add_artist(arrow)
    return figure


CARD = Card(
    title="Three steps from a batch to a column",
    summary="How one batch of activations becomes one column of colours: collect, count, and take the logarithm for the eye alone.",
    training="the network of [healthy](healthy.md) on 4,000 digits, recorded with `range=(-8, 8), bins=80`.",
    make=make,
    see="""
- **1** A layer returns a block of numbers: here {shape}, which is batch size, channels, height and width, {size} values. (A linear layer: [BS, NF].) Shown are 4 channels of 5 digits.
- **2** All of them go into one histogram, wherever they come from: {bins} bins of {width}. The fullest has {peak} values.
- **3** Counts become colours on a *logarithmic* scale. One with {few} in it is dark, but not blank; {peak} is yellow. That is one column.

Below is the chart: one such column for each batch, the one of batch {batch} framed.
""",
    meaning="""
Without the logarithm the thin ends, where trouble begins, would be invisible next to the middle. What is *stored* are the counts, whole numbers, never the logarithm. What lies outside of the bins is counted, too (here {outside}).
Without `range` the bins cover every magnitude that a float can have, in steps of 6 to 12 %; a chart makes rows of them.
""",
    look_alike="""
An average over the batch, or a line of mean and standard deviation, is one or two numbers for each batch: two peaks, dead units and outliers look the same in it.
""",
    remedy="""
Read [what each mark means](../reading.md), then look at a [healthy](healthy.md) training.
""",
    rule="This is how to read the picture, no pattern.",
)
