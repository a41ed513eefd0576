"""A training is diagnosed while it is recorded: in time, seldom enough, and without a trace in it."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import colordim
from colordim.diagnosis import Diagnosis, Finding
from colordim.errors import ArgumentError, ColordimWarning
from colordim.publish import watch
from colordim.publish.watch import Pace

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setattr(watch, "_INTERVAL", 0.01)
    monkeypatch.chdir(tmp_path)  # where no pyproject.toml mutes anything
    yield
    assert [each.name for each in threading.enumerate() if each.name.startswith("colordim")] == []


def train(
    folder: Path, batches: int = 60, nan_at: int = -1, until: Any = None, explicit: bool = False, **options: Any
) -> tuple[colordim.Recording, list[Tensor], int]:
    """Train, until something happens or at most so many batches; return how many were begun, too."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    opt = torch.optim.SGD(net.parameters(), 0.05)
    begun = 0
    with colordim.record(net, folder=folder, **options) as rec:
        try:
            for number in range(batches):
                x = torch.randn(16, 4)
                if number == nan_at:
                    x[0] = float("nan")
                if explicit:
                    rec.begin("train")
                loss = net(x).square().mean()
                begun += 1
                opt.zero_grad()
                loss.backward()
                opt.step()
                rec.log(loss=loss)
                if explicit:
                    rec.commit()
                if until is not None:
                    time.sleep(0.002)
                    if until():
                        break
        finally:
            rec.begun = begun  # type: ignore[attr-defined]
    return rec, [parameter.detach().clone() for parameter in net.parameters()], begun


# When it is due, and what it may cost.


def test_the_first_after_some_batches_then_when_there_are_twice_as_many() -> None:
    pace = Pace(0, 1)
    assert not pace.due(23, 0)
    assert pace.due(24, 0)  # expected to take 12 ms, and 0.5 may be taken a batch
    pace.took(0.001, 24, 0)
    assert not pace.due(47, 0)
    assert pace.due(48, 0)


def test_of_many_layers_the_first_waits_longer() -> None:
    pace = Pace(0, 60)  # 10 ms and 2 ms a layer
    assert not pace.due(259, 0)
    assert pace.due(260, 0)


def test_at_the_end_of_an_epoch() -> None:
    pace = Pace(3)
    pace.took(0.001, 100, 3)
    assert not pace.due(150, 3)
    assert pace.due(101, 4)
    pace.took(0.001, 101, 4)
    assert not pace.due(102, 4)


def test_never_for_more_than_a_millisecond_a_batch() -> None:
    pace, spent, last = Pace(0), 0.0, 0
    for batches in range(1, 20_000):
        if pace.due(batches, batches // 10):  # an epoch every ten batches
            cost = min(0.005 + 1e-4 * batches, 0.4)  # of longer and longer runs
            pace.took(cost, batches, batches // 10)
            spent, last = spent + cost, batches
            assert spent <= 1e-3 * batches
    assert pace.seconds == pytest.approx(spent)
    assert last > 15_000


def test_in_a_hurry_as_soon_as_it_can_be_afforded() -> None:
    pace = Pace(0)
    pace.took(0.04, 100, 0)
    pace.hurry()
    # 40 ms are spent, and as much for every 100 batches is expected
    assert not pace.due(399, 0)
    assert pace.due(401, 0)


# What people hear.


def test_nan_is_told_while_the_training_goes_on(tmp_path: Path) -> None:
    heard: list[tuple[Finding, str]] = []

    def tell(found: Finding) -> None:
        heard.append((found, threading.current_thread().name))

    rec, _, begun = train(tmp_path / "run", 3000, nan_at=5, until=lambda: heard, on_finding=tell)
    assert begun < 3000
    finding, thread = heard[0]
    assert (finding.symptom, finding.first, finding.layers[0]) == ("not-finite", 5, "0")
    assert thread == "colordim-diagnosis"
    assert len([each for each, _ in heard if each.symptom == "not-finite"]) == 1  # the last diagnosis tells it no more
    assert rec.stopped_by is None
    assert rec.diagnosis_ms > 0


def test_short_trainings_are_diagnosed_at_their_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO, "colordim"),
        pytest.warns(ColordimWarning, match="^Problem: NaN in the output of 0"),
    ):
        train(tmp_path / "run", 6, nan_at=2, on_finding=["log", "warn"])
    assert [each.levelname for each in caplog.records if "NaN" in each.getMessage()] == ["ERROR"]


def test_the_end_is_diagnosed_however_few_batches_there_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Finding("plateau", "warning", "it does not move", (), 0, 9, (), "why")
    monkeypatch.setattr(watch, "diagnose", lambda *_: Diagnosis((made,), "s"))
    heard: list[Finding] = []
    train(tmp_path / "run", 3, on_finding=heard.append)
    assert heard == [made]


