"""Other engines read run folders as docs/queries.md says: the code under test is that of the page."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from torch import nn

import colordim
from colordim.axis import LinearAxis
from colordim.column import PHASES, Batch, Stream
from colordim.store.writer import FolderWriter

PAGE = (Path(__file__).parents[1] / "docs" / "queries.md").read_text(encoding="utf-8")

Rows = list[tuple[Any, ...]]


def block(heading: str, language: str) -> str:
    """The fenced block of a language in a section of the page."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", section, re.M | re.S)
    return str(found)


def by_duckdb(heading: str) -> Rows:
    with duckdb.connect() as connection:
        connection.execute(block("Views", "sql"))
        return connection.execute(block(heading, "sql")).fetchall()


def by_polars(heading: str) -> Rows:
    names: dict[str, Any] = {}
    exec(block("Views", "python") + block(heading, "python"), names)
    result = {"Sum of every bucket": "sums", "Every count": "cells", "Mean, and share of zeros": "shares"}[heading]
    return list(names[result].rows())


ENGINES = pytest.mark.parametrize("engine", [by_duckdb, by_polars])


def record_training() -> None:
    """Record every third batch of a training with NaN, Inf and values outside of the axis, and validations."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with colordim.record(model, folder="lenet", kinds="all", optimizer=optimizer, every=3) as rec:
        for epoch in range(3):
            model.train()
            for i in range(40):
                x = torch.randn(16, 4)
                x[0] = {12: np.nan, 15: np.inf, 18: -1e12}.get(i, 0.0)
                loss = model(x).nan_to_num(0, 0, 0).clamp(-10, 10).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                if i < 10:
                    optimizer.step()
                rec.log(loss=loss, **({"late": 1.0} if epoch == 2 else {}))
            model.eval()
            with torch.no_grad():
                for _ in range(7):
                    model(torch.randn(16, 4))


def write_ranks() -> None:
    """Write what two ranks saw that number their streams differently and share the weights."""
    axis = LinearAxis(-1, 1, 8)
    streams = [
        Stream(0, "a", "activation", "ReLU", "", (4,), 0, axis),
        Stream(1, "b", "activation", "ReLU", "", (4,), 1, axis),
        Stream(2, "b", "weight", "Linear", "", (4,), 2, axis, "replicated"),
    ]
    shared = np.random.default_rng(9)
    weights = [columns(shared, 8) for _ in range(30)]
    for rank, order in enumerate(([0, 1, 2], [2, 1, 0])):
        rng = np.random.default_rng(rank)
        mine = [replace(streams[i], id=new) for new, i in enumerate(order)]
        writer = FolderWriter(f"lenet/rank={rank}", {"name": "x", "rank": {"world_size": 2}}, seal_bytes=1)
        for stream in mine:
            writer.declare(stream)
        for number in range(30):
            phase = "valid" if number % 10 > 7 else "train"
            index = number // 10 * (2 if phase == "valid" else 8) + number % 10 - 8 * (phase == "valid")
            batch = Batch(number, index, phase, 0, number, 0.0, number % 3 != 1, {f"value{rank}": 1.0})  # type: ignore[arg-type]
            fired = mine if batch.recorded else []
            rows = [weights[number] if s.kind == "weight" else columns(rng, 8) for s in fired]
            writer.append(
                batch, fired, np.array(rows, np.int64).ravel(), np.arange(4.0 * len(fired)).reshape(-1, 4) + rank
            )
            if number % 8 == 7:
                writer.flush()
        writer.close("stopped")


def columns(rng: np.random.Generator, bins: int) -> list[int]:
    """A column of all kinds of values."""
    counts = rng.integers(0, 3, bins)
    others = rng.integers(0, 3, 5)
    return [*counts, *others, counts[bins // 2], counts.sum() + others.sum(), 1]


class OftenFlushed(FolderWriter):
    """Makes segments of ten batches, however slow the disk is."""

    def append(self, batch: Batch, *args: Any) -> None:
        super().append(batch, *args)
        if batch.batch % 10 == 9:
            self.flush()


@pytest.fixture(params=["one segment", "many segments", "ranks"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> colordim.Run:
    """A run in the folder `lenet` of the working directory, where the page has it."""
    monkeypatch.chdir(tmp_path)
    if request.param == "ranks":
        write_ranks()
    else:
        if request.param == "many segments":
            monkeypatch.setattr("colordim.handle.FolderWriter", functools.partial(OftenFlushed, seal_bytes=1))
        record_training()
    segments = len(list(Path("lenet/rank=0/batches").iterdir()))
    assert segments == 1 if request.param == "one segment" else segments > 3
    return colordim.open("lenet")


@ENGINES
def test_sums_of_every_bucket_are_those_of_counts(run: colordim.Run, engine: Any) -> None:
    expected = []
    for stream in run.streams:
        sums = sum(run.counts(stream, phase).sum(axis=0) for phase in PHASES)
        expected += [(stream.kind, stream.name, i, sums[i]) for i in np.flatnonzero(sums).tolist()]
    assert len(expected) > 20
    assert engine("Sum of every bucket") == sorted(expected)


@ENGINES
def test_every_count_is_that_of_its_batch(run: colordim.Run, engine: Any) -> None:
    expected = []
    for stream in run.streams:
        for phase in PHASES:
            found = run.columns(stream, phase)
            for row, bucket in zip(*(each.tolist() for each in np.nonzero(found.counts)), strict=True):
                at = int(found.first[row])
                expected.append((stream.kind, stream.name, phase, at, bucket, int(found.counts[row, bucket])))
    assert len({(phase, at) for _, _, phase, at, _, _ in expected}) > 15
    assert engine("Every count") == sorted(expected)


@ENGINES
def test_mean_and_share_of_zeros_are_those_of_moments(run: colordim.Run, engine: Any) -> None:
    names, expected, got = [], [], engine("Mean, and share of zeros")
    for stream in sorted(run.select(), key=lambda stream: stream.name):
        for phase in PHASES:
            moments = run.moments(stream, phase)
            for i, index in enumerate(moments["first"]):
                at = {key: values[i].item() for key, values in moments.items()}
                names.append((stream.name, phase, index))
                finite = at["size"] - at["nan"] - at["pos_inf"] - at["neg_inf"]
                expected.append((at["sum"] / finite, at["zeros"] / at["size"]))
    assert [row[:3] for row in got] == names
    assert len(names) > 30
    np.testing.assert_array_equal(np.array([row[3:] for row in got]), np.array(expected))
