"""Names of the files of a run folder, and writing them so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "BATCHES",
    "COLUMNS",
    "END",
    "MOMENTS_FOLDER",
    "RANK",
    "RUN",
    "SCHEMA",
    "STREAMS",
    "UNITS_FOLDER",
    "numbered",
    "replacing",
    "write_text",
]

#: Version of the layout; a reader refuses newer ones.
SCHEMA = 1

RUN = "run.json"
RANK = "rank=0"
STREAMS = "streams.json"
END = "end.json"
COLUMNS = "columns/level=0"
MOMENTS_FOLDER = "moments/level=0"
BATCHES = "batches"
UNITS_FOLDER = "units"

#: Windows opens files as text unless it is told otherwise.
BINARY = getattr(os, "O_BINARY", 0)


def numbered(first: int) -> str:
    """Return the number of a batch as it stands in file names, so that they sort."""
    return f"{first:010d}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; on success the file stands at `path`, whole and on the disk.

    The name begins with a dot, so that engines that read the folder skip what a crash leaves of it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        descriptor = os.open(temporary, os.O_RDWR | BINARY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write a small file whole, or leave the one that is there."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync_folder(folder: Path) -> None:
    if not hasattr(os, "O_DIRECTORY"):  # Windows has no such call
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
