"""Distributed trainings: which rank a process is, which folder all of them write, and what they count together."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

import colordim
from colordim import handle
from colordim.errors import ArgumentError, ColordimWarning, RecordingError, StoreError
from colordim.recording import ranks
from colordim.recording.ranks import Rank, recorded, this_rank

Environment = Callable[..., None]

TORCHRUN = {
    "RANK": 1, "WORLD_SIZE": 4, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4, "GROUP_WORLD_SIZE": 1,
    "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": 0, "MASTER_ADDR": "127.0.0.1",
}  # fmt: skip
TWO_NODES = TORCHRUN | {"RANK": 3, "LOCAL_WORLD_SIZE": 2, "GROUP_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "a job/7"}
SLURM = {
    "SLURM_JOB_ID": 71, "SLURM_STEP_ID": 0, "SLURM_PROCID": 5, "SLURM_NTASKS": 8, "SLURM_LOCALID": 1, "SLURM_NNODES": 2,
}  # fmt: skip


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Environment:
    """Return a function that replaces all of the environment that tells of ranks."""
    prefixes = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "MASTER_", "TORCHELASTIC_", "SLURM_")

    def change(variables: dict[str, Any] | None = None, **more: object) -> None:
        for name in [name for name in os.environ if name.startswith(prefixes)]:
            monkeypatch.delenv(name)
        for name, value in ((variables or {}) | more).items():
            if value is not None:
                monkeypatch.setenv(name, str(value))

    change()
    return change


# Who am I?


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Rank()),
        (TORCHRUN, Rank(1, 4, 1)),
        (TORCHRUN | {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}, Rank()),
        (TWO_NODES, Rank(3, 4, 1)),
        ({"RANK": 1, "WORLD_SIZE": 2}, Rank(1, 2, None)),
        ({"RANK": 2, "WORLD_SIZE": 2}, Rank()),
        ({"RANK": "", "WORLD_SIZE": 2}, Rank()),
        (SLURM, Rank(5, 8, 1)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": 1, "SLURM_PROCID": 0}, Rank()),
        (SLURM | {"SLURM_STEP_ID": None}, Rank()),
        (SLURM | {"SLURM_STEP_ID": 4294967291}, Rank()),  # the batch script
        (SLURM | {"SLURM_NTASKS": 1, "SLURM_PROCID": 0}, Rank()),
        (SLURM | TORCHRUN, Rank(1, 4, 1)),
        # torchrun once a node, by srun: Slurm's tasks are the nodes.
        (SLURM | TWO_NODES | {"LOCAL_RANK": None, "SLURM_NTASKS": 2, "SLURM_PROCID": 1}, Rank(3, 4, None)),
    ],
)
def test_rank_from_the_environment(environment: Environment, variables: dict[str, Any], expected: Rank) -> None:
    environment(variables)
    assert this_rank() == expected


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        (TWO_NODES, "a-job-7"),
        (TWO_NODES | {"TORCHELASTIC_RESTART_COUNT": 2}, "a-job-7-restart2"),
        (SLURM | TWO_NODES, "a-job-7"),
        (SLURM, "slurm-71.0"),
        (SLURM | {"SLURM_RESTART_COUNT": 1}, "slurm-71.0-restart1"),
        (SLURM | {"SLURM_STEP_ID": 4294967291}, None),
        (TWO_NODES | {"TORCHELASTIC_RUN_ID": "none"}, None),
        ({"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}, None),  # one machine, but whose children?
        ({"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "node0"}, None),
    ],
)
def test_job_from_the_environment(environment: Environment, variables: dict[str, Any], job: str | None) -> None:
    environment(variables)
    assert ranks.job() == job


def test_job_of_one_machine_is_the_parent_of_its_ranks(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment(TORCHRUN)
    job = ranks.job()
    assert job is not None
    assert f"-{os.getppid()}" in job
    environment(TORCHRUN, RANK=3, LOCAL_RANK=3)
    assert ranks.job() == job, "on every rank the same"
    environment(TORCHRUN, GROUP_WORLD_SIZE=None)
    assert ranks.job() == job
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "getppid", os.getpid)
        assert f"-{os.getpid()}" in str(ranks.job())
        assert ranks.job() != job
    environment(TORCHRUN, TORCHELASTIC_RESTART_COUNT=1)
    assert ranks.job() == f"{job}-restart1"


def test_a_second_spawn_by_the_same_process_is_another_job(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """multiprocessing counts the processes that it starts: two ranks are 1 and 2, the next two 3 and 4."""
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: SimpleNamespace(pid=os.getpid()))
    jobs = []
    for process, rank in ((1, 0), (2, 1), (3, 0), (4, 1)):
        environment(TORCHRUN, RANK=rank)
        name = SimpleNamespace(name=f"SpawnProcess-{process}")
        monkeypatch.setattr(multiprocessing, "current_process", lambda name=name: name)
        jobs.append(ranks.job())
    assert jobs[0] == jobs[1] != jobs[2] == jobs[3]


@pytest.mark.parametrize(
    ("variables", "choice", "expected"),
    [
        ({}, "node", Rank()),
        ({}, "first", Rank()),
        (TWO_NODES, "all", Rank(3, 4, 1)),
        (TWO_NODES, "node", None),
        (TWO_NODES | {"RANK": 2, "LOCAL_RANK": 0}, "node", Rank(2, 2)),
        (TWO_NODES, "first", None),
        (TWO_NODES | {"RANK": 0, "LOCAL_RANK": 0}, "first", Rank()),
        (TORCHRUN | {"RANK": 0, "LOCAL_RANK": 0}, "node", Rank()),  # one machine: one process
        (SLURM, "node", None),
        (SLURM | {"SLURM_PROCID": 4, "SLURM_LOCALID": 0}, "node", Rank(4, 2)),
        ({"RANK": 1, "WORLD_SIZE": 2}, "first", None),
    ],
)
def test_which_ranks_record(
    environment: Environment, variables: dict[str, Any], choice: Any, expected: Rank | None
) -> None:
    environment(variables)
    assert recorded(choice) == expected


# One folder. What follows plays the ranks one after the other in this process.


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU())


def play(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], rank: int, **options: Any
) -> Any:
    environment(variables, RANK=rank, LOCAL_RANK=rank % variables["LOCAL_WORLD_SIZE"])
    monkeypatch.setattr(handle, "_begun", Counter())  # a process of its own
    model = net()
    with colordim.record(model, **options) as recording:
        model(torch.full((2, 4), rank + 1.0))
    return recording


@pytest.mark.parametrize("folder", [None, "given"])
def test_all_ranks_write_one_folder(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch, folder: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = {play(environment, monkeypatch, TWO_NODES, rank, folder=folder).path for rank in (2, 0, 3, 1)}
    assert paths == {str(Path("runs/Sequential-a-job-7") if folder is None else Path("given"))}
    run = colordim.open(paths.pop())
    assert run.batches["ranks"].tolist() == [4]
    assert run.moments("1")["size"].tolist() == [4 * 2 * 8]
    assert run.ended == "stopped"
    with pytest.raises(StoreError, match="rank=3 was written by another run"):
        play(environment, monkeypatch, TWO_NODES, 3, folder=folder)
    again = TWO_NODES | {"TORCHELASTIC_RESTART_COUNT": 1}
    if folder is None:
        assert play(environment, monkeypatch, again, 3).path == run.path + "-restart1"
    else:  # the nodes may count differently, and the script has chosen
        with pytest.raises(StoreError, match="another"):
            play(environment, monkeypatch, again, 3, folder=folder)
        one_node = again | {"GROUP_WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 4}
        assert play(environment, monkeypatch, one_node, 3, folder=folder).path == "given-restart1"


def test_where_nothing_tells_the_folder_it_must_be_given(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment(RANK=1, WORLD_SIZE=2)
    with pytest.raises(ArgumentError, match="nothing tells all of them the same folder: pass the same folder= on each"):
        colordim.record(net())
    with pytest.raises(ArgumentError, match="which ranks share a machine"):
        colordim.record(net(), folder="a", ranks="node")
    with pytest.raises(ArgumentError, match="ranks='some' cannot be: take one of 'all', 'node', 'first'"):
        colordim.record(net(), ranks="some")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    with colordim.record(net(), folder="a") as recording, recording.batch():
        pass
    assert [path.name for path in Path("a").glob("rank=*")] == ["rank=1"]


def test_other_ranks_do_nothing(tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for choice, sentence in (("first", "ranks='first'"), ("node", "ranks='node'")):
        recording = play(environment, monkeypatch, TWO_NODES, 3, ranks=choice)
        assert recording.path == ""
        with recording.batch("train"):
            recording.log(loss=1.0)
        recording.epoch()
        with pytest.raises(RecordingError, match=f"this rank does not record, as {sentence}"):
            _ = recording.run
    assert list(tmp_path.iterdir()) == []
    node = play(environment, monkeypatch, TWO_NODES, 2, ranks="node")
    assert [path.name for path in Path(node.path).glob("rank=*")] == ["rank=2"]
    play(environment, monkeypatch, TWO_NODES, 0, ranks="node")
    run = colordim.open(node.path)
    assert run.problems == ()
    assert run.batches["ranks"].tolist() == [2]
    first = play(environment, monkeypatch, TWO_NODES, 0, ranks="first", folder="alone")
    assert "ranks" not in first.run.batches


# Processes.


class Digits(nn.Module):
    """Whole numbers throughout, so that no order of adding rounds; batch normalisation only evaluates."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, eps=0.0), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(8, 3)
        for parameter in self.parameters():
            parameter.data = torch.randint(-3, 4, parameter.shape, generator=generator).double()
        self.double()

    def train(self, mode: bool = True) -> Digits:
        super().train(mode)
        self.body[1].eval()
        return self

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x))


