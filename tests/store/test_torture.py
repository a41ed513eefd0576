"""Kills, damage, readers at work and disks that fail; ``make torture`` runs it at length, and says how often."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from colordim.column import PHASES
from colordim.errors import FormatError, NotARunError
from colordim.run import Run
from colordim.store import check, files, retry
from colordim.store.folder import FolderReader
from colordim.store.writer import FolderWriter

FULL = bool(os.environ.get("COLORDIM_TORTURE"))
KILLS = 100 if FULL else 5
DAMAGES = 100 if FULL else 8  # of each way
SECONDS = 60.0 if FULL else 2.0  # of polling, of each way

pytestmark = [pytest.mark.timeout(3600 if FULL else 300), pytest.mark.filterwarnings("error")]

SCRIPT = Path(__file__).with_name("torture.py")
_spec = importlib.util.spec_from_file_location("torture", SCRIPT)
assert _spec
assert _spec.loader
torture: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(torture)


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power, and a disk takes most of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def say(sentence: str) -> None:
    """Report, where ``make torture`` shows it."""
    sys.stdout.write(f"\n{sentence}\n")


@contextlib.contextmanager
def writing(path: Path, batches: int, pause: float, segment: int, max_bytes: int) -> Iterator[subprocess.Popen[str]]:
    arguments = [str(each) for each in (path, batches, pause, segment, max_bytes)]
    with subprocess.Popen(
        [sys.executable, "-W", "error", str(SCRIPT), *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def check_whole(path: Path, at_least: int, streams: int = 9) -> tuple[int, int]:
    """Check every number of a run without damage; return how many batches it has, and columns were compared."""
    reader = FolderReader(path)
    batches = len(reader.batches()["batch"])
    truth = torture.Truth(batches)
    assert torture.check_batches(reader, truth).tolist() == list(range(batches))
    assert batches >= at_least
    torture.check_units(reader, batches)
    compared, missing = torture.check_all(reader, truth, streams)
    assert missing == 0
    assert reader.problems == ()
    return batches, compared


def test_kills(tmp_path: Path) -> None:
    """What was flushed before kill -9 is there, every sum is right, and what is left over can be mended."""
    total: Counter[str] = Counter()
    for seed in range(KILLS):
        path, rng = tmp_path / f"run{seed}", np.random.default_rng(seed)
        max_bytes = (0, 120_000, 200_000, 400_000)[seed % 4]
        with writing(path, 10**9, 0, int(rng.choice([1, 4, 8, 12])), max_bytes) as process:
            time.sleep(rng.uniform(0, 1.5 if FULL else 0.5))
            process.send_signal(signal.SIGKILL)
            assert process.stdout is not None
            flushed = [int(line) for line in process.stdout.read().split()]
        batches, compared = check_whole(path, max(flushed, default=20))
        findings = list(check.examine(path))
        assert [finding for finding in findings if not finding.mendable] == []
        list(check.repair(path))
        assert list(check.examine(path)) == []
        assert check_whole(path, batches, streams=1)[0] == batches
        assert FolderReader(path).ended is None
        total.update(
            kills=1,
            flushed=max(flushed, default=20),
            columns=compared,
            trimmed=(path / "rank=0/dropped.json").exists(),
            folded=any("-" in each.name for each in (path / "rank=0/batches").iterdir()),
            joined=(path / "rank=0/moments/level=3").exists(),
            leftovers=bool(findings),
        )
        shutil.rmtree(path)
    say(f"kills: {dict(total)}")
    assert not FULL or min(total[each] for each in ("trimmed", "folded", "joined", "leftovers")) > 0


# Damage.

KINDS = (
    "run.json",
    "rank=0/streams.json",
    "rank=0/rank.json",
    "rank=0/end.json",
    "rank=0/dropped.json",
    "rank=0/tail-*.cdt",
    "rank=0/batches/*.parquet",
    "rank=0/units/*.parquet",
    "rank=0/columns/level=0/*.parquet",
    "rank=0/moments/level=0/*.parquet",
    "rank=0/columns/level=[1-9]/*.parquet",
    "rank=0/moments/level=[1-9]/*.parquet",
)
BATCHES = 140


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def zeroed(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data))) // 512 * 512
    return data[:at] + bytes(min(512, len(data) - at)) + data[at + 512 :]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that was cut off, with a tail, and one that came to its end within few bytes."""
    folder = tmp_path_factory.mktemp("torture")
    found = {}
    for name, max_bytes in (("cut", None), ("trimmed", 120_000)):
        path = folder / f"{name}-live"
        writer = FolderWriter(path, {"name": name}, flush_batches=4, seal_batches=10, max_bytes=max_bytes)
        for begin in range(0, BATCHES - 20, 12):
            torture.write(writer, begin, min(begin + 12, BATCHES - 20))
            writer.flush()
        if name == "cut":
            writer._seal_batches = 1000  # what follows stays a tail
        for begin in range(BATCHES - 20, BATCHES, 5):
            torture.write(writer, begin, begin + 5)
            writer.flush()
        if name == "cut":
            shutil.copytree(path, folder / name)
        writer.close("stopped")
        if name != "cut":
            shutil.copytree(path, folder / name)
        found[name] = folder / name
        check_whole(found[name], BATCHES)
        assert list(check.examine(found[name])) == []
    assert list(found["cut"].glob(KINDS[5]))
    assert all(list(found["trimmed"].glob(kind)) for kind in KINDS if "tail" not in kind)
    return found


