"""A run that is kept within a number of bytes: sums stay exact, and what was dropped is said."""

from __future__ import annotations

import contextlib
import shutil
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
from colordim.store import budget
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
    torch = pytest.importorskip("torch")
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
