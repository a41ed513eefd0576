"""TensorBoard's histograms become a run: totals stay, moments are TensorBoard's, and what can be exact is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.histogram.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter

import colordim
from colordim.axis import LinearAxis, SignedLogAxis
from colordim.errors import ArgumentError, DependencyError, StoreError
from colordim.importing import import_tensorboard, spread
from colordim.publish.publisher import export

torch.set_num_threads(1)


def spread_lists(lefts: list[float], rights: list[float], counts: list[float], edges: list[float]) -> list[int]:
    return spread(*(np.array(each, np.float64) for each in (lefts, rights, counts, edges))).tolist()


@pytest.mark.parametrize(
    ("buckets", "edges", "expected"),
    [
        # one bucket over four bins; a bucket that bins are made of; one that reaches beyond both ends
        (([0], [4], [8]), [0, 1, 2, 3, 4], [0, 2, 2, 2, 2, 0]),
        (([0, 2], [2, 4], [6, 2]), [0, 2, 3, 4], [0, 6, 1, 1, 0]),
        (([-2], [6], [8]), [0, 2, 4], [2, 2, 2, 2]),
        # three values over two bins: rounded, but none is lost
        (([0, 1], [1, 2], [3, 0]), [0, 0.5, 1], [0, 2, 1, 0]),
        # points: at an edge they belong to the bin above it, at the last edge to the last bin
        (([1, 2, 4], [1, 2, 4], [5, 6, 7]), [0, 1, 2, 4], [0, 0, 5, 13, 0]),
        (([-1, 0, 0], [0, 0, 1], [2, 5, 2]), [-1, 0, 1e-300, 1], [0, 2, 5, 2, 0]),
        (([5], [9], [4]), [0, 1], [0, 0, 4]),
        (([-9], [-5], [4]), [0, 1], [4, 0, 0]),
    ],
)
def test_buckets_are_spread_by_overlap(buckets: Any, edges: list[float], expected: list[int]) -> None:
    lefts, rights, counts = buckets
    assert spread_lists(lefts, rights, counts, edges) == expected


def test_no_value_is_lost_and_no_cumulative_count_is_off_by_more_than_half() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        cuts = np.sort(rng.normal(0, 3, 30))
        counts = rng.integers(0, 50, 29).astype(float)
        edges = np.sort(rng.normal(0, 2, 20))
        found = spread(cuts[:-1], cuts[1:], counts, edges)
        assert found.min() >= 0
        assert found.sum() == counts.sum()
        exact = np.interp(edges, cuts, np.concatenate([[0], np.cumsum(counts)]))
        assert np.abs(np.cumsum(found)[:-1] - exact).max() <= 0.5 + 1e-9


def write(folder: Path, steps: int = 3) -> dict[tuple[str, int], np.ndarray[Any, Any]]:
    """Write histograms as PyTorch users do; return the values."""
    rng, values = np.random.default_rng(1), {}
    writer = SummaryWriter(str(folder))
    for step in range(steps):
        for i, tag in enumerate(("conv1.weight", "fc/grad")):
            values[tag, 10 * step] = rng.normal(0, 0.1 * (i + 1), 1000)
            writer.add_histogram(tag, values[tag, 10 * step], 10 * step, walltime=5.0 + step)
        writer.add_scalar("loss", 1.0 / (step + 1), 10 * step)
    writer.close()
    return values


def test_histograms_of_a_summary_writer(tmp_path: Path) -> None:
    values = write(tmp_path / "tb", steps=12)  # more than TensorBoard keeps by itself
    run = import_tensorboard(tmp_path / "tb", tmp_path / "run", kind="weight")
    assert [(s.name, s.kind, s.axis) for s in run.streams] == [
        (name, "weight", SignedLogAxis(3)) for name in ("conv1.weight", "fc/grad")
    ]
    assert run.batches["step"].tolist() == list(range(0, 120, 10))
    assert run.batches["time"].tolist() == [5.0 + step for step in range(12)]
    assert (run.name, run.ended) == ("tb", "stopped")
    assert run.info["imported"] == {"from": "tensorboard", "folder": str(tmp_path / "tb"), "approximate": True}
    for stream in run.streams:
        moments, counts = run.moments(stream), run.counts(stream)
        for i in range(12):
            x = values[stream.name, 10 * i]
            assert moments["size"][i] == counts[i].sum() == 1000
            np.testing.assert_allclose(
                [moments[name][i] for name in ("sum", "sum_sq", "min", "max")],
                [x.sum(), (x**2).sum(), x.min(), x.max()],
            )
            # TensorFlow's buckets are 10 % wide, so no value is further away than that
            quantiles = np.interp([250, 500, 750], np.cumsum(counts[i]), stream.axis.edges[1:])
            np.testing.assert_allclose(quantiles, np.quantile(x, [0.25, 0.5, 0.75]), rtol=0.25, atol=0.002)


def test_equal_bins_on_request(tmp_path: Path) -> None:
    values = write(tmp_path / "tb")
    run = import_tensorboard(tmp_path / "tb", tmp_path / "run", axis=LinearAxis(-0.1, 0.1, 20), name="mine")
    assert run.name == "mine"
    moments, counts = run.moments("conv1.weight"), run.counts("conv1.weight")
    x = values["conv1.weight", 0]
    assert counts[0].sum() + moments["under"][0] + moments["over"][0] == 1000
    assert moments["under"][0] == pytest.approx((x < -0.1).sum(), abs=25)  # the bucket that -0.1 cuts is spread
    assert moments["over"][0] == pytest.approx((x > 0.1).sum(), abs=25)


def test_tables_of_the_tensor_plugin_and_the_two_folders_of_keras(tmp_path: Path) -> None:
    for name, steps in (("train", (0, 1, 2)), ("validation", (1, 2))):
        writer = EventFileWriter(str(tmp_path / "logs" / name))
        for step in steps:
            table = np.array([[-1, 0, 4], [0, 0, 3], [0, 2, 0], [2, 4, 6]], np.float64)
            value = summary_pb2.Summary.Value(tag="dense/kernel", tensor=make_tensor_proto(table))
            if step == steps[0]:  # metadata comes with the first of a tag
                value.metadata.CopyFrom(create_summary_metadata("", ""))
            other = summary_pb2.Summary.Value(tag="loss", tensor=make_tensor_proto(np.array(1.0)))
            other.metadata.plugin_data.plugin_name = "scalars"
            event = event_pb2.Event(step=step, wall_time=1.0, summary=summary_pb2.Summary(value=[value, other]))
            writer.add_event(event)
        writer.close()
    run = import_tensorboard(tmp_path / "logs", tmp_path / "run")
    assert [stream.name for stream in run.streams] == ["dense/kernel"]
    assert run.batches["phase"].tolist() == ["train", "train", "valid", "train", "valid"]
    assert run.batches["step"].tolist() == [0, 1, 1, 2, 2]
    moments = run.moments(0)
    assert moments["size"].tolist() == [13] * 3
    assert moments["zeros"].tolist() == [3] * 3
    assert run.counts(0)[0][run.stream(0).axis.zero_bin] == 3
    assert (moments["min"][0], moments["max"][0]) == (-1, 4)
    assert moments["sum"][0] == 4 * -0.5 + 6 * 3
    assert moments["sum_sq"][0] == pytest.approx(4 / 3 + 6 * (64 - 8) / 6)  # uniform: (b^3 - a^3) / 3 / (b - a)
    assert run.length("valid") == 2
    # drawn, and said to be approximate
    texts = [text.get_text() for text in run.colorful().texts]
    assert any("imported from tensorboard" in text and "approximate" in text for text in texts)


def test_what_was_exported_comes_back_exactly(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU())
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with colordim.record(net, folder=tmp_path / "run", kinds=("activation", "weight"), optimizer=optimizer) as rec:
        for _ in range(2):
            net.train()
            for _ in range(3):
                net(torch.randn(5, 4)).sum().backward()
                optimizer.step()
            net.eval()
            net(torch.randn(5, 4))
    export(rec.run, f"tensorboard:{tmp_path / 'tb'}", figures=0)
    back = import_tensorboard(tmp_path / "tb", tmp_path / "back")
    assert {(s.name, s.kind) for s in back.streams} == {(s.name, s.kind) for s in rec.run.streams}
    for stream in rec.run.streams:
        mine = back.stream(stream.name, stream.kind)
        for phase, each in (("train", 3), ("valid", 1)):
            counts = rec.run.counts(stream, phase)  # type: ignore[arg-type]
            if len(counts) and counts.any():
                sums = counts.reshape(2, each, -1).sum(axis=1)
                np.testing.assert_array_equal(back.counts(mine, phase), sums)  # type: ignore[arg-type]
                zeros = rec.run.moments(stream, phase)["zeros"].reshape(2, each).sum(axis=1)  # type: ignore[arg-type]
                assert back.moments(mine, phase)["zeros"].tolist() == zeros.tolist()  # type: ignore[arg-type]


def test_the_outermost_limits_of_float64_are_bounded_by_least_and_largest_value(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path / "tb"))
    largest = float(np.finfo(np.float64).max)
    writer.add_histogram_raw("a", 1.0, 3.0, 4, 8.0, 18.0, [2.0, largest], [2, 2], 0)
    writer.add_histogram_raw("empty", 0.0, 0.0, 0, 0.0, 0.0, [largest], [0], 0)
    writer.close()
    run = import_tensorboard(tmp_path / "tb", tmp_path / "run", axis=LinearAxis(0, 4, 4))
    assert run.counts("a").tolist() == [[0, 2, 2, 0]]
    assert run.moments("empty")["size"].tolist() == [0]


def test_what_cannot_be_imported_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="there is no folder"):
        import_tensorboard(tmp_path / "nowhere", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match="holds no histograms"):
        import_tensorboard(tmp_path / "empty", tmp_path / "run")
    SummaryWriter(str(tmp_path / "none")).close()
    with pytest.raises(ArgumentError, match="holds no histograms"):
        import_tensorboard(tmp_path / "none", tmp_path / "run")
    for name in ("adam", "sgd"):
        write(tmp_path / "many" / name, steps=1)
    with pytest.raises(ArgumentError, match=r"several trainings \(adam, sgd\)"):
        import_tensorboard(tmp_path / "many", tmp_path / "run")
    with pytest.raises(ArgumentError, match="'weights' is no kind"):
        import_tensorboard(tmp_path / "many" / "adam", tmp_path / "run", kind="weights")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    with pytest.raises(StoreError, match="holds other files"):
        import_tensorboard(tmp_path / "many" / "adam", tmp_path / "many" / "adam")
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.backend.event_processing.event_accumulator", None)
    with pytest.raises(DependencyError, match=r'pip install "colordim\[tensorboard\]"'):
        import_tensorboard(tmp_path / "many" / "adam", tmp_path / "run")
