"""Recording on scratch: the run folder is always right, whatever fails, and whole in the end."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colordim
from colordim.errors import ColordimWarning, StoreError
from colordim.store import files
from colordim.store.base import Block
from colordim.store.folder import FolderReader
from colordim.store.mirror import Mirror
from colordim.store.writer import FolderWriter

# Every integer of a row follows from its stream, batch and place.
WRITER = """
import sys, time
import numpy as np
from colordim.axis import LinearAxis
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter

path, scratch, limit, pause = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
streams = [Stream(i, f"layer{i}", "activation", "ReLU", "", (4,), i, LinearAxis(0, 1, 50)) for i in range(3)]
writer = FolderWriter(path, {}, flush_batches=4, flush_seconds=0.01, seal_bytes=20_000, scratch=scratch)
for stream in streams[:-1]:
    writer.declare(stream)
place = np.arange(58)
print("ready", flush=True)
for number in range(limit):
    if number == 30:
        writer.declare(streams[-1])
    chosen = streams if number >= 30 else streams[:-1]
    rows = np.concatenate([(number * 7 + stream.id * 3 + place) % 5 * (place % 3) for stream in chosen])
    writer.append(Batch(number, number, "train", 0, number, 0.0), chosen, rows, np.full((len(chosen), 4), float(number)))
    time.sleep(pause)
writer.close("stopped")
"""


def start(tmp_path: Path, limit: int, pause: float) -> subprocess.Popen[str]:
    arguments = [str(tmp_path / "run"), str(tmp_path / "ssd"), str(limit), str(pause)]
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def check(reader: FolderReader) -> int:
    """Check every integer; return the number of batches, which are complete from the first on."""
    numbers = reader.batches()["batch"]
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    place = np.arange(58)
    for stream in reader.streams:
        block = Block.concatenate(list(reader.blocks(stream, "train", 0, 10**9)), 50)
        expected = (numbers[:, None] * 7 + stream.id * 3 + place) % 5 * (place % 3)
        fired = numbers >= (30 if stream.id == 2 else 0)
        np.testing.assert_array_equal(np.hstack([block.counts, block.counters]), expected * fired[:, None])
    assert reader.problems == ()
    return len(numbers)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def ssd(tmp_path: Path) -> Path:
    folder = tmp_path / "ssd"
    folder.mkdir()
    return folder


class Network:
    """Stands in for the run folder's file system: fails or hangs while told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down = False
        self.hangs = False
        self.tried = 0
        copy = Mirror._copy

        def failing(mirror: Mirror, name: str) -> bool:
            self.tried += 1
            while self.hangs:
                time.sleep(0.02)
            if self.down:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            return copy(mirror, name)

        monkeypatch.setattr(Mirror, "_copy", failing)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    network = Network(monkeypatch)
    yield network
    network.hangs = False


def test_the_run_folder_is_that_of_a_run_without_scratch(kit: Any, tmp_path: Path, ssd: Path) -> None:
    options = {"flush_batches": 7, "flush_seconds": 100, "seal_bytes": 300_000}
    memory = kit.record(tmp_path / "direct", **options)
    kit.record(tmp_path / "run", scratch=ssd, **options)
    reader = kit.read(tmp_path / "run")
    kit.same(reader, memory)
    assert (reader.ended, reader.problems) == ("stopped", ())
    direct, ours = tree(tmp_path / "direct"), tree(tmp_path / "run")
    sealed = {name for name in ours if name.endswith(".parquet")}
    assert len(sealed) > 6
    # Only that flushing seals here adds a segment, so that names may differ; what is not sealed must not be there.
    assert set(ours) - sealed == {name for name in direct if not name.endswith(".parquet")}
    assert ours["rank=0/streams.json"] == direct["rank=0/streams.json"]
    assert list(ssd.iterdir()) == []


