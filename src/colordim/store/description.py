"""What a run says of itself in small JSON files, and finding runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from colordim.column import Stream
from colordim.errors import AxisError, FormatError, NotARunError, StoreError
from colordim.store import files
from colordim.store.place import LocalPlace, Place, reason

__all__ = ["find_runs", "parse", "read_facts", "read_info", "read_streams", "unreadable"]

#: Folders that are searched for runs to be named in an error.
_SEARCHED = 2000

#: Bins of all streams of a rank at most: a column of each takes 256 MB.
_MOST_BINS = 1 << 25


def read_info(run: Place) -> dict[str, Any]:
    """Return what was written once of a run.

    Raises
    ------
    NotARunError
        If there is no run; the message names runs below the folder.
    StoreError
        If an address cannot be reached, or not with these credentials.
    FormatError
        If it was written by a newer colordim, or is damaged.
    """
    try:
        text = run.read(files.RUN)
    except FileNotFoundError:
        raise NotARunError(_no_run(run)) from None
    except NotADirectoryError:
        raise NotARunError(f"{run} is a file: give the folder of a run, which holds a {files.RUN}.") from None
    except OSError as error:
        raise unreadable(run, error) from error
    info = parse(f"{run}/{files.RUN}", text)
    schema = info.get("schema")
    if not isinstance(schema, int) or schema < 1:
        raise FormatError(f"{run}/{files.RUN} is damaged: it names no schema; restore it from a copy.")
    if schema > files.SCHEMA:
        raise FormatError(
            f"the run {run} was written by a newer colordim (schema {schema}, this one reads up to {files.SCHEMA}): "
            "update colordim."
        )
    return info


def unreadable(run: Place, error: OSError) -> NotARunError | StoreError:
    """Return what is raised if a run may be there, and cannot be read."""
    if run.remote:
        return StoreError(
            f"the run {run} cannot be read ({reason(error)}): check the address, the credentials and the connection."
        )
    return NotARunError(f"the run {run} cannot be read ({reason(error)}): check its permissions.")


def _no_run(run: Place) -> str:
    if not isinstance(run, LocalPlace):
        try:
            there = sorted(filter(None, run.names()))
        except OSError:  # some may read and not list
            there = []
        if there:
            held = ", ".join(there[:3]) + (", ..." if len(there) > 3 else "")
            return f"{run} is not a run, as it holds no {files.RUN}, but {held}: check the address."
        return f"there is nothing at {run}: check the address."
    path = run.path
    if not path.exists():
        return f"there is no folder {path}: check the path."
    below = list(islice(_runs_below(path, _SEARCHED), 3))
    if below:
        return (
            f"{path} is not a run, as it holds no {files.RUN}; there are runs below it: {', '.join(map(str, below))}."
        )
    return f"{path} is not a run, as it holds no {files.RUN}: give the folder that was recorded into."


def read_facts(rank: Place) -> Mapping[str, Any]:
    """Return what was learnt of the model when it first ran; empty before, and if its file is damaged."""
    try:
        return parse(f"{rank}/{files.FACTS}", rank.read(files.FACTS))
    except (OSError, FormatError):
        return {}


def read_streams(run: Place, rank: str) -> tuple[Stream, ...]:
    """Return the streams of a rank, by id; raises as :func:`read_info` does."""
    name = f"{rank}/{files.STREAMS}"
    path = f"{run}/{name}"
    try:
        text = run.read(name)
    except FileNotFoundError:
        if not run.names():
            raise NotARunError(f"the run {run} is gone: it was deleted or moved.") from None
        raise FormatError(f"the run {run} is damaged: {path} is missing; restore it from a copy.") from None
    except OSError as error:
        raise unreadable(run, error) from error
    try:
        described = parse(path, text)["streams"]
        bins = sum(max(int(each["axis"].get("bins", 0)), 0) for each in described)
        if bins > _MOST_BINS:  # before edges are made of them
            raise FormatError(f"{path} is damaged: it declares {bins:,} bins; restore it from a copy.")
        streams = tuple(Stream.from_dict(each) for each in described)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, (AxisError, FormatError)):
            raise FormatError(str(error)) from None
        raise FormatError(f"{path} is damaged ({error!r}): restore it from a copy.") from error
    if [stream.id for stream in streams] != list(range(len(streams))):
        raise FormatError(f"{path} is damaged (the ids of its streams are not 0, 1, ...): restore it from a copy.")
    return streams


def parse(path: str, text: bytes) -> dict[str, Any]:
    """Return a JSON object; raises a FormatError that names the file."""
    try:
        return files.from_json(text)
    except ValueError as error:
        raise FormatError(f"{path} is damaged ({error}): restore it from a copy.") from error


def find_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the runs in `folder`, itself included, sorted by path.

    Folders inside a run and hidden folders are not searched; what cannot be read is skipped.
    """
    return sorted(_runs_below(Path(folder), None))


def _runs_below(folder: Path, limit: int | None) -> Iterator[Path]:
    for path, folders, names in islice(os.walk(folder), limit):
        if files.RUN in names:
            folders.clear()
            yield Path(path)
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))
