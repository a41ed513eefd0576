"""A run that is gone on with: what is cut off, what is taken over, and a crash at any instant of that."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from colordim.axis import LinearAxis
from colordim.column import COUNTERS, PHASES, Batch, Phase, Stream, Units
from colordim.errors import ArgumentError, FormatError, NotARunError, StoreError
from colordim.run import Run
from colordim.store import files
from colordim.store.base import Block, Reader
from colordim.store.description import find_runs
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.ranks import RunReader
from colordim.store.resume import Resume
from colordim.store.writer import FolderWriter

BATCHES = 150
#: Many segments, each of some ten batches, and several frames in each.
SMALL: dict[str, Any] = {"flush_batches": 4, "seal_bytes": 60_000}
ENDINGS = ("killed", "ended", "one tail")


@pytest.fixture(scope="module")
def training(kit: Any) -> list[Any]:
    return list(kit.training(5, BATCHES))


@pytest.fixture(scope="module")
def whole(training: list[Any]) -> MemoryStore:
    memory = MemoryStore()
    for step in training:
        step.into(memory)
    return memory


@pytest.fixture(scope="module")
def recorded(training: list[Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The training recorded in one go: as a killed process has left it, ended, and before anything was sealed."""
    folder = tmp_path_factory.mktemp("recorded")
    for name, options in (("live", SMALL), ("one tail", {"flush_batches": 4})):
        writer = FolderWriter(folder / name, {"name": "a"}, **options)
        for number, step in enumerate(training):
            step.into(writer)
            if number % 4 == 3:  # so that sealing keeps up
                writer.flush()
        writer.flush()
        shutil.copytree(folder / name, folder / f"{name} as it was")
        writer.close("stopped")
    return {
        "killed": folder / "live as it was",
        "ended": folder / "live",
        "one tail": folder / "one tail as it was",
    }


def seen(training: Sequence[Any], number: int) -> Resume:
    """What a checkpoint after `number` batches has seen."""
    phases = [step.batch.phase for step in training[:number]]
    return Resume(train=phases.count("train"), valid=phases.count("valid"), rank=0)


def go_on(path: Path, training: Sequence[Any], wanted: Resume, **options: Any) -> FolderWriter:
    """Resume, and record the rest of the training."""
    writer = FolderWriter(path, {}, wanted, **(SMALL | options))
    known = len(writer.position.streams)
    for step in training[writer.position.batch :]:
        new = tuple(stream for stream in step.new if stream.id >= known)
        replace(step, new=new).into(writer)
    for step in training[: writer.position.batch]:  # declared by then, or else to be declared now
        assert all(stream.id < known for stream in step.new)
    writer.close("stopped")
    return writer


def borders(path: Path) -> list[int]:
    return sorted(int(file.stem) for file in (path / "rank=0/batches").glob("*.parquet"))


def check_start(reader: Reader, whole: Reader, least: int) -> int:
    """Check that a reader holds the first batches of the whole, `least` of them or more, and return how many."""
    got, expected = reader.batches(), whole.batches()
    number = len(got["batch"])
    assert number >= least
    for name in got:
        np.testing.assert_array_equal(got[name], expected[name][:number], err_msg=name)
    for stream in reader.streams[1:]:  # two axes
        for phase in PHASES:
            stop = int(np.count_nonzero(got["phase"] == phase))
            ours, theirs = (
                Block.concatenate(list(r.blocks(stream, phase, 0, stop)), stream.axis.bins) for r in (reader, whole)
            )
            for name in ("first", "counts", "counters", "moments"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=stream.name)
    assert reader.problems == ()
    return number


