"""A run that is kept within a number of bytes: sums stay exact, and what was dropped is said."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

import colordim
from colordim.column import PHASES
from colordim.errors import ArgumentError, ColordimWarning
from colordim.run import Run
from colordim.store import budget, check
from colordim.store.base import Block
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.views import Run as ViewedRun

MAX_BYTES = 2_000_000


@pytest.fixture(scope="module")
def run(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryStore]:
    path = tmp_path_factory.mktemp("budget") / "run"
    return path, kit.record(path, seed=3, batches=600, flush_every=12, seal_bytes=1, max_bytes=MAX_BYTES)


def nbytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_bytes_and_files_are_bounded(run: tuple[Path, MemoryStore]) -> None:
    path, _ = run
    assert nbytes(path / "rank=0") <= MAX_BYTES
    names = [file.name for file in (path / "rank=0/batches").iterdir()]
    kept = [name for name in names if "-" not in name]
    assert len(kept) < 600 / 12 * 3 / 4, "single batches were dropped"
    assert len(names) - len(kept) <= 3 * 4, "and what is known of these batches is in a few files"
    assert not list(path.rglob(".*"))


def test_the_newest_stay_in_full_and_the_rest_as_exact_sums(run: tuple[Path, MemoryStore]) -> None:
    path, memory = run
    reader = FolderReader(path)
    ours, theirs = Run(reader), Run(memory)
    for name, values in memory.batches().items():
        np.testing.assert_array_equal(reader.batches()[name], values, err_msg=name)
    for phase in PHASES:
        kept = ours.kept(phase)
        assert 0 < kept <= ours.length(phase) - 8
        finest = ours.finest(phase)
        assert finest > 0
        assert ours.finest(phase, kept) == 0
        for stream in memory.streams[:2]:
            a, b = (each.columns(stream, phase, kept) for each in (ours, theirs))
            np.testing.assert_array_equal(a.counts, b.counts)
            for level in range(finest, finest + 3):
                for start, stop in ((0, None), (kept, None)):
                    a, b = (each.columns(stream, phase, start, stop, level) for each in (ours, theirs))
                    if start == 0:
                        np.testing.assert_array_equal(a.first, b.first)
                    rows = slice(None) if start == 0 else slice(1, None)
                    np.testing.assert_array_equal(a.counts[rows], b.counts[rows])
                    np.testing.assert_array_equal(a.counters[rows], b.counters[rows])
    assert reader.problems == ()


def test_a_range_within_what_was_dropped_is_rounded_out(run: tuple[Path, MemoryStore]) -> None:
    path, memory = run
    reader = FolderReader(path)
    ours = Run(reader)
    level = ours.finest()
    width = 4**level
    block = ours.columns("layer0", start=width + 1, stop=3 * width + 1, level=level)
    expected = Run(memory).columns("layer0", start=width, stop=4 * width, level=level)
    np.testing.assert_array_equal(block.counts, expected.counts)
    assert block.first[0] // width == 1


def test_single_batches_that_were_dropped_are_said(run: tuple[Path, MemoryStore]) -> None:
    ours = Run(FolderReader(run[0]))
    with pytest.warns(
        ColordimWarning, match=rf"before {ours.kept()} were dropped at level 0.*ask for level={ours.finest()}"
    ):
        block = ours.columns("layer0")
    assert block.first[0] >= ours.kept()
    assert len(ours.columns("layer0")) == len(block), "once"


def test_charts_show_the_sums_and_say_so(run: tuple[Path, MemoryStore]) -> None:
    viewed = ViewedRun(FolderReader(run[0]))
    figure = viewed.colorful(["layer0"])
    texts = " ".join(text.get_text() for text in figure.findobj(Text) if isinstance(text, Text))
    assert f"train batches before {viewed.kept()} are kept in sums of up to {4 ** viewed.finest()}" in texts
    plt.close(figure)


def test_units_are_kept(kit: Any, tmp_path: Path) -> None:
    from colordim.column import Units
    from colordim.store.writer import FolderWriter

    writer = FolderWriter(tmp_path, {}, seal_bytes=1, max_bytes=120_000)
    expected = []
    for step in kit.training(9, 200):
        for stream in step.new:
            writer.declare(stream)
        units = [Units(0, "layer0", "train", step.batch.batch, step.batch.batch, 8, bytes([step.batch.batch % 256]))]
        expected += units
        writer.append(step.batch, list(step.streams), step.rows, step.moments, units)
        if step.batch.batch % 5 == 4:
            writer.flush()
    writer.close("stopped")
    reader = FolderReader(tmp_path)
    assert [name for name in (tmp_path / "rank=0/units").iterdir() if "-" in name.name]
    assert sorted(reader.units(reader.streams[0], "train"), key=lambda each: each.first) == expected


def test_a_snapshot_outlives_what_it_was_read_from(kit: Any, tmp_path: Path) -> None:
    """Files that were joined, dropped or folded since are read where they are now; what is gone is known to be dropped."""
    from colordim.column import Units
    from colordim.store.writer import FolderWriter

    memory, readers = MemoryStore(), []
    writer = FolderWriter(tmp_path, {}, seal_bytes=1, max_bytes=1_500_000)
    for step in kit.training(3, 600):
        number = step.batch.batch
        for sink in (memory, writer):
            for stream in step.new:
                sink.declare(stream)
            units = [Units(0, "layer0", "train", number, number, 8, b"a")]
            sink.append(step.batch, list(step.streams), step.rows.copy(), step.moments.copy(), units)
        if number % 6 == 5:
            writer.flush()
        if number % 60 == 59:
            readers.append(FolderReader(tmp_path))
    writer.close("stopped")
    exact = 0
    for batches, reader in zip(range(60, 601, 60), readers, strict=True):
        ours, theirs = Run(reader), Run(memory)
        np.testing.assert_array_equal(ours.batches["batch"], np.arange(batches))
        for name, values in theirs.batches.items():
            if name in ours.batches:
                np.testing.assert_array_equal(ours.batches[name], values[:batches])
        assert {each.first for each in reader.units(memory.streams[0], "train")} >= set(range(batches))
        ours.columns("layer0", start=ours.kept())
        length = ours.length()
        finest = ours.finest()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours.columns("layer0", level=finest)  # which may have been dropped too
            level = ours.finest()
            a = ours.columns("layer0", level=level)
        b = theirs.columns("layer0", stop=length, level=level)
        if ours.problems:  # sums that have grown beyond the snapshot cannot be taken apart
            assert all("beyond the snapshot" in sentence for sentence in ours.problems)
            reader.refresh()
            assert ours.problems == ()
        else:
            exact += 1
            np.testing.assert_array_equal(a.counts, b.counts)
            np.testing.assert_array_equal(a.number, b.number)
    assert exact >= 4


def test_kept_is_exact(kit: Any, tmp_path: Path) -> None:
    """All columns of a level from the batch on that is said to be the first that is kept, whatever was folded."""
    memory = kit.record(tmp_path, seed=3, batches=400, flush_every=6, seal_bytes=1)
    for max_bytes in range(400_000, 50_000, -25_000):
        budget.trim(tmp_path / "rank=0", max_bytes)
        ours, theirs = Run(FolderReader(tmp_path)), Run(memory)
        for phase in PHASES:
            for level in range(5):
                kept = ours.kept(phase, level)
                a, b = (each.columns("layer0", phase, kept, level=level) for each in (ours, theirs))
                assert a.number.sum() >= b.number.sum(), (max_bytes, phase, level)
    assert ours.finest() > 1


def test_damage_does_not_stop_it(kit: Any, tmp_path: Path) -> None:
    """Without dropped.json it is seen from what is there; damaged batches stay where they are, and are named."""
    memory = kit.record(tmp_path, seed=3, batches=300, flush_every=4, seal_bytes=1)
    rank = tmp_path / "rank=0"
    size = nbytes(rank)
    budget.trim(rank, size * 3 // 4)
    known = budget.read_dropped((rank / "dropped.json").read_bytes())
    (rank / "dropped.json").write_bytes(b"{")
    reader = FolderReader(tmp_path)
    assert "dropped.json" in reader.problems[0]
    single = sorted(path for path in (rank / "batches").iterdir() if "-" not in path.name)[3]
    single.write_bytes(b"PAR1")
    assert budget.trim(rank, size // 3) <= size // 3
    dropped = budget.read_dropped((rank / "dropped.json").read_bytes())
    assert all(dropped[level] >= last for level, last in known.items())
    assert single.read_bytes() == b"PAR1"
    reader = FolderReader(tmp_path)
    assert len(reader.problems) == 1
    assert single.name in reader.problems[0]
    assert len(reader.batches()["batch"]) == 300 - 4
    numbers = reader.batches()["batch"]
    np.testing.assert_array_equal(reader.batches()["time"], memory.batches()["time"][numbers])


def test_sums_that_are_lost_are_named(kit: Any, tmp_path: Path) -> None:
    """A damaged sum of columns that were dropped."""
    kit.record(tmp_path, seed=3, batches=300, flush_every=4, seal_bytes=1)
    rank = tmp_path / "rank=0"
    budget.trim(rank, 200_000)
    reader = FolderReader(tmp_path)
    level = Run(reader).finest()
    assert level > 0
    min((rank / f"moments/level={level}").iterdir()).write_bytes(b"PAR1")
    reader = FolderReader(tmp_path)
    with pytest.warns(ColordimWarning, match="are left out of sums: they were dropped"):
        Run(reader).columns("layer0", level=level)
    assert not any(finding.mendable for finding in check.examine(tmp_path))
    reader.refresh()
    assert reader.problems == ()


def test_a_tail_that_was_left_behind_is_not_read_twice(kit: Any, tmp_path: Path) -> None:
    """A writer that is killed between sealing and removing the tail, and goes on after a restart."""
    memory = kit.record(tmp_path, seed=3, batches=100, flush_every=4, seal_bytes=1)
    other = kit.record(tmp_path / "other", seed=3, batches=12, close=False)
    assert len(other.batches()["batch"]) == 12
    rank = tmp_path / "rank=0"
    names = sorted(path.stem for path in (rank / "batches").iterdir())
    tail = next((tmp_path / "other/rank=0").glob("tail-*"))
    tail.rename(rank / f"tail-{names[1]}.cdt")
    budget.trim(rank, 100_000)
    assert not (rank / f"batches/{names[1]}.parquet").exists(), "it was folded"
    np.testing.assert_array_equal(FolderReader(tmp_path).batches()["batch"], memory.batches()["batch"])


def trimmed(rank: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> int:
    """Trim a rank, interrupted at that change of a file; return how many there were."""
    calls = 0
    originals = {name: getattr(Path, name) for name in ("unlink", "replace")}

    def counting(name: str) -> Any:
        def call(self: Path, *args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == failing:
                raise KeyboardInterrupt
            return originals[name](self, *args, **options)

        return call

    with monkeypatch.context() as patched:
        for name in originals:
            patched.setattr(Path, name, counting(name))
        with contextlib.suppress(KeyboardInterrupt):
            budget.trim(rank, 150_000)
    return calls


def test_cut_off_while_trimming(kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever has been done when the process is killed: the sums are right, and the next trimming goes on."""
    memory = kit.record(tmp_path / "run", seed=3, batches=160, flush_every=8, seal_bytes=1)
    shutil.copytree(tmp_path / "run", tmp_path / "all")
    number = trimmed(tmp_path / "all/rank=0", monkeypatch, -1)
    # Most of the time columns are dropped, one like the other; at the end files of batches become one.
    for failing in [*range(1, number - 16, 9), *range(number - 16, number + 1, 2)]:
        path = tmp_path / str(failing)
        shutil.copytree(tmp_path / "run", path)
        assert trimmed(path / "rank=0", monkeypatch, failing) >= failing
        for again in (False, True):
            if again:
                budget.trim(path / "rank=0", 150_000)
            ours = Run(FolderReader(path))
            assert [*ours.batches["batch"]] == list(range(160))
            for stream in memory.streams[:1]:
                for phase in PHASES:
                    level = ours.finest(phase)
                    a = ours.columns(stream, phase, level=level)
                    b = Run(memory).columns(stream, phase, level=level)
                    np.testing.assert_array_equal(a.counts, b.counts)
                    np.testing.assert_array_equal(a.number, b.number)
            assert ours.problems == ()
        assert len(list((path / "rank=0/batches").iterdir())) < 20


def test_nothing_is_dropped_of_which_there_are_no_sums(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path, seed=3, batches=80, flush_every=8, seal_bytes=1)
    for level in range(1, 4):
        for kind in ("columns", "moments"):
            shutil.rmtree(tmp_path / f"rank=0/{kind}/level={level}", ignore_errors=True)
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert budget.trim(tmp_path / "rank=0", 1000) > 1000
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_record_takes_it(tmp_path: Path) -> None:
    import torch

    model = torch.nn.Linear(4, 4)
    with pytest.raises(ArgumentError, match=r"max_bytes=1000 cannot be: give at least 1,000,000 bytes"):
        colordim.record(model, folder=tmp_path / "a", max_bytes=1000)
    with pytest.raises(ArgumentError, match="cannot be"):
        colordim.record(model, folder=tmp_path / "a", max_bytes=float("nan"))
    with colordim.record(model, folder=tmp_path / "a", max_bytes=1e6) as recording:
        for _ in range(3):
            model(torch.ones(2, 4))
    assert recording.run.finest() == 0
    assert (
        len(Block.concatenate(list(FolderReader(tmp_path / "a").blocks(recording.run.stream(0), "train", 0, 9)), 1025))
        == 3
    )
