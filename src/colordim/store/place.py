"""Where a run is read from: a folder of this machine, or any that fsspec reaches, such as an object store."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from colordim.errors import ArgumentError, DependencyError, StoreError

__all__ = ["LocalPlace", "Place", "RemoteFile", "RemotePlace", "is_url", "place_of", "reason"]

#: Which extra of ours brings the package for an address.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}


class Place(Protocol):
    """A folder that is read. Every method raises OSError, and FileNotFoundError for what is not there."""

    #: Whether every read takes a while, so that few of them should be made.
    remote: bool

    def __str__(self) -> str:
        """Path or address."""

    def at(self, name: str) -> Place:
        """Return a folder in this one."""

    def names(self, folder: str = "") -> list[str]:
        """Return the names in a folder in this one; none if it is not there."""

    def read(self, name: str, start: int = 0) -> bytes:
        """Return a file from the byte `start` on; nothing if it has no more than these."""

    def opened(self, name: str, size: int | None = None) -> contextlib.AbstractContextManager[Any]:
        """Open a file for Arrow, whose size may be known: what it is given is a path or a file object."""


class LocalPlace:
    """A folder of this machine, or of a file system that is mounted on it."""

    remote = False

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

    def opened(self, name: str, size: int | None = None) -> contextlib.AbstractContextManager[Path]:
        return contextlib.nullcontext((self.path / name).absolute())  # Arrow takes exp:1/run for an address


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
    StoreError
        If the package cannot reach the store, or lacks credentials.
    """

    remote = True

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
            self._system.invalidate_cache()  # fsspec keeps listings, which would hide what is new
            try:
                found = self._system.ls(path, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
        return [each.rstrip("/").rpartition("/")[2] for each in found]

    def read(self, name: str, start: int = 0) -> bytes:
        path = f"{self._root}/{name}"
        with _as_os_errors(path):
            try:
                return bytes(self._system.cat_file(path, start=start))
            except Exception as error:
                # A range that begins at the end is refused by each store in its own words, of which this is one.
                if "range" not in str(error).lower() or self._size(path) > start:
                    raise
                return b""

    @contextlib.contextmanager
    def opened(self, name: str, size: int | None = None) -> Iterator[RemoteFile]:
        path = f"{self._root}/{name}"
        if size is None:
            with _as_os_errors(path):
                size = self._size(path)
        yield RemoteFile(self._system, path, size)

    def _size(self, path: str) -> int:
        # From the listing, where there is one: names() has made it anew.
        return int(self._system.size(path))


class RemoteFile(io.RawIOBase):
    """A file whose every read is one request, of exactly the bytes that are asked for.

    What fsspec opens reads ahead, by megabytes, and asks for the file's size each time.
    """

    def __init__(self, system: Any, path: str, size: int) -> None:
        self.size = size
        self._system = system
        self._path = path
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self._position + size, self.size)
        if self._position >= end:
            return b""
        with _as_os_errors(self._path):
            data = bytes(self._system.cat_file(self._path, start=self._position, end=end))
        self._position += len(data)
        return data


@contextlib.contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    """Turn whatever the client of a store raises into an OSError that says why."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
    except Exception as error:
        # Without a number, by which reason() would name it: the client says more.
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OSError(" ".join(said.split())) from error


def reason(error: BaseException) -> str:
    """Return in a few words what an error says, to be put into a sentence."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _connect(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise DependencyError(
            f'reading {url} needs fsspec, which is not installed: pip install "colordim[remote]".',
            page="remote#if-it-does-not-work",
        ) from error
    kinds = [part.partition("://")[0] for part in url.split("::")]  # "simplecache::s3://..." is two
    for kind in kinds:
        if kind not in fsspec.available_protocols():
            raise ArgumentError(
                f"{url} is no address that can be read: fsspec knows no {kind}://.", page="remote#if-it-does-not-work"
            )
    try:
        system, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        extra = next((_EXTRAS[kind] for kind in kinds if kind in _EXTRAS), None)
        how = f'pip install "colordim[{extra}]"' if extra else reason(error)
        raise DependencyError(
            f"reading {url} needs a package that is not installed: {how}.", page="remote#if-it-does-not-work"
        ) from error
    except Exception as error:  # no credentials, for one, which every client says in its own class
        raise StoreError(
            f"{url} cannot be read ({reason(error)}): check the address and the credentials.",
            page="remote#if-it-does-not-work",
        ) from error
    return system, str(root)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether it is an address, and not a path."""
    return isinstance(path, str) and "://" in path


def place_of(path: str | os.PathLike[str] | Place) -> Place:
    """Return the place of a path or an address, or a place itself; raises as :class:`RemotePlace` does."""
    if not isinstance(path, (str, os.PathLike)):
        return path
    if isinstance(path, str) and is_url(path):
        return LocalPlace(path[7:]) if path.startswith("file://") else RemotePlace(path)
    return LocalPlace(path)