def test_facts_units_and_streams_come_over_while_the_run_goes_on(kit: Any, tmp_path: Path, ssd: Path) -> None:
    writer = FolderWriter(tmp_path / "run", {}, scratch=ssd)
    rank = tmp_path / "run/rank=0"
    writer.declare(kit.stream(0))
    writer.describe({"modules": 3})
    for step in list(kit.training(0, 1)):
        writer.append(step.batch, (), np.zeros(0, np.int64), np.zeros((0, 4)))
    until(lambda: len(FolderReader(tmp_path / "run").streams) == 1 and (rank / files.FACTS).exists())
    assert FolderReader(tmp_path / "run").facts == {"modules": 3}
    assert len(FolderReader(tmp_path / "run").batches()["batch"]) == 0, "not sealed, so not here yet"
    assert len(FolderReader(next(ssd.iterdir())).batches()["batch"]) == 1
    assert list(rank.glob("tail-*")) == []
    writer.flush()  # for readers: of the run folder
    assert len(FolderReader(tmp_path / "run").batches()["batch"]) == 1
    assert FolderReader(tmp_path / "run").ended is None
    writer.close("stopped")


def test_a_small_segment_is_sealed_after_a_while(kit: Any, tmp_path: Path, ssd: Path) -> None:
    memory_writer = FolderWriter(tmp_path / "run", {}, flush_seconds=0.01, seal_seconds=0.3, scratch=ssd)
    for step in kit.training(0, 5):
        step.into(memory_writer)
    began = time.monotonic()
    until(lambda: len(FolderReader(tmp_path / "run").batches()["batch"]) == 5)
    assert time.monotonic() - began > 0.1
    memory_writer.close("stopped")


def test_read_while_another_process_writes(tmp_path: Path, ssd: Path) -> None:
    process = start(tmp_path, 1500, 0.001)
    kept = FolderReader(tmp_path / "run")
    lengths = [0]
    while process.poll() is None:
        kept.refresh()
        lengths.append(check(kept))
        assert lengths[-1] >= lengths[-2]
        assert check(FolderReader(tmp_path / "run")) >= lengths[-1]
    assert process.returncode == 0
    assert process.stdout is not None
    process.stdout.close()
    kept.refresh()
    assert check(kept) == 1500
    assert kept.ended == "stopped"
    assert len(set(lengths)) > 3, "it was read in between"
    assert list(ssd.iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
def test_killed(tmp_path: Path, ssd: Path, seed: int) -> None:
    """All that is in the run folder is right; all that was written is there once scratch is copied as we say."""
    process = start(tmp_path, 10**9, 0.0)
    time.sleep(np.random.default_rng(seed).uniform(0.3, 1.0))
    process.kill()
    process.communicate()
    copied = check(FolderReader(tmp_path / "run"))
    (scratch,) = ssd.iterdir()
    written = check(FolderReader(scratch))
    assert written >= copied
    subprocess.run(["cp", "-ru", f"{scratch}/.", str(tmp_path / "run")], check=True)
    assert check(FolderReader(tmp_path / "run")) == written


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signal to send")
def test_terminated(tmp_path: Path, ssd: Path) -> None:
    watched = (
        "from colordim import termination\n"
        "class Terminable:\n"
        "    def hurry(self, dying): writer.hurry('ended by SIGTERM' if dying else None)\n"
        "    def wait(self, until): writer.wait(until)\n"
        "termination.watch(Terminable())\n"
    )
    code = WRITER.replace("place = ", watched + "place = ", 1)
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path / "run"), str(ssd), "1000000", "0.001"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGTERM
    if said:  # a busy machine does not copy all within the second, and then it says what to do
        assert f"cp -ru {next(ssd.iterdir())}/. {tmp_path / 'run'}" in said
        subprocess.run(["cp", "-ru", f"{next(ssd.iterdir())}/.", str(tmp_path / "run")], check=True)
    else:
        assert list(ssd.iterdir()) == []
    reader = FolderReader(tmp_path / "run")
    assert check(reader) > 10
    assert reader.ended == "ended by SIGTERM"