# What is cut off, and what goes on.


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    "where", ["at 0", "at 1", "within a segment", "at a border", "in the last segment", "at the end"]
)
def test_a_training_that_is_resumed_is_the_whole(
    kit: Any,
    tmp_path: Path,
    training: list[Any],
    whole: MemoryStore,
    recorded: dict[str, Path],
    ending: str,
    where: str,
) -> None:
    path = tmp_path / "run"
    shutil.copytree(recorded[ending], path)
    segments = borders(recorded["ended"])
    at = {
        "at 0": 0,
        "at 1": 1,
        "within a segment": segments[3] + 2,
        "at a border": segments[4],
        "in the last segment": BATCHES - 2,
        "at the end": BATCHES,
    }[where]
    before = FolderReader(path)
    writer = go_on(path, training, seen(training, at))
    assert (writer.position.batch, writer.said) == (at, ())
    after = FolderReader(path)
    kit.same(after, whole, ((0, 10**9), (7, 40)))
    assert (after.problems, after.ended) == ((), "stopped")
    assert json.loads((path / "rank=0/end.json").read_text())["batches"] == BATCHES
    before.refresh()  # a reader that was there all the time
    kit.same(before, whole)
    assert before.problems == ()

    aside = path / "cut-0001"
    assert aside.exists() == (at < BATCHES)
    if at < BATCHES:
        kept = FolderReader(aside)
        first = int(kept.batches()["batch"][0])
        assert first <= at
        assert kept.batches()["batch"].tolist() == list(range(first, BATCHES))
        for phase in np.unique(kept.batches()["phase"]):
            index = int(kept.batches()["index"][kept.batches()["phase"] == phase][0])
            for stream in whole.streams:
                ours, theirs = (
                    Block.concatenate(list(r.blocks(stream, phase, index, 10**9)), stream.axis.bins)
                    for r in (kept, whole)
                )
                np.testing.assert_array_equal(ours.counts, theirs.counts)
        assert kept.problems == ()
        assert kept.info["cut"]["batch"] == at
    assert find_runs(tmp_path) == [path]


def test_without_a_position_everything_stays(
    kit: Any, tmp_path: Path, training: list[Any], whole: MemoryStore, recorded: dict[str, Path]
) -> None:
    for ending in ENDINGS:
        path = tmp_path / ending
        shutil.copytree(recorded[ending], path)
        writer = FolderWriter(path, {}, Resume())
        assert writer.position.batch == BATCHES
        assert writer.position.index == {phase: [s.batch.phase for s in training].count(phase) for phase in PHASES}
        writer.close("stopped")
        kit.same(FolderReader(path), whole)
        assert not list(path.glob("cut-*"))
        assert list(path.glob("rank=0/tail-*")) == [], "what a crash has left is sealed"


