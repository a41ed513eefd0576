"""SQL over the runs of a folder; what docs/queries.md shows is tested as it stands there."""

from __future__ import annotations

import csv
import io
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import colordim
from colordim import fleet
from colordim.axis import LinearAxis
from colordim.cli import app, main
from colordim.column import Batch, Phase, Stream, Units
from colordim.errors import ArgumentError, FormatError, NotARunError
from colordim.store.writer import FolderWriter

PAGE = (Path(__file__).parents[1] / "docs" / "queries.md").read_text(encoding="utf-8").partition("## Fleets\n")[2]
DEAD, ZEROS = re.findall(r"^```sql\n(.*?)^```", PAGE, re.M | re.S)

ALIVE, HALF, MOST = 0b11111111, 0b00001111, 0b00000111
BATCHES = 150


def write(
    path: Path, zeros: int, since: int, windows: dict[int, int], rank: int = 0, world: int = 1, live: bool = False
) -> None:
    """Write a linear layer and its ReLU of 8 values a batch; a validation batch follows every tenth of training.

    The ReLU has `zeros` zeros from the training batch `since` on and 4 before; `windows` are the units that were
    active by the first training batch of their window. The linear layer is all zeros, and nothing follows from that.
    """
    axis = LinearAxis(0, 2, 2)
    names = [("fc", "Linear"), ("act", "ReLU")][:: -1 if rank else 1]
    streams = [Stream(i, name, "activation", of, "", (8,), i, axis) for i, (name, of) in enumerate(names)]
    info = {"name": path.name, "schema": 1}
    writer = FolderWriter(
        path if world == 1 else path / f"rank={rank}", info if world == 1 else {**info, "rank": {"world_size": world}},
        seal_bytes=10**6 if live else 1, flush_batches=40,
    )  # fmt: skip
    for stream in streams:
        writer.declare(stream)
    fc = next(stream.id for stream in streams if stream.name == "fc")
    number, index = 0, {"train": 0, "valid": 0}
    for step in range(BATCHES):
        phases: list[Phase] = ["train", "valid"] if step % 10 == 9 else ["train"]
        for phase in phases:
            none = {"fc": 8, "act": (zeros if step >= since else 4) if phase == "train" else 8}
            rows = [[none[s.name], 8 - none[s.name], 0, 0, 0, 0, 0, none[s.name], 8, 1] for s in streams]
            ends = {first: bits for first, bits in windows.items() if first + 63 == step and phase == "train"}
            units = [Units(fc, "act", "train", first, step, 8, bytes([bits])) for first, bits in ends.items()]
            if phase == "train" and step == BATCHES - 1:  # too few batches to say anything
                units = [Units(fc, "act", "train", 128, step, 8, bytes([0]))]
            batch = Batch(number, index[phase], phase, 0, step, 0.0, True, {"loss": step / 2, path.name: 1.0})
            writer.append(batch, streams, np.array(rows, np.int64).ravel(), np.zeros((2, 4)), units)
            number += 1
            index[phase] += 1
    if live:
        writer.flush()
    else:
        writer.close("stopped")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Four runs: one falls ill at batch 37 and in its second window, one is half dead, one is ill from the start, one has ranks."""
    runs = tmp_path / "runs"
    write(runs / "a", zeros=5, since=37, windows={0: ALIVE, 64: MOST})
    write(runs / "b[1]", zeros=4, since=0, windows={0: HALF, 64: HALF})
    write(runs / "deeper" / "c", zeros=8, since=0, windows={0: 0, 64: ALIVE})
    for rank, (zeros, bits) in enumerate([(4, 0b00000001), (6, 0b00000110)]):  # 10 of 16 zeros; together 3 of 8 units
        write(runs / "d", zeros, 50, {0: HALF, 64: bits}, rank, world=2)
    return runs


def test_which_layers_died_and_when(runs: Path) -> None:
    answer = fleet.query(runs, DEAD)
    assert answer.columns == ("run", "name", "batch", "worst")
    assert answer.rows == [("a", "fc", 64, 5 / 8), ("d", "fc", 64, 5 / 8), ("deeper/c", "fc", 0, 1.0)]
    assert answer.notes == []
    assert colordim.open(runs / "a").units("fc").dead_share[-1] == 5 / 8


def test_which_layers_have_zeros_and_since_when(runs: Path) -> None:
    rows = fleet.query(runs, ZEROS).rows
    assert rows == [("a", "act", 37, 5 / 8), ("d", "act", 50, 10 / 16), ("deeper/c", "act", 0, 1.0)]


def test_every_view_has_what_the_files_have(runs: Path) -> None:
    everything = BATCHES + BATCHES // 10
    for view, number in (("batches", everything), ("moments", 2 * everything), ("columns", None), ("units", 3)):
        rows = fleet.query(runs, f"SELECT count(*), sum(rank) FROM {view} WHERE run = 'b[1]'").rows
        assert rows[0][1] == 0
        assert number is None or rows[0][0] == number
    sums = "SELECT name, bucket, sum(list_sum(counts)) FROM columns JOIN streams ON id = stream AND streams.run = columns.run"
    got = fleet.query(runs, f"{sums} WHERE streams.run = 'a' GROUP BY ALL ORDER BY ALL").rows
    run = colordim.open(runs / "a")
    total = {name: sum(run.counts(name, phase).sum(axis=0) for phase in ("train", "valid")) for name in ("act", "fc")}
    assert got == [("act", 0, total["act"][0]), ("act", 1, total["act"][1]), ("fc", 0, 8 * everything)]
    firsts = "SELECT DISTINCT c.first = b.first FROM columns c JOIN batches b USING (run, rank) WHERE b.batch = c.first"
    assert fleet.query(runs, firsts).rows == [(True,)]
    logged = 'SELECT run, sum(a), sum("b[1]") FROM batches WHERE rank = 0 GROUP BY run ORDER BY run LIMIT 2'
    assert fleet.query(runs, logged).rows == [("a", everything, None), ("b[1]", None, everything)]


def test_a_run_can_be_asked_by_itself(runs: Path) -> None:
    assert fleet.query(runs / "a", "SELECT DISTINCT run FROM moments").rows == [("a",)]


def test_runs_without_units_have_an_empty_view(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path / "run", {"name": "run"})
    writer.append(Batch(0, 0, "train", 0, 0, 0.0), (), np.zeros(0, np.int64), np.zeros((0, 4)))
    writer.close("stopped")
    assert fleet.query(tmp_path, "SELECT count(*) FROM units").rows == [(0,)]
    assert fleet.query(tmp_path, "SELECT count(*) FROM moments").rows == [(0,)]


def test_what_is_not_seen_is_said(runs: Path) -> None:
    write(runs / "live", 4, 0, {}, live=True)
    (runs / "b[1]" / "run.json").write_text('{"schema": 999}')
    (runs / "a" / "rank=0" / "streams.json").write_text("{")
    answer = fleet.query(runs, "SELECT DISTINCT run FROM batches ORDER BY run")
    assert answer.rows == [("d",), ("deeper/c",)]
    damaged, newer, live = answer.notes
    assert damaged.startswith("a was left out")
    assert "newer colordim" in newer
    assert live.startswith("1 of 5 runs are live")


def test_a_segment_counts_once_its_batches_are_there(runs: Path) -> None:
    for file in (runs / "a" / "rank=0" / "batches").iterdir():
        file.unlink()
    for view in fleet.VIEWS:
        assert fleet.query(runs, f"SELECT count(*) FROM {view} WHERE run = 'a'").rows == [(0,)]


def test_a_damaged_file_is_named(runs: Path) -> None:
    file = next(iter((runs / "a" / "rank=0" / "batches").iterdir()))
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(FormatError, match=re.escape(f"{file} is damaged")):
        fleet.query(runs, "SELECT 1")
    file.write_bytes(whole)
    moments = next(iter((runs / "a" / "rank=0" / "moments" / "level=0").iterdir()))
    column = pq.read_metadata(moments).row_group(0).column(pq.read_schema(moments).get_field_index("zeros"))
    data = bytearray(moments.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1  # one bit of the counters of zeros
    moments.write_bytes(data)
    with pytest.raises(ArgumentError, match=r"the query failed: .*CRC"):
        fleet.query(runs, "SELECT sum(zeros) FROM moments WHERE run = 'a'")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        # a variable of the module
        ("SELECT * FROM found", ["found does not exist", "batches, columns, moments, units, streams"]),
        ("SELECT nope FROM batches", ["nope"]),
        ("SELEC", ["SELEC"]),
    ],
)
def test_sql_that_fails_is_one_sentence(
    runs: Path, capsys: pytest.CaptureFixture[str], sql: str, words: list[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["ls", str(runs), "--query", sql])
    error, more = capsys.readouterr().err.splitlines()
    assert error.startswith("colordim: the query failed: ")
    assert more == "More: colordim docs queries#fleets"
    for word in words:
        assert word in error


def test_nothing_to_ask_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "live", 4, 0, {}, live=True)
    with pytest.raises(NotARunError, match="none of the 1 runs"):
        fleet.query(tmp_path, "SELECT 1")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(colordim.ColordimError, match=r'pip install "colordim\[query\]"'):
        fleet.query(tmp_path, "SELECT 1")


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "120", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_of_the_page_prints_a_table(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs.parent)
    (command,) = re.findall(r"^    colordim (ls runs --query \"SELECT.*)$", PAGE, re.M)
    lines = [line.split() for line in invoke(*shlex.split(command)).splitlines()]
    assert lines[0] == ["run", "batches", "loss"]
    assert sorted(lines[1:])[0] == ["a", "165", "74.5"]
    assert len(lines) == 5


def test_csv_has_every_digit(runs: Path) -> None:
    printed = invoke("ls", str(runs), "--csv", "--query", "SELECT 'a, b' AS x, 1::DOUBLE / 3 AS y, NULL AS z")
    assert list(csv.reader(io.StringIO(printed))) == [["x", "y", "z"], ["a, b", repr(1 / 3), ""]]


def test_csv_without_a_query_is_refused(runs: Path) -> None:
    with pytest.raises(colordim.ColordimError, match="--csv is for the answer to a query"):
        CliRunner().invoke(app, ["ls", str(runs), "--csv"], catch_exceptions=False)


def test_lists_and_nothing_are_printed(runs: Path) -> None:
    assert invoke("ls", str(runs), "--query", "SELECT NULL AS x, [1, 2] AS y").splitlines()[1].strip() == "[1, 2]"
