"""What a list of runs says of each of them, without reading a column."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np

from colordim.column import PHASES
from colordim.run import Run

__all__ = ["QUIET_SECONDS", "Files", "State", "Summary", "files_of", "state", "summary"]

State = Literal["live", "ended", "cut off"]

#: Seconds without a write after which a run that has not ended counts as cut off.
QUIET_SECONDS = 60

#: Files of a run that are looked at: what it takes is then a lower bound.
_MOST_FILES = 20_000


@dataclass(frozen=True)
class Files:
    """The files of a run: how many, their bytes, and when one was written last (seconds since the epoch of the clock)."""

    number: int
    size: int
    written: float


@dataclass(frozen=True)
class Summary:
    """A run in a list.

    Attributes
    ----------
    name : str
    ended : str or None
        Why it ended, None if it has not.
    batches : dict of str to int
        By phase.
    epochs, streams : int
    last_loss : float or None
        Of the last training batch that logged one; of a run without, of the last batch.
    created : float or None
        Seconds since the epoch of the clock.
    """

    name: str
    ended: str | None
    batches: dict[str, int]
    epochs: int
    streams: int
    last_loss: float | None
    created: float | None


def files_of(folder: str | os.PathLike[str]) -> Files:
    """Return what the files of a run take; links and what cannot be looked at are left out."""
    number, size, written = 0, 0, 0.0
    for found in _stats(folder):
        number, size, written = number + 1, size + found.st_size, max(written, found.st_mtime)
        if number == _MOST_FILES:
            break
    return Files(number, size, written)


def _stats(folder: str | os.PathLike[str]) -> Iterator[os.stat_result]:
    for path, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                found = os.lstat(os.path.join(path, name))  # noqa: PTH118 - half the time of Path
                if stat.S_ISREG(found.st_mode):
                    yield found


def state(ended: str | None, written: float) -> State:
    """Return the state of a run that ended so, and was written last then."""
    if ended is not None:
        return "ended"
    return "live" if time.time() - written < QUIET_SECONDS else "cut off"


def summary(run: Run) -> Summary:
    """Return a run for a list; raises as its reader does."""
    table = run.batches
    losses = table.get("loss", np.full(len(table["phase"]), np.nan))
    known = losses[np.isfinite(losses) & (table["phase"] == "train")]
    if not len(known):
        known = losses[np.isfinite(losses)]
    return Summary(
        run.name,
        run.ended,
        {phase: run.length(phase) for phase in PHASES},
        max(len(run.epochs(phase)) for phase in PHASES),
        len(run.streams),
        float(known[-1]) if len(known) else None,
        _seconds(run.info.get("created")),
    )


def _seconds(created: object) -> float | None:
    with contextlib.suppress(ValueError, OverflowError):  # of a damaged run.json
        if isinstance(created, str):
            return datetime.fromisoformat(created).timestamp()
        if isinstance(created, (int, float)) and created:
            return float(created)
    return None
