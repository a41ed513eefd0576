"""Which units were active: kept with the batches of their windows, in the tail and in sealed segments."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from colordim.column import PHASES, Batch, Units
from colordim.store.base import Reader
from colordim.store.folder import FolderReader
from colordim.store.memory import MemoryStore
from colordim.store.writer import FolderWriter

SETTINGS: dict[str, dict[str, Any]] = {
    "tail": {"flush_batches": 7},
    "both": {"flush_batches": 7, "seal_bytes": 250_000},
    "sealed": {"flush_batches": 7, "seal_bytes": 1},
}


def windows(kit: Any, batches: int = 120) -> Iterator[tuple[Any, list[Units]]]:
    """A training, every fifth batch of which ends a window of some streams; one has no units, one very many."""
    rng = np.random.default_rng(4)
    for step in kit.training(6, batches):
        batch = step.batch
        units = []
        if batch.index % 5 == 4:
            for stream in step.streams:
                number = (0, 1, 13, 4096, 64)[stream.id % 5]
                active = np.packbits(rng.random(number) < 0.5).tobytes()
                units.append(
                    Units(stream.id, f"μ/relu{stream.id}", batch.phase, batch.index - 4, batch.index, number, active)
                )
        yield step, units


def put(step: Any, units: list[Units], *sinks: Any) -> None:
    for sink in sinks:
        for stream in step.new:
            sink.declare(stream)
        sink.append(step.batch, step.streams, step.rows.copy(), step.moments.copy(), units)


def known(reader: Reader) -> set[Units]:
    found = [units for s in reader.streams for phase in PHASES for units in reader.units(s, phase)]
    assert len(found) == len(set(found))
    for stream in reader.streams:
        for phase in PHASES:
            assert all((u.stream, u.phase) == (stream.id, phase) for u in reader.units(stream, phase))
    return set(found)


@pytest.mark.parametrize("setting", SETTINGS)
def test_equals_memory_while_it_is_written(kit: Any, tmp_path: Path, setting: str) -> None:
    memory = MemoryStore()
    writer = FolderWriter(tmp_path, {}, **SETTINGS[setting])
    reader = FolderReader(tmp_path)
    for step, units in windows(kit):
        put(step, units, memory, writer)
        if step.batch.batch % 20 == 19:
            writer.flush()
            before = known(reader)
            reader.refresh()
            assert before < known(reader) == known(memory)
    tails, sealed = list(tmp_path.rglob("tail-*")), list(tmp_path.rglob("units/*"))
    assert (bool(tails), bool(sealed)) == {"tail": (True, False), "both": (True, True), "sealed": (False, True)}[
        setting
    ]
    writer.close("stopped")
    reader.refresh()
    assert known(reader) == known(memory) == known(FolderReader(tmp_path))
    kit.same(reader, memory)
    assert reader.problems == ()


def test_nothing_is_written_without_units(kit: Any, tmp_path: Path) -> None:
    kit.record(tmp_path, batches=20)
    assert not (tmp_path / "rank=0/units").exists()


def test_units_of_a_batch_without_columns(kit: Any, tmp_path: Path) -> None:
    """A window may end with a batch that was not recorded."""
    units = Units(0, "relu", "train", 0, 1, 9, b"\x80\x80")
    for name, seal_bytes in (("tail", 64 << 20), ("sealed", 1)):
        writer = FolderWriter(tmp_path / name, {}, seal_bytes=seal_bytes)
        stream = kit.stream(0)
        writer.declare(stream)
        batch = Batch(1, 1, "train", 0, 0, 0.0, False)
        writer.append(batch, [], np.zeros(0, np.int64), np.zeros((0, 4)), [units])
        writer.flush()
        assert FolderReader(tmp_path / name).units(stream, "train") == [units]
        assert FolderReader(tmp_path / name).units(stream, "valid") == []
        writer.close("stopped")


WRITER = """
import sys
import numpy as np
from colordim.axis import LinearAxis
from colordim.column import Batch, Stream, Units
from colordim.store.writer import FolderWriter

stream = Stream(0, "layer", "activation", "ReLU", "", (4,), 0, LinearAxis(0, 1, 50))
writer = FolderWriter(sys.argv[1], {}, flush_batches=4, flush_seconds=0.01, seal_bytes=20_000)
writer.declare(stream)
for number in range(10**9):
    units = [Units(0, "relu", "train", number, number, 16, number.to_bytes(2, "big"))]
    writer.append(Batch(number, number, "train", 0, 0, 0.0), [stream], np.arange(58), np.ones((1, 4)), units)
    if number % 10 == 9:
        writer.flush()
        print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(3))
