"""What ``plotActsHist`` asks of the colorful dimension: its arguments of 2019, in terms of :meth:`colordim.Run.colorful`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from colordim import asking, reading
from colordim.axis import Axis
from colordim.column import PHASES
from colordim.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from colordim import Run
    from colordim.charts.colorful_grid import EpochCounts
    from colordim.run import StreamKey

__all__ = ["acts_hist"]

_EPOCH, _QUARTER = "black", "#808080"


def acts_hist(
    run: Run,
    layers: StreamKey | Sequence[StreamKey] | None,
    *,
    cols: int | None,
    figsize: tuple[float, float] | None,
    reach: float | None,
    epochs: bool,
    info: bool,
    stretch: bool,
    image: bool,
    **options: Any,
) -> Figure:
    """Draw the panels; parameters are those of :meth:`ActivationsHistogram.plotActsHist`, in its order."""
    phase = options.get("phase", "train")
    asking.check("phase", phase, PHASES)
    if reach is not None and not reach > 0:
        raise ArgumentError(
            f"hScale={reach} cannot be: it is the width of a curve for each value, so more than 0.", page="fastai"
        )
    streams, batches = run.select(layers, options.get("kind", "activation")), run.length(phase)
    if not streams or not batches:
        return run.colorful(figsize=figsize, **options)
    if len(streams) == 1 and image and run.facets(streams[0]):
        return run.colorful(streams[0], by="class", figsize=figsize, **options)
    if not image:
        options["colorbar"] = None
    if not stretch:
        figsize = _square_cells(len(streams), streams[0].axis.bins / batches, cols, figsize, options)
    figure = run.colorful(streams, cols=cols, figsize=figsize, profiles=epochs and reach is None, **options)
    for ax, stream in zip(figure.axes, streams, strict=False):  # the panels come before the colour bars
        for each in ax.images:
            each.set_visible(image)
        if not info:
            _leave_out_info(ax)
        if epochs and reach is not None:
            _curves(ax, reading.epoch_counts(run, stream, phase, (0, batches)), stream.axis, reach)
    return figure


def _square_cells(
    panels: int, ratio: float, cols: int | None, figsize: tuple[float, float] | None, options: dict[str, Any]
) -> tuple[float, float]:
    """Return the size of a figure of as wide panels whose heights are their widths times `ratio`."""
    from colordim.charts.colorful_grid import grid_of

    grid, _ = grid_of(
        panels, window=options.get("window", "shared"), bar=options.get("colorbar", "auto"), cols=cols, figsize=figsize
    )
    return grid.width, grid.height + grid.rows * (ratio * grid.panel_width - grid.panel_height)


def _leave_out_info(ax: Axes) -> None:
    """Leave name and type in the title above a panel."""
    title = [text for text in ax.texts if text.get_transform() is ax.transAxes and text.get_position()[1] > 1]
    lines = sorted({text.get_position()[1] for text in title if text.get_fontweight() != "bold"}, reverse=True)
    for text in title:
        text.set_visible(text.get_position()[1] >= lines[0])


def _curves(ax: Axes, epochs: Sequence[EpochCounts], axis: Axis, reach: float) -> None:
    """Draw the mean number of values a batch in each bin, `reach` batches wide for each value."""
    centers = (axis.edges[:-1] + axis.edges[1:]) / 2
    for epoch in epochs:
        for counts, number, color in (
            (epoch.last, epoch.last_batches, _QUARTER),
            (epoch.whole, epoch.whole_batches, _EPOCH),
        ):
            mean = counts / max(number, 1)
            ax.plot(
                epoch.start + reach * np.where(counts > 0, mean, np.nan),
                centers,
                color=color,
                linewidth=0.9,
                zorder=3.1,
            )