def left_as_it_was(path: Path, whole: bytes) -> bool:
    """Whether a file is read as before, though its bytes changed: not all of them mean something."""
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            return files.from_json(whole).items() <= json.loads(path.read_bytes()).items()
        return False
    original = path.with_name("original")
    original.write_bytes(whole)
    try:
        with contextlib.ExitStack() as stack:
            both = [
                stack.enter_context(pq.ParquetFile(each, page_checksum_verification=True)) for each in (path, original)
            ]
            tables = [each.read() for each in both]
            return bool(tables[0].equals(tables[1])) and both[0].schema_arrow.equals(both[1].schema_arrow)
    except Exception:
        return False
    finally:
        original.unlink()


@pytest.mark.parametrize("damage", [truncated, zeroed, flipped])
def test_damage(sources: dict[str, Path], tmp_path: Path, damage: Callable[..., bytes]) -> None:
    """Never a wrong column or sum without a report; a damaged level is summed up anew, and found."""
    truth = torture.Truth(BATCHES)
    total: Counter[str] = Counter()
    rng = np.random.default_rng(len(damage.__name__))
    for name, source in sources.items():
        shutil.copytree(source, tmp_path / name)
    for number in range(DAMAGES):
        kind = KINDS[(number + DAMAGES // 2) % len(KINDS)]
        name = "cut" if "tail" in kind or ("level" in kind and number % 2) else "trimmed"
        run = tmp_path / name
        there = sorted(run.glob(kind))
        file = there[int(rng.integers(len(there)))]
        whole = file.read_bytes()
        file.write_bytes(harmed := damage(whole, rng))
        what = f"{damage.__name__} {number}: {name} {file.relative_to(run)}"
        total["damages"] += 1
        try:
            reported, lost = read_damaged(run, truth)
        except (FormatError, NotARunError):
            assert file.name in ("run.json", "streams.json"), what
            total["refused"] += 1
            reported = lost = True
        live_end = damage is truncated and "tail" in kind  # a tail that ends early may be growing
        assert reported or not lost or live_end, what
        if file.suffix == ".parquet" or file.name == "rank.json":
            found = [finding for finding in check.examine(run) if finding.path == file or file.name in finding.sentence]
            assert found or harmed == whole or left_as_it_was(file, whole), what
            if "level=[" in kind and name == "cut":
                assert not lost, what
                assert not reported, what
                assert all(finding.mendable for finding in found), what
            total["found"] += bool(found)
        total["reported"] += reported
        total["lost"] += lost
        file.write_bytes(whole)
    say(f"{damage.__name__}: {dict(total)}")
    assert total["reported"] > DAMAGES / 4


def read_damaged(run: Path, truth: Any) -> tuple[bool, bool]:
    """Compare all that can be read; return whether anything was reported, and whether anything is missing."""
    reader = FolderReader(run)
    assert reader.info["name"] == run.name
    lost = len(torture.check_batches(reader, truth)) < BATCHES
    lost |= torture.check_units(reader, BATCHES, whole=False) < BATCHES // 10
    assert reader.streams == tuple(torture.STREAMS[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the problems
        lost |= torture.check_all(reader, truth)[1] > 0
    lost |= reader.ended != ("stopped" if run.name == "trimmed" else None)
    return bool(reader.problems), lost


# Readers at work.


@pytest.mark.parametrize("max_bytes", [0, 2_000_000 if FULL else 400_000])
def test_polling(tmp_path: Path, max_bytes: int) -> None:
    """A reader that is kept, one that is opened anew, and one that several threads share, while another process writes."""
    truth = torture.Truth(20_000)
    path, rng = tmp_path / "run", np.random.default_rng(max_bytes)
    polls: Counter[str] = Counter()
    faults: list[BaseException] = []
    ends = threading.Event()

    def look(reader: FolderReader, name: str, rng: np.random.Generator) -> None:
        number = torture.check_batches(reader, truth)
        assert number.tolist() == list(range(len(number)))
        stream, phase = reader.streams[int(rng.integers(len(reader.streams)))], PHASES[int(rng.integers(2))]
        level = int(rng.integers(4))
        newest = max(reader.extent(phase)[0] - 100, 0)
        start = max(reader.kept(phase, level), newest - 300 if rng.random() < 0.9 else 0)
        if level:  # or a sum would be cut that can no longer be taken apart
            start, newest = (begin - begin % 4**level for begin in (start, newest))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=".* were dropped at level")
            for begin in (start, newest):
                assert torture.check_columns(reader, truth, stream, phase, level, begin) == 0
            block = Run(reader).overview(stream, 50, phase)
        index, sums, _ = truth.of(stream.id, phase)
        low, high = np.searchsorted(index, block.first), np.searchsorted(index, block.last, side="right")
        np.testing.assert_array_equal(np.hstack([block.counts, block.counters]), sums[high] - sums[low])
        if rng.random() < 0.2:
            torture.check_units(reader, len(number), whole=False)
        assert reader.problems == ()
        polls[name] += 1

    def share(reader: FolderReader, seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            while not ends.is_set():
                look(reader, "shared", rng)
                time.sleep(0.01)  # or the others had no turn
        except BaseException as error:
            traceback.print_exc()
            faults.append(error)

    with writing(path, 10**9, 0.005, 8, max_bytes) as process:
        kept, shared = FolderReader(path), FolderReader(path)
        threads = [threading.Thread(target=share, args=(shared, seed)) for seed in range(2)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and not faults:
            look(kept, "late", rng)  # of what was there a while ago
            kept.refresh()
            look(kept, "kept", rng)
            look(FolderReader(path), "new", rng)
            shared.refresh()
        ends.set()
        for thread in threads:
            thread.join()
        assert process.poll() is None
    assert faults == []
    assert set(polls) == {"late", "kept", "new", "shared"}
    say(f"polls, max_bytes={max_bytes}: {dict(polls)}, {len(kept.batches()['batch'])} batches")


# Disks that fail.


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, Callable[[], None], Callable[[], None]]]:
    """Give a folder, a call that fills its disk and one that frees it: a disk of its own, or where that cannot be a limit."""
    home = folder / "small"
    home.mkdir()
    ballast = home / "ballast"

    def fill() -> None:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    mounted = (
        os.name == "posix"
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home)], check=False, capture_output=True
        ).returncode
        if shutil.which("mount")
        else False
    )
    if mounted:
        try:
            yield home / "run", fill, ballast.unlink
        finally:
            subprocess.run(["umount", "-l", str(home)], check=True)
        return
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield (
            home / "run",
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1])),
            lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def blocked(name: str) -> Callable[[Path], tuple[Callable[[], None], Callable[[], None]]]:
    """Give calls that put a file where a folder was, which stops root as well, and that bring it back."""

    def of(run: Path) -> tuple[Callable[[], None], Callable[[], None]]:
        path, aside = run / name, run.with_name("aside")

        def take() -> None:
            path.rename(aside)
            path.write_bytes(b"")

        def give() -> None:
            path.unlink()
            aside.rename(path)

        return take, give

    return of


