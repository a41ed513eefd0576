"""Going on in a run after a crash, a kill or a requeue: to where, and in what state its folder is then.

Nothing is half done at any instant: until the end, the run is the one that was there, or that with less at its end.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import PHASES, Phase, Position, Stream
from colordim.errors import ArgumentError, ColordimError, StoreError
from colordim.store import files
from colordim.store.cutting import cut, keep_aside, sealed, tail_path, tails
from colordim.store.description import read_info, read_streams
from colordim.store.disk import Adopted, describe_rank, lay_out, read_json
from colordim.store.folder import FolderReader
from colordim.store.place import LocalPlace
from colordim.store.segments import Segment
from colordim.store.spans import dropped_until
from colordim.store.tail import TailReader, TailWriter

__all__ = ["Resume", "Resumed", "check_writer", "declared", "resume"]

Table = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Resume:
    """From where on a run is recorded anew.

    Attributes
    ----------
    train, valid : int, optional
        Batches of each phase that the checkpoint has seen. Without `train`, all that the run holds (and all its ranks
        hold) stay; without `valid`, those before the first training batch that is cut off.
    rank : int, optional
        The rank that saved this; others may have validated other batches.
    epoch, step, seen, told : optional
        The rest of what :meth:`colordim.Recording.state_dict` gives.
    attempt : str, optional
        What this start of the training is known by on all its ranks, and no other start is.
    """

    train: int | None = None
    valid: int | None = None
    rank: int | None = None
    epoch: int | None = None
    step: int | None = None
    seen: Sequence[Phase] | None = None
    told: bool = False
    attempt: str | None = None

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Resume:
        """Return what a ``state_dict()`` says.

        Raises
        ------
        ArgumentError
            If it is none.
        """
        known = ("train", "valid", "rank", "epoch", "step", "seen", "told")
        numbers = [state.get(name) for name in known[:5]]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ArgumentError(
                f"resume={dict(state)!r} is not what state_dict() returned: pass that, the folder of the run, or "
                '"auto".',
                page="resume#with-a-checkpoint",
            )
        return cls(**{name: state.get(name) for name in known})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Resumed:
    """A run that is ready to be gone on with.

    Attributes
    ----------
    position : Position
    adopted : Adopted
        For the disk.
    said : tuple of str
        Sentences for the user: what is missing.
    """

    position: Position
    adopted: Adopted
    said: tuple[str, ...]


def declared(path: Path) -> tuple[Stream, ...]:
    """Return the streams that a run, or a rank in it, has so far; none if it has not begun."""
    rank = files.rank_folder(path)
    return read_streams(LocalPlace(rank.parent), rank.name) if (rank / files.STREAMS).exists() else ()


def resume(path: Path, info: Mapping[str, Any], wanted: Resume) -> Resumed:
    """Make the folder of a run, or of a rank in it, one in which recording goes on.

    Parameters
    ----------
    path : Path
        Folder of the run; or ``run/rank=K`` of several.
    info : mapping
        As for a new run; only ``rank`` is used.
    wanted : Resume

    Raises
    ------
    NotARunError, FormatError
        If there is no run, or a file without which nothing can be read is damaged.
    StoreError
        If the run is being recorded by another process, was recorded by another number of ranks, or cannot be written.
    ArgumentError
        If nothing tells all ranks where to go on.
    """
    rank = files.rank_folder(path)
    read_info(LocalPlace(rank.parent))
    described = describe_rank(rank, info)
    _check_world(rank, described)
    check_writer(rank)
    try:
        return _resume(rank, described, wanted)
    except ColordimError:
        raise
    except OSError as error:
        raise StoreError(
            f"the run {rank.parent} cannot be resumed ({error.strerror or error}): make its folder writable, or record "
            "into another.",
            page="resume",
        ) from error


def _resume(rank: Path, described: Mapping[str, Any], wanted: Resume) -> Resumed:
    number = described["rank"]
    begins = not (rank / files.STREAMS).exists() and not tails(rank) and not sealed(rank)
    if described["world_size"] > 1:
        wanted = _agreed(rank, described, wanted)
    if begins:
        lay_out(rank, {**described, "attempt": None})
    shutil.rmtree(rank.parent / f".cut.{rank.name}.tmp", ignore_errors=True)
    reader = FolderReader(rank.parent, number)
    _tidy(reader, rank)
    table = reader.batches()
    stop = _stop(table, wanted)
    kept = {
        name: values[: len(table["batch"]) if stop is None else _before(table, stop)] for name, values in table.items()
    }
    end = read_json(rank / files.END) if (rank / files.END).exists() else None
    exact = wanted.rank == number or not len(table["batch"])
    position = _position(table, kept, wanted, exact, ended=end is not None and end.get("reason") == "stopped")
    position = replace(position, streams=reader.streams)
    stop = position.batch if stop is None else stop
    if stop <= dropped_until(LocalPlace(rank)):
        raise StoreError(
            f"{rank.parent} keeps only sums of the batches around {stop}, as max_bytes was reached, and sums cannot be cut: "
            "record into another folder.",
            page="resume#what-is-missing",
        )

    about = {"train": position.index["train"], "valid": position.index["valid"], "batch": position.batch}
    aside = keep_aside(reader, rank, stop, wanted.attempt, {**about, "first": stop})
    # Before anything is missing that it counted.
    (rank / files.END).unlink(missing_ok=True)
    there = {**described, **(read_json(rank / files.RANK_FILE) if (rank / files.RANK_FILE).exists() else {})}
    there |= {name: described[name] for name in ("host", "pid")}
    damaged = list(there.get("damaged", []))

    def lost(problems: Sequence[str]) -> None:
        new = (f"{problem[:-1]}; what is left of it is in {aside}." for problem in problems)
        there["damaged"] = [*damaged, *new]
        files.write_text(rank / files.RANK_FILE, files.to_json(there))

    if aside:
        cut(reader, rank, stop, _ends(kept), lost)
    missing = _missing(kept, position)
    entry = {
        **{name: described[name] for name in ("host", "pid")},
        "time": time.time(),
        "attempt": wanted.attempt,
        **about,
        "agreed": {"train": wanted.train, "valid": wanted.valid},
        "epoch": position.epoch,
        "cut": aside,
        "missing": missing,
        "end": end,
    }
    # What was missing behind the cut is recorded again.
    earlier = [{**each, "missing": []} if each["batch"] > position.batch else each for each in there.get("resumed", [])]
    files.write_text(rank / files.RANK_FILE, files.to_json({**there, "resumed": [*earlier, entry]}))
    adopted = Adopted(len(reader.streams), len(kept["batch"]), _adopt(reader, rank))
    return Resumed(position, adopted, (*missing, *there.get("damaged", [])[len(damaged) :]))


# Where to go on.


def _stop(table: Table, wanted: Resume) -> int | None:
    """Return the number of the first batch that the checkpoint has not seen, or None if it has seen all."""
    late = np.zeros(len(table["batch"]), np.bool_)
    for phase, seen in (("train", wanted.train), ("valid", wanted.valid)):
        if seen is not None:
            late |= (table["phase"] == phase) & (table["index"] >= seen)
    return int(table["batch"][np.argmax(late)]) if late.any() else None


def _before(table: Table, stop: int) -> int:
    return int(np.searchsorted(table["batch"], stop))


def _ends(kept: Table) -> dict[Phase, int]:
    """Return the next index of each phase."""
    return {phase: int(kept["index"][kept["phase"] == phase].max(initial=-1)) + 1 for phase in PHASES}


def _position(table: Table, kept: Table, wanted: Resume, exact: bool, ended: bool) -> Position:
    held, number = _ends(kept), len(kept["batch"])
    index = dict(held)
    if wanted.train is not None:
        index["train"] = wanted.train
    if wanted.valid is not None and exact:
        index["valid"] = wanted.valid
    lost = sum(index.values()) - sum(held.values())
    epoch, step = (int(kept[name][-1]) if number else 0 for name in ("epoch", "step"))
    if held["train"]:  # as many steps a batch as before
        step += round((index["train"] - held["train"]) * step / held["train"])
    of_epoch = kept["phase"][kept["epoch"] == epoch].tolist()
    seen = frozenset[Phase](of_epoch)
    if number < len(table["batch"]):
        over = bool(table["epoch"][number] > epoch)
    else:  # nothing tells for sure: it ended, or validation came last, or the epoch was as long as the one before
        before = np.count_nonzero((kept["epoch"] == epoch - 1) & (kept["phase"] == "train"))
        over = ended or of_epoch[-1:] == ["valid"] or 0 < before <= of_epoch.count("train")
    if wanted.seen is not None:
        over = over and wanted.epoch == epoch
        seen = frozenset(wanted.seen)
    return Position(
        batch=int(kept["batch"][-1]) + 1 + lost if number else lost,
        index=index,
        epoch=epoch if wanted.epoch is None else wanted.epoch,
        step=step if wanted.step is None else wanted.step,
        seen=seen,
        within=bool(seen) and not over,
        told=wanted.told,
        stepped=int(
            np.count_nonzero((kept["phase"] == "train") & kept["recorded"] & (np.diff(kept["step"], prepend=0) > 0))
        ),
    )


def _missing(kept: Table, position: Position) -> list[str]:
    """Say which batches the checkpoint has seen and the run does not hold."""
    return [
        f"{phase} batches {end} to {position.index[phase] - 1} are missing: the run was resumed from a checkpoint that "
        "has seen them, and they had not been written."
        for phase, end in _ends(kept).items()
        if position.index[phase] > end
    ]


def _agreed(rank: Path, described: Mapping[str, Any], wanted: Resume) -> Resume:
    """Return the position at which all ranks go on: the one that is given, or that of the first to come, or the least."""
    if wanted.train is not None:
        return wanted
    folders = {
        number: path for path in sorted(rank.parent.iterdir()) if (number := files.rank_number(path)) is not None
    }
    known = {number: read_json(path / files.RANK_FILE) for number, path in folders.items() if _has(path)}
    mine = known.pop(described["rank"], {})
    attempts = [mine.get("attempt"), *(entry.get("attempt") for entry in mine.get("resumed", []))]
    if wanted.attempt is None or wanted.attempt in attempts:
        raise ArgumentError(
            f"nothing tells the {described['world_size']} ranks at which batch all of them go on: pass the state_dict() of "
            "a checkpoint as resume=, or resume_at=.",
            page="resume#with-a-checkpoint",
        )
    for other in known.values():
        last = (other.get("resumed") or [{**other, "agreed": {"train": 0, "valid": 0}}])[-1]
        if last.get("attempt") == wanted.attempt:
            return replace(wanted, **last["agreed"])
    held = [_held(rank.parent, number) for number in (*known, *([described["rank"]] if mine else []))]
    # A rank without any has lost them all, or never began; others never validate.
    least = {phase: min((ends[phase] for ends in held if ends[phase]), default=None) for phase in PHASES}
    return replace(wanted, train=least["train"] or 0, valid=least["valid"])


def _has(rank: Path) -> bool:
    return (rank / files.RANK_FILE).exists() and (rank / files.STREAMS).exists()


def _held(run: Path, number: int) -> dict[Phase, int]:
    """Return the next index of each phase of a rank, which may be cutting off batches this very moment."""
    found = None
    while (again := _ends(FolderReader(run, number).batches())) != found:
        found = again
    return again


# Who may.


def _check_world(rank: Path, described: Mapping[str, Any]) -> None:
    for path in sorted(rank.parent.glob(f"rank=*/{files.RANK_FILE}")):
        there = read_json(path).get("world_size", described["world_size"])
        if there != described["world_size"]:
            raise StoreError(
                f"{rank.parent} was recorded by {there} ranks, and this training has {described['world_size']}: resume it "
                "with as many, or record into another folder.",
                page="resume",
            )


def check_writer(rank: Path) -> None:
    """Refuse a run that another process of this machine is writing; of other machines nothing is known."""
    if (rank / files.END).exists() or not (rank / files.RANK_FILE).exists():
        return
    there = read_json(rank / files.RANK_FILE)
    pid, since = there.get("pid"), (there.get("resumed") or [{"time": there.get("begun")}])[-1].get("time")
    if there.get("host") != platform.node() or not isinstance(pid, int) or pid == os.getpid():
        return
    if _is_alive(pid, since if isinstance(since, float) else time.time()):
        raise StoreError(
            f"{rank.parent} is being recorded by process {pid}: stop that first, or record into another folder.",
            page="resume#who-writes",
        )


def _is_alive(pid: int, since: float) -> bool:
    """Whether a process runs that was there at a time, so that it is no later one of the same number."""
    if os.name != "posix":  # elsewhere, asking may end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is somebody else's
        pass
    try:  # Linux: state, and start in ticks since the system started, are the fields 3 and 22 of man proc_pid_stat
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
        begun = time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return True
    return fields[0] not in "ZX" and begun <= since + 2


# What is taken over.


def _tidy(reader: FolderReader, rank: Path) -> None:
    """Remove tails that hold nothing: that were begun, or left by a crash between sealing and removing."""
    there = sealed(rank)
    for first in tails(rank):
        if first in there:
            useless = not any(files.numbered(first) in problem for problem in reader.problems)
        else:
            tail = _tail(rank, first)
            useless = not tail.frames and not tail.problems
        if useless:
            tail_path(rank, first).unlink()


def _adopt(reader: FolderReader, rank: Path) -> list[tuple[Segment, TailWriter]]:
    """Return the whole tails behind the last sealed segment, without what a crash has left of a frame.

    A damaged one stays as it is, and is reported.
    """
    last = max(sealed(rank), default=-1)
    adopted = []
    for first in tails(rank):
        tail = _tail(rank, first)
        if first > last and not tail.problems:
            segment = Segment(first)
            for frame in tail.frames:
                segment.add(frame, reader.streams)
            adopted.append((segment, TailWriter.resume(tail_path(rank, first), tail.size)))
    return adopted


def _tail(rank: Path, first: int) -> TailReader:
    tail = TailReader(LocalPlace(rank), tail_path(rank, first).name, first)
    tail.refresh(ended=False)
    return tail