def test_killed(tmp_path: Path, seed: int) -> None:
    """Of every batch that is there after kill -9 the units are there as well, and right."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(np.random.default_rng(seed).uniform(0.0, 0.6))
        process.send_signal(signal.SIGKILL)
        flushed = [int(line) for line in process.stdout.read().split()]
    reader = FolderReader(tmp_path / "run")
    batches = reader.batches()["batch"].tolist()
    assert len(batches) > max(flushed, default=9)
    expected = [Units(0, "relu", "train", n, n, 16, n.to_bytes(2, "big")) for n in batches]
    assert sorted(reader.units(reader.streams[0], "train"), key=lambda units: units.first) == expected
    assert reader.problems == ()


@pytest.fixture(scope="module")
def sealed(kit: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MemoryStore]:
    path = tmp_path_factory.mktemp("units") / "run"
    memory, writer = MemoryStore(), FolderWriter(path, {}, **SETTINGS["both"])
    for step, units in windows(kit):
        put(step, units, memory, writer)
    writer.close("stopped")
    return path, memory


def test_plain_parquet(sealed: tuple[Path, MemoryStore]) -> None:
    """Other engines read the files as they are."""
    path, memory = sealed
    files = sorted((path / "rank=0/units").iterdir())
    assert {file.name for file in files} <= {file.name for file in (path / "rank=0/batches").iterdir()}
    table = pa.concat_tables(pq.ParquetFile(file).read() for file in files)
    assert {field.name: str(field.type) for field in table.schema} == {
        "stream": "int32",
        "judged_on": "string",
        "phase": "string",
        "first": "int64",
        "last": "int64",
        "number": "int64",
        "active": "binary",
    }
    assert {Units(**row) for row in table.to_pylist()} == known(memory)
    for row in table.to_pylist():
        bits = np.unpackbits(np.frombuffer(row["active"], np.uint8))
        assert len(bits) >= row["number"]
        assert not bits[row["number"] :].any()


def test_damaged(sealed: tuple[Path, MemoryStore], kit: Any, tmp_path: Path) -> None:
    """Whatever happens to a file of units: no error, nothing wrong, and what is missing is named."""
    path, memory = sealed
    copy = tmp_path / "run"
    shutil.copytree(path, copy)
    file = sorted((copy / "rank=0/units").iterdir())[1]
    whole = file.read_bytes()
    truth = known(memory)
    rng = np.random.default_rng(0)
    found = 0
    for at in [*rng.integers(0, len(whole), 15), *range(len(whole) - 800, len(whole), 40)]:
        kinds = (
            whole[:at],
            whole[: at // 512 * 512] + bytes(512) + whole[at // 512 * 512 + 512 :],
            whole[:at] + bytes([whole[at] ^ (1 << int(rng.integers(8)))]) + whole[at + 1 :],
        )
        for data in kinds:
            file.write_bytes(data)
            reader = FolderReader(copy)
            got = known(reader)
            assert got <= truth
            assert (got < truth) <= bool(reader.problems)
            assert all(
                file.name in text and "the units of batches" in text and "\n" not in text for text in reader.problems
            )
            found += got < truth
    assert found > 60
    kit.same(reader, memory)
    file.write_bytes(whole)
    table = pq.ParquetFile(file).read()
    active = [bytes([row[0] ^ 1]) + row[1:] if row else row for row in table["active"].to_pylist()]
    changed = table.set_column(6, "active", pa.array(active, pa.binary()))
    footer = pq.read_metadata(file).metadata
    with pq.ParquetWriter(file, changed.schema, store_schema=False) as parquet:
        parquet.write_table(changed)
        parquet.add_key_value_metadata(footer)
    reader = FolderReader(copy)
    assert known(reader) < truth, "a file that is whole to Parquet, but not what was written"
    assert "checksum" in reader.problems[0]
    file.unlink()
    reader = FolderReader(copy)
    assert known(reader) < truth
    assert reader.problems == (
        f"units/{file.name}: the units of batches {int(file.stem)} to "
        f"{_last(copy, file.name)} are left out (No such file or directory).",
    )
    file.write_bytes(whole)
    assert known(reader) == truth
    assert not reader.problems, "the file is back"


def _last(path: Path, name: str) -> int:
    return int(pq.read_table(path / "rank=0/batches" / name)["batch"][-1].as_py())
