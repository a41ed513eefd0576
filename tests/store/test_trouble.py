"""Disks that are full, hang, vanish or refuse: training goes on, and is told once."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colordim.column import Batch
from colordim.errors import ColordimWarning, StoreError
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.place import LocalPlace
from colordim.store.spans import Spans
from colordim.store.tail import TailReader
from colordim.store.writer import FolderWriter

real_write = os.write


class Disk:
    """Stands in for ``os.write`` in the tail: takes `space` bytes, or hangs while told to."""

    def __init__(self) -> None:
        self.space: float = float("inf")
        self.error = errno.ENOSPC
        self.running = threading.Event()
        self.running.set()

    def write(self, descriptor: int, data: memoryview) -> int:
        self.running.wait()
        if self.space <= 0:
            raise OSError(self.error, os.strerror(self.error))
        taken = min(len(data), self.space, 5000)  # in pieces, as a disk may
        self.space -= taken
        return real_write(descriptor, bytes(data[: int(taken)]))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr("colordim.store.tail.os.write", disk.write)
    return disk


def empty(number: int) -> tuple[Batch, tuple[()], Any, Any]:
    return Batch(number, number, "train", 0, 0, 0.0), (), np.zeros(0, np.int64), np.zeros((0, 4))


def until(condition: Callable[[], bool], seconds: float = 8) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_full_then_freed(kit: Any, tmp_path: Path, disk: Disk, error: int) -> None:
    """One warning; what was written stays; what waits is written when there is space."""
    disk.error = error
    memory = MemoryStore()
    writer = FolderWriter(tmp_path, {}, flush_batches=10, seal_bytes=300_000)
    reader = FolderReader(tmp_path)
    seen: list[int] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in kit.training(0, 200):
            if step.batch.batch == 60:
                writer.flush()
                disk.space = 7000
            if step.batch.batch == 150:
                disk.space = float("inf")
            step.into(memory, writer)
            if step.batch.batch % 20 == 19:
                writer.flush()
                reader.refresh()
                seen.append(len(reader.batches()["batch"]))
                assert reader.problems == ()
            if 60 < step.batch.batch < 150 and step.batch.batch % 20 == 19:
                (file,) = tmp_path.rglob("tail-*")
                read = TailReader(LocalPlace(file.parent), file.name, 0)
                read.refresh(ended=True)
                assert read.problems == [], "the torn frame was cut off"
        writer.close("stopped")
    assert [w.category for w in caught] == [ColordimWarning]
    message = str(caught[0].message)
    assert str(tmp_path) in message
    assert os.strerror(error) in message
    assert "free space" in message
    assert caught[0].filename == __file__ or "conftest" in caught[0].filename, "it points to the caller"
    assert seen[2] == 60
    assert seen[3] in (60, 70, 80)
    assert seen[6] == seen[3], "still full"
    assert seen[-1] == 200
    reader.refresh()
    kit.same(reader, memory)
    assert writer.dropped == 0


def test_full_for_ever(kit: Any, tmp_path: Path, disk: Disk) -> None:
    """Memory stays bounded, close returns at once, what was written is readable, the loss is named."""
    writer = FolderWriter(tmp_path, {}, flush_batches=10, queue_bytes=200_000)
    steps = list(kit.training(0, 300))
    for step in steps[:50]:
        step.into(writer)
    writer.flush()
    disk.space = 0
    began = time.monotonic()
    with pytest.warns(ColordimWarning, match="cannot be written") as caught:
        for step in steps[50:]:
            step.into(writer)
            if step.batch.batch == 60:
                writer.flush()
        writer.flush()
        disk.running.wait()
        writer.close("stopped")
    assert time.monotonic() - began < 3
    assert len(caught) == 1
    assert 100 < writer.dropped < 240
    reader = FolderReader(tmp_path)
    assert len(reader.batches()["batch"]) == 50
    assert reader.ended == "stopped"
    assert reader.problems == (
        "end.json: 250 batches were never written, because the disk failed while the run was recorded.",
    )


def test_real_limit_on_file_size(kit: Any, tmp_path: Path) -> None:
    """Without any stand-in: the system refuses to let the sealed file grow."""
    resource = pytest.importorskip("resource")
    memory = MemoryStore()
    writer = FolderWriter(tmp_path, {}, flush_batches=10, seal_bytes=400_000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    steps = list(kit.training(0, 200))
    for step in steps[:50]:
        step.into(memory, writer)
    writer.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.warns(ColordimWarning) as caught:
            for step in steps[50:]:
                step.into(memory, writer)
            writer.flush()
            reader = FolderReader(tmp_path)
            assert 50 <= len(reader.batches()["batch"]) < 200
            assert reader.problems == ()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(caught) == 1
    writer.close("stopped")
    kit.same(FolderReader(tmp_path), memory)
    assert not list(tmp_path.rglob("tail-*")), "all was sealed in the end"
    assert not list(tmp_path.rglob(".*")), "no half file is left"


def test_sealing_fails(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments that cannot be sealed stay readable as tails, and memory forgets the oldest."""
    writer = FolderWriter(tmp_path, {}, flush_batches=5, seal_bytes=1)
    shutil.rmtree(tmp_path / "rank=0/columns")
    memory = MemoryStore()
    with pytest.warns(ColordimWarning, match="No such file") as caught:
        for step in kit.training(0, 50):
            step.into(memory, writer)
            if step.batch.batch % 5 == 4:
                writer.flush()
        writer.close("stopped")
    assert len(caught) == 1
    assert len(list(tmp_path.rglob("tail-*"))) >= 10  # one more where a new stream begins a frame of its own
    kit.same(FolderReader(tmp_path), memory)


