"""What is published of an epoch is what NumPy finds in the values of its batches, and no bucket loses any."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import colordim
from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.column import COUNTERS, Stream
from colordim.publish.buckets import buckets
from colordim.publish.epochs import Layer, layers, layers_of_batches, spans


def test_spans_are_the_batches_of_each_epoch(run: colordim.Run) -> None:
    found = spans(run)
    assert [span.epoch for span in found] == [0, 1, 2]
    assert [span.last for span in found] == [6, 13, 15]
    assert [span.step for span in found] == [4, 9, 11]  # training batches, from 0
    assert [span.time for span in found] == [1e9 + 60 * number for number in (6, 13, 15)]
    assert found[1].extents == {"train": (5, 10), "valid": (2, 4)}
    assert found[2].extents == {"train": (10, 12)}


def test_layers_are_the_sums_of_an_epoch(run: colordim.Run, known: Any) -> None:
    found = {(layer.stream.name, layer.phase): layer for layer in layers(run, spans(run)[1])}
    assert set(found) == {
        (name, phase) for name, phase in [("conv.1", "train"), ("conv.1", "valid"), ("fc", "train"), ("fc", "valid")]
    } | {("fc.weight", "train")}
    for (name, phase), layer in found.items():
        first, last = (5, 9) if phase == "train" else (2, 3)
        values = known.of(name, phase, first, last)
        finite = values[np.isfinite(values)]
        assert (layer.first, layer.last, layer.number, layer.epoch) == (first, last, last - first + 1, 1)
        assert layer.counters["size"] == values.size
        assert layer.finite == finite.size
        assert layer.counts.sum() + layer.counters["under"] + layer.counters["over"] == finite.size
        np.testing.assert_allclose(
            [layer.mean, layer.std, layer.min, layer.max], [finite.mean(), finite.std(), finite.min(), finite.max()]
        )
        scalars = layer.scalars()
        assert scalars["zeros"] == (values == 0).sum() / values.size
        assert scalars.get("nan", 0.0) == np.isnan(values).sum() / values.size
        assert scalars.get("inf", 0.0) == np.isinf(values).sum() / values.size
        assert ("near_zero" in scalars) == (name != "fc.weight")
        if name != "fc.weight":
            # a bucket that 0.05 cuts is split in proportion: of both axes it holds fewer than this share
            assert scalars["near_zero"] == pytest.approx((abs(values) <= 0.05).sum() / values.size, abs=0.02)
    assert found["conv.1", "train"].scalars()["outside"] == 2 * 5 / 2000
    assert "outside" not in found["conv.1", "valid"].scalars()
    assert found["fc", "valid"].scalars()["outside"] > 0.3


def test_dead_is_the_share_in_the_window_that_the_epoch_ends_in(run: colordim.Run) -> None:
    dead = {
        (span.epoch, layer.stream.name): layer.scalars()["dead"]
        for span in spans(run)
        for layer in layers(run, span)
        if "dead" in layer.scalars()
    }
    assert dead == {(1, "conv.1"): 0.25}


def test_batches_are_columns_of_their_own(run: colordim.Run, known: Any) -> None:
    found = [
        layer for layer in layers_of_batches(run, spans(run)[1]) if (layer.stream.name, layer.phase) == ("fc", "train")
    ]
    assert [(layer.first, layer.last, layer.number) for layer in found] == [(i, i, 1) for i in range(5, 10)]
    np.testing.assert_allclose(
        [layer.mean for layer in found], [known.of("fc", "train", i, i).mean() for i in range(5, 10)]
    )


def make_layer(
    axis: Axis, counts: dict[int, int], under: int = 0, over: int = 0, low: float = -9, high: float = 9
) -> Layer:
    bins = np.zeros(axis.bins, np.int64)
    for i, number in counts.items():
        bins[i] = number
    size = int(bins.sum()) + under + over
    counters = dict.fromkeys(COUNTERS, 0) | {"under": under, "over": over, "size": size, "calls": 1}
    stream = Stream(0, "a", "activation", "", "", (), 0, axis)
    return Layer(stream, "train", 0, 0, 0, 1, bins, counters, 0.0, 0.0, low, high)


def test_empty_buckets_are_joined_and_the_outside_has_buckets_of_its_own() -> None:
    found = buckets(make_layer(LinearAxis(0, 8, 8), {1: 5, 2: 6, 6: 7}, over=3))
    assert found is not None
    assert found.edges.tolist() == [1, 2, 3, 6, 7, 8, 9]
    assert found.counts.tolist() == [5, 6, 0, 7, 0, 3]
    found = buckets(make_layer(LinearAxis(0, 8, 8), {}, under=3))
    assert found is not None
    assert (found.edges.tolist(), found.counts.tolist()) == ([-9, 0], [3])
    assert buckets(make_layer(LinearAxis(0, 8, 8), {})) is None


def test_a_value_at_the_end_of_the_axis_still_leaves_edges_that_ascend() -> None:
    found = buckets(make_layer(SignedLogAxis(0), {}, under=1, over=2, low=-(2.0**24), high=2.0**24))
    assert found is not None
    assert np.all(np.diff(found.edges) > 0)
    assert found.counts.tolist() == [1, 0, 2]


def test_zero_has_a_bucket_of_its_own() -> None:
    axis = SignedLogAxis(3)
    found = buckets(make_layer(axis, {axis.zero_bin - 1: 1, axis.zero_bin: 2, axis.zero_bin + 1: 3}))
    assert found is not None
    assert found.counts.tolist() == [1, 2, 3]
    assert found.edges[1] == 0
    assert 0 < found.edges[2] < 1e-300


@pytest.mark.parametrize(
    ("axis", "limit"), [(SignedLogAxis(3), 512), (SignedLogAxis(3), 140), (LinearAxis(-1, 1, 1000), 512)]
)
def test_within_a_limit_buckets_are_unions_of_ours(axis: Axis, limit: int) -> None:
    rng = np.random.default_rng(0)
    layer = make_layer(axis, dict(enumerate(rng.integers(1, 9, axis.bins).tolist())), 2, 3, low=-1e9, high=1e9)
    fine, coarse = buckets(layer), buckets(layer, limit)
    assert fine is not None
    assert coarse is not None
    assert len(coarse.counts) <= limit < len(fine.counts)
    assert set(coarse.edges) <= set(fine.edges)
    assert np.all(np.diff(coarse.edges) > 0)
    at = np.searchsorted(fine.edges, coarse.edges)
    assert coarse.counts.tolist() == [int(fine.counts[a:b].sum()) for a, b in itertools.pairwise(at)]
    if isinstance(axis, SignedLogAxis):
        zero = int(np.flatnonzero(coarse.edges == 0)[0])
        assert coarse.edges[zero + 1] < 1e-300
        assert coarse.counts[zero] == layer.counts[axis.zero_bin]
