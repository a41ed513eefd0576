"""W&B gets everything on a step metric of its own; what others log to the same run stays whole."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from wandb.proto import wandb_internal_pb2

import colordim
from colordim.publish.epochs import Epoch, layers, spans
from colordim.publish.publisher import Publisher, export
from colordim.publish.target import target
from colordim.publish.wandb import STEP, Wandb

pytestmark = [
    pytest.mark.usefixtures("small_figures"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:wandb.*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning:wandb.*"),
]


def records(path: Path) -> Iterator[Any]:
    """Yield what an offline run wrote: LevelDB's log format, blocks of 32 KiB with records in one or more parts."""
    data, at, record = path.read_bytes(), 7, b""
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, part = struct.unpack("<IHB", data[at : at + 7])
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):  # whole, or the last part
            parsed = wandb_internal_pb2.Record()
            parsed.ParseFromString(record)
            yield parsed
            record = b""


def history(folder: Path) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the rows of the only offline run in a folder, and its metrics."""
    wandb.teardown()  # its service writes the last block only when it ends
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    rows: list[dict[str, Any]] = []
    metrics: list[Any] = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                *outer, last = item.nested_key or [item.key]
                inner = row
                for key in outer:
                    inner = inner.setdefault(key, {})
                inner[last] = json.loads(item.value_json)
            rows.append(row)
        elif record.WhichOneof("record_type") == "metric":
            metrics.append(record.metric)
    return rows, metrics


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    wandb.teardown()  # or the next test would find these settings


def test_an_offline_run_holds_curves_figures_and_histograms(run: colordim.Run, known: Any, offline: Path) -> None:
    assert export(run, "wandb:lessons") == 3
    assert wandb.run is None  # what was begun is finished
    rows, metrics = history(offline)
    rows = [row for row in rows if STEP in row]
    assert [row[STEP] for row in rows] == [4, 9, 11]
    assert [row["colordim/epoch"] for row in rows] == [0, 1, 2]
    assert [(m.glob_name, m.step_metric) for m in metrics if m.glob_name] == [("colordim/*", STEP)]
    for epoch, row in enumerate(rows):
        values = known.of("fc", "train", 5 * epoch, min(5 * epoch + 4, 11))
        assert row["colordim/mean/activation/train/fc"] == pytest.approx(values.mean())
        found = row["colordim/histogram/activation/train/fc"]
        assert found["_type"] == "histogram"
        assert np.histogram(values, found["bins"])[0].tolist() == found["values"]
        assert sum(found["values"]) == values.size
        assert row["colordim/figure/activation/train"]["_type"] == "image-file"
    pictures = list(offline.glob("wandb/offline-run-*/files/media/images/colordim/figure/activation/*.png"))
    assert len(pictures) == 3


def test_what_others_log_for_their_step_is_not_dropped(run: colordim.Run, offline: Path) -> None:
    mine = wandb.init(project="p")
    active = target("wandb")
    for step, span in enumerate(spans(run)):
        mine.log({"loss": step / 4}, step=step)
        active.publish(Epoch(run, span, layers(run, span)))
        mine.log({"accuracy": step / 2}, step=step)
    active.close()
    assert wandb.run is mine
    wandb.finish()
    rows, _ = history(offline)
    assert [(row["loss"], row["accuracy"], row[STEP]) for row in rows] == [(0, 0, 4), (0.25, 0.5, 9), (0.5, 1, 11)]


class FakeRun:
    """As much of a W&B run as is used: rows, of which the last is open."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = [{}]
        self.metrics: list[tuple[str, str | None]] = []

    @property
    def step(self) -> int:
        return len(self.rows) - 1

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, row: dict[str, Any], commit: bool = True) -> None:
        self.rows[-1].update(row)
        if commit:
            self.rows.append({})


def test_where_nobody_else_logs_no_epoch_overwrites_another(run: colordim.Run) -> None:
    fake = FakeRun()
    export(run, fake)
    assert fake.metrics == [(STEP, None), ("colordim/*", STEP)]
    assert [row[STEP] for row in fake.rows] == [4, 9, 11]


def test_histograms_keep_to_the_limit(run: colordim.Run) -> None:
    fake = FakeRun()
    export(run, fake)
    for row in fake.rows:
        for value in row.values():
            if isinstance(value, wandb.Histogram):
                assert len(value.histogram) <= 512


def test_a_run_that_is_begun_for_a_recording_is_gone_on_with(
    run: colordim.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []

    class Run(FakeRun):
        def finish(self) -> None:
            pass

    def init(**options: Any) -> Run:
        begun.append(options)
        return Run()

    monkeypatch.setattr(wandb, "init", init)
    for each in (target("wandb:p", live=True), target("wandb:p", live=True), Wandb(project="p", name="n")):
        publisher = Publisher([each])
        publisher.update(run)
        publisher.close()
    assert begun[0] == begun[1]
    assert (begun[0]["project"], begun[0]["name"], begun[0]["resume"]) == ("p", "lenet", "allow")
    assert begun[2] == {"project": "p", "name": "n"}  # an export is a run of its own
