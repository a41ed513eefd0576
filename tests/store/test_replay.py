"""The folder store returns what the memory store returns, however it cuts its files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from colordim.axis import LinearAxis
from colordim.column import MOMENTS, Batch, Stream
from colordim.run import Run
from colordim.store.base import Block
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.place import LocalPlace
from colordim.store.tail import TailReader
from colordim.store.writer import FolderWriter

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "a frame a batch": {"flush_batches": 1},
    "sealed often": {"flush_batches": 3, "seal_bytes": 60_000},
    "sealed with every frame": {"flush_batches": 7, "seal_bytes": 1},
    "frames by bytes": {"flush_bytes": 40_000, "seal_bytes": 400_000},
}


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "live"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_equals_memory(kit: Any, tmp_path: Path, setting: str, closed: bool) -> None:
    memory = kit.record(tmp_path / "run", seed=len(setting), close=closed, **SETTINGS[setting])
    reader = FolderReader(tmp_path / "run")
    kit.same(reader, memory, [(0, 10**9), (0, 1), (17, 18), (100, 177), (5, 5), (10**6, 10**7)])
    assert reader.problems == ()
    assert reader.ended == memory.ended
    assert reader.info == {"schema": 1, "name": "a"}
    tails, sealed = (sorted((tmp_path / "run" / "rank=0").glob(name)) for name in ("tail-*", "batches/*"))
    assert not (closed and tails)
    assert sealed if closed or "seal_bytes" in SETTINGS[setting] else tails and not sealed
    assert not list((tmp_path / "run").rglob(".*")), "no temporary file is left"


def test_refreshed_while_written(kit: Any, tmp_path: Path) -> None:
    """A reader that follows sees after every flush what the memory store holds."""
    memory = MemoryStore()
    writer = FolderWriter(tmp_path, {}, flush_batches=5, seal_bytes=100_000)
    reader = FolderReader(tmp_path)
    for step in kit.training(3, 200):
        step.into(memory, writer)
        if step.batch.batch % 9 == 0:
            writer.flush()
            assert len(reader.batches()["batch"]) < step.batch.batch + 1, "a snapshot changes by refresh alone"
            reader.refresh()
            kit.same(reader, memory)
    writer.close("KeyboardInterrupt")
    before = reader.ended
    reader.refresh()
    assert (before, reader.ended) == (None, "KeyboardInterrupt")
    kit.same(reader, memory)


def test_sealed_segment_supersedes_its_tail(kit: Any, tmp_path: Path) -> None:
    """A process may end between the commit of a segment and the removal of its tail."""
    memory = MemoryStore()
    writer = FolderWriter(tmp_path, {})
    for step in kit.training(8, 60):
        step.into(memory, writer)
    writer.flush()
    (tail,) = tmp_path.rglob("tail-*")
    data = tail.read_bytes()
    writer.close("stopped")
    memory.close("stopped")
    tail.write_bytes(data)
    reader = FolderReader(tmp_path)
    kit.same(reader, memory)
    assert reader.problems == ()


def test_levels_do_not_depend_on_cuts(kit: Any, tmp_path: Path) -> None:
    memory = Run(kit.record(tmp_path / "run", seed=5, flush_batches=3, seal_bytes=60_000))
    folder = Run(FolderReader(tmp_path / "run"))
    for level in range(5):
        for stream in ("layer0", "layer3"):
            a, b = (run.columns(stream, "train", 3, -4, level) for run in (memory, folder))
            for name in ("first", "last", "number", "counts", "counters"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
            np.testing.assert_array_equal(a.moments[:, 2:], b.moments[:, 2:])
            # Floating-point sums may round differently, by the order in which they are added.
            np.testing.assert_allclose(a.moments[:, :2], b.moments[:, :2], rtol=1e-12, atol=1e-12)


def test_large_counts_and_empty_columns(kit: Any, tmp_path: Path) -> None:
    """Counts that need 64 bits survive beside small ones, and a column of NaN alone has fired."""
    stream = kit.stream(0)
    big = np.zeros(stream.width, np.int64)
    big[[0, 7]] = [2**62, 1]
    big[-2] = 2**62 + 1
    nan = np.zeros(stream.width, np.int64)
    nan[stream.axis.bins + 2] = nan[-2] = 5
    for name, seal_bytes in (("sealed", 1), ("tail", 64 << 20)):
        writer = FolderWriter(tmp_path / name, {}, flush_batches=1, seal_bytes=seal_bytes)
        writer.declare(stream)
        for number, row in enumerate([big, nan, nan]):
            moments = np.array([[0.0, 0.0, np.inf, -np.inf]])
            writer.append(Batch(number, number, "train", 0, 0, 0.0), [stream], row.copy(), moments)
            writer.flush()
        reader = FolderReader(tmp_path / name)
        block = Block.concatenate(list(reader.blocks(stream, "train", 0, 9)), stream.axis.bins)
        np.testing.assert_array_equal(np.hstack([block.counts, block.counters]), [big, nan, nan])
        assert block.moments.shape == (3, len(MOMENTS))
        assert reader.problems == ()
        writer.close("stopped")


def test_files_are_plain_parquet(kit: Any, tmp_path: Path) -> None:
    """The layout that other engines read: names, types, encodings, a row group a stream."""
    kit.record(tmp_path, seed=1, batches=130)
    rank = tmp_path / "rank=0"
    columns = pq.ParquetFile(rank / "columns/level=0/0000000000.parquet")
    assert columns.schema_arrow.names == ["stream", "bucket", "lower", "upper", "first", "counts"]
    assert columns.metadata.num_row_groups == 4
    leaf = columns.metadata.row_group(0).column(5)
    assert leaf.path_in_schema == "counts.list.element"
    assert "BYTE_STREAM_SPLIT" in leaf.encodings
    assert leaf.compression == "ZSTD"
    moments = pq.read_table(rank / "moments/level=0/0000000000.parquet")
    assert moments.column_names[:4] == ["stream", "batch", "under", "over"]
    batches = pq.read_table(rank / "batches/0000000000.parquet")
    assert batches.column_names[:7] == ["batch", "index", "epoch", "step", "phase", "time", "recorded"]
    assert batches.column("loss").null_count > 0, "what was not logged is null, not NaN"
    # Every value is accounted for, also in the sealed files: bins + the five outsiders == size.
    table = columns.read()
    counted = sum(sum(row) for row in table.column("counts").to_pylist())
    outside = sum(sum(moments.column(name).to_pylist()) for name in ("under", "over", "nan", "pos_inf", "neg_inf"))
    assert counted + outside == sum(moments.column("size").to_pylist())


@pytest.mark.parametrize("options", [{}, {"seal_bytes": 1}], ids=["tail", "sealed"])
def test_rows_are_only_lent(kit: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    """What was appended may be overwritten at once: the recorder counts the next batch in the same memory."""
    memory, writer = MemoryStore(), FolderWriter(tmp_path, {}, flush_batches=3, **options)
    for step in kit.training(2, 100):
        step.into(memory)
        for stream in step.new:
            writer.declare(stream)
        rows, moments = step.rows.copy(), step.moments.copy()
        writer.append(step.batch, list(step.streams), rows, moments)
        rows[:], moments[:] = -1, np.nan
        if step.batch.batch % 10 == 0:
            writer.flush()
    writer.flush()
    kit.same(FolderReader(tmp_path), memory)
    writer.close("stopped")
    kit.same(FolderReader(tmp_path), memory)


@pytest.mark.parametrize("options", [{}, {"seal_bytes": 20_000}], ids=["tail", "sealed"])
def test_streams_that_take_turns(kit: Any, tmp_path: Path, options: dict[str, Any]) -> None:
    """Two models that are trained in turn: each batch has the columns of one of them; later one of them stops."""
    rng = np.random.default_rng(0)
    streams = [kit.stream(number) for number in range(5)]
    memory, writer = MemoryStore(), FolderWriter(tmp_path, {}, flush_batches=16, **options)
    for sink in (memory, writer):
        for stream in streams:
            sink.declare(stream)
    fired = 0
    for number in range(120):
        chosen = streams[:2] if number % 3 or number > 60 else streams[2:]
        fired += len(chosen)
        rows = np.concatenate([kit.row(rng, stream) for stream in chosen])
        for sink in (memory, writer):
            batch = Batch(number, number, "train", 0, 0, 0.0)
            sink.append(batch, chosen, rows.copy(), np.full((len(chosen), 4), float(number)))
    writer.flush()
    kit.same(FolderReader(tmp_path), memory)
    for tail in tmp_path.rglob("tail-0000000000.cdt"):
        read = TailReader(LocalPlace(tail.parent), tail.name, 0)
        read.refresh(ended=False)
        assert len(read.frames) <= 10, "a change of streams makes no frame of its own, but for the first"
    assert writer._layout.streams == streams[:2], "there is no room kept for what has stopped"
    writer.close("stopped")
    moments = [pq.read_metadata(file).num_rows for file in tmp_path.rglob("moments/level=0/*.parquet")]
    assert sum(moments) == fired, "a stream has moments only where it fired"


@pytest.mark.parametrize(("streams", "codec"), [(31, "ZSTD"), (32, "LZ4")])
def test_many_streams_are_compressed_in_less_time(tmp_path: Path, streams: int, codec: str) -> None:
    writer = FolderWriter(tmp_path, {})
    declared = [Stream(i, f"layer{i}", "activation", "", "", (), i, LinearAxis(0, 1, 50)) for i in range(streams)]
    for stream in declared:
        writer.declare(stream)
    rows = np.random.default_rng(0).integers(0, 1000, (8, streams, 58))
    for number in range(8):
        batch = Batch(number, number, "train", 0, number, 0.0, True, {})
        writer.append(batch, declared, rows[number].reshape(-1), np.ones((streams, 4)))
    writer.close("stopped")
    for level, expected in ((0, rows[:, :, :50]), (1, rows[:, :, :50].reshape(2, 4, streams, 50).sum(1))):
        (file,) = (tmp_path / f"rank=0/columns/level={level}").iterdir()
        assert pq.ParquetFile(file).metadata.row_group(0).column(5).compression == codec
        (total,) = duckdb.execute(f"SELECT sum(list_sum(counts)) FROM read_parquet('{file}')").fetchall()
        polars_total = pl.read_parquet(file)["counts"].list.sum().sum()
        assert total == (expected.sum(),)
        assert polars_total == expected.sum()
        ours = Block.concatenate(list(FolderReader(tmp_path).blocks(declared[-1], "train", 0, 9, level)), 50)
        np.testing.assert_array_equal(ours.counts, expected[:, -1])
    assert (tmp_path / "rank=0/columns/level=2").exists() == (codec == "ZSTD"), "many streams have one level"


def test_pandas_and_compute_are_never_imported(tmp_path: Path) -> None:
    """Several functions of pyarrow import them, which takes half a second in the midst of a training."""
    code = """
