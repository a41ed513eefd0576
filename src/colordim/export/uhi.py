"""A run as a ``hist.Hist``, the histogram object of Scikit-HEP's UHI protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from colordim.axis import Axis, LinearAxis
from colordim.column import COUNTERS, Phase
from colordim.errors import ArgumentError, DependencyError
from colordim.run import Run, StreamKey

if TYPE_CHECKING:
    import hist

__all__ = ["to_hist", "value_edges"]


def to_hist(
    run: Run,
    stream: StreamKey,
    phase: Phase = "train",
    start: int | None = None,
    stop: int | None = None,
    level: int = 0,
) -> hist.Hist[Any]:
    """Return columns of a stream as a ``hist.Hist`` with the axes ``batch`` and ``value`` and int64 counts.

    It speaks UHI, so that mplhep, uproot and boost-histogram take it; ``h.project("value")`` adds up the
    batches, ``h[hist.loc(100), :]`` is the column of batch 100.

    Parameters
    ----------
    stream, phase, start, stop, level
        As in :meth:`colordim.run.Run.columns`.

    Returns
    -------
    hist.Hist
        A bin of ``batch`` reaches from a recorded batch to before the next one. ``value`` is ``Regular`` for
        a linear axis; for a signed-log axis it is ``Variable`` with the edges of ``colordim.export.uhi.value_edges``. -Inf is
        in the underflow; +Inf and NaN are in the overflow, which is where boost-histogram itself counts them, so
        that ``h.sum(flow=True)`` is the number of elements. ``run.moments`` tells them apart.

    Raises
    ------
    StreamError
        If there is no such stream.
    ValueError
        If there is no such phase, or no batch of it was recorded in what is asked for.
    DependencyError
        If hist is not installed.
    """
    try:
        import hist
    except ImportError:
        raise DependencyError(
            'to_hist needs hist, which is not installed: pip install "colordim[hist]".',
            page="run#as-tables-and-histograms",
        ) from None

    found = run.stream(stream)
    block = run.columns(found, phase, start, stop, level)
    if not len(block):
        raise ArgumentError(
            f"no {phase} batch of {found.name!r} was recorded in what is asked for: widen start and stop.",
            page="run#as-tables-and-histograms",
        )
    axis = found.axis
    value = (
        hist.axis.Regular(axis.bins, axis.lo, axis.hi, name="value", label=found.kind)
        if isinstance(axis, LinearAxis)
        else hist.axis.Variable(value_edges(axis), name="value", label=found.kind)
    )
    batches = np.append(block.first, block.last[-1] + 1)
    batch = hist.axis.Variable(batches, name="batch", label=f"{phase} batch", underflow=False, overflow=False)
    histogram: hist.Hist[Any] = hist.Hist(batch, value, storage=hist.storage.Int64(), name=found.name)
    at = {name: block.counters[:, i] for i, name in enumerate(COUNTERS)}
    view = histogram.view(flow=True)
    view[:, 1:-1] = block.counts
    view[:, 0] = at["under"] + at["neg_inf"]
    view[:, -1] = at["over"] + at["pos_inf"] + at["nan"]
    return histogram


def value_edges(axis: Axis) -> npt.NDArray[np.float64]:
    """Return edges that ascend strictly: the bucket of zero ends at the smallest normal float64, not at zero itself."""
    edges = axis.edges.copy()
    (points,) = np.nonzero(np.diff(edges) == 0)
    edges[points + 1] = np.finfo(np.float64).tiny
    return edges
