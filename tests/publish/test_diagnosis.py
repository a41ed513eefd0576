"""Whatever is published gets the diagnosis of the whole run, with its last epoch."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import wandb
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import colordim
from colordim.diagnosis import Diagnosis
from colordim.publish.epochs import Epoch
from colordim.publish.publisher import export
from colordim.publish.wandb import Wandb


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Keeps:
    name, draws = "a list", False

    def __init__(self) -> None:
        self.diagnoses: list[Diagnosis | None] = []

    def publish(self, epoch: Epoch) -> None:
        self.diagnoses.append(epoch.diagnosis)

    def close(self) -> None:
        pass


def test_an_export_has_it_with_the_last_epoch(run: colordim.Run) -> None:
    kept = Keeps()
    assert export(run, kept) == 3
    assert kept.diagnoses[:2] == [None, None]
    assert str(kept.diagnoses[2]) == str(run.diagnose())
    assert "not-finite" in {each.symptom for finding in run.diagnose().findings for each in finding.walk()}


def test_a_table_of_findings(run: colordim.Run, tmp_path: Path) -> None:
    export(run, f"csv:{tmp_path / 'out'}")
    with (tmp_path / "out" / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [each for finding in run.diagnose().findings for each in finding.walk()]
    assert [(row["run"], row["symptom"], row["title"]) for row in rows] == [
        ("lenet", each.symptom, each.title) for each in expected
    ]


def test_a_text_in_tensorboard(run: colordim.Run, tmp_path: Path, small_figures: Any) -> None:
    export(run, f"tensorboard:{tmp_path / 'out'}", figures=0)
    events = EventAccumulator(str(tmp_path / "out"))
    events.Reload()
    (event,) = events.Tensors("colordim/diagnosis")
    text = event.tensor_proto.string_val[0].decode()
    assert text.splitlines() == [f"    {line}" for line in str(run.diagnose()).splitlines()]
    assert event.step == 11  # of the last of twelve training batches
    assert events.SummaryMetadata("colordim/diagnosis").plugin_data.plugin_name == "text"


class FakeRun:
    step = 0

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def define_metric(self, *_: Any, **__: Any) -> None:
        pass

    def log(self, row: dict[str, Any], commit: bool = True) -> None:
        self.rows.append(row)


def test_a_table_and_a_sentence_in_wandb(run: colordim.Run) -> None:
    fake = FakeRun()
    export(run, Wandb(fake), figures=0)
    found = run.diagnose()
    row = next(row for row in fake.rows if "colordim/findings" in row)
    assert isinstance(row["colordim/findings"], wandb.Table)
    assert [each[5] for each in row["colordim/findings"].data] == [e.title for f in found.findings for e in f.walk()]
    assert row["colordim/diagnosis"] == found.sentence
    assert row["colordim/epoch"] == 2


def test_a_live_training_publishes_what_was_found_in_it(tmp_path: Path) -> None:
    import torch

    kept = Keeps()
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    with colordim.record(net, folder=tmp_path / "run", log_to=kept):
        for batch in range(6):
            x = torch.randn(8, 4)
            if batch == 4:
                x[0] = float("nan")
            net(x).sum().backward()
    assert kept.diagnoses[-1] is not None
    assert kept.diagnoses[-1].findings[0].symptom == "not-finite"