@pytest.mark.parametrize("what", ["full", "columns/level=0", "moments/level=2", "batches", "."])
def test_trouble_that_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """One warning; what was sealed stays readable; afterwards writing goes on, levels included."""
    monkeypatch.setattr(retry, "_FIRST", 0.01)
    monkeypatch.setattr(retry, "_LAST", 0.05)
    with contextlib.ExitStack() as stack:
        if what == "full":
            path, fail, heal = stack.enter_context(small_disk(tmp_path))
        else:
            path = tmp_path / "run"
            fail, heal = blocked(f"rank=0/{what}".removesuffix("/."))(path)
        writer = FolderWriter(path, {"name": "a"}, flush_batches=4, seal_batches=8)
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")

        def go_on(begin: int, end: int) -> None:
            for at in range(begin, end, 10):
                torture.write(writer, at, at + 10)
                writer.flush()

        go_on(0, 60)
        assert check_whole(path, 60, streams=1)[0] == 60
        kept = FolderReader(path)
        fail()
        go_on(60, 140)
        if what == "full":
            assert check_whole(path, 60, streams=1)[0] >= 60
        torture.check_batches(kept, torture.Truth(60))
        assert len(caught) == 1
        assert "cannot be written" in str(caught[0].message)
        heal()
        while writer._writing.at is not None or writer._sealing.at is not None:
            writer.flush()
        go_on(140, 240)
        writer.close("stopped")
        assert len(caught) == 1
        assert writer.dropped == 0
        assert check_whole(path, 240, streams=3 if FULL else 2)[0] == 240
        list(check.repair(path))  # of a segment that stayed a tail, what had been sealed of it
        assert list(check.examine(path)) == []
        assert max(int(each.name[:10]) for each in (path / "rank=0/moments/level=1").iterdir()) > 220
        reader = FolderReader(path)
        assert any(level.last > 140 for found in reader._levels.values() for level in found if level.level > 2)


