"""Where a run is read from: a folder of this machine, or any that fsspec reaches, such as an object store."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from colordim.errors import ArgumentError, DependencyError

__all__ = ["LocalPlace", "Place", "RemotePlace", "is_url", "place_of"]

#: What has to be installed for an address, besides fsspec.
_PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
}


class Place(Protocol):
    """A folder that is read. Every method raises OSError, and FileNotFoundError for what is not there."""

    def __str__(self) -> str:
        """Path or address."""

    def at(self, name: str) -> Place:
        """Return a folder in this one."""

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder in this one; none if it is not there."""

    def read(self, name: str, start: int = 0) -> bytes:
        """Return a file from the byte `start` on."""

    def opened(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """Open a file for Arrow: what it is given is a path or a file object."""


class LocalPlace:
    """A folder of this machine, or of a file system that is mounted on it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return str(self.path)

    def at(self, name: str) -> LocalPlace:
        return LocalPlace(self.path / name)

    def names(self, folder: str = "") -> list[str]:
        try:
            return os.listdir(self.path / folder)  # noqa: PTH208 - half the time of Path.iterdir
        except (FileNotFoundError, NotADirectoryError):
            return []

    def read(self, name: str, start: int = 0) -> bytes:
        with (self.path / name).open("rb") as file:
            file.seek(start)
            return file.read()

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        yield self.path / name


class RemotePlace:
    """A folder that fsspec reaches.

    Parameters
    ----------
    url : str
        Such as ``s3://bucket/runs/lenet``.

    Raises
    ------
    DependencyError
        If fsspec, or the package for this kind of address, is not installed.
    ArgumentError
        If there is no such kind of address.
    """

    def __init__(self, url: str, system: Any = None, root: str = "") -> None:
        self.url = url.rstrip("/")
        if system is None:
            system, root = _connect(self.url)
        self._system = system
        self._root = root.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def at(self, name: str) -> RemotePlace:
        return RemotePlace(f"{self.url}/{name}", self._system, f"{self._root}/{name}")

    def names(self, folder: str = "") -> list[str]:
        path = f"{self._root}/{folder}".rstrip("/")
        with _as_os_errors(path):
            self._system.invalidate_cache(path)
            try:
                found = self._system.ls(path, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return [each.rstrip("/").rpartition("/")[2] for each in found]

    def read(self, name: str, start: int = 0) -> bytes:
        path = f"{self._root}/{name}"
        with _as_os_errors(path):
            return bytes(self._system.cat_file(path, start=start or None))

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        path = f"{self._root}/{name}"
        with _as_os_errors(path), self._system.open(path, "rb") as file:
            yield file


@contextlib.contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    """Turn what the clients of object stores raise into an OSError, and leave what Arrow says of the data."""
    try:
        yield
    except (OSError, ValueError, LookupError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise OSError(f"{path} cannot be read ({type(error).__name__}: {error})") from error


def _connect(url: str) -> tuple[Any, str]:
    kind = url.partition("://")[0]
    try:
        import fsspec
    except ImportError as error:
        raise DependencyError(
            f'reading {url} needs fsspec, which is not installed: pip install "colordim[remote]".'
        ) from error
    try:
        system, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(kind.partition("::")[0], "its package for fsspec")
        raise DependencyError(
            f"reading {url} needs {package}, which is not installed: pip install {package}."
        ) from error
    except ValueError as error:
        raise ArgumentError(f"{url} is no address that can be read: fsspec knows no {kind}://.") from error
    return system, str(root)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether it is an address, and not a path."""
    return isinstance(path, str) and "://" in path


def place_of(path: str | os.PathLike[str]) -> Place:
    """Return the place of a path or an address; raises as :class:`RemotePlace` does."""
    if isinstance(path, str) and is_url(path):
        return LocalPlace(path[7:]) if path.startswith("file://") else RemotePlace(path)
    return LocalPlace(path)
