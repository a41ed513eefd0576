"""Beginning to write: a new run or one that is gone on with, in its own folder or on scratch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colordim.column import Position
from colordim.store import files
from colordim.store.disk import Adopted, create, lay_out, read_json
from colordim.store.mirror import make_scratch
from colordim.store.resume import Resume, Resumed, resume

__all__ = ["begin"]


def begin(
    path: Path, info: Mapping[str, Any], wanted: Resume | None, scratch: str | os.PathLike[str] | None
) -> tuple[Path, Resumed]:
    """Lay out the folder of a run, or of a rank in it, or make the one that is there ready to be gone on with.

    Parameters
    ----------
    path : Path
        Folder of the run; or ``run/rank=K`` of several.
    info : mapping
        What is written once of the run.
    wanted : Resume or None
        From where on the run that is there is recorded anew; None for a new run.
    scratch : path-like or None
        Where the rank's part is written, if it is not to be written in its place.

    Returns
    -------
    (Path, Resumed)
        The folder that is to be written, that of the run or that of the rank on scratch; and where to go on.

    Raises
    ------
    StoreError, NotARunError, FormatError, ArgumentError
        As :func:`colordim.store.disk.create`, :func:`colordim.store.resume.resume` and
        :func:`colordim.store.mirror.make_scratch` do.
    """
    if scratch is None:
        if wanted is not None:
            return path, resume(path, info, wanted)
        create(path, info)
        return path, _NEW
    rank = files.rank_folder(path)
    home = make_scratch(scratch, rank.parent)
    try:
        if wanted is None:
            create(home / rank.name, info)
            create(path, info)  # last: where scratch is of no use, no run is begun
            return home / rank.name, _NEW
        resumed = resume(path, info, wanted)
        for segment, tail in resumed.adopted.tails:  # scratch begins with a segment of its own
            tail.close()
            segment.seal(rank, resumed.position.streams, lambda: None)
            tail.remove()
        lay_out(home / rank.name, read_json(rank / files.RANK_FILE))
        for name in (files.STREAMS, files.FACTS):
            if (rank / name).exists():
                shutil.copyfile(rank / name, home / rank.name / name)
        shutil.copyfile(rank.parent / files.RUN, home / files.RUN)
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    adopted = Adopted(resumed.adopted.streams, resumed.adopted.batches)
    return home / rank.name, Resumed(resumed.position, adopted, resumed.said)


_NEW = Resumed(Position(), Adopted(), ())