def test_sums_of_batches_that_are_cut_off_go_first(
    tmp_path: Path, training: list[Any], recorded: dict[str, Path]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(recorded["ended"], path)
    names = [f"{first:010d}-{last:010d}.parquet" for first, last in ((0, 15), (16, 31), (16, 32), (48, 63))]
    for kind in ("columns", "moments"):
        for level in (1, 2):
            folder = path / f"rank=0/{kind}/level={level}"
            folder.mkdir(exist_ok=True)
            for name in names:
                (folder / name).touch()
    FolderWriter(path, {}, seen(training, 32)).close("stopped")
    left = [file.name for file in path.glob("rank=0/*/level=[12]/*")]
    assert sorted(name for name in left if name in names) == sorted(4 * names[:2])


def test_resumed_again_and_again(kit: Any, tmp_path: Path, training: list[Any], whole: MemoryStore) -> None:
    path = tmp_path / "run"
    FolderWriter(path, {"name": "a"}).close("stopped")
    begun = json.loads((path / "rank=0/rank.json").read_text())["begun"]
    ends = (30, 75, 60, 110, 108, BATCHES)
    starts = (0, 25, 60, 60, 108, 90)
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        go_on(path, training[:end], seen(training, start))
        assert check_start(FolderReader(path), whole, end) == end
        described = json.loads((path / "rank=0/rank.json").read_text())
        assert described["begun"] == begun
        assert len(described["resumed"]) == number + 1
        assert described["resumed"][-1]["batch"] == start
    kit.same(FolderReader(path), whole)
    aside = [None, "cut-0001", "cut-0002", None, "cut-0003", "cut-0004"]
    assert [entry["cut"] for entry in described["resumed"]] == aside
    assert sorted(file.name for file in path.glob("cut-*")) == [name for name in aside if name]


def test_where_a_recording_goes_on(tmp_path: Path, training: list[Any], recorded: dict[str, Path]) -> None:
    path = tmp_path / "run"
    shutil.copytree(recorded["ended"], path)
    # Of every 50 batches, the last 10 are validation; a step takes two batches.
    position = FolderWriter(path, {}, Resume(train=45)).position
    assert (position.batch, position.index, position.epoch, position.step) == (55, {"train": 45, "valid": 10}, 1, 27)
    assert (set(position.seen), position.within) == ({T}, True)
    assert [stream.id for stream in position.streams] == list(range(4))
    # A recorded training batch counts if the step has changed since the batch before.
    rows = [step.batch for step in training[:55]]
    stepped = sum(b.recorded and b.phase == "train" and b.step > a.step for a, b in pairwise(rows))
    assert position.stepped == stepped


def epochs(path: Path, described: Sequence[tuple[Phase, int]], ended: str | None = None) -> None:
    """Record batches of these phases and epochs, and leave them as a killed process does."""
    live = path.with_name("live")
    writer = FolderWriter(live, {})
    index = dict.fromkeys(PHASES, 0)
    for number, (phase, epoch) in enumerate(described):
        writer.append(
            Batch(number, index[phase], phase, epoch, number, 0.0, False), [], np.zeros(0, np.int64), np.zeros((0, 4))
        )
        index[phase] += 1
    writer.flush()
    if ended:
        writer.close(ended)
    shutil.copytree(live, path)
    writer.close("stopped")


T: Phase = "train"
V: Phase = "valid"


@pytest.mark.parametrize(
    ("batches", "wanted", "ended", "expected"),
    [
        # Epoch, and whether its batches go on.
        ([(T, 0), (T, 0), (T, 0), (T, 1)], Resume(train=3), None, (0, False)),  # the next was of another
        ([(T, 0), (T, 0), (T, 0), (T, 1)], Resume(train=2), None, (0, True)),
        ([(T, 0), (T, 0), (V, 0), (T, 1)], Resume(train=2, valid=0), None, (0, True)),  # validation was to come
        ([(T, 0), (T, 0), (V, 0)], Resume(), None, (0, False)),
        ([(T, 0), (T, 0), (T, 1), (T, 1)], Resume(), None, (1, False)),  # as long as the one before
        ([(T, 0), (T, 0), (T, 1)], Resume(), None, (1, True)),
        ([(T, 0), (T, 0), (T, 1)], Resume(), "stopped", (1, False)),
        ([(T, 0), (T, 0), (T, 1)], Resume(), "KeyboardInterrupt", (1, True)),
        ([(T, 0), (T, 0)], Resume(train=2, epoch=1, step=2, seen=[]), None, (1, False)),  # epoch() came after the last
        ([(T, 0), (T, 0)], Resume(train=0), None, (0, False)),
    ],
)
def test_which_epoch_goes_on(
    tmp_path: Path, batches: Any, wanted: Resume, ended: str | None, expected: tuple[int, bool]
) -> None:
    epochs(tmp_path / "run", batches, ended)
    writer = FolderWriter(tmp_path / "run", {}, wanted)
    assert (writer.position.epoch, writer.position.within) == expected


def test_batches_that_were_not_written_are_missing_and_said(tmp_path: Path) -> None:
    epochs(tmp_path / "run", [(T, 0)] * 3)
    writer = FolderWriter(tmp_path / "run", {}, Resume(train=5))
    sentence = (
        "train batches 3 to 4 are missing: the run was resumed from a checkpoint that has seen them, and they had not "
        "been written."
    )
    assert writer.said == (sentence,)
    position = writer.position
    assert (position.batch, position.index["train"], position.step) == (5, 5, 3)  # two steps of three batches, and some
    writer.append(Batch(5, 5, "train", 0, 5, 0.0, False), [], np.zeros(0, np.int64), np.zeros((0, 4)))
    writer.close("stopped")
    reader = FolderReader(tmp_path / "run")
    assert reader.batches()["index"].tolist() == [0, 1, 2, 5]
    assert reader.problems == (sentence,)
    assert FolderWriter(tmp_path / "run", {}, Resume(train=3)).said == ()
    reader.refresh()
    assert not reader.problems, "what was missing is recorded again"


def test_units_of_what_is_cut_off(kit: Any, tmp_path: Path) -> None:
    cases: tuple[tuple[str, dict[str, Any]], ...] = (("tail", {}), ("sealed", {"seal_bytes": 1 << 40}))
    for name, options in cases:
        writer = FolderWriter(tmp_path / name, {}, **options)
        stream = kit.stream(0)
        writer.declare(stream)
        for i in range(40):
            units = [Units(0, "relu", "train", i - i % 8, i, 8, bytes([i]))] if i % 4 == 3 else []
            writer.append(Batch(i, i, "train", 0, i, 0.0, False), [], np.zeros(0, np.int64), np.zeros((0, 4)), units)
            if i % 10 == 9:
                writer.flush()
        if name == "sealed":
            writer.close("stopped")
        path = tmp_path / f"{name} as it was"
        shutil.copytree(tmp_path / name, path)
        FolderWriter(path, {}, Resume(train=15)).close("stopped")
        assert [each.last for each in FolderReader(path).units(stream, "train")] == [3, 7, 11]
        assert [each.last for each in FolderReader(path / "cut-0001").units(stream, "train")] == list(range(3, 40, 4))


def test_what_is_logged_keeps_its_holes(tmp_path: Path) -> None:
    """A number that was not logged stays null for other engines, and one that was logged as NaN stays NaN."""
    path = tmp_path / "run"
    writer = FolderWriter(path, {})
    values: list[dict[str, float]] = [
        {"loss": 1.0},
        {},
        {"loss": float("nan")},
        {"loss": 2.0, "step": 7.0, "late": 1.0},
    ]
    for i, logged in enumerate(values):
        writer.append(Batch(i, i, "train", 0, i, 0.0, False, logged), [], np.zeros(0, np.int64), np.zeros((0, 4)))
    writer.close("stopped")
    FolderWriter(path, {}, Resume(train=3)).close("stopped")
    table = pq.ParquetFile(path / "rank=0/batches/0000000000.parquet").read()
    assert str(table.column("loss").to_pylist()) == "[1.0, None, nan]"
    assert not {"late", "step_"} & set(table.column_names)


# Crashes.


class CrashError(OSError):
    """The process ends here: nothing that comes after it reaches the disk either."""


OPERATIONS = ("replace", "unlink", "rename", "link", "mkdir", "rmdir", "ftruncate", "fsync")


def crash_at(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], int]:
    """Let all operations on files fail from one on; return a function that says how many there were."""
    count = 0

    def failing(real: Any) -> Any:
        def operation(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count >= number:
                raise CrashError(5, "crashed")
            return real(*args, **options)

        return operation

    for name in OPERATIONS:
        monkeypatch.setattr(os, name, failing(getattr(os, name)))
    return lambda: count


@pytest.mark.parametrize("ending", ["killed", "ended", "one tail"])
def test_a_crash_at_any_instant_of_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: list[Any], whole: MemoryStore, recorded: dict[str, Path],
    ending: str,
) -> None:  # fmt: skip
    at = borders(recorded["ended"])[-3] + 2
    wanted = seen(training, at)
    left = set()
    for number in range(1, 1000):
        path = tmp_path / f"run-{number}"
        shutil.copytree(recorded[ending], path)
        with monkeypatch.context() as patched:
            operations = crash_at(patched, number)
            try:
                writer = FolderWriter(path, {}, wanted)
            except StoreError:
                writer = None
        left.add(check_start(FolderReader(path), whole, at))
        if writer is not None:
            assert operations() < number
            break
        assert find_runs(path) == [path]
        for aside in path.glob("cut-*"):
            assert FolderReader(aside).batches()["batch"][-1] == BATCHES - 1
        second = FolderWriter(path, {}, wanted)
        assert (second.position.batch, second.said) == (at, ())
        second.close("stopped")
        assert check_start(FolderReader(path), whole, at) == at
        kept = [FolderReader(aside).batches()["batch"] for aside in path.glob("cut-*")]
        assert set(np.concatenate(kept)) >= set(range(at, BATCHES))
        shutil.rmtree(path)
    assert number > 15
    assert {at, BATCHES} <= left
    assert len(left) > (1 if ending == "one tail" else 3)


