"""Reading a run without leaving a folder, whatever links and special files are in it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from colordim.store.place import LocalPlace

__all__ = ["ConfinedPlace", "inside"]

_MB = 1 << 20

#: Bytes of a file by how its name ends: what recordings write is far below. Describing files and tails are read whole.
_MOST_BYTES = {".json": 32 * _MB, ".cdt": 1024 * _MB, ".parquet": 16 * 1024 * _MB}

#: Names of a folder that are looked at: a long run has some hundred files in one.
_MOST_NAMES = 100_000

# A pipe is not waited for, and a link that has come since it was looked at is not followed; Windows has neither.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def inside(path: str | os.PathLike[str], root: str) -> str | None:
    """Return the path without links, or None if it is not in `root`, which has none."""
    real = os.path.realpath(path)
    return real if real == root or real.startswith(root.rstrip(os.sep) + os.sep) else None


class ConfinedPlace(LocalPlace):
    """A folder that is read with all links followed that stay in another, and none that leave it.

    Parameters
    ----------
    path : path-like
    root : str
        The folder that is not left, without links in its path.
    """

    def __init__(self, path: str | os.PathLike[str], root: str) -> None:
        super().__init__(path)
        self._root = root

    def at(self, name: str) -> ConfinedPlace:
        return ConfinedPlace(self.path / name, self._root)

    def names(self, folder: str = "") -> list[str]:
        try:
            with os.scandir(self._real(folder)) as entries:
                return [entry.name for entry, _ in zip(entries, range(_MOST_NAMES), strict=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str, start: int = 0) -> bytes:
        with os.fdopen(self._descriptor(name), "rb") as file:
            file.seek(start)
            # Not to the end of a file that grows faster than it is read.
            return file.read(_most_bytes(name))

    @contextlib.contextmanager
    def opened(self, name: str, size: int | None = None) -> Iterator[Path]:
        # Arrow reads a path without holding the interpreter's lock, and a file object not.
        os.close(self._descriptor(name))
        yield Path(self._real(name))

    def _real(self, name: str) -> str:
        real = inside(self.path / name, self._root)
        if real is None:
            raise OSError(f"{name or self.path.name} is a link that leads out of the folder that is served")
        return real

    def _descriptor(self, name: str) -> int:
        """Open a regular file of a size that can be."""
        descriptor = os.open(self._real(name), _FLAGS)
        try:
            found = os.fstat(descriptor)
            if stat.S_ISDIR(found.st_mode):
                raise OSError(f"{name} is a folder")
            if not stat.S_ISREG(found.st_mode):
                raise OSError(f"{name} is no regular file")
            if found.st_size > _most_bytes(name):
                raise OSError(f"{name} has {found.st_size:,} bytes, more than any recording writes")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _most_bytes(name: str) -> int:
    return _MOST_BYTES.get(os.path.splitext(name)[1], 32 * _MB)  # noqa: PTH122 - a part of a name
