"""The commands export and import, from the outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import colordim
from colordim.axis import SignedLogAxis
from colordim.cli import app, main
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two epochs of two batches, of four ones each."""
    axis = SignedLogAxis(3)
    writer = FolderWriter(tmp_path / "runs" / "lenet", {"name": "LeNet 5"})
    stream = Stream(0, "fc", "activation", "Linear", "", (2, 2), 0, axis)
    writer.declare(stream)
    row = np.zeros(stream.width, np.int64)
    row[np.searchsorted(axis.edges, 1.0)] = 4
    row[-2:] = 4, 1
    for number in range(4):
        writer.append(
            Batch(number, number, "train", number // 2, number, 7.0), [stream], row, np.array([[4.0, 4, 1, 1]])
        )
    writer.close("stopped")
    return tmp_path / "runs" / "lenet"


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "120", "NO_COLOR": "1"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in arguments])
    assert caught.value.code == 1
    output = capsys.readouterr()
    assert (output.out, output.err.count("\nMore: colordim docs exports"), output.err.count("\n")) == ("", 1, 2)
    return output.err


def test_csv_with_a_row_for_every_batch(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert invoke("export", run, "--to", "csv", "--out", out, "--every-batch") == f"Wrote 2 epochs to {out}\n"
    rows = [line.split(",") for line in (out / "epochs.csv").read_text().splitlines()]
    assert [dict(zip(rows[0], row, strict=True))["size"] for row in rows[1:]] == ["8", "8"]
    assert len((out / "batches.csv").read_text().splitlines()) == 1 + 4


def test_there_and_back(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert invoke("export", run, "--to", "tensorboard", "--figures", 1) == "Wrote 2 epochs to lenet-tensorboard\n"
    assert invoke("import", "lenet-tensorboard", "-o", "back") == "Wrote 1 streams, 2 batches, to back\n"
    back = colordim.open("back")
    assert back.counts("fc").sum(axis=1).tolist() == [8, 8]
    assert back.batches["step"].tolist() == [1, 3]
    invoke("import", "lenet-tensorboard", "-o", "linear", "--range=0,4", "--bins", 4, "--kind", "gradient")
    linear = colordim.open("linear")
    assert linear.counts("fc").tolist() == [[0, 8, 0, 0]] * 2
    assert linear.stream("fc").kind == "activation"  # as its tag says


def test_options_that_do_not_go_together_are_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--every-batch is of --to csv" in failure(capsys, "export", run, "--to", "tensorboard", "--every-batch")
    assert "--project and --name are of --to wandb" in failure(capsys, "export", run, "--to", "csv", "--name", "a")
    assert "--out is not of --to wandb" in failure(capsys, "export", run, "--to", "wandb", "--out", "a")
    assert "--bins needs a range" in failure(capsys, "import", "a", "-o", "b", "--bins", 5)
    assert "--range 1-2 is no range" in failure(capsys, "import", "a", "-o", "b", "--range", "1-2")
    assert "there is no folder a" in failure(capsys, "import", "a", "-o", "b")
    invoke("export", run, "--to", "tensorboard", "--figures", 0)
    assert "holds events already" in failure(capsys, "export", run, "--to", "tensorboard")
