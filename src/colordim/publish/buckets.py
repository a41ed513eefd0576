"""Our columns as other tools hold histograms: adjacent buckets between finite edges, and no values outside."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from colordim.axis import Axis, SignedLogAxis
from colordim.export.uhi import value_edges
from colordim.publish.epochs import Layer

__all__ = ["Buckets", "buckets"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


class Buckets(NamedTuple):
    """A histogram of finite values.

    Attributes
    ----------
    edges : ndarray of float64, shape ``[n + 1]``
        Strictly ascending.
    counts : ndarray of int64, shape ``[n]``
    """

    edges: FloatArray
    counts: IntArray


def buckets(layer: Layer, limit: int | None = None) -> Buckets | None:
    """Return the finite values of a layer in adjacent buckets; None if it has none.

    Buckets that hold values are ours, with our edges; empty ones between them are joined. What lies below or above the
    axis is in one bucket more at either end, as far as the least or the largest value. The bucket of zero alone reaches
    from zero to the smallest normal float64.

    Parameters
    ----------
    layer : Layer
    limit : int, optional
        Number of buckets; where there are more, each two are added up until there are not.
    """
    axis = layer.stream.axis
    edges, counts = value_edges(axis), layer.counts
    under, over = layer.counters["under"], layer.counters["over"]
    if not counts.any() and not under and not over:
        return None
    while True:
        found = _joined(*_with_outside(edges, counts, layer))
        if limit is None or len(found.counts) <= limit:
            return found
        axis, edges, counts = _halved(axis, edges, counts)


def _with_outside(edges: FloatArray, counts: IntArray, layer: Layer) -> tuple[FloatArray, IntArray]:
    if under := layer.counters["under"]:
        edges = np.insert(edges, 0, min(layer.min, np.nextafter(edges[0], -np.inf)))
        counts = np.insert(counts, 0, under)
    if over := layer.counters["over"]:
        edges = np.append(edges, max(layer.max, np.nextafter(edges[-1], np.inf)))
        counts = np.append(counts, over)
    return edges, counts


def _joined(edges: FloatArray, counts: IntArray) -> Buckets:
    """Join adjacent empty buckets, and leave out those at the ends."""
    filled = np.flatnonzero(counts)
    inside = slice(filled[0], filled[-1] + 1)
    edges, counts = edges[filled[0] : filled[-1] + 2], counts[inside]
    begins = np.append(True, (counts[1:] > 0) | (counts[:-1] > 0))  # not an empty one after an empty one
    return Buckets(np.append(edges[:-1][begins], edges[-1]), counts[begins])


def _halved(axis: Axis, edges: FloatArray, counts: IntArray) -> tuple[Axis, FloatArray, IntArray]:
    """Add up buckets two by two; on a signed-log axis, while it has mantissa bits, those of a sign: zero stays alone."""
    if isinstance(axis, SignedLogAxis) and axis.bits:
        coarser = SignedLogAxis(axis.bits - 1)
        return coarser, value_edges(coarser), axis.merge(counts, coarser)
    return axis, np.append(edges[:-1:2], edges[-1]), np.add.reduceat(counts, np.arange(0, len(counts), 2))
