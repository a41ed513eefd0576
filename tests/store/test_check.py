"""What ``colordim doctor RUN`` finds and mends."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colordim.cli import main
from colordim.column import PHASES, Batch
from colordim.errors import StoreError
from colordim.run import Run
from colordim.store import check
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.writer import FolderWriter


@pytest.fixture(scope="module")
def sealed(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryStore]:
    path = tmp_path_factory.mktemp("check") / "run"
    return path, kit.record(path, seed=7, batches=144, flush_every=9, seal_bytes=1)


@pytest.fixture
def run(sealed: tuple[Path, MemoryStore], tmp_path: Path) -> Path:
    shutil.copytree(sealed[0], tmp_path / "run")
    return tmp_path / "run"


def files_of(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}


def same_sums(run: Path, memory: MemoryStore) -> None:
    for stream in memory.streams[::3]:
        for phase in PHASES:
            for level in range(1, 4):
                a, b = (Run(each).columns(stream, phase, level=level) for each in (FolderReader(run), memory))
                np.testing.assert_array_equal(a.counts, b.counts)


def test_whole(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(run)
    assert list(check.examine(run)) == []
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", str(run)])
    assert stopped.value.code == 0
    assert "is whole" in capsys.readouterr().out
    assert list(check.repair(run)) == []
    assert files_of(run) == before


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("how", ["missing", "damaged", "stale", "wrong"])
def test_levels_are_mended(run: Path, sealed: tuple[Path, MemoryStore], level: int, how: str, kit: Any) -> None:
    whole = {name: data for name, data in files_of(run).items() if "level" in name}
    file = sorted((run / f"rank=0/moments/level={level}").iterdir())[0]
    columns = Path(str(file).replace("moments", "columns"))
    if how == "missing":
        columns.unlink()
    elif how == "damaged":
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 1
        file.write_bytes(data)
    elif how == "stale":
        other = run.with_name("other")
        kit.record(other, seed=8, batches=144, flush_every=9, seal_bytes=1)
        for path in (file, columns):
            theirs = sorted((other / path.relative_to(run).parent).iterdir())[0]
            shutil.copy(theirs, path)
    else:  # a sum that its own checksum believes in
        _write_wrong(columns)
    findings = list(check.examine(run))
    assert findings
    assert all(finding.mendable for finding in findings)
    assert list(check.repair(run))
    assert list(check.examine(run)) == []
    same_sums(run, sealed[1])
    assert {name for name in files_of(run) if "level" in name} == set(whole)


def _write_wrong(path: Path) -> None:
    """Write a file of columns again with one count more, and with the checksum of that."""
    from colordim.store.parquet import COLUMNS_SCHEMA, Footer, Writer
    from colordim.store.place import LocalPlace
    from colordim.store.table import numbers

    first = int(path.name.split("-")[0])
    footer = Footer(LocalPlace(path.parent), path.name, first)
    facts = {key: value for key, value in footer.facts.items() if key not in ("first", "streams", "crc")}
    written = []
    for group, streams in enumerate(footer.facts["streams"]):
        table = footer.read(group, None)
        arrays = {name: numbers(table.column(name)) for name in ("stream", "bucket", "lower", "upper", "first")}
        counts = np.array(table.column("counts").to_pylist(), np.int64)
        counts[0, 0] += 1
        written.append((streams, {**arrays, "counts": counts}))
    with Writer(path, COLUMNS_SCHEMA, first, **facts) as file:
        for streams, arrays in written:
            file.write(streams, arrays)


def test_damaged_columns_are_named_and_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = sorted((run / "rank=0/columns/level=0").iterdir())[2]
    data = bytearray(file.read_bytes())
    data[len(data) // 4] ^= 1
    file.write_bytes(data)
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", str(run), "--repair"])
    assert stopped.value.code == 1
    out = capsys.readouterr().out
    assert file.name in out
    assert "DAMAGED" in out
    assert "only a copy could bring it back" in out
    assert file.read_bytes() == data


def test_what_a_killed_writer_left_is_removed(run: Path, sealed: tuple[Path, MemoryStore], kit: Any) -> None:
    (run / "rank=0/columns/level=0/.0000000300.parquet.tmp").write_bytes(b"PAR1")
    (run / "rank=0/.streams.json.tmp").write_text("{")
    assert len(list(check.examine(run))) == 2
    assert len(list(check.repair(run))) == 2
    assert list(check.examine(run)) == []
    kit.same(FolderReader(run), sealed[1])


def test_a_run_that_is_being_written_is_not_mended(kit: Any, tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom colordim.store.writer import FolderWriter\n"
        "writer = FolderWriter(sys.argv[1], {})\nprint('begun', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreError, match=f"is being recorded by process {process.pid}"):
            list(check.repair(tmp_path / "run"))
        process.kill()
    assert list(check.repair(tmp_path / "run")) == []


def test_columns_that_do_not_add_up_are_found(kit: Any, tmp_path: Path) -> None:
    stream = kit.stream(0)
    writer = FolderWriter(tmp_path, {})
    writer.declare(stream)
    row = np.zeros(stream.width, np.int64)
    row[[3, stream.axis.bins + 6]] = [5, 6]
    writer.append(Batch(0, 0, "train", 0, 0, 0.0), [stream], row, np.ones((1, 4)))
    writer.close("stopped")
    (finding,) = check.examine(tmp_path)
    assert "train batch 0 of 'layer0' does not add up" in finding.sentence


def test_options(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for options, sentence in (
        (["--repair"], "--repair needs a run"),
        ([str(run), "--gpu"], "--gpu checks this machine"),
        ([str(run / "nothing")], "there is no folder"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["doctor", *options])
        assert stopped.value.code == 1
        assert sentence in capsys.readouterr().err