# Every integer follows from its batch and place, whichever process has written it.
KILLED = """
import sys
import numpy as np
from colordim.axis import LinearAxis
from colordim.column import Batch, Stream
from colordim.store.resume import Resume
from colordim.store.writer import FolderWriter

path, back = sys.argv[1], int(sys.argv[2])
print("now", flush=True)
writer = FolderWriter(path, {}, Resume(train=back), flush_batches=4, flush_seconds=0.01, seal_bytes=20_000)
stream = Stream(0, "a", "activation", "ReLU", "", (4,), 0, LinearAxis(0, 1, 50))
if not writer.position.streams:
    writer.declare(stream)
for number in range(writer.position.batch, 10**9):
    row = (number * 7 + np.arange(58)) % 5 + 1
    writer.append(Batch(number, number, "train", 0, number, 0.0), (stream,), row, np.full((1, 4), float(number)))
    if number % 10 == 9:
        writer.flush()
        print(number, flush=True)
"""


def test_killed_again_and_again(tmp_path: Path) -> None:
    """Also in the midst of resuming: nothing that a checkpoint has seen is lost, and every column is right."""
    path, rng, back = tmp_path / "run", np.random.default_rng(0), 0
    FolderWriter(path, {}).close("stopped")
    for turn in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), str(back)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(5 if turn % 2 else 1):  # some get far, and some not beyond resuming
            process.stdout.readline()
        time.sleep(rng.exponential(0.1))
        process.kill()
        flushed = max(
            [back - 1, *(int(line) for line in process.stdout.read().splitlines(keepends=True) if line[-1] == "\n")]
        )
        process.wait()
        process.stdout.close()
        reader = FolderReader(path)
        numbers = reader.batches()["batch"]
        np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
        assert len(numbers) > flushed
        assert reader.problems == ()
        for stream in reader.streams:
            block = Block.concatenate(list(reader.blocks(stream, "train", 0, 10**9)), 50)
            rows = np.hstack([block.counts, block.counters])
            np.testing.assert_array_equal(rows, (numbers[:, None] * 7 + np.arange(58)) % 5 + 1)
            np.testing.assert_array_equal(block.moments, np.repeat(numbers[:, None], 4, axis=1))
        back = int(rng.integers(max(0, flushed - 60), flushed + 2))
    assert list(path.glob("cut-*"))