def digits(batch: int) -> Tensor:
    return torch.randint(-4, 5, (6, 1, 4, 4), generator=torch.Generator().manual_seed(batch)).double()


def learn(model: nn.Module, part: slice, rate: float, recording: colordim.Recording, batches: int = 4) -> None:
    optimizer = torch.optim.SGD(model.parameters(), rate)
    for batch in range(batches):
        loss = model(digits(batch)[part]).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        recording.log(loss=loss)


def join_group(rank: int, world: int, tmp_path: Path) -> None:
    """Begin as the processes of a usual script do; only the address of the meeting point is a file."""
    torch.set_num_threads(1)
    os.chdir(tmp_path)
    os.environ["MASTER_ADDR"] = "localhost"
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting-{world}", rank=rank, world_size=world)


def two_ranks(rank: int, tmp_path: Path) -> None:
    part = slice(3 * rank, 3 * rank + 3)
    parallel: dict[str, Callable[[], nn.Module]] = {
        "ddp": lambda: DistributedDataParallel(Digits().train()),
        "fsdp": lambda: sharded(Digits().train()),
    }
    # Before there is a group, nothing tells.
    assert this_rank() == Rank()
    join_group(rank, 2, tmp_path)
    assert this_rank() == Rank(rank, 2, rank)
    for name, make in parallel.items():
        model = make()
        with colordim.record(model, folder=name) as recording:
            # DDP and FSDP average the gradients, of which the sum is wanted.
            learn(model, part, 2**-6, recording)
        assert recording.run.length() == 4

    model = net()
    made = []
    for _ in range(2):
        with colordim.record(model) as recording:
            model(torch.ones(2, 4))
        made.append(recording.path)
    assert made[1] == f"{made[0]}-2"
    (tmp_path / f"paths-{rank}").write_text("\n".join(made))

    for choice in ("first", "node"):
        with colordim.record(model, folder=f"by-{choice}", ranks=choice) as recording:
            model(torch.ones(2, 4))
        assert recording.path == ("" if rank else f"by-{choice}")
    with pytest.raises(StoreError, match="the run of another training"):
        colordim.record(model, folder="taken").start()
    dist.destroy_process_group()


