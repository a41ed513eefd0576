"""The public face, in a folder: record, observe, open."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import colordim
from colordim.errors import (
    ArgumentError,
    AxisError,
    ColordimWarning,
    NotARunError,
    RecordingError,
    SelectionError,
    StoreError,
)

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_two_lines_record_a_training_into_a_folder(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "lenet") as rec:
        for i in range(3):
            model(X)
            rec.log(loss=torch.tensor(float(i)))
    assert rec.path == str(tmp_path / "lenet")
    for run in (rec.run, colordim.open(rec.path)):
        assert run.name == "lenet"
        assert run.ended == "stopped"
        assert run.counts("0").shape == (3, 1025)
        assert run.batches["loss"].tolist() == [0.0, 1.0, 2.0]
        assert run.moments("0")["size"].tolist() == [128] * 3
        expected = model[0](X).detach().double()
        assert run.moments("0")["sum"] == pytest.approx([expected.sum().item()] * 3, rel=1e-12)
    info = json.loads((tmp_path / "lenet" / "run.json").read_text())
    assert info["model"]["class"] == "Sequential"
    assert info["model"]["parameters"] == 4 * 8 + 8 + 8 * 2 + 2
    assert info["versions"]["torch"] == torch.__version__


def test_a_folder_of_its_own_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with colordim.record(net()) as rec, rec.batch():
        pass
    assert Path(rec.path).parent == Path("runs")
    assert Path(rec.path).name.startswith("Sequential-")
    assert (tmp_path / rec.path / "run.json").exists()


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "a") as first:
        model(X)
    message = r"a holds a run already, so this one is in .*a-2"
    with pytest.warns(ColordimWarning, match=message), colordim.record(model, folder=tmp_path / "a") as second:
        model(X)
    assert second.path == str(tmp_path / "a-2")
    assert colordim.open(first.path).length() == colordim.open(second.path).length() == 1
    assert [second.run.name, first.run.name] == ["a-2", "a"]


def test_the_run_can_be_read_while_it_is_recorded(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "live", name="my run") as rec:
        with pytest.raises(RecordingError, match="started once"):
            rec.start()
        seen = []
        for _ in range(3):
            with rec.batch("train"):
                model(X)
            seen.append(rec.run.length())
        assert rec.run.ended is None
        assert rec.run.name == "my run"
    assert seen == [1, 2, 3]


def test_start_and_stop_by_hand(tmp_path: Path) -> None:
    model = net()
    rec = colordim.record(model, folder=tmp_path / "r")
    with pytest.raises(RecordingError, match="nothing is recorded yet"):
        _ = rec.run
    rec.start()
    model(X)
    rec.stop()
    rec.stop()
    model(X)
    assert rec.run.length() == 1
    assert not any(module._forward_hooks for module in model.modules())


def test_the_reason_of_the_end_names_the_exception(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(ValueError, match="too bad"), colordim.record(model, folder=tmp_path / "r") as rec:
        model(X)
        raise ValueError("too bad\nfor words")
    assert rec.run.ended == "ValueError: too bad"
    assert rec.run.length() == 1


def test_observe_counts_in_place_and_does_nothing_otherwise(tmp_path: Path) -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return colordim.observe("scores", self.q(x) @ x.T).softmax(-1)

    model = Scores()
    plain = model(X)
    with colordim.record(model, folder=tmp_path / "r") as rec:
        assert torch.equal(model(X), plain)
    model(X)
    assert rec.run.moments("scores")["size"].tolist() == [256]
    assert rec.run.stream("scores").module == ""


def test_ranges_for_all_layers_and_for_some(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "a", range=(-2, 2), bins=40) as rec:
        model(X)
    assert all(stream.axis == colordim.LinearAxis(-2, 2, 40) for stream in rec.run.streams)
    expected = np.histogram(model[0](X).detach().double().numpy(), bins=40, range=(-2, 2))[0]
    assert rec.run.counts("0")[0].tolist() == expected.tolist()
    with colordim.record(model, folder=tmp_path / "b", range={"2": (0, 1), "1": colordim.SignedLogAxis(2)}) as rec:
        model(X)
    assert [str(stream.axis) for stream in rec.run.streams] == [
        "SignedLogAxis(bits=3)",
        "SignedLogAxis(bits=2)",
        "LinearAxis(0, 1, 200)",
    ]


def test_accumulation_with_an_optimiser(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with colordim.record(model, folder=tmp_path / "a", optimizer=optimizer, every=2) as rec:
        for i in range(4):
            model(X).sum().backward()
            if i % 2:
                optimizer.step()
    assert rec.run.batches["step"].tolist() == [0, 1, 1, 2]
    assert rec.run.moments("0")["first"].tolist() == [0, 2]


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"layers": "con"}, SelectionError, "no layer matches 'con'; the nearest is"),
        ({"range": (2, 1)}, AxisError, "the range (2, 1) is empty"),
        ({"range": (1, 1)}, AxisError, "the range (1, 1) is empty"),
        ({"range": (0, float("inf"))}, AxisError, "finite borders"),
        ({"range": (0, 1), "bins": 0}, AxisError, "0 bins cannot be"),
        ({"range": (0, 1, 2)}, ArgumentError, "a range is two numbers"),
        ({"range": {"conv*": (0, 1)}}, SelectionError, "no recorded layer matches 'conv*' of range="),
        ({"every": 0}, ArgumentError, "every=0 cannot be"),
        ({"every": "2"}, ArgumentError, "every='2' cannot be"),
        ({"bins": 50}, ArgumentError, "bins=50 needs a range"),
        ({"optimizer": 3}, ArgumentError, "optimizer takes torch optimisers, not 3"),
        ({"budget": 2.0}, ArgumentError, "budget=2.0 cannot be"),
        ({"folder": "s3://bucket/run"}, ArgumentError, "folder='s3://bucket/run' is an address"),
        ({"scratch": "gs://bucket"}, ArgumentError, "scratch='gs://bucket' is an address"),
    ],
)
def test_wrong_arguments_are_one_sentence_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        colordim.record(net(), **{"folder": tmp_path / "r", **options})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, (ValueError, colordim.ColordimError))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    for name in ("file", "full", "file/below"):
        with pytest.raises(StoreError):
            colordim.record(net(), folder=tmp_path / name).start()
    with pytest.raises(NotARunError):
        colordim.open(tmp_path / "full")


def test_switched_off_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLORDIM", "off")
    monkeypatch.chdir(tmp_path)
    model = net()
    with colordim.record(model) as rec:
        with rec.batch("train"):
            model(X)
        rec.log(loss=1.0)
        rec.epoch()
        assert not any(module._forward_hooks for module in model.modules())
    assert rec.run.streams == ()
    assert rec.path == ""
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ends_without_stopping_leaves_a_whole_run(tmp_path: Path) -> None:
    code = f"""