@pytest.mark.parametrize("torn", [1, 11, 13, 100])
def test_what_a_crash_has_left_of_a_frame_is_cut_off(
    kit: Any, tmp_path: Path, training: list[Any], whole: MemoryStore, recorded: dict[str, Path], torn: int
) -> None:
    path = tmp_path / "run"
    shutil.copytree(recorded["one tail"], path)
    (tail,) = path.glob("rank=0/tail-*")
    data = tail.read_bytes()
    frame = data[data.rindex(b"\xc0\x1dFr") :]
    tail.write_bytes(data + frame[:torn])
    writer = FolderWriter(path, {}, Resume())
    assert tail.read_bytes() == data
    writer.close("stopped")
    go_on(path, training, Resume())
    kit.same(FolderReader(path), whole)
    assert FolderReader(path).problems == ()


def test_a_tail_without_a_frame(tmp_path: Path) -> None:
    for number, content in enumerate((b"", b"colordim", b"colordim tail 1\n", b"colordim tail 1\n\xc0\x1d")):
        path = tmp_path / str(number)
        FolderWriter(path, {}).close("stopped")
        (path / "rank=0/tail-0000000000.cdt").write_bytes(content)
        writer = FolderWriter(path, {}, Resume())
        writer.append(Batch(0, 0, "train", 0, 0, 0.0, False), [], np.zeros(0, np.int64), np.zeros((0, 4)))
        writer.close("stopped")
        assert FolderReader(path).batches()["batch"].tolist() == [0]
        assert FolderReader(path).problems == ()
        assert not list(path.glob("cut-*"))