@pytest.mark.parametrize("explicit", [False, True])
def test_stopping_raises_where_the_next_training_batch_begins(tmp_path: Path, explicit: bool) -> None:
    with pytest.raises(colordim.TrainingStopped, match=r"NaN in the output of 0.* mute not-finite") as caught:
        train(tmp_path / "run", 3000, nan_at=5, until=lambda: False, explicit=explicit, on_finding="stop")
    finding = caught.value.finding
    assert isinstance(finding, Finding)
    assert finding.symptom == "not-finite"
    run = colordim.open(tmp_path / "run")
    assert run.ended is not None
    assert run.ended.startswith("TrainingStopped")
    assert 5 < run.length("train") < 3000


def test_without_being_asked_nothing_stops(tmp_path: Path) -> None:
    _, _, begun = train(tmp_path / "run", 200, nan_at=5, until=lambda: False, on_finding="log")
    assert begun == 200


def test_the_call_that_raises_may_be_gone_on_from(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    with colordim.record(net, folder=tmp_path / "run", on_finding="stop") as rec:
        rec._halt(Finding("plateau", "problem", "it does not move", (), 0, 1, (), "why"))
        net.eval()
        net(torch.randn(3, 4))  # a validation does not stop
        net.train()
        with torch.no_grad():
            net(torch.randn(3, 4))
        with pytest.raises(colordim.TrainingStopped):
            net(torch.randn(3, 4))
        net(torch.randn(3, 4))
    assert rec.run.length("train") == 1
    assert rec.run.length("valid") == 1


def test_what_is_compiled_stops_as_well(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 2))
    whole = torch.compile(lambda x: net(x).sum(), backend="eager")
    with colordim.record(net, folder=tmp_path / "run", on_finding="stop") as rec:
        whole(torch.randn(3, 4))
        rec._halt(Finding("plateau", "problem", "it does not move", (), 0, 1, (), "why"))
        with pytest.raises(colordim.TrainingStopped):
            whole(torch.randn(3, 4))
    torch._dynamo.reset()


# That nothing else changes.


def test_weights_are_bit_for_bit_the_same(tmp_path: Path) -> None:
    heard: list[Finding] = []
    _, plain, _ = train(tmp_path / "plain", 80)
    _, watched, _ = train(tmp_path / "watched", 80, on_finding=[heard.append, "log", "stop"])
    assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
    # and by stopping no batch was touched either
    _, sick, begun = train(tmp_path / "sick", 40, nan_at=39, on_finding="log")
    assert begun == 40
    assert len(sick) == 4


def test_off_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORDIM", "off")
    rec, _, begun = train(tmp_path / "run", 20, nan_at=2, on_finding=["stop", pytest.fail])
    assert (begun, rec.stopped_by, rec.diagnosis_ms) == (20, None, 0.0)
    assert not (tmp_path / "run").exists()


def test_only_rank_0_diagnoses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    made = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        made.append(colordim.record(nn.Linear(2, 2), folder=tmp_path / "run", on_finding="stop")._watch is not None)
    assert made == [True, False]


def test_an_error_in_diagnosing_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("no way")

    monkeypatch.setattr(watch, "gather", fails)
    with pytest.warns(
        ColordimWarning, match="could not be diagnosed while it is recorded .RuntimeError: no way."
    ) as said:
        _, _, begun = train(tmp_path / "run", 200, until=lambda: False, on_finding="log")
    assert (begun, len(said)) == (200, 1)


def test_what_the_project_mutes_stops_nobody(tmp_path: Path) -> None:
    Path("pyproject.toml").write_text('[tool.colordim]\nmute = ["not-finite", "divergence", "plateau"]')
    heard: list[Finding] = []
    train(tmp_path / "run", 40, nan_at=5, on_finding=heard.append)
    assert not {"not-finite", "divergence"} & {each.symptom for each in heard}
    Path("pyproject.toml").write_text('[tool.colordim]\nmute = ["not-finit"]')
    with pytest.raises(ArgumentError, match=r"pyproject\.toml"):
        colordim.record(nn.Linear(2, 2), on_finding="log")


def test_the_arguments_are_checked_at_once() -> None:
    with pytest.raises(ArgumentError, match="take 'stop'"):
        colordim.record(nn.Linear(2, 2), on_finding="stopp")  # type: ignore[arg-type]


def test_a_diagnosis_brings_no_matplotlib_along(tmp_path: Path) -> None:
    code = f"""
import sys, torch, colordim
net = torch.nn.Linear(2, 2)
with colordim.record(net, folder={str(tmp_path / "run")!r}, on_finding="log"):
    for _ in range(20): net(torch.randn(2, 2)).sum().backward()
print([name for name in ("matplotlib", "typer", "rich", "starlette") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