def test_levels_fail(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes behind sealing is tried again by itself, after pauses in which the thread sleeps."""
    fails = False
    real = Spans.join

    def join(*args: Any) -> None:
        if fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args)

    monkeypatch.setattr(Spans, "join", join)
    monkeypatch.setattr("colordim.store.retry._FIRST", 0.2)
    writer = FolderWriter(tmp_path, {}, flush_batches=5, seal_bytes=1)
    memory = MemoryStore()
    with pytest.warns(ColordimWarning, match="No space left") as caught:
        for step in kit.training(0, 20):
            fails = step.batch.batch >= 15
            step.into(memory, writer)
            if step.batch.batch % 5 == 4:
                writer.flush()
        assert not writer._disk.unsealed
        before = time.process_time()
        time.sleep(0.5)  # past the first pause
        assert time.process_time() - before < 0.25
        fails = False
        until(lambda: (tmp_path / "rank=0/moments/level=3").exists())
        writer.close("stopped")
    assert len(caught) == 1
    kit.same(FolderReader(tmp_path), memory)


def test_hung_disk(kit: Any, tmp_path: Path, disk: Disk) -> None:
    """Training waits once for as long as `patience`, then goes on; after the hang, so does writing."""
    writer = FolderWriter(tmp_path, {}, flush_batches=10, queue_bytes=100_000, patience=0.4)
    steps = list(kit.training(0, 300))
    disk.running.clear()
    began = time.monotonic()
    with pytest.warns(ColordimWarning, match="not taken data for 0.4 s: training goes on") as caught:
        for step in steps[:250]:
            step.into(writer)
            if step.batch.batch > 200:
                writer.flush()
    assert 0.35 < time.monotonic() - began < 2.5
    assert len(caught) == 1
    dropped = writer.dropped
    assert dropped > 50
    disk.running.set()
    until(lambda: not writer._queue)
    for step in steps[250:]:
        step.into(writer)
        until(lambda: not writer._queue)
    writer.close("stopped")
    assert writer.dropped == dropped
    reader = FolderReader(tmp_path)
    numbers = reader.batches()["batch"].tolist()
    assert len(numbers) == 300 - dropped
    assert numbers[-50:] == list(range(250, 300))


def test_close_on_a_hung_disk(tmp_path: Path, disk: Disk) -> None:
    writer = FolderWriter(tmp_path, {}, patience=0.3)
    disk.running.clear()
    writer.append(*empty(0))
    began = time.monotonic()
    with pytest.warns(ColordimWarning, match=str(tmp_path)):
        writer.close("stopped")
    assert 0.25 < time.monotonic() - began < 1
    writer.append(*empty(1))
    writer.flush()
    writer.close("again")
    disk.running.set()
    until(lambda: FolderReader(tmp_path).ended == "stopped")
    assert FolderReader(tmp_path).batches()["batch"].tolist() == [0], "what waited is written after all"


def test_folder_deleted(kit: Any, tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path / "run", {}, flush_batches=5)
    with pytest.warns(ColordimWarning, match="No such file") as caught:
        for step in kit.training(0, 100):
            step.into(writer)
            if step.batch.batch == 70:  # behind the last new stream, so that nothing but the tail is written
                writer.flush()
                shutil.rmtree(tmp_path / "run")
            if step.batch.batch > 90:
                writer.flush()
                assert len(caught) == 1, "the open file is written to no more"
        writer.close("stopped")
    assert len(caught) == 1
    assert not (tmp_path / "run").exists()


def test_warnings_as_errors_do_not_stop_training(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = FolderWriter(tmp_path, {})
    disk.space = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        writer.append(*empty(0))
        writer.flush()
        writer.close("stopped")
    assert capsys.readouterr().err.count("cannot be written") == 1


def test_fault_in_what_was_logged(tmp_path: Path) -> None:
    """A value that is no number costs its frame, not the training and not the rest."""
    writer = FolderWriter(tmp_path, {}, flush_batches=1)
    with pytest.warns(ColordimWarning, match="could not convert string to float") as caught:
        for number in range(5):
            values: dict[str, Any] = {"loss": "high" if number == 2 else 1.0}
            batch = Batch(number, number, "train", 0, 0, 0.0, True, values)
            writer.append(batch, (), np.zeros(0, np.int64), np.zeros((0, 4)))
            writer.flush()
        writer.close("stopped")
    assert len(caught) == 1
    assert FolderReader(tmp_path).batches()["batch"].tolist() == [0, 1, 3, 4]


def test_refused_when_opened(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file is a file"):
        FolderWriter(tmp_path / "file", {})
    with pytest.raises(StoreError, match="Not a directory"):
        FolderWriter(tmp_path / "file/run", {})
    with pytest.raises(StoreError, match="holds other files and no run"):
        FolderWriter(tmp_path, {})
    kit.record(tmp_path / "run", batches=1)
    with pytest.raises(StoreError, match="already holds a run: give the new one another folder"):
        FolderWriter(tmp_path / "run", {})

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="Read-only file system"):
        FolderWriter(tmp_path / "other", {})


def test_declared_out_of_order(kit: Any, tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path, {})
    with pytest.raises(ValueError, match="has id 3, but 0 is the next"):
        writer.declare(kit.stream(3))
    writer.close("stopped")