def test_a_damaged_tail_stays_and_is_reported(
    tmp_path: Path, training: list[Any], whole: MemoryStore, recorded: dict[str, Path]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(recorded["one tail"], path)
    (tail,) = path.glob("rank=0/tail-*")
    data = bytearray(tail.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 512] = bytes(512)
    tail.write_bytes(data)
    (problem,) = FolderReader(path).problems
    assert "left out" in problem
    go_on(path, training, Resume())
    assert FolderReader(path).problems == (problem,)
    assert tail.read_bytes() == data
    numbers = FolderReader(path).batches()["batch"].tolist()
    assert len(set(numbers)) == len(numbers) < BATCHES


def test_a_damaged_last_segment_is_kept_aside(
    kit: Any, tmp_path: Path, training: list[Any], whole: MemoryStore, recorded: dict[str, Path]
) -> None:
    """Its number is needed for what is recorded next."""
    path = tmp_path / "run"
    shutil.copytree(recorded["ended"], path)
    last = borders(path)[-1]
    damaged = path / f"rank=0/batches/{last:010d}.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-50])
    go_on(path, training, Resume())
    kit.same(FolderReader(path), whole)
    assert (path / "cut-0001" / damaged.relative_to(path)).exists()


def damaged(recorded: Path, path: Path) -> Path:
    """Copy a run, and damage the counts of the first stream in its fourth segment."""
    shutil.copytree(recorded, path)
    first = borders(path)[3]
    file = path / f"rank=0/columns/level=0/{first:010d}.parquet"
    group = pq.read_metadata(file).row_group(0)  # of the first stream
    (counts,) = (c for c in map(group.column, range(group.num_columns)) if c.path_in_schema.startswith("counts"))
    middle = counts.data_page_offset + counts.total_compressed_size // 2
    data = bytearray(file.read_bytes())
    data[middle : middle + 20] = bytes(20)
    file.write_bytes(data)
    return path


def test_damage_in_the_segment_that_is_cut_is_reported_for_ever(
    tmp_path: Path, training: list[Any], whole: MemoryStore, recorded: dict[str, Path]
) -> None:
    path = damaged(recorded["ended"], tmp_path / "run")
    first = borders(path)[3]
    writer = go_on(path, training, seen(training, first + 3))
    (problem,) = writer.said
    assert f"the columns of 'layer0' in batches {first} to" in problem
    assert problem.endswith("what is left of it is in cut-0001.")
    assert FolderReader(path).problems == (problem,)
    reader = FolderReader(path)
    for stream in whole.streams[1:]:
        ours, theirs = (
            Block.concatenate(list(r.blocks(stream, "train", 0, 10**9)), stream.axis.bins) for r in (reader, whole)
        )
        np.testing.assert_array_equal(ours.counts, theirs.counts)
    # Still there when the same place is cut again.
    go_on(path, training, seen(training, first + 2))
    assert problem in FolderReader(path).problems


def test_damage_is_reported_whenever_resuming_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: list[Any], recorded: dict[str, Path]
) -> None:
    wanted = seen(training, borders(recorded["ended"])[3] + 3)
    writer = None
    for number in range(1, 1000):
        path = damaged(recorded["ended"], tmp_path / f"run-{number}")
        with monkeypatch.context() as patched, contextlib.suppress(StoreError):
            crash_at(patched, number)
            writer = FolderWriter(path, {}, wanted)
        reader = FolderReader(path)
        list(reader.blocks(reader.streams[0], "train", 0, 10**9))
        assert any("'layer0'" in problem for problem in reader.problems)
        if writer is not None:
            break
        shutil.rmtree(path)
    assert number > 15


