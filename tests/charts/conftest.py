"""Columns made from values that the tests know."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from colordim.axis import Axis, SignedLogAxis
from colordim.charts.columns import Columns, regular

Make = Callable[..., Columns]


def row(values: np.ndarray, axis: Axis) -> tuple[np.ndarray, list[int], list[float]]:
    """Count values one by one against the definition of the axis' edges."""
    finite = values[np.isfinite(values)].astype(np.float64)
    top = axis.edges[-1]
    over = finite >= top if isinstance(axis, SignedLogAxis) else finite > top
    under = finite <= -top if isinstance(axis, SignedLogAxis) else finite < axis.edges[0]
    inside = finite[~over & ~under]
    counts = np.histogram(inside[inside != 0], axis.edges)[0].astype(np.int64)
    if (inside == 0).any():
        counts[axis.zero_bin] += np.count_nonzero(inside == 0)
    infinite = [int(np.isnan(values).sum()), int((values == np.inf).sum()), int((values == -np.inf).sum())]
    counters = [int(under.sum()), int(over.sum()), *infinite, int((finite == 0).sum()), values.size, 1]
    return counts, counters, [finite.sum(), (finite**2).sum(), finite.min(initial=np.inf), finite.max(initial=-np.inf)]


@pytest.fixture
def make() -> Make:
    """Columns of one batch each (None: did not fire), merged by `width`; `first` numbers the batches."""

    def columns(
        batches: Sequence[np.ndarray | None],
        axis: Axis,
        *,
        width: int = 1,
        first: Sequence[int] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Columns:
        index = np.arange(len(batches)) if first is None else np.array(first)
        empty = (np.zeros(axis.bins, np.int64), [0] * 8, [0.0, 0.0, np.inf, -np.inf])
        rows = [empty if values is None else row(np.asarray(values, np.float64), axis) for values in batches]
        return regular(
            index.astype(np.int64),
            np.ones(len(batches), np.int64),
            np.array([r[0] for r in rows]).reshape(-1, axis.bins),
            np.array([r[1] for r in rows], np.int64).reshape(-1, 8),
            np.array([r[2] for r in rows], np.float64).reshape(-1, 4),
            width=width,
            start=start,
            stop=int(index[-1]) + 1 if stop is None else stop,
        )

    return columns


@pytest.fixture
def ax() -> Axes:
    """Empty axes of a figure of its own."""
    return Figure(figsize=(4, 3)).add_subplot()
