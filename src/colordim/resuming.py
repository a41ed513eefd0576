"""Where a recording goes on: what ``resume=``, ``resume_at=`` and ``folder=`` say together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colordim.errors import ArgumentError
from colordim.store.resume import Resume
from colordim.views import Run

__all__ = ["AT_A_CHECKPOINT", "as_resume"]

#: The page of the manual on going on from a checkpoint.
AT_A_CHECKPOINT = "resume#with-a-checkpoint"


def as_resume(
    resume: str | os.PathLike[str] | Run | Mapping[str, Any] | None,
    resume_at: int | None,
    folder: str | os.PathLike[str] | None,
) -> tuple[Path | None, Resume | None]:
    """Return the folder of the run to be resumed, and where to go on; None for a new run.

    Raises
    ------
    ArgumentError
        If the arguments do not fit together.
    """
    if resume_at is not None:
        if not isinstance(resume_at, int) or isinstance(resume_at, bool) or resume_at < 0:
            raise ArgumentError(
                f"resume_at={resume_at!r} cannot be: it is the number of training batches that the checkpoint has seen.",
                page=AT_A_CHECKPOINT,
            )
        if resume is None:
            raise ArgumentError(
                f'resume_at={resume_at} needs the run to be resumed: pass resume="auto" or its folder.',
                page=AT_A_CHECKPOINT,
            )
    if resume is None:
        return None, None
    wanted = Resume(train=resume_at)
    if isinstance(resume, Mapping) and resume:
        if resume_at is not None:
            raise ArgumentError("resume= says already where to go on: leave resume_at= out.", page=AT_A_CHECKPOINT)
        wanted = Resume.from_state(resume)
        named = resume.get("run") if folder is None else folder  # the run may have been moved
    elif isinstance(resume, Mapping) or resume == "auto":
        if folder is None and resume == "auto":
            raise ArgumentError(
                'resume="auto" needs the folder that the run is in, if there is one: pass folder=.',
                page=AT_A_CHECKPOINT,
            )
        if folder is None:  # the checkpoint was saved without a recording
            return None, None
        named = folder
    else:
        named = resume.path if isinstance(resume, Run) else resume
        if folder is not None and Path(folder).absolute() != Path(named).absolute():
            raise ArgumentError(
                f"resume={str(named)!r} and folder={str(folder)!r} are two runs: leave folder= out.",
                page=AT_A_CHECKPOINT,
            )
    if not isinstance(named, (str, os.PathLike)) or not str(named):
        raise ArgumentError(f"resume={resume!r} names no run in a folder: pass its folder.", page=AT_A_CHECKPOINT)
    return Path(named), wanted
