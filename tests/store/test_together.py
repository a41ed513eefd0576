"""Levels, a byte budget, going on and scratch, two or three of them at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from colordim import fleet
from colordim.column import PHASES
from colordim.errors import StoreError
from colordim.run import Run
from colordim.store import check
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.resume import Resume
from colordim.store.writer import FolderWriter

BATCHES = 160


def write(
    kit: Any, path: Path, first: int, stop: int, memory: MemoryStore | None = None, **options: Any
) -> FolderWriter:
    """Write these batches of a training, a segment every eight, into a new run or one that is there."""
    writer = FolderWriter(path, {"name": "a"}, Resume() if first else None, seal_bytes=1, **options)
    known = len(writer.position.streams)
    for step in kit.training(5, BATCHES):
        if step.batch.batch >= stop:
            break
        if memory is not None:
            step.into(memory)
        if step.batch.batch >= first:
            for stream in step.new:
                if stream.id >= known:
                    writer.declare(stream)
            writer.append(step.batch, list(step.streams), step.rows.copy(), step.moments.copy())
            if step.batch.batch % 8 == 7:
                writer.flush()
    return writer


def same(path: Path, memory: MemoryStore) -> None:
    """Compare all batches, all columns that are kept, and sums at several levels."""
    reader = FolderReader(path)
    ours, theirs = Run(reader), Run(memory)
    for name, values in memory.batches().items():
        np.testing.assert_array_equal(reader.batches()[name], values, err_msg=name)
    for stream in memory.streams:
        for phase in PHASES:
            for level in range(ours.finest(phase), 4):
                a, b = (run.columns(stream, phase, level=level) for run in (ours, theirs))
                for name in ("first", "last", "number", "counts", "counters"):
                    np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert reader.problems == ()


@pytest.mark.parametrize("killed", [False, True])
def test_levels_grow_across_a_resume(kit: Any, tmp_path: Path, killed: bool) -> None:
    memory = MemoryStore()
    writer = write(kit, tmp_path, 0, 96)
    if killed:
        writer._closed = True  # it writes nothing any more, and the next one is let in
    else:
        writer.close("stopped")
    write(kit, tmp_path, 96, BATCHES, memory).close("stopped")
    same(tmp_path, memory)
    whole = [tuple(map(int, path.stem.split("-"))) for path in (tmp_path / "rank=0/moments/level=4").glob("*.parquet")]
    assert any(first < 96 <= last for first, last in whole), "spans of both recordings were summed up together"
    assert list(check.examine(tmp_path)) == []


@pytest.mark.parametrize("max_bytes", [None, 350_000])
def test_scratch_goes_on_in_a_run(kit: Any, tmp_path: Path, max_bytes: int | None) -> None:
    memory = MemoryStore()
    (tmp_path / "scratch").mkdir()
    options: dict[str, Any] = {"scratch": tmp_path / "scratch", "max_bytes": max_bytes}
    write(kit, tmp_path / "run", 0, 60, **options).close("stopped")
    write(kit, tmp_path / "run", 60, BATCHES, memory, **options).close("stopped")
    same(tmp_path / "run", memory)
    assert (Run(FolderReader(tmp_path / "run")).finest() > 0) == (max_bytes is not None)
    assert not list((tmp_path / "scratch").iterdir())


def test_the_run_folder_loses_what_scratch_has_dropped(kit: Any, tmp_path: Path) -> None:
    memory = MemoryStore()
    (tmp_path / "scratch").mkdir()
    write(kit, tmp_path / "run", 0, BATCHES, memory, scratch=tmp_path / "scratch", max_bytes=350_000).close("stopped")
    same(tmp_path / "run", memory)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 350_000
    assert len(list((tmp_path / "run/rank=0/columns/level=0").iterdir())) < BATCHES / 8
    assert list(check.examine(tmp_path / "run")) == []


def test_a_checkpoint_from_before_what_is_kept_is_refused(kit: Any, tmp_path: Path) -> None:
    write(kit, tmp_path, 0, BATCHES, max_bytes=350_000).close("stopped")
    kept = Run(FolderReader(tmp_path)).kept()
    assert kept > 8
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(StoreError, match=r"keeps only sums of the batches around .* record into another folder"):
        FolderWriter(tmp_path, {}, Resume(train=kept - 8))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_queries_of_a_run_that_has_dropped_columns(kit: Any, tmp_path: Path) -> None:
    memory = MemoryStore()
    write(kit, tmp_path / "run", 0, BATCHES, memory, max_bytes=350_000).close("stopped")
    answer = fleet.query(tmp_path, "SELECT count(*) AS n, count(DISTINCT batch) AS d FROM batches")
    assert answer.rows == [(BATCHES, BATCHES)]
    assert any("1 of 1 runs have dropped their oldest columns" in note for note in answer.notes)
    files = f"{tmp_path}/run/rank=*/batches/*.parquet"
    view = next(
        line for line in Path("docs/queries.md").read_text().splitlines() if line.startswith("CREATE VIEW batches")
    )
    expression = view.partition("SELECT *, ")[2].removesuffix(" AS first")
    firsts = duckdb.execute(f"SELECT DISTINCT {expression} FROM read_parquet('{files}', filename = true)").fetchall()
    assert 0 in [first for (first,) in firsts]