def sharded(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import fully_shard  # a second, which the other processes need not spend

    fully_shard(model.get_submodule("head"))
    fully_shard(model)
    return model


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have recorded."""
    tmp_path = tmp_path_factory.mktemp("two")
    with colordim.record(net(), folder=tmp_path / "taken") as recording, recording.batch():
        pass
    spawn(two_ranks, (tmp_path,), nprocs=2)
    return tmp_path


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_ranks_count_what_one_process_counts(two: Path, tmp_path: Path, name: str) -> None:
    model = Digits().train()
    with colordim.record(model, folder=tmp_path / "one") as recording:
        learn(model, slice(None), 2**-7, recording)
    one, run = recording.run, colordim.open(two / name)
    assert run.problems == ()
    assert run.batches["ranks"].tolist() == [2] * 4
    assert [s.name for s in run.streams] == ["body.0", "body.1", "body.2", "body.3", "head"], "no wrapper's name"
    for stream in one.streams:
        assert len(np.unique(np.flatnonzero(one.counts(stream)))) > 4
        np.testing.assert_array_equal(run.counts(stream.name), one.counts(stream), err_msg=stream.name)
        ours, theirs = run.moments(stream.name), one.moments(stream)
        assert ours.pop("calls").tolist() == [2] * 4
        assert theirs.pop("calls").tolist() == [1] * 4
        for key, values in theirs.items():
            # Sums of squares alone are no whole numbers, and round by the order of adding.
            np.testing.assert_allclose(
                ours[key], values, rtol=1e-14 * (key == "sum_sq"), err_msg=f"{stream.name} {key}"
            )
    np.testing.assert_array_equal(2 * run.batches["loss"], one.batches["loss"])


def test_spawned_ranks_make_up_one_folder_and_the_next_one(two: Path) -> None:
    paths = (two / "paths-0").read_text()
    assert paths == (two / "paths-1").read_text()
    for path in paths.split():
        assert colordim.open(two / path).batches["ranks"].tolist() == [2]


@pytest.mark.parametrize("choice", ["first", "node"])
def test_one_rank_records_alone(two: Path, choice: str) -> None:
    run = colordim.open(two / f"by-{choice}")
    assert run.length() == 1
    assert "ranks" not in run.batches
    assert [path.name for path in (two / f"by-{choice}").glob("rank=*")] == ["rank=0"]


def three_ranks(rank: int, tmp_path: Path) -> None:
    join_group(rank, 3, tmp_path)
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(4, 8), nn.Tanh()))
    with colordim.record(model, folder="uneven", every=(1, 2, 4)[rank]), Join([model]):
        for batch in range((11, 10, 5)[rank]):
            model(torch.full((2, 4), batch + rank / 4)).sum().backward()
    dist.destroy_process_group()


def test_three_ranks_with_other_intervals_and_fewer_batches(tmp_path: Path) -> None:
    spawn(three_ranks, (tmp_path,), nprocs=3)
    run = colordim.open(tmp_path / "uneven")
    with pytest.warns(ColordimWarning, match="holds"):
        assert run.batches["ranks"].tolist() == [3] * 5 + [2] * 5 + [1]
    assert run.problems == (
        "rank 1 holds 10 of 11 batches: it ended with 'stopped'.",
        "rank 2 holds 5 of 11 batches: it ended with 'stopped'.",
    )
    assert run.partial().tolist() == [False] * 5 + [True] * 6
    moments = run.moments("1")
    assert moments["first"].tolist() == [0, 4, 6, 8, 10], "what all of those recorded that hold it"
    assert moments["size"].tolist() == [3 * 16, 3 * 16, 2 * 16, 2 * 16, 16]


# Ranks as torchrun starts them, of which torch.distributed knows nothing.
DYING = """
import os, signal, torch, colordim
rank = int(os.environ["RANK"])
model = torch.nn.Sequential(torch.nn.Identity())
with colordim.record(model, folder="died") as recording:
    for batch in range(100):
        if rank == 1 and batch == 57:
            recording.run  # everything is written up to here
            os.kill(os.getpid(), signal.SIGKILL)
        with recording.batch("train"):
            model(torch.full((8,), batch + 1.0))
"""


@pytest.fixture(scope="module")
def died(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("died")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DYING],
            cwd=tmp_path,
            env=os.environ | {k: str(v) for k, v in TORCHRUN.items()} | {"RANK": str(rank), "WORLD_SIZE": "2"},
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, -signal.SIGKILL]
    return tmp_path / "died"


def test_a_rank_that_was_killed(died: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = colordim.open(died)
    assert run.batches["ranks"].tolist() == [2] * 57 + [1] * 43
    assert run.moments("0")["size"].tolist() == [16] * 57 + [8] * 43
    assert run.moments("0")["sum"].tolist() == [16 * (i + 1) for i in range(57)] + [8 * (i + 1) for i in range(57, 100)]
    assert run.ended is None
    assert run.problems == (), "it may be a flush behind"
    monkeypatch.setattr("colordim.store.ranks._BEHIND_SECONDS", 0.0)
    assert run.refresh().problems == (
        "rank 1 holds 57 of 100 batches: it was cut off, or is more than a minute behind.",
    )


def test_the_command_line_reads_all_ranks(
    two: Path, died: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from colordim.cli import main

    monkeypatch.setenv("COLUMNS", "200")
    for arguments, expected in (
        (["ls", str(two)], r"ddp +ended +4 +0"),
        (["ls", str(died)], r"live +100 +0"),
        (["show", str(two / "ddp"), "--terminal", "--layer", "head", "--width", "80"], r"head  Linear"),
        (["show", str(died), "--out", str(died.parent / "a.png")], r"Wrote .*a\.png"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
        found = capsys.readouterr().out
        assert re.search(expected, found), found
