"""Which rank of a distributed training this process is, and what tells all its ranks the same run folder.

No other rank is ever asked: all of it follows from this process, its environment and its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch.distributed

from colordim.errors import ArgumentError

__all__ = ["Choice", "Rank", "attempt", "job", "recorded", "restart", "this_rank"]

#: Which ranks record: all, the first of each machine, or rank 0 alone.
Choice = Literal["all", "node", "first"]

# Slurm numbers steps from 0; these stand for the batch script, an interactive shell, what runs beside a job, ...
_NO_PARALLEL_STEP = 0xFFFFFFF0


@dataclass(frozen=True)
class Rank:
    """One process among those that train, or that record, together.

    Attributes
    ----------
    rank : int
        Its number among those that train.
    world_size : int
        How many there are.
    local_rank : int or None
        Its number among those on the same machine; None if nothing tells.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int | None = 0


def this_rank() -> Rank:
    """Return what torch.distributed says if it is initialised, else torchrun's environment, else Slurm's."""
    rank, world = _number("RANK"), _number("WORLD_SIZE")
    if _is_initialized():
        rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    elif rank is None or world is None:
        rank, world = _number("SLURM_PROCID"), _slurm_tasks()
    if rank is None or not rank < world:
        return Rank()
    local = _number("LOCAL_RANK")
    if local is None and _slurm_tasks() == world:
        local = _number("SLURM_LOCALID")
    if local is None and _on_one_machine(world):
        local = rank
    return Rank(rank, world, local) if world > 1 else Rank()


def recorded(choice: Choice) -> Rank | None:
    """Return this rank among those that record, or None if it does not.

    Raises
    ------
    ArgumentError
        If there is no such choice, or nothing tells which ranks share a machine.
    """
    if choice not in get_args(Choice):
        raise ArgumentError(
            f"ranks={choice!r} cannot be: take one of {', '.join(map(repr, get_args(Choice)))}.",
            page="ranks#which-rank-which-folder",
        )
    mine = this_rank()
    if choice == "all" or mine.world_size == 1:
        return mine
    if choice == "first":
        return None if mine.rank else Rank()
    nodes = _nodes(mine.world_size)
    if mine.local_rank is None or nodes is None:
        raise ArgumentError(
            'ranks="node" needs to know which ranks share a machine, and nothing here tells: start them with torchrun '
            'or srun, or take ranks="first".',
            page="ranks#which-rank-which-folder",
        )
    if mine.local_rank:
        return None
    return Rank(mine.rank, nodes) if nodes > 1 else Rank()


def job() -> str | None:
    """Return what identifies the training on each of its ranks alike, or None if nothing does.

    That is the id of a torchrun or of a Slurm step; or, for ranks that one process has started on one
    machine, that process. It is no time, as ranks start at different ones.
    """
    name = _job()
    return None if name is None else name + restart()


def attempt() -> str | None:
    """Return what tells this start of the training from its earlier ones, on each of its ranks alike, or None.

    A requeued job of Slurm that starts torchrun with the same id counts as another one.
    """
    name = _job()
    if name is None:
        return None
    requeued = _number("SLURM_RESTART_COUNT") if "TORCHELASTIC_RESTART_COUNT" in os.environ else None
    return name + (f"-requeue{requeued}" if requeued else "") + restart(sure=True)


def _job() -> str | None:
    elastic = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    slurm_job, slurm_step = _number("SLURM_JOB_ID"), _number("SLURM_STEP_ID")
    if elastic not in ("", "none"):
        name = elastic
    elif _on_one_machine(this_rank().world_size):
        name = _parent()
    elif slurm_job is not None and slurm_step is not None and slurm_step < _NO_PARALLEL_STEP:
        name = f"slurm-{slurm_job}.{slurm_step}"
    else:
        return None
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)


def restart(*, sure: bool = False) -> str:
    """Return what tells a training that torchrun or Slurm has started again from its earlier attempts.

    Of several nodes under torchrun, those on which no process has failed may not count a restart: if it has
    to be `sure` that all ranks count alike, nothing is returned there.
    """
    attempt = _number("TORCHELASTIC_RESTART_COUNT")
    if attempt is None:
        attempt = _number("SLURM_RESTART_COUNT")
    elif sure and not _on_one_machine(this_rank().world_size):
        return ""
    return f"-restart{attempt}" if attempt else ""


def _is_initialized() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else None


def _slurm_tasks() -> int:
    """Return how many tasks the Slurm step has of which this process is one; 1 outside of a step."""
    step = _number("SLURM_STEP_ID")
    if step is None or step >= _NO_PARALLEL_STEP or _number("SLURM_PROCID") is None:
        return 1
    return _number("SLURM_STEP_NUM_TASKS") or _number("SLURM_NTASKS") or 1


def _nodes(world: int) -> int | None:
    nodes = _number("GROUP_WORLD_SIZE")
    if nodes is None and _slurm_tasks() == world:
        nodes = _number("SLURM_STEP_NUM_NODES") or _number("SLURM_NNODES")
    return 1 if nodes is None and _on_one_machine(world) else nodes


def _on_one_machine(world: int) -> bool:
    """Whether all ranks are on this machine and have the same parent, as far as the environment tells."""
    if _number("LOCAL_WORLD_SIZE") == world or _number("GROUP_WORLD_SIZE") == 1:
        return True
    # Processes of multiprocessing, as torch.multiprocessing.spawn starts them, that meet on the loopback address.
    address = os.environ.get("MASTER_ADDR", "")
    loopback = address in ("localhost", "::1") or address.startswith("127.")
    return loopback and multiprocessing.parent_process() is not None and _is_initialized()


def _parent() -> str:
    """Identify the process that started the ranks: machine, process id, start time, and which start of several."""
    parent = multiprocessing.parent_process()
    number = os.getppid() if parent is None else parent.pid
    parts = [platform.node(), str(number)]
    stat = Path(f"/proc/{number}/stat")
    if stat.exists():  # Linux; the time, in ticks since the system started, is the 20th field after the name
        parts.append(stat.read_text().rpartition(")")[2].split()[19])
    if parent is not None:
        # multiprocessing numbers its processes from 1, so that a second spawn differs from the first in this.
        started = multiprocessing.current_process().name.rpartition("-")[2]
        if started.isdecimal() and (spawn := int(started) - this_rank().rank) != 1:
            parts[-1] += f".{spawn}"
    return "-".join(parts)