import importlib.abc, sys

class Found(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("pandas", "pyarrow.compute"):
            print(name, "is imported")

sys.meta_path.insert(0, Found())
import numpy as np
from colordim.axis import SignedLogAxis
from colordim.column import Batch, Stream, Units
from colordim.store.folder import FolderReader
from colordim.store.writer import FolderWriter

stream = Stream(0, "layer", "activation", "", "", (), 0, SignedLogAxis(3))
writer = FolderWriter(sys.argv[1], {}, flush_batches=4)
writer.declare(stream)
for number in range(20):
    values = {"loss": 1.0} if number > 5 else {}
    batch = Batch(number, number, "train", 0, 0, 0.0, number != 3, values)
    columns = ([stream], np.arange(1033) % 7, np.ones((1, 4))) if batch.recorded else ([], np.zeros(0, int), np.zeros((0, 4)))
    writer.append(batch, *columns, [Units(0, "relu", "train", number, number, 8, b"a")])
for reason in (None, "stopped"):
    writer.flush() if reason is None else writer.close(reason)
    reader = FolderReader(sys.argv[1])
    print(sum(len(block) for block in reader.blocks(stream, "train", 0, 99)), len(reader.units(stream, "train")))
    print(len(reader.batches()["loss"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")], check=True, timeout=60, capture_output=True, text=True
    )
    assert done.stdout.split() == ["19", "20", "20"] * 2


@pytest.mark.parametrize("batches", [0, 1])
def test_tiny_runs(kit: Any, tmp_path: Path, batches: int) -> None:
    memory = kit.record(tmp_path, batches=batches)
    kit.same(FolderReader(tmp_path), memory)


def test_nothing_recorded_at_all(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path, {}, seal_bytes=1)
    for number in range(3):
        writer.append(Batch(number, number, "train", 0, 0, 0.0, False), (), np.zeros(0, np.int64), np.zeros((0, 4)))
    writer.close("stopped")
    assert FolderReader(tmp_path).batches()["batch"].tolist() == [0, 1, 2]
