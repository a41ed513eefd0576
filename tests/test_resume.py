"""record(resume=): a training that was killed and goes on from its checkpoint is the one that was not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import colordim
from colordim import handle
from colordim.axis import LinearAxis
from colordim.errors import ArgumentError, ColordimWarning, NotARunError, RecordingError, StoreError
from colordim.store.writer import FolderWriter

DRIVER = Path(__file__).with_name("drive_resume.py")
_spec = spec_from_file_location("drive_resume", DRIVER)
assert _spec is not None
assert _spec.loader is not None
drive = module_from_spec(_spec)
_spec.loader.exec_module(drive)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def assert_same(run: colordim.Run, whole: colordim.Run) -> None:
    """The same batches, streams and columns; only clocks differ."""
    assert run.problems == ()
    table, expected = run.batches, whole.batches
    assert set(table) == set(expected)
    for name in set(table) - {"time", "recording_s", "step_s"}:
        np.testing.assert_array_equal(table[name], expected[name], err_msg=name)
    assert [(s.id, s.kind, s.name, s.facet) for s in run.streams] == [
        (s.id, s.kind, s.name, s.facet) for s in whole.streams
    ]
    for stream in whole.streams:
        for phase in ("train", "valid"):
            for field in fields(whole.columns(stream, phase)):
                ours, theirs = (getattr(r.columns(stream, phase), field.name) for r in (run, whole))
                np.testing.assert_array_equal(ours, theirs, err_msg=f"{stream.kind} {stream.name} {phase}")


def start(folder: Path, how: dict[str, Any], pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(DRIVER), str(folder), json.dumps(how), str(pause)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


WAYS: dict[str, dict[str, Any]] = {
    "all kinds": {"kinds": {"activation": 1, "gradient": 2, "weight": 3, "weight_gradient": 1, "update": 4}},
    "facets, every third": {"facets": {"head": "class"}, "kinds": ["activation", "gradient"], "every": 3},
    "epochs told": {"told": True, "range": [-2, 2], "bins": 50},
    "by number": {"by": "number", "told": True},
}


@pytest.mark.parametrize("way", WAYS)
def test_killed_and_resumed_is_as_if_in_one_go(tmp_path: Path, way: str) -> None:
    how = WAYS[way]
    whole = drive.train(tmp_path / "whole", how).run
    folder = tmp_path / "run"
    process = start(folder, how, 0.02)
    assert process.stdout is not None
    reached = int(process.stdout.readline())
    time.sleep(np.random.default_rng(len(way)).uniform(0.0, 0.8))
    process.send_signal(signal.SIGKILL)
    reached = max([reached, *map(int, process.stdout.read().split())])
    process.wait()
    process.stdout.close()
    assert reached < drive.BATCHES
    assert colordim.open(folder).length() >= reached, "what a checkpoint has seen is on the disk"
    resumed = drive.train(folder, how)
    assert resumed.notices == ()
    assert_same(resumed.run, whole)
    assert resumed.run.ended == "stopped"


@pytest.mark.parametrize("pause_at", range(14, 63, 7))
def test_resumed_at_any_checkpoint(tmp_path: Path, pause_at: int) -> None:
    """Of a training that went on for a while after it, in this process."""
    how = {"kinds": ["activation", "update"]}
    whole = drive.train(tmp_path / "whole", how).run
    folder = tmp_path / "run"
    drive.train(folder, how, batches=min(pause_at, drive.BATCHES))
    shutil.copy(tmp_path / "run.pt", tmp_path / "kept.pt")
    drive.train(folder, how, batches=min(pause_at + 5, drive.BATCHES))
    shutil.copy(tmp_path / "kept.pt", tmp_path / "run.pt")
    assert_same(drive.train(folder, how).run, whole)


# In one process. Nothing is trained: every batch is known by its size.


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU())


def batches(recording: colordim.Recording, model: nn.Module, *sizes: int) -> None:
    for size in sizes:
        model.train(size < 100)
        model(torch.ones(size, 4))
    model.train()


def sizes(run: colordim.Run, phase: Any = "train") -> list[int]:
    return (run.moments("1", phase)["size"] // 8).tolist()


def killed(recording: colordim.Recording, folder: Path, to: Path) -> None:
    """Copy what a kill at this moment would leave."""
    recording._recorder.flush()  # type: ignore[union-attr]
    shutil.copytree(folder, to)


def test_auto_begins_a_run_and_goes_on_in_it(tmp_path: Path) -> None:
    model, folder = net(), tmp_path / "run"
    for size in (1, 2, 3):
        with colordim.record(model, folder=folder, resume="auto", name="mine") as recording:
            batches(recording, model, size, size + 10)
        assert recording.path == str(folder)
        assert recording.notices == ()
    assert sizes(recording.run) == [1, 11, 2, 12, 3, 13]
    assert recording.run.batches["batch"].tolist() == recording.run.batches["index"].tolist() == list(range(6))
    assert recording.run.batches["step"].tolist() == list(range(1, 7))
    assert recording.run.name == "mine"
    assert not list(folder.glob("cut-*"))
    for same in (folder, str(folder), recording.run):
        with colordim.record(model, resume=same) as recording:
            batches(recording, model, 5)
    assert sizes(recording.run)[6:] == [5, 5, 5]
    with colordim.record(model, folder=folder) as recording, recording.batch():
        pass
    assert recording.path == str(folder) + "-2", "without resume, a run is never touched"


def test_state_dict_is_small_and_says_where(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "run") as recording:
        batches(recording, model, 1, 2, 101, 3)
        recording.log(loss=1.5)
        state = json.loads(json.dumps(recording.state_dict()))
        assert state == {
            "run": str(tmp_path / "run"), "rank": 0, "train": 3, "valid": 1, "epoch": 1, "step": 3, "seen": ["train"],
            "told": False,
        }  # fmt: skip
        assert colordim.open(tmp_path / "run").batches["loss"][-1] == 1.5, "it is on the disk"
        batches(recording, model, 4, 5, 102)
    with colordim.record(model, resume=state) as recording:
        batches(recording, model, 6)
    assert sizes(recording.run) == [1, 2, 3, 6]
    assert sizes(recording.run, "valid") == [101]
    assert recording.run.batches["epoch"].tolist() == [0, 0, 0, 1, 1]
    assert sizes(colordim.open(tmp_path / "run/cut-0001"))[-2:] == [4, 5]
    shutil.move(tmp_path / "run", tmp_path / "moved")
    with pytest.raises(NotARunError, match="there is no folder"):
        colordim.record(model, resume=state).start()
    with colordim.record(model, folder=tmp_path / "moved", resume=state) as recording:
        batches(recording, model, 7)
    assert sizes(recording.run) == [1, 2, 3, 7]


def test_a_block_that_is_open_counts_as_seen(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "run") as recording:
        with recording.batch():
            batches(recording, model, 1)
            inside = recording.state_dict()
        after = recording.state_dict()
    assert inside == after
    assert after["train"] == 1


def test_resume_at(tmp_path: Path) -> None:
    model, folder = net(), tmp_path / "run"
    with colordim.record(model, folder=folder) as recording:
        batches(recording, model, 1, 2, 101, 3, 4)
    with colordim.record(model, folder=folder, resume="auto", resume_at=2) as recording:
        batches(recording, model, 5)
    assert sizes(recording.run) == [1, 2, 5]
    assert sizes(recording.run, "valid") == [101], "it came before the training batch that was cut off"
    with (
        pytest.warns(ColordimWarning, match="train batches 3 to 5 are missing: the run was resumed from a checkpoint"),
        colordim.record(model, folder=folder, resume="auto", resume_at=6) as recording,
    ):
        batches(recording, model, 6)
    with pytest.warns(ColordimWarning, match="train batches 3 to 5 are missing"):
        assert recording.run.batches["index"].tolist() == [0, 1, 0, 2, 6]
    assert recording.run.length() == 7
    assert recording.run.moments("1")["first"].tolist() == [0, 1, 2, 6]
    with (
        pytest.warns(ColordimWarning, match="train batches 0 to 3 are missing"),
        colordim.record(model, folder=tmp_path / "new", resume="auto", resume_at=4) as recording,
    ):
        batches(recording, model, 6)
    with pytest.warns(ColordimWarning, match="train batches 0 to 3 are missing"):
        assert recording.run.moments("1")["first"].tolist() == [4]


def test_streams_keep_their_ids_and_new_ones_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = FolderWriter.append

    def checked(self: FolderWriter, batch: Any, streams: Any, *rows: Any) -> None:
        assert [s.id for s in streams] == sorted(s.id for s in streams)
        append(self, batch, streams, *rows)

    monkeypatch.setattr(FolderWriter, "append", checked)
    model = nn.ModuleDict({"a": nn.ReLU(), "b": nn.ReLU(), "c": nn.ReLU()})
    batch = torch.ones(2, 3)

    def record(*layers: str) -> colordim.Run:
        with colordim.record(model, folder=tmp_path / "run", resume="auto") as recording:
            for _ in range(2):
                with recording.batch():
                    for number, layer in enumerate(layers):
                        model[layer](batch * (number + 1))
                        recording.log(order=float(number))
        return recording.run

    assert [(s.id, s.name) for s in record("b").streams] == [(0, "b")]
    assert [(s.id, s.name) for s in record("c", "b").streams] == [(0, "b"), (1, "c")]
    run = record("a", "c", "b")
    assert [(s.id, s.name) for s in run.streams] == [(0, "b"), (1, "c"), (2, "a")]
    assert {name: run.moments(name)["max"].tolist() for name in "abc"} == {
        "a": [-np.inf] * 4 + [1, 1],
        "b": [1, 1, 2, 2, 3, 3],
        "c": [-np.inf] * 2 + [1, 1, 2, 2],
    }


def test_another_axis_is_refused_before_anything_changes(tmp_path: Path) -> None:
    model, folder = net(), tmp_path / "run"
    with colordim.record(model, folder=folder, range=(-1, 1), bins=20) as recording:
        batches(recording, model, 1, 2)
    sentence = (
        r"counts '0' on LinearAxis\(.*\), and this recording would on SignedLogAxis.*: resume with the range= and"
    )
    with pytest.raises(ArgumentError, match=sentence):
        colordim.record(model, resume=folder, resume_at=0).start()
    assert sizes(colordim.open(folder)) == [1, 2]
    with colordim.record(model, resume=folder, range={"*": LinearAxis(-1, 1, 20)}) as recording:
        batches(recording, model, 3)
    assert sizes(recording.run) == [1, 2, 3]


def test_a_facet_of_that_name_is_not_mixed_with_a_stream(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "run") as recording, recording.batch():
        model(torch.ones(1, 4))
        colordim.observe("1[0]", torch.ones(3))
    with (
        pytest.warns(ColordimWarning, match="has a stream '1\\[0\\]' that is no facet: resume with the same facets="),
        colordim.record(model, resume=tmp_path / "run", facets={"1": "class"}) as recording,
    ):
        batches(recording, model, 1)
    assert recording.run.moments("1[0]")["size"].tolist() == [3, 0]


@pytest.mark.parametrize(
    ("at", "expected"), [(2, [0, 0, 0, 1, 1, 1]), (3, [0, 0, 0, 1, 1, 1]), (4, [0, 0, 0, 1, 1, 1])]
)
def test_epochs_that_are_told_go_on(tmp_path: Path, at: int, expected: list[int]) -> None:
    """A loop over epochs of three batches goes on within one, or with the next one."""
    model, states = net(), []
    with colordim.record(model, folder=tmp_path / "run") as recording:
        for batch in range(5):
            if batch % 3 == 0:
                recording.epoch()
            batches(recording, model, batch + 1)
            states.append(recording.state_dict())
    with colordim.record(model, resume=states[at - 1]) as recording:
        recording.epoch()
        for batch in range(at, 6):
            if batch % 3 == 0 and batch > at:
                recording.epoch()
            batches(recording, model, batch + 1)
    assert recording.run.batches["epoch"].tolist() == expected


@pytest.mark.parametrize("at", range(1, 8))
def test_epochs_that_are_inferred_go_on(tmp_path: Path, at: int) -> None:
    """Two training batches and two of validation, and again."""
    model, folder, steps = net(), tmp_path / "run", [1, 2, 101, 102, 3, 4, 103, 104]
    for begin, end in ((0, at), (at, 8)):
        with colordim.record(model, folder=folder, resume="auto") as recording:
            batches(recording, model, *steps[begin:end])
            if begin == 0:
                state = recording.state_dict()
                killed(recording, folder, tmp_path / "killed")
    assert recording.run.batches["epoch"].tolist() == [0] * 4 + [1] * 4
    with colordim.record(model, folder=tmp_path / "killed", resume=state) as recording:
        batches(recording, model, *steps[at:])
    assert recording.run.batches["epoch"].tolist() == [0] * 4 + [1] * 4


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"resume": "auto"}, 'resume="auto" needs the folder'),
        ({"resume_at": 3}, 'resume_at=3 needs the run to be resumed: pass resume="auto"'),
        ({"resume": "auto", "folder": "f", "resume_at": -1}, "resume_at=-1 cannot be: it is the number of training"),
        ({"resume": "auto", "folder": "f", "resume_at": 1.5}, "resume_at=1.5 cannot be"),
        ({"resume": "a", "folder": "f"}, "resume='a' and folder='f' are two runs: leave folder= out"),
        ({"resume": {"train": 1}}, r"is not what state_dict\(\) returned: pass that"),
        ({"resume": {"run": "a", "train": 1}, "resume_at": 2}, "says already where to go on: leave resume_at= out"),
        ({"resume": 3}, "resume=3 names no run in a folder"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        colordim.record(net(), **arguments)


def test_runs_that_cannot_be_resumed(tmp_path: Path) -> None:
    model = net()
    with pytest.raises(NotARunError, match="there is no folder"):
        colordim.record(model, resume=tmp_path / "none").start()
    with pytest.raises(RecordingError, match="nothing is recorded yet"):
        colordim.record(model, folder=tmp_path / "run").state_dict()
    with (
        colordim.record(model, folder=tmp_path / "run") as recording,
        pytest.raises(StoreError, match="is being recorded by this process"),
    ):
        colordim.record(model, resume=recording.path).start()


def test_recording_that_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = net(), tmp_path / "run"
    with monkeypatch.context() as off:
        off.setenv("COLORDIM", "off")
        with colordim.record(model, folder=folder, resume="auto") as recording:
            batches(recording, model, 1)
            state = recording.state_dict()
    assert state == {}
    assert not folder.exists()
    # A checkpoint that was saved so begins a run.
    with colordim.record(model, folder=folder, resume=state) as recording:
        batches(recording, model, 2)
    assert sizes(recording.run) == [2]


# Several ranks, one after the other in this process.


@pytest.fixture
def as_rank(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def become(rank: int, restart: int, **more: object) -> None:
        for name in [
            n
            for n in os.environ
            if n.startswith(("RANK", "WORLD_", "LOCAL_", "GROUP_", "MASTER_", "SLURM_", "TORCHELASTIC_"))
        ]:
            monkeypatch.delenv(name)
        variables = {"SLURM_JOB_ID": 71, "SLURM_STEP_ID": 0, "SLURM_PROCID": rank, "SLURM_NTASKS": 2, "SLURM_NNODES": 2}
        if restart:
            variables["SLURM_RESTART_COUNT"] = restart
        for name, value in (variables | more).items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(handle, "_begun", Counter())

    return become


def test_ranks_go_on_together_after_a_requeue(tmp_path: Path, as_rank: Callable[..., None]) -> None:
    model, folder = net(), tmp_path / "run"
    for restart, lengths in ((0, (5, 3)), (1, (4, 6)), (2, (2, 2))):
        for rank in (0, 1):
            as_rank(rank, restart)
            with colordim.record(model, folder=folder, resume="auto") as recording:
                batches(recording, model, *[10 * restart + rank + 1] * lengths[rank])
            assert recording.path == str(folder), "no -restart1"
    run = colordim.open(folder)
    assert run.problems == ()
    assert run.length() == 3 + 4 + 2
    assert sizes(run) == [1 + 2] * 3 + [11 + 12] * 4 + [21 + 22] * 2
    assert run.info["job"] == "slurm-71.0"
    assert sorted(p.name for p in folder.iterdir()) == ["cut-0001", "cut-0002", "rank=0", "rank=1", "run.json"]


def test_ranks_go_on_from_the_checkpoint_of_one(tmp_path: Path, as_rank: Callable[..., None]) -> None:
    model, folder = net(), tmp_path / "run"
    state: dict[str, Any] = {}
    for rank in (0, 1):
        as_rank(rank, 0)
        with colordim.record(model, folder=folder) as recording:
            batches(recording, model, 1, 2, *([] if rank else [101]))
            state = state or recording.state_dict()
            batches(recording, model, 3)
    for rank in (0, 1):
        as_rank(rank, 0)  # the same job, run again by hand
        with colordim.record(model, resume=state) as recording:
            batches(recording, model, 4)
    run = colordim.open(folder)
    assert run.moments("1")["first"].tolist() == [0, 1, 2]
    assert sizes(run) == [2, 4, 8]
    assert sizes(run, "valid") == [101]
    with pytest.raises(ArgumentError, match="nothing tells the 2 ranks at which batch all of them go on"):
        colordim.record(model, folder=folder, resume="auto").start()
    as_rank(0, 1, SLURM_NTASKS=3)
    with pytest.raises(StoreError, match="was recorded by 2 ranks, and this training has 3"):
        colordim.record(model, folder=folder, resume="auto").start()


def test_attempts(as_rank: Callable[..., None]) -> None:
    from colordim.recording import ranks

    found = []
    torchrun = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 1, "GROUP_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "71"}
    for restart in (0, 1, 2):
        as_rank(0, restart, **torchrun, TORCHELASTIC_RESTART_COUNT=0)
        found.append(ranks.attempt())
        as_rank(0, restart, **torchrun, TORCHELASTIC_RESTART_COUNT=1)  # which another node may not count
        assert ranks.attempt() == found[-1]
    assert found == ["71", "71-requeue1", "71-requeue2"]
    as_rank(0, 1)
    assert ranks.attempt() == "slurm-71.0-restart1"