# Who may go on.


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_run_that_is_being_recorded_is_refused(
    tmp_path: Path, other_process: subprocess.Popen[bytes], recorded: dict[str, Path]
) -> None:
    path = tmp_path / "run"
    shutil.copytree(recorded["killed"], path)
    file = path / "rank=0/rank.json"
    described = files.from_json(file.read_bytes())

    def written_by(**changed: Any) -> None:
        file.write_text(files.to_json(described | {"pid": other_process.pid, "begun": time.time()} | changed))

    written_by()
    with pytest.raises(StoreError, match=f"is being recorded by process {other_process.pid}: stop that first"):
        FolderWriter(path, {}, Resume())
    for harmless in ({"host": "elsewhere"}, {"begun": 1.0}):  # the number was used again
        written_by(**harmless)
        FolderWriter(path, {}, Resume()).close("stopped")
        (path / "rank=0/end.json").unlink()
    written_by()
    other_process.kill()
    time.sleep(0.2)
    FolderWriter(path, {}, Resume()).close("stopped")  # dead, though nobody has asked for its exit status yet


def test_a_run_that_this_process_records_is_refused(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path / "run", {})
    with pytest.raises(StoreError, match="is being recorded by this process: stop that recording first"):
        FolderWriter(tmp_path / "run", {}, Resume())
    writer.close("stopped")
    FolderWriter(tmp_path / "run", {}, Resume())


def test_what_cannot_be_resumed(tmp_path: Path, recorded: dict[str, Path]) -> None:
    with pytest.raises(NotARunError, match="there is no folder"):
        FolderWriter(tmp_path / "none", {}, Resume())
    path = tmp_path / "run"
    shutil.copytree(recorded["ended"], path)
    with pytest.raises(StoreError, match="was recorded by 1 ranks, and this training has 2: resume it with as many"):
        FolderWriter(path / "rank=0", {"rank": {"world_size": 2}}, Resume(train=1))
    with pytest.raises(ArgumentError, match=r"is not what state_dict\(\) returned"):
        Resume.from_state({"train": 3})
    (path / "rank=0/streams.json").write_text("{")
    with pytest.raises(FormatError, match="restore it from a copy"):
        FolderWriter(path, {}, Resume())


# Several ranks.

A = Stream(0, "a", "activation", "ReLU", "", (4,), 0, LinearAxis(0, 2, 2))


def info(world: int, attempt: str | None) -> dict[str, Any]:
    return {"name": "x", "job": attempt, "rank": {"world_size": world, "attempt": attempt}}


def put(writer: FolderWriter, steps: Sequence[Phase]) -> None:
    if not writer.position.streams and not writer._streams:
        writer.declare(A)
    index, number = dict(writer.position.index), writer.position.batch
    for phase in steps:
        values = np.zeros(2 + len(COUNTERS), np.int64)
        values[[0, -2, -1]] = 1
        writer.append(Batch(number, index[phase], phase, 0, number, time.time()), (A,), values, np.zeros((1, 4)))
        index[phase] += 1
        number += 1
    writer.flush()


def killed(run: Path, *ranks: Sequence[Phase], attempt: str = "first") -> Path:
    """Record ranks that hold these batches, and return a copy as if they were killed."""
    live = run.with_name(f"{run.name}-live")
    for number, steps in enumerate(ranks):
        writer = FolderWriter(live / f"rank={number}", info(len(ranks), attempt))
        put(writer, steps)
        writer_copy = run / f"rank={number}"
        shutil.copytree(live / f"rank={number}", writer_copy)
        writer.close("stopped")
    shutil.copy(live / "run.json", run)
    return run


def again(run: Path, number: int, world: int, wanted: Resume | None = None, attempt: str = "second") -> FolderWriter:
    return FolderWriter(run / f"rank={number}", info(world, attempt), wanted or Resume(attempt=attempt))


