from __future__ import annotations

import sys
from typing import Any

import hist
import numpy as np
import pytest

import colordim
from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.column import Batch, Stream
from colordim.errors import ArgumentError, DependencyError
from colordim.export.uhi import value_edges
from colordim.store.memory import MemoryStore


def make_run(axis: Axis, every: int = 1, batches: int = 8) -> colordim.Run:
    """A column of known counts in each recorded training batch: bin i of batch b has b + i, and all counters are used."""
    store = MemoryStore({"name": "run"})
    stream = Stream(0, "fc", "activation", "Linear", "", (4,), 0, axis)
    store.declare(stream)
    for number in range(batches):
        recorded = number % every == 0
        counts = np.arange(axis.bins) + number
        others = [1, 20, 300, 4000, 50_000]  # under, over, nan, pos_inf, neg_inf
        row = np.array([*counts, *others, 0, counts.sum() + sum(others), 1], np.int64)
        batch = Batch(number, number, "train", 0, 0, 0.0, recorded)
        store.append(batch, [stream] if recorded else [], row if recorded else row[:0], np.zeros((int(recorded), 4)))
    return colordim.Run(store)


@pytest.mark.parametrize("axis", [LinearAxis(-1, 1, 5), SignedLogAxis(0), SignedLogAxis(3)])
def test_every_value_is_in_it(axis: Axis) -> None:
    run = make_run(axis)
    histogram = run.to_hist("fc", start=2, stop=6)
    np.testing.assert_array_equal(histogram.view(), np.arange(2, 6)[:, None] + np.arange(axis.bins))
    flow: Any = histogram.view(flow=True)
    assert flow.dtype == np.int64
    assert flow[:, 0].tolist() == [50_001] * 4
    assert flow[:, -1].tolist() == [4320] * 4
    assert histogram.sum(flow=True) == run.moments("fc", start=2, stop=6)["size"].sum()
    assert (histogram.name, [each.name for each in histogram.axes]) == ("fc", ["batch", "value"])
    np.testing.assert_array_equal(histogram.project("value").view(), run.counts("fc", start=2, stop=6).sum(axis=0))


def test_a_batch_is_found_by_its_index_and_reaches_to_the_next_that_was_recorded() -> None:
    histogram = make_run(LinearAxis(0, 1, 2), every=3).to_hist("fc")
    assert histogram.axes[0].edges.tolist() == [0, 3, 6, 7]
    columns: Any = [histogram[hist.loc(batch), :] for batch in (3, 5)]
    assert [column.view().tolist() for column in columns] == [[3, 4], [3, 4]]
    coarse = make_run(LinearAxis(0, 1, 2)).to_hist("fc", level=1)
    assert coarse.view().tolist() == [[0 + 1 + 2 + 3, 1 + 2 + 3 + 4], [4 + 5 + 6 + 7, 5 + 6 + 7 + 8]]


def test_values_are_found_in_the_bin_in_which_colordim_counts_them() -> None:
    # zero is bucket 512; beside it the innermost of either sign; 1 is 40 powers of two with 8 buckets each above that
    expected = {0.0: 512, 1e-30: 513, -1e-30: 511, 1.0: 833, -1.01: 191, 3.14: 845, -77.7: 142, 2.0**23: 1017}
    edges = value_edges(SignedLogAxis(3))
    axis = hist.axis.Variable(edges)
    assert {value: axis.index(value) for value in expected} == expected
    assert np.count_nonzero(edges != SignedLogAxis(3).edges) == 1


def test_an_empty_range_and_a_missing_package_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(LinearAxis(0, 1, 2))
    with pytest.raises(ArgumentError, match="no valid batch of 'fc' was recorded"):
        run.to_hist("fc", "valid")
    monkeypatch.setitem(sys.modules, "hist", None)
    with pytest.raises(DependencyError, match=r'pip install "colordim\[hist\]"'):
        run.to_hist("fc")
