"""Levels on the disk: exact sums, however the run was cut; what is missing, stale or damaged is summed up anew."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from colordim.column import PHASES
from colordim.run import Run
from colordim.store import budget, parquet
from colordim.store.base import Block
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.parquet import Footer, kept_open
from colordim.store.ranks import AddedRanks
from colordim.store.spans import Spans
from colordim.store.writer import FolderWriter

CUTS: dict[str, dict[str, Any]] = {
    "one segment": {},
    "many segments": {"flush_batches": 4, "seal_bytes": 60_000},
    "a segment every five batches": {"flush_every": 5, "seal_bytes": 1},
    "few batches a segment": {"flush_batches": 1, "seal_batches": 3},
}
BATCHES = 300


@pytest.fixture(scope="module", params=CUTS)
def run(kit: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, MemoryStore]:
    path = tmp_path_factory.mktemp("levels") / "run"
    return path, kit.record(path, seed=21, batches=BATCHES, **CUTS[request.param])


def level_files(path: Path, level: int, kind: str = "moments") -> list[Path]:
    return sorted((path / f"rank=0/{kind}/level={level}").glob("*.parquet"))


def check(reader: Any, memory: MemoryStore, levels: range = range(1, 6)) -> None:
    """Compare with columns of level 0, put into groups by the index of their batch and added up one by one."""
    for stream in (memory.streams[0], memory.streams[-1]):
        for phase in PHASES:
            every = Block.concatenate(list(memory.blocks(stream, phase, 0, 10**9)), stream.axis.bins)
            for level in levels:
                for start, stop in ((0, BATCHES), (3, 90), (16, 32), (17, 18), (130, 250)):
                    block = Run(reader).columns(stream, phase, start, stop, level)
                    mine = (every.first >= start) & (every.first < stop)
                    group = every.first[mine] >> 2 * level
                    keys, place = np.unique(group, return_inverse=True)
                    assert block.first.tolist() == [every.first[mine][group == key].min() for key in keys]
                    assert block.last.tolist() == [every.first[mine][group == key].max() for key in keys]
                    assert block.number.tolist() == [np.count_nonzero(group == key) for key in keys]
                    for name in ("counts", "counters"):
                        sums = np.zeros((len(keys), getattr(every, name).shape[1]), np.int64)
                        np.add.at(sums, place, getattr(every, name)[mine])
                        np.testing.assert_array_equal(getattr(block, name), sums)
                    adders: tuple[Callable[[list[float]], float], ...] = (math.fsum, math.fsum, min, max)
                    for i, add in enumerate(adders):
                        moments = [add(every.moments[mine][group == key, i].tolist()) for key in keys]
                        np.testing.assert_allclose(block.moments[:, i], moments, rtol=1e-12, atol=1e-12)


def test_exact_sums(run: tuple[Path, MemoryStore]) -> None:
    path, memory = run
    reader = FolderReader(path)
    check(reader, memory)
    assert reader.problems == ()


def test_files_hold_exact_sums(run: tuple[Path, MemoryStore]) -> None:
    """The files themselves: what another engine finds in them, added up, is what level 0 has."""
    path, memory = run
    assert level_files(path, 1)
    for level in range(5):
        files = level_files(path, level, "columns")
        assert [file.name for file in files] == [file.name for file in level_files(path, level)]
        for file in files:
            table = pq.read_table(file, partitioning=None).to_pydict()
            moments = pq.read_table(str(file).replace("columns", "moments"), partitioning=None).to_pydict()
            if level == 0:
                continue
            columns = list(
                zip(
                    moments["stream"],
                    moments["phase"],
                    moments["first"],
                    moments["last"],
                    moments["column"],
                    strict=True,
                )
            )
            for row, stream in enumerate(table["stream"]):
                for of, phase, first, last, column in columns:
                    if of != stream:
                        continue
                    block = Block.concatenate(
                        list(memory.blocks(memory.streams[stream], phase, first, last + 1)),
                        memory.streams[stream].axis.bins,
                    )
                    assert table["counts"][row][column] == block.counts[:, table["bucket"][row]].sum()
                if row > 40:
                    break


def test_a_level_has_few_files(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path, seed=1, batches=256, flush_every=3, seal_bytes=1)
    segments = len(level_files(tmp_path, 0))
    assert segments > 80
    for level in range(2, 6):
        assert len(level_files(tmp_path, level)) <= segments / 4 ** (level - 1) + 3 * level
    assert not list(tmp_path.rglob(".*"))


def test_levels_are_read_and_nothing_else(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = kit.record(tmp_path, seed=2, batches=256, flush_every=4, seal_bytes=1)
    stream = memory.streams[0]
    before = [Run(memory).columns(stream, "train", level=level) for level in range(5)]
    opened: list[str] = []

    def watched(place: Any, name: str, first: int) -> Any:
        opened.append(name)
        return Footer(place, name, first)

    monkeypatch.setattr("colordim.store.snapshot.Footer", watched)
    reader = FolderReader(tmp_path)
    opened.clear()
    block = Run(reader).overview(stream, 4)
    np.testing.assert_array_equal(block.counts, before[2].counts)
    assert opened
    assert all("level=0" not in name and "batches" not in name for name in opened), "level 0 is not touched"
    opened.clear()
    Run(reader).columns(stream, "train", -8)
    assert len(opened) < 12, "only the newest segments are touched"


def test_files_are_kept_open_while_many_streams_are_read(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[pq.ParquetFile] = []

    class Noted(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            opened.append(self)

    memory = kit.record(tmp_path / "run", seed=5, batches=BATCHES)
    reader = FolderReader(tmp_path / "run")

    def read() -> int:
        opened.clear()
        for stream in memory.streams:
            for _ in range(2):
                reader.columns(stream, "train", 0, BATCHES, 1)
        return len(opened)

    read()
    monkeypatch.setattr(pq, "ParquetFile", Noted)
    alone = read()
    with kept_open():
        with kept_open():
            pass  # only the outermost ends it
        assert 0 < read() < alone / 2
        files = list(opened)
        assert read() == 0
        assert not any(file.closed for file in files)
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
        assert len(opened) == alone, "another thread keeps nothing open"
    assert all(file.closed for file in files)
    assert read() == alone


def test_files_that_are_kept_open_are_bounded(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordim.store.parquet._MOST_OPEN", 2)
    memory = kit.record(tmp_path / "run", seed=5, batches=BATCHES, **CUTS["a segment every five batches"])
    with kept_open():
        check(FolderReader(tmp_path / "run"), memory)
        assert len(parquet._open.files) == 2


@pytest.mark.parametrize("what", ["columns", "moments", "both"])
@pytest.mark.parametrize("how", ["missing", "truncated", "zeroed"])
def test_missing_and_damaged_levels_are_summed_up_anew(
    run: tuple[Path, MemoryStore], tmp_path: Path, what: str, how: str
) -> None:
    path, memory = run
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    rng = np.random.default_rng(len(what) + len(how))
    for kind in ("columns", "moments") if what == "both" else (what,):
        for level in range(1, 5):
            for file in level_files(copy, level, kind)[:: 1 + level % 2]:
                data = bytearray(file.read_bytes())
                at = int(rng.integers(len(data)))
                if how == "missing":
                    file.unlink()
                elif how == "truncated":
                    file.write_bytes(data[:at])
                else:
                    data[at : at + 512] = bytes(len(data[at : at + 512]))
                    file.write_bytes(data)
    check(FolderReader(copy), memory, range(1, 4))


def test_stale_levels_are_not_read(kit: Any, tmp_path: Path) -> None:
    """A level that sums up other segments than those that are there, though of the same numbers."""
    memory = kit.record(tmp_path / "run", seed=4, batches=100, flush_every=5, seal_bytes=1)
    kit.record(tmp_path / "other", seed=5, batches=100, flush_every=5, seal_bytes=1)
    for kind in ("columns", "moments"):
        for level in range(1, 4):
            shutil.rmtree(tmp_path / f"run/rank=0/{kind}/level={level}")
            shutil.copytree(
                tmp_path / f"other/rank=0/{kind}/level={level}", tmp_path / f"run/rank=0/{kind}/level={level}"
            )
    check(FolderReader(tmp_path / "run"), memory, range(1, 4))


@pytest.mark.filterwarnings("ignore:the run folder")
def test_a_segment_that_could_not_be_sealed_is_in_every_sum(kit: Any, tmp_path: Path) -> None:
    """It stays a tail, between segments that are summed up: no sum may reach over it."""
    memory, writer = MemoryStore(), FolderWriter(tmp_path, {})
    aside = tmp_path / "aside"
    for step in kit.training(22, 200):
        if step.batch.batch in (90, 110):  # sealing fails for more segments than wait for another try
            folder = tmp_path / "rank=0/batches"
            folder.rename(aside) if step.batch.batch == 90 else aside.rename(folder)
        step.into(memory, writer)
        if step.batch.batch % 5 == 4:
            writer.flush()
            with writer._lock:
                writer._disk.cut()
            writer._sealing.succeeded()
            writer._seal(everything=True)
    writer.close("stopped")
    memory.close("stopped")
    assert 0 < len(list(tmp_path.glob("rank=0/tail-*"))) < 10
    check(FolderReader(tmp_path), memory)
    rank = tmp_path / "rank=0"
    before = set(rank.rglob("*/level=[1-9]/*"))
    spans = Spans(rank)
    assert spans.restore() == []
    spans.join(memory.streams, lambda: None)
    assert set(rank.rglob("*/level=[1-9]/*")) == before, "nor after a restart"
    budget.trim(rank, 150_000)
    assert [path for path in (rank / "batches").iterdir() if "-" in path.name]
    ours, theirs = Run(FolderReader(tmp_path)), Run(memory)
    np.testing.assert_array_equal(ours.batches["batch"], np.arange(200))
    for stream in memory.streams[:2]:
        for phase in PHASES:
            level = ours.finest(phase)
            a, b = (each.columns(stream, phase, level=level) for each in (ours, theirs))
            np.testing.assert_array_equal(a.counts, b.counts)
            np.testing.assert_array_equal(a.number, b.number)
    assert ours.problems == ()


@pytest.mark.filterwarnings("ignore:rank 2 holds")
def test_ranks_add_their_levels(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that hold the same batches are added at the level; where they do not, from level 0."""
    memories = []
    for rank, batches in enumerate((200, 200, 170)):
        memories.append(kit.record(tmp_path / str(rank), seed=6, batches=batches, flush_every=8, seal_bytes=1))
    asked: list[int] = []

    class Watched(FolderReader):
        def _pieces(self, stream: Any, phase: Any, start: int, stop: int, level: int) -> Iterator[Any]:
            asked.append(level)
            return super()._pieces(stream, phase, start, stop, level)

    for number in (2, 3):
        ours = Run(AddedRanks({rank: Watched(tmp_path / str(rank)) for rank in range(number)}, number))
        theirs = Run(AddedRanks(dict(enumerate(memories[:number])), number))
        for stream in memories[0].streams:
            for phase in PHASES:
                for level in range(1, 4):
                    for start, stop in ((0, None), (5, 77)):
                        truth = theirs.columns(stream.name, phase, start, stop)
                        groups = truth.first >> 2 * level
                        asked.clear()
                        block = ours.columns(stream.name, phase, start, stop, level)
                        assert (block.first >> 2 * level).tolist() == np.unique(groups).tolist()
                        for name in ("counts", "counters", "number"):
                            sums = [getattr(truth, name)[groups == group].sum(axis=0) for group in np.unique(groups)]
                            np.testing.assert_array_equal(getattr(block, name), sums)
                        assert set(asked) == {level} or number == 3
