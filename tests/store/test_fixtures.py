"""Runs of every version of the schema that there was are read as they were written."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import colordim
from colordim.column import PHASES
from colordim.store import check

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    """The formulas that every number follows from."""
    spec = importlib.util.spec_from_file_location("make_runs", FIXTURES / "make_runs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expected(make: Any, stream: Any, phase: str, stop: int, ranks: int) -> list[tuple[int, list[int], list[float]]]:
    """Return index, bins and counters, and moments of every recorded batch."""
    found = []
    for number in range(stop):
        batch = make.batch(number)
        if batch.phase == phase and batch.recorded:
            row = sum(make.row(number, stream, rank) for rank in range(ranks))
            low, high = make.moments(number, stream)[2:]
            sums = [ranks * value for value in make.moments(number, stream)[:2]]
            if stream.id == 2 and number < 8:
                row, sums, low, high = np.zeros_like(row), [0.0, 0.0], np.inf, -np.inf
            found.append((batch.index, row.tolist(), [*sums, low, high]))
    return found


@pytest.mark.parametrize("name", ["ended", "killed", "ranks", "trimmed", "resumed"])
@pytest.mark.parametrize("version", ["v1"])
def test_read_as_written(make: Any, tmp_path: Path, version: str, name: str) -> None:
    path = tmp_path / name
    shutil.copytree(FIXTURES / "runs" / version / name, path)
    run = colordim.open(path)
    stop = 80 if name == "killed" else make.BATCHES
    ranks = 2 if name == "ranks" else 1
    assert run.ended == (None if name == "killed" else "stopped")
    assert run.name == name
    assert run.facts["followers"] == {"conv": "relu"}
    assert [(s.name, s.module, s.shape, s.axis, s.facet) for s in run.streams] == [
        (s.name, s.module, s.shape, s.axis, s.facet) for s in make.streams()
    ]
    table = run.batches
    for number in range(stop):
        batch = make.batch(number)
        for field in ("batch", "index", "phase", "epoch", "step", "time", "recorded"):
            assert table[field][number] == getattr(batch, field)
        assert table["loss"][number] == 1 / (1 + number)
        assert np.isnan(table["lr"][number]) if number < 48 else table["lr"][number] == 0.5
    for phase in PHASES:
        windows = run.units("conv", phase)
        if phase == "train":
            assert windows.first.tolist() == list(range(0, run.length("train") // 4 * 4, 4))
            assert np.packbits(windows.active, axis=1)[:, 0].tolist() == windows.last.tolist()
        for stream in run.streams:
            truth = [each for each in expected(make, stream, phase, stop, ranks) if each[0] >= run.kept(phase)]
            block = run.columns(stream, phase, start=run.kept(phase))
            assert block.first.tolist() == [index for index, _, _ in truth]
            assert np.hstack([block.counts, block.counters]).tolist() == [row for _, row, _ in truth]
            assert block.moments.tolist() == [moments for _, _, moments in truth]
            truth = expected(make, stream, phase, stop, ranks)
            for level in range(max(run.finest(phase), 1), 4):
                block = run.columns(stream, phase, level=level)
                sums: dict[int, Any] = {}
                for index, row, _ in truth:
                    sums[index >> 2 * level] = sums.get(index >> 2 * level, 0) + np.array(row)
                assert np.hstack([block.counts, block.counters]).tolist() == [row.tolist() for row in sums.values()]
    assert (run.finest() > 0) == (name == "trimmed")
    assert run.problems == ()
    assert list(check.examine(path)) == []


def test_what_was_cut_off_is_a_run(make: Any) -> None:
    run = colordim.open(FIXTURES / "runs/v1/resumed/cut-0001")
    assert run.batches["batch"].tolist()[-1] == 60
    assert run.counts("head", start=37, stop=38).tolist() == [make.row(49, make.streams()[1])[:10].tolist()]