@pytest.mark.parametrize("what", ["columns/level=1", "moments/level=2"])
def test_levels_deleted(tmp_path: Path, what: str) -> None:
    """A level that somebody deletes while the run is written is no loss, and can be had again."""
    path = tmp_path / "run"
    writer = FolderWriter(path, {"name": "a"}, flush_batches=4, seal_batches=8)
    for begin in range(0, 160, 10):
        if begin == 120:
            shutil.rmtree(path / "rank=0" / what)
        torture.write(writer, begin, begin + 10)
        writer.flush()
    writer.close("stopped")
    check_whole(path, 160, streams=1)
    findings = list(check.examine(path))
    assert findings
    assert all(finding.mendable for finding in findings)
    list(check.repair(path))
    assert list(check.examine(path)) == []
    check_whole(path, 160)


@pytest.mark.parametrize("what", ["", "rank=0", "rank=0/columns/level=0", "rank=0/batches"])
def test_deleted(tmp_path: Path, what: str) -> None:
    """A run, or what cannot be had again of it, that is deleted while it is written: one warning, and nothing wrong."""
    path = tmp_path / "run"
    writer = FolderWriter(path, {"name": "a"}, flush_batches=4, seal_batches=8)
    with pytest.warns(match="cannot be written") as caught:
        for begin in range(0, 300, 10):
            if begin == 200:
                shutil.rmtree(path / what)
            torture.write(writer, begin, begin + 10)
            writer.flush()
        writer.close("stopped")
    assert len(caught) == 1
    assert not (path / what).exists()
    if what.endswith(("level=0", "batches")):
        reader, truth = FolderReader(path), torture.Truth(300)
        number = torture.check_batches(reader, truth)
        assert number[-1] == 299
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the problems
            missing = torture.check_all(reader, truth)[1]
        assert missing == 0 or reader.problems