def test_ranks_go_on_at_the_batch_that_all_of_them_hold(tmp_path: Path) -> None:
    run = killed(tmp_path / "run", [T] * 9, [T] * 7, [T] * 12)
    first = again(run, 1, 3)
    assert first.position.index["train"] == 7
    put(first, [T] * 4)  # and it is ahead already when the others come
    others = [again(run, number, 3) for number in (0, 2)]
    assert [writer.position.index["train"] for writer in others] == [7, 7]
    for writer in others:
        put(writer, [T] * 4)
    for writer in (first, *others):
        writer.close("stopped")
    reader = RunReader(run)
    assert reader.problems == ()
    assert reader.batches()["ranks"].tolist() == [3] * 11
    assert Run(reader).counts("a")[:, 0].tolist() == [3] * 11
    assert sorted(p.name for p in run.glob("cut-*")) == ["cut-0001"], "the ranks share it"
    assert sorted(p.name for p in run.glob("cut-0001/rank=*")) == ["rank=0", "rank=2"]
    assert len(RunReader(run / "cut-0001").batches()["batch"]) == 12


def test_ranks_agree_on_validation_batches(tmp_path: Path) -> None:
    for order in ((0, 1, 2), (2, 1, 0)):
        run = killed(tmp_path / f"run{order}", [T, T, V, V, V, T], [T, T, V], [T, T])
        found = {number: again(run, number, 3).position.index for number in order}
        assert [found[number] for number in range(3)] == [
            {"train": 2, "valid": 1},
            {"train": 2, "valid": 1},
            {"train": 2, "valid": 0},  # it never validates
        ]


def test_a_rank_that_never_began(tmp_path: Path) -> None:
    for order in ((0, 1), (1, 0)):
        run = killed(tmp_path / f"run{order}", [T] * 5, [T] * 4)
        shutil.rmtree(run / "rank=1")
        found = {number: again(run, number, 2) for number in order}
        assert [found[number].position.index["train"] for number in (0, 1)] == [5, 5]
        assert found[1].said == (
            "train batches 0 to 4 are missing: the run was resumed from a checkpoint that has seen them, and they had "
            "not been written.",
        )


def test_a_rank_that_holds_nothing_does_not_take_all_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = killed(tmp_path / "run", [T, T, V, T], [T] * 4)
    shutil.rmtree(run / "rank=1")
    real = files.write_text
    with monkeypatch.context() as patched:

        def crash(path: Path, text: str) -> None:
            if "resumed" in text:
                raise CrashError(5, "crashed")
            real(path, text)

        patched.setattr(files, "write_text", crash)
        with pytest.raises(StoreError, match="cannot be resumed"):  # its folder is there, and nothing in it
            again(run, 1, 2)
    assert (run / "rank=1/streams.json").exists()
    found = {number: again(run, number, 2) for number in (0, 1)}
    assert [found[number].position.index for number in (0, 1)] == [{"train": 3, "valid": 1}] * 2


def test_a_rank_that_begins_while_another_is_ahead(tmp_path: Path) -> None:
    """Both begin: the run is none that is resumed, though one comes later."""
    run = tmp_path / "run"
    put(FolderWriter(run / "rank=0", info(2, "first")), [T] * 3)
    late = again(run, 1, 2, attempt="first")
    assert (late.position.batch, late.said) == (0, ())


def test_ranks_with_a_checkpoint_need_not_agree(tmp_path: Path) -> None:
    run = killed(tmp_path / "run", [T, T, V, V, T], [T, T, T, T])
    wanted = Resume(train=3, valid=2, rank=0, epoch=0, step=3, seen=[T, V])
    positions = [again(run, number, 2, wanted).position for number in range(2)]
    assert [position.index for position in positions] == [{"train": 3, "valid": 2}, {"train": 3, "valid": 0}]


def test_where_nothing_tells_the_ranks_where_to_go_on(tmp_path: Path) -> None:
    run = killed(tmp_path / "run", [T] * 3, [T] * 2)
    sentence = r"nothing tells the 2 ranks at which batch all of them go on: pass the state_dict\(\)"
    with pytest.raises(ArgumentError, match=sentence):
        again(run, 0, 2, Resume(attempt=None))
    with pytest.raises(ArgumentError, match=sentence):
        again(run, 0, 2, attempt="first")  # the name of an earlier start: what others did then says nothing
    assert len(RunReader(run).batches()["batch"]) == 3
    assert again(run, 0, 2).position.batch == 2