@pytest.mark.parametrize("trouble", ["down", "hangs"])
def test_a_network_that_is_away_for_a_while(
    kit: Any, tmp_path: Path, ssd: Path, network: Network, trouble: str
) -> None:
    from colordim.store.memory import MemoryStore

    memory = MemoryStore()
    writer = FolderWriter(tmp_path / "run", {}, flush_batches=5, seal_bytes=200_000, patience=0.5, scratch=ssd)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in kit.training(0, 200):
            if step.batch.batch in (60, 100, 140):
                if step.batch.batch == 60:
                    writer.flush()
                setattr(network, trouble, step.batch.batch < 140)
                began = time.monotonic()
                writer.flush()
                assert time.monotonic() - began < 5
            step.into(memory, writer)
        until(lambda: len(kit.read(tmp_path / "run").batches()["batch"]) >= 140)
        writer.close("stopped")
        memory.close("stopped")
    ours = [str(each.message) for each in caught if issubclass(each.category, ColordimWarning)]
    if trouble == "down":
        assert len(ours) == 1
        assert (
            f"{tmp_path / 'run'} cannot be written ({os.strerror(errno.ESTALE)}): recording goes on in {ssd}" in ours[0]
        )
    else:
        assert ours == []
    reader = kit.read(tmp_path / "run")
    kit.same(reader, memory)
    assert (reader.ended, reader.problems) == ("stopped", ())
    assert list(ssd.iterdir()) == []


@pytest.mark.parametrize("trouble", ["down", "hangs"])
def test_a_network_that_does_not_come_back(kit: Any, tmp_path: Path, ssd: Path, network: Network, trouble: str) -> None:
    """Scratch stays, and doing what the warning says brings everything over."""
    memory_path = tmp_path / "direct"
    memory = kit.record(memory_path, batches=50)
    writer = FolderWriter(tmp_path / "a run", {}, flush_batches=5, seal_bytes=200_000, patience=0.4, scratch=ssd)
    setattr(network, trouble, True)
    for step in kit.training(0, 50):
        step.into(writer)
    with pytest.warns(ColordimWarning) as caught:
        writer.close("stopped")
    said = str(caught[-1].message)
    assert f"it stays in {next(ssd.iterdir())}: bring it over with `cp -ru " in said
    assert (os.strerror(errno.ESTALE) in said) == (trouble == "down")
    assert len(kit.read(tmp_path / "a run").batches()["batch"]) == 0
    subprocess.run(said.split("`")[1], shell=True, check=True)
    reader = kit.read(tmp_path / "a run")
    kit.same(reader, memory)
    assert reader.ended == "stopped"


def test_what_could_not_be_copied_comes_over_later(kit: Any, tmp_path: Path, ssd: Path, network: Network) -> None:
    """As long as the process lives, as in a notebook."""
    writer = FolderWriter(tmp_path / "run", {}, patience=0.2, scratch=ssd)
    network.down = True
    for step in kit.training(0, 5):
        step.into(writer)
    with pytest.warns(ColordimWarning):
        writer.close("stopped")
    network.down = False
    until(lambda: not list(ssd.iterdir()))
    assert kit.read(tmp_path / "run").ended == "stopped"


def test_a_network_that_hangs_is_waited_for_once(kit: Any, tmp_path: Path, ssd: Path, network: Network) -> None:
    writer = FolderWriter(tmp_path / "run", {}, patience=1, scratch=ssd)
    network.hangs = True
    waited = []
    for step in kit.training(0, 2):
        step.into(writer)
        began = time.monotonic()
        writer.flush()
        waited.append(time.monotonic() - began)
    assert waited[0] >= 1
    assert waited[1] < waited[0] / 2
    network.hangs = False
    writer.close("stopped")
    assert list(ssd.iterdir()) == []