import torch, colordim
model = torch.nn.Sequential(torch.nn.Linear(2, 2))
rec = colordim.record(model, folder={str(tmp_path / "r")!r}).start()
for _ in range(5): model(torch.ones(1, 2))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    run = colordim.open(tmp_path / "r")
    assert run.length() == 5
    assert run.ended == "the process ended"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_data_loader_workers_write_nothing(tmp_path: Path) -> None:
    from torch.utils.data import DataLoader, Dataset

    model = net()

    class Features(Dataset[Tensor]):
        def __len__(self) -> int:
            return 12

        def __getitem__(self, i: int) -> Tensor:
            return model(X[i : i + 1])[0].detach()

    with colordim.record(model, folder=tmp_path / "r") as rec, rec.batch("train"):
        model(X)
        loader = DataLoader(Features(), batch_size=3, num_workers=2, multiprocessing_context="fork")
        assert sum(len(batch) for batch in loader) == 12
    assert rec.run.moments("0")["calls"].tolist() == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_what_follows_the_end_is_said_not_recorded(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "r") as rec:
        model(X)
    with pytest.warns(ColordimWarning, match="The recording has ended"), rec.batch("train"):
        model(X)
    assert rec.run.length() == 1


def test_a_start_that_failed_leaves_the_folder_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from colordim.store import files

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(files, "write_text", full)
        with pytest.raises(StoreError, match="No space left"):
            colordim.record(net(), folder=tmp_path / "r").start()
    model = net()
    with colordim.record(model, folder=tmp_path / "r") as rec:
        model(X)
    assert rec.run.length() == 1


def test_a_file_that_is_gone_is_missed(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "r") as rec:
        for _ in range(3):
            model(X)
    assert colordim.open(rec.path).problems == ()
    for path in (tmp_path / "r" / "rank=0" / "batches").iterdir():
        path.unlink()
    assert "3 of 3 batches are missing" in colordim.open(rec.path).problems[0]


def test_a_relative_folder_may_look_like_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = net()
    with colordim.record(model, folder="exp:1") as rec:
        model(torch.randn(2, 4))
    assert list((tmp_path / "exp:1" / "rank=0" / "columns" / "level=0").glob("*.parquet"))
    assert colordim.open("exp:1").problems == ()
    with colordim.record(model, resume="auto", folder="exp:1") as rec:
        model(torch.randn(2, 4))
    assert rec.run.length() == 2
