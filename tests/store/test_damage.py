"""Damaged files: what is read is right, and what is missing is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colordim.column import PHASES
from colordim.errors import FormatError, NotARunError
from colordim.store.base import Block
from colordim.store.description import find_runs
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.writer import FolderWriter


@pytest.fixture(scope="module")
def sealed(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryStore]:
    path = tmp_path_factory.mktemp("sealed") / "run"
    return path, kit.record(path, seed=11, batches=120, flush_batches=20, seal_bytes=150_000)


@pytest.fixture(scope="module")
def tailed(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryStore]:
    """A run that was cut off: a tail of several frames and no end."""
    source = tmp_path_factory.mktemp("tailed") / "run"
    memory = MemoryStore()
    writer = FolderWriter(source, {}, flush_batches=10)
    for step in kit.training(12, 100):
        step.into(memory, writer)
        if step.batch.batch % 10 == 9:
            writer.flush()
    shutil.copytree(source, source.with_name("copy"))
    writer.close("stopped")
    return source.with_name("copy"), memory


def never_wrong(reader: FolderReader, truth: MemoryStore) -> int:
    """Compare every column that is read with the true one; return how many batches or columns are missing."""
    expected = truth.batches()
    got = reader.batches()
    rows = np.searchsorted(expected["batch"], got["batch"])
    for name in got:
        np.testing.assert_array_equal(got[name], expected[name][rows], err_msg=name)
    missing = len(expected["batch"]) - len(rows)
    assert reader.streams == truth.streams
    for stream in truth.streams:
        for phase in PHASES:
            ours, theirs = (
                Block.concatenate(list(r.blocks(stream, phase, 0, 10**9)), stream.axis.bins) for r in (reader, truth)
            )
            at = np.searchsorted(theirs.first, ours.first)
            for name in ("first", "last", "number", "counts", "counters", "moments"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name)[at], err_msg=stream.name)
            missing += len(theirs) - len(ours)
    return missing


def damages(size: int, seed: int, number: int) -> Iterator[tuple[str, Callable[[bytearray], bytes]]]:
    rng = np.random.default_rng(seed)
    for _ in range(number):
        at = int(rng.integers(size))
        yield f"truncated at {at}", lambda data, at=at: bytes(data[:at])  # type: ignore[misc]
        block = at // 512 * 512
        yield (
            f"zeroed at {block}",
            lambda data, at=block: bytes(data[:at]) + bytes(min(512, len(data) - at)) + bytes(data[at + 512 :]),  # type: ignore[misc]
        )
        bit = 1 << int(rng.integers(8))
        yield (
            f"bit {bit} flipped at {at}",
            lambda data, at=at, bit=bit: bytes(data[:at]) + bytes([data[at] ^ bit]) + bytes(data[at + 1 :]),  # type: ignore[misc]
        )


@pytest.mark.parametrize("part", ["columns/level=0", "moments/level=0", "batches"])
def test_sealed_files(sealed: tuple[Path, MemoryStore], tmp_path: Path, part: str) -> None:
    path, truth = sealed
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    file = sorted((copy / "rank=0" / part).iterdir())[1]
    whole = file.read_bytes()
    found = 0
    # Also densely over the end of the file: the footer has no checksum of Parquet's.
    for what, damage in [
        *damages(len(whole), 1, 20),
        *(
            (
                f"end - {back}",
                lambda data, back=back: (
                    bytes(data[:-back]) + bytes([data[-back] ^ 4]) + bytes(data[len(data) - back + 1 :])
                ),
            )
            for back in range(1, min(len(whole), 3000), 23)
        ),
    ]:
        file.write_bytes(damage(bytearray(whole)))
        reader = FolderReader(copy)
        missing = never_wrong(reader, truth)
        assert (missing > 0) <= (len(reader.problems) > 0), what
        found += bool(reader.problems)
        for sentence in reader.problems:
            assert file.name in sentence
            assert "left out" in sentence
            assert "\n" not in sentence
    assert found > 60


def test_missing_sealed_file(sealed: tuple[Path, MemoryStore], tmp_path: Path) -> None:
    path, truth = sealed
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    file = min((copy / "rank=0/columns/level=0").iterdir())
    file.unlink()
    reader = FolderReader(copy)
    assert never_wrong(reader, truth) > 0
    assert file.name in reader.problems[0]
    shutil.copy(path / file.relative_to(copy), file)
    assert never_wrong(reader, truth) == 0
    assert reader.problems == (), "the file is back"


@pytest.mark.parametrize("ended", [False, True])
def test_tail(tailed: tuple[Path, MemoryStore], tmp_path: Path, ended: bool) -> None:
    path, truth = tailed
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    if ended:
        (copy / "rank=0/end.json").write_text(json.dumps({"reason": "stopped", "dropped": 0}))
    file = next((copy / "rank=0").glob("tail-*"))
    whole = file.read_bytes()
    lost = 0
    for what, damage in damages(len(whole), 2, 40):
        file.write_bytes(damage(bytearray(whole)))
        reader = FolderReader(copy)
        missing = never_wrong(reader, truth)
        numbers = reader.batches()["batch"]
        torn = what.startswith("truncated") and not ended
        hole = len(numbers) > 0 and numbers[-1] + 1 != len(numbers)
        if missing and (hole or not torn):
            # A cut between two frames leaves nothing to be seen but the end being early.
            assert reader.problems, what
            assert all(file.name in sentence for sentence in reader.problems)
        if torn:
            assert reader.problems == (), "a torn end of a live tail is normal"
        lost += missing > 0
        if not what.startswith("truncated"):
            assert len(truth.batches()["batch"]) - len(numbers) <= 20, f"{what}: at most two frames are lost"
    assert lost > 40


def test_tail_heals(tailed: tuple[Path, MemoryStore], kit: Any, tmp_path: Path) -> None:
    """A frame that arrives in pieces is read when it is whole, by the same reader."""
    path, truth = tailed
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    file = next((copy / "rank=0").glob("tail-*"))
    whole = file.read_bytes()
    file.write_bytes(b"")
    reader = FolderReader(copy)
    seen = 0
    for stop in [*range(0, len(whole), len(whole) // 40), len(whole)]:
        file.write_bytes(whole[:stop])
        reader.refresh()
        never_wrong(reader, truth)
        assert reader.problems == ()
        assert len(reader.batches()["batch"]) >= seen
        seen = len(reader.batches()["batch"])
    kit.same(reader, truth)


def test_lost_batches_are_named(tailed: tuple[Path, MemoryStore], tmp_path: Path) -> None:
    path, _ = tailed
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    file = next((copy / "rank=0").glob("tail-*"))
    data = bytearray(file.read_bytes())
    frames = [at for at in range(len(data)) if data[at : at + 4] == b"\xc0\x1dFr"]
    data[frames[2] + 100] ^= 1
    file.write_bytes(data)
    assert FolderReader(copy).problems == (
        f"{file.name}: batches 20 to 29 left out, because a checksum does not match.",
    )


def test_unreadable_batches_fall_back_to_the_tail(tailed: tuple[Path, MemoryStore], kit: Any, tmp_path: Path) -> None:
    """A tail that is still there stands in for a segment whose batches are damaged."""
    path, truth = tailed
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    (copy / "rank=0/batches/0000000000.parquet").write_bytes(b"PAR1")
    kit.same(FolderReader(copy), truth)


def test_not_a_run(kit: Any, tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="there is no folder"):
        FolderReader(tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotARunError, match="is a file"):
        FolderReader(tmp_path / "file")
    with pytest.raises(NotARunError, match=r"holds no run\.json: give the folder"):
        FolderReader(tmp_path)
    for name in ("d/x", "b", "c", "a"):
        kit.record(tmp_path / name, batches=0)
    with pytest.raises(NotARunError, match=r"runs below it: .*a, .*b, .*c[.]\n"):
        FolderReader(tmp_path)
    (tmp_path / "a/inner").mkdir()
    (tmp_path / "a/inner/run.json").write_text("{}")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden/run.json").write_text("{}")
    assert find_runs(tmp_path) == [tmp_path / name for name in ("a", "b", "c", "d/x")]
    assert find_runs(tmp_path / "a") == [tmp_path / "a"]
    assert find_runs(tmp_path / "nothing") == []


def test_gone_while_it_is_open(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path / "run", batches=3)
    reader = FolderReader(tmp_path / "run")
    assert len(reader.batches()["batch"]) == 3
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(NotARunError, match="gone"):
        reader.refresh()
    assert len(reader.batches()["batch"]) == 3, "the snapshot stays"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("run.json", '{"schema": 7}', r"newer colordim \(schema 7, this one reads up to 1\): update colordim"),
        ("run.json", "{", "run.json is damaged"),
        ("run.json", "[]", "run.json is damaged"),
        ("run.json", "{}", "run.json is damaged"),
        ("run.json", "\0\0\0", "run.json is damaged"),
        ("rank=0/streams.json", '{"streams"', "streams.json is damaged"),
        ("rank=0/streams.json", '{"streams": [{"id": 0}]}', "streams.json is damaged"),
        ("rank=0/streams.json", None, "streams.json is missing"),
    ],
)
def test_damaged_descriptions(kit: Any, tmp_path: Path, file: str, text: str | None, message: str) -> None:
    kit.record(tmp_path / "run", batches=3)
    if text is None:
        (tmp_path / "run" / file).unlink()
    else:
        (tmp_path / "run" / file).write_text(text)
    with pytest.raises(FormatError, match=message):
        FolderReader(tmp_path / "run")


def test_damaged_end(kit: Any, tmp_path: Path) -> None:
    memory = kit.record(tmp_path, batches=3)
    (tmp_path / "rank=0/end.json").write_text("{")
    reader = FolderReader(tmp_path)
    kit.same(reader, memory)
    assert reader.ended == "unknown"
    assert "end.json" in reader.problems[0]