def test_a_flush_tries_again_at_once(
    kit: Any, tmp_path: Path, ssd: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colordim.store.retry._FIRST", 1000.0)
    writer = FolderWriter(tmp_path / "run", {}, scratch=ssd)
    network.down = True
    for step in kit.training(0, 2):
        step.into(writer)
    with pytest.warns(ColordimWarning):
        writer.flush()
    network.down = False
    writer.flush()
    assert len(kit.read(tmp_path / "run").batches()["batch"]) == 2
    writer.close("stopped")


def test_tails_that_cannot_be_sealed_come_over_at_the_end(
    kit: Any, tmp_path: Path, ssd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = kit.record(tmp_path / "direct", batches=40)
    monkeypatch.setattr("colordim.store.disk.Segment.seal", lambda *_: 1 / 0)
    with pytest.warns(ColordimWarning, match="ZeroDivisionError"):
        kit.record(tmp_path / "run", batches=40, scratch=ssd)
    reader = kit.read(tmp_path / "run")
    kit.same(reader, memory)
    assert (reader.ended, reader.problems) == ("stopped", ())


def test_levels_come_and_go(tmp_path: Path, ssd: Path) -> None:
    """Coarser files take the place of finer ones; nothing else is ever removed, nor what is not ours."""
    source, target = ssd / "run-1/rank=0", tmp_path / "run/rank=0"
    for folder in (source, target):
        for name in ("columns/level=0", "columns/level=1", "moments/level=0", "batches"):
            (folder / name).mkdir(parents=True)

    def put(*names: str) -> None:
        for name in names:
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(name)

    (target / "columns/level=1/9-9.parquet").write_text("of an earlier attempt")
    mirror = Mirror(source.parent, source, target, None, lambda error: None)
    put("streams.json", "tail-0.cdt", "columns/level=0/0.parquet", "batches/0.parquet", "columns/level=1/0-3.parquet")
    put("columns/level=1/4-7.parquet", "columns/level=0/.1.parquet.tmp")
    assert mirror.settle(10)
    expected = set(tree(source)) - {"tail-0.cdt", "columns/level=0/.1.parquet.tmp"} | {"columns/level=1/9-9.parquet"}
    assert set(tree(target)) == expected
    put("columns/level=2/0-7.parquet", "streams.json")
    for name in ("columns/level=1/0-3.parquet", "columns/level=1/4-7.parquet", "columns/level=0/0.parquet"):
        (source / name).unlink()
    (source / "streams.json").write_text("more")
    mirror.look()
    until(
        lambda: (target / "columns/level=2/0-7.parquet").exists() and len(list(target.glob("columns/level=1/*"))) == 1
    )
    assert (target / "columns/level=0/0.parquet").exists()
    assert (target / "columns/level=1/9-9.parquet").exists()
    assert (target / "streams.json").read_text() == "more"
    (source / "tail-0.cdt").unlink()
    put("end.json")
    mirror.look()
    assert mirror.settle(10)
    assert not (target / "end.json").exists(), "the end comes last of all"
    assert mirror.settle(10, final=True)
    assert (target / "end.json").exists()
    assert not source.parent.exists()


def test_the_order_of_copying(tmp_path: Path, ssd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = ssd / "run-1/rank=0", tmp_path / "run/rank=0"
    target.mkdir(parents=True)
    for folder in ("columns", "moments"):
        (target / folder).mkdir()
    names = [
        "facts.json",
        "streams.json",
        "columns/level=0/0.parquet",
        "moments/level=0/0.parquet",
        "units/0.parquet",
        "batches/0.parquet",
        "columns/level=0/7.parquet",
        "batches/7.parquet",
        "columns/level=1/0-6.parquet",
        "moments/level=1/0-6.parquet",
        "tail-9.cdt",
        "end.json",
    ]
    for name in reversed(names):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    copied: list[str] = []
    copy = Mirror._copy
    monkeypatch.setattr(Mirror, "_copy", lambda mirror, name: copied.append(name) or copy(mirror, name))  # type: ignore[func-returns-value]
    assert Mirror(source.parent, source, target, None, lambda error: None).settle(10, final=True)
    assert copied == names


def test_a_segment_sealed_while_scratch_is_listed(tmp_path: Path, ssd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is sealed between two looks, no batches come over without their columns."""
    source, target = ssd / "run-1/rank=0", tmp_path / "run/rank=0"
    parts = ["columns/level=0", "moments/level=0", "units", "batches"]
    for name in parts:
        if name != "units":  # which comes with the first segment that has any
            (source / name).mkdir(parents=True)
    number = 0
    scan, me = os.scandir, threading.get_ident()

    class Listed(list[Any]):
        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def sealing(path: Any) -> Any:
        nonlocal number
        if threading.get_ident() != me:  # what an earlier test left behind may be tidying up
            return scan(path)
        found = list(scan(path))
        number += 1
        for name in parts if number > 3 else [name for name in parts if name != "units"]:
            (source / name).mkdir(exist_ok=True)
            (source / name / f"{number}.parquet").write_text("")
        return Listed(found)

    mirror = Mirror(source.parent, source, target, None, lambda error: None)
    monkeypatch.setattr("colordim.store.mirror.os.scandir", sealing)
    for _ in range(5):
        found = mirror._list(final=False)
        for name in found:
            if name.startswith("batches/"):
                assert all(
                    f"{part}/{Path(name).name}" in found
                    for part in parts
                    if part != "units" or int(Path(name).stem) > 3
                )
    assert number > 20


def test_refused(kit: Any, tmp_path: Path, ssd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"scratch='.*nowhere' is no folder: give one that exists"):
        FolderWriter(tmp_path / "run", {}, scratch=tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"scratch='.*file' is no folder"):
        FolderWriter(tmp_path / "run", {}, scratch=tmp_path / "file")
    (tmp_path / "other/ssd").mkdir(parents=True)
    with pytest.raises(StoreError, match="is in the run folder"):
        FolderWriter(tmp_path / "other", {}, scratch=tmp_path / "other/ssd")
    kit.record(tmp_path / "run", batches=1)
    with pytest.raises(StoreError, match="already holds a run: give the new one another folder"):
        FolderWriter(tmp_path / "run", {}, scratch=ssd)
    assert list(ssd.iterdir()) == []

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("colordim.store.mirror.tempfile.mkdtemp", refuse)
    with pytest.raises(StoreError, match=r"scratch='.*ssd' cannot be written \(Read-only file system\)"):
        FolderWriter(tmp_path / "second", {}, scratch=ssd)
    assert not (tmp_path / "second").exists()


def test_recording_a_model(tmp_path: Path, ssd: Path) -> None:
    """rec.run shows what is only on scratch, and goes on being right when scratch is gone."""
    import torch

    model = torch.nn.Sequential(torch.nn.Identity())
    with colordim.record(model, folder=tmp_path / "run", scratch=ssd) as rec:
        for number in range(3):
            with rec.batch():
                model(torch.ones(4))
            rec.log(loss=number)
        run = rec.run
        assert run.counts("0").sum(axis=1).tolist() == [4] * 3
        assert rec.path == run.path == str(tmp_path / "run")
        with rec.batch():
            model(torch.ones(4))
    assert list(ssd.iterdir()) == []
    assert run.counts("0").sum(axis=1).tolist() == [4] * 3
    assert run.refresh().counts("0").sum(axis=1).tolist() == [4] * 4
    assert run.ended == "stopped"


def test_ranks_have_each_their_own_scratch(kit: Any, tmp_path: Path, ssd: Path) -> None:
    info = [{"rank": {"rank": rank, "world_size": 2}} for rank in range(2)]
    writers = [FolderWriter(tmp_path / f"run/rank={rank}", info[rank], scratch=ssd) for rank in range(2)]
    assert len(list(ssd.iterdir())) == 2
    for step in kit.training(0, 3):
        step.into(*writers)
    for writer in writers:
        writer.close("stopped")
    for rank in range(2):
        assert len(FolderReader(tmp_path / "run", rank).batches()["batch"]) == 3
    assert list(ssd.iterdir()) == []
