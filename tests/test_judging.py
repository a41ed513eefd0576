"""``colordim diagnose`` says what a run's diagnosis says, and its exit status tells how bad it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import colordim
from colordim.axis import LinearAxis
from colordim.cli import app, main
from colordim.column import Batch, Stream
from colordim.diagnosis import Diagnosis, Finding, Number
from colordim.errors import ArgumentError
from colordim.judging import EXIT
from colordim.store.writer import FolderWriter

AXIS = LinearAxis(-2, 2, 4)


def write_run(path: Path, nan_from: int = 99) -> Path:
    """Write two layers of eight values a batch, in 20 training batches; NaN in the second from a batch on."""
    writer = FolderWriter(path, {"name": path.name})
    streams = [Stream(i, n, "activation", "Linear", "", (2, 4), i, AXIS) for i, n in enumerate(("first", "second"))]
    for stream in streams:
        writer.declare(stream)
    for b in range(20):
        bad = int(b >= nan_from)
        good = [0, 4, 4, 0, 0, 0, 0, 0, 0, 0, 8, 1]
        rows = [*good, *([0, 3, 4, 0, 0, 0, 1, 0, 0, 0, 8, 1] if bad else good)]
        moments = np.array([[0.0, 4.0, -0.9, 0.9]] * 2)
        writer.append(Batch(b, b, "train", b // 10, b, 0.0, True, {}), streams, np.array(rows, np.int64), moments)
    writer.close("stopped")
    return path


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["diagnose", *map(str, arguments)], env={"COLUMNS": "100"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no pyproject.toml mutes anything


@pytest.fixture
def sick(tmp_path: Path) -> Path:
    return write_run(tmp_path / "sick", 7)


def test_a_run_with_nan_is_a_problem_and_fails(sick: Path) -> None:
    result = invoke(sick)
    assert result.exit_code == EXIT["problem"] == 4
    assert "PROBLEM: NaN in the output of second" in result.output
    assert "batch 7 (epoch 0) to 19 (epoch 1)" in result.output


def test_a_run_without_findings_passes(tmp_path: Path) -> None:
    result = invoke(write_run(tmp_path / "well"), "--mute", "plateau")
    assert result.exit_code == 0
    assert result.output.startswith("Nothing is wrong in 20 batches")
    assert "Muted: plateau." in result.output


def test_muting_by_option_by_project_and_by_argument(sick: Path, tmp_path: Path) -> None:
    assert invoke(sick, "--mute", "not-finite").exit_code == 0
    (tmp_path / "pyproject.toml").write_text('[tool.colordim]\nmute = ["not-finite:sec*"]')
    assert invoke(sick).exit_code == 0
    run = colordim.open(sick)
    assert run.diagnose().findings == ()
    assert [each.symptom for each in run.diagnose(mute=[]).findings] == ["not-finite"]
    with pytest.raises(ArgumentError, match=r"\['not-finite'\]"):
        run.diagnose(mute="not-finite")


def found(*severities: Any) -> Diagnosis:
    number = Number("share", float("nan"))
    return Diagnosis(tuple(Finding("plateau", each, "t", (), 0, 1, (number,), "w") for each in severities), "s")


@pytest.mark.parametrize(
    ("severities", "fail_on", "status"),
    [
        (("problem",), "problem", 4), (("warning",), "problem", 0), (("note",), "problem", 0), ((), "note", 0),
        (("warning", "note"), "warning", 3), (("problem",), "warning", 4), (("note",), "warning", 0),
        (("note",), "note", 2), (("problem",), "never", 0),
    ],
)  # fmt: skip
def test_the_exit_status(
    sick: Path, monkeypatch: pytest.MonkeyPatch, severities: tuple[str, ...], fail_on: str, status: int
) -> None:
    monkeypatch.setattr(colordim.Run, "diagnose", lambda self, mute: found(*severities))
    assert invoke(sick, "--fail-on", fail_on).exit_code == status


def test_of_several_runs_the_worst_counts_and_json_is_a_list(sick: Path, tmp_path: Path) -> None:
    well = write_run(tmp_path / "well")
    assert invoke(sick).exit_code == invoke(well, sick).exit_code == 4
    said = json.loads(invoke(well, sick, "--json").output)
    assert [(each["run"], each["healthy"]) for each in said] == [("well", True), ("sick", False)]


def test_json_is_the_diagnosis_and_knows_no_nan(sick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.loads(invoke(sick, "--json").output)
    assert said["findings"][0]["symptom"] == "not-finite"
    assert (said["path"], said["severity"], said["epochs"]) == (str(sick), "problem", [0, 10])
    monkeypatch.setattr(colordim.Run, "diagnose", lambda self, mute: found("note"))
    text = invoke(sick, "--json").output
    assert json.loads(text, parse_constant=pytest.fail)["findings"][0]["numbers"][0]["value"] is None


def test_what_is_wrong_with_the_question_is_status_1(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (([str(sick), "--mute", "not-finit"], "'not-finite'"), ([f"{sick}-not"], "sick-not")):
        with pytest.raises(SystemExit) as caught:
            main(["diagnose", *arguments])
        assert caught.value.code == 1
        assert said in capsys.readouterr().err
    assert 1 not in EXIT.values()


def test_main_passes_the_status_on(sick: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["diagnose", str(sick)])
    assert caught.value.code == 4
