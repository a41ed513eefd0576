"""Names of the files of a run folder, and writing them so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "BATCHES",
    "COLUMNS",
    "DROPPED",
    "END",
    "FACTS",
    "MOMENTS_FOLDER",
    "RANK",
    "RANK_FILE",
    "RUN",
    "SCHEMA",
    "STREAMS",
    "UNITS_FOLDER",
    "columns_folder",
    "from_json",
    "moments_folder",
    "numbered",
    "rank_folder",
    "rank_name",
    "rank_number",
    "replacing",
    "sync_folder",
    "to_json",
    "write_new",
    "write_text",
]

#: Version of the layout; a reader refuses newer ones.
SCHEMA = 1

RUN = "run.json"
RANK = "rank=0"
RANK_FILE = "rank.json"
STREAMS = "streams.json"
END = "end.json"
DROPPED = "dropped.json"
FACTS = "facts.json"
COLUMNS = "columns/level=0"
MOMENTS_FOLDER = "moments/level=0"
BATCHES = "batches"
UNITS_FOLDER = "units"

#: Entry of a small file that holds the checksum of the others.
_CRC = "crc32"

#: Windows opens files as text unless it is told otherwise.
BINARY = getattr(os, "O_BINARY", 0)


def columns_folder(level: int) -> str:
    """Return the name of the folder of the columns of a level."""
    return f"columns/level={level}"


def moments_folder(level: int) -> str:
    """Return the name of the folder of the moments of a level."""
    return f"moments/level={level}"


def numbered(first: int) -> str:
    """Return the number of a batch as it stands in file names, so that they sort."""
    return f"{first:010d}"


def rank_name(rank: int) -> str:
    """Return the name of a rank's folder."""
    return f"rank={rank}"


def rank_number(path: Path | str) -> int | None:
    """Return whose rank's folder `path` is, by its name, or None if it is no such folder."""
    found = re.fullmatch(r"rank=(0|[1-9]\d*)", Path(path).name)
    return int(found[1]) if found else None


def rank_folder(path: Path) -> Path:
    """Return the folder that a rank writes: `path` if it is one, or that of rank 0 in the run `path`."""
    return path / RANK if rank_number(path) is None else path


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
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def to_json(value: Mapping[str, Any]) -> str:
    """Return the text of a small file, with a checksum as its last entry."""
    plain = json.loads(json.dumps(value, default=str))
    return json.dumps({**plain, _CRC: _crc(plain)}, indent=1) + "\n"


def from_json(text: bytes | str) -> dict[str, Any]:
    """Return what :func:`to_json` was given; without a checksum, as in runs of earlier versions, none is compared.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    if _CRC in value and value.pop(_CRC) != _crc(value):
        raise ValueError("its checksum does not match")
    return value


def _crc(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps({name: each for name, each in value.items() if name != _CRC}).encode())


def write_text(path: Path, text: str) -> None:
    """Write a small file whole, or leave the one that is there."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_new(path: Path, text: str) -> bool:
    """Write a small file whole unless it is there; return whether it was written.

    Of several processes, on several machines, one succeeds: a link is made or not, also on NFS.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return temporary.stat().st_nlink == 2  # the answer to a link that was made may be lost on NFS
        except (OSError, NotImplementedError):  # a file system without links
            return _write_exclusively(path, text)
        sync_folder(path.parent)
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_exclusively(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows has no such call
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
