"""A server on a real port, and runs for it to show."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

from colordim.axis import LinearAxis
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter
from colordim.web.catalogue import Catalogue
from colordim.web.security import Access
from colordim.web.server import STATIC, Viewer, listen, make_server

AXIS = LinearAxis(-2, 2, 4)


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True)
class Served:
    """A server that answers."""

    port: int
    token: str
    viewer: Viewer

    def ask(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **query: Any) -> Answer:
        """Ask as a page does, with the token, unless `headers` say otherwise."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            given = {"Authorization": f"Bearer {self.token}"} if headers is None else dict(headers)
            connection.request(method, path + (f"?{urlencode(query)}" if query else ""), headers=given)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()


@contextlib.contextmanager
def serving(folder: Path, only: Sequence[str] | None = None, static: Path = STATIC, **access: Any) -> Iterator[Served]:
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    given = Access(port, **access)
    viewer = Viewer(Catalogue(folder, only), given, static)
    server = make_server(viewer)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield Served(port, given.token, viewer)
    finally:
        server.should_exit = True
        thread.join(10)
        viewer.close()
        listening.close()
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def serve() -> Callable[..., contextlib.AbstractContextManager[Served]]:
    """Serve a folder."""
    return serving


class Recording:
    """A run that is written batch by batch: two layers of eight values."""

    def __init__(self, path: Path, name: str = "lenet", layers: Sequence[str] = ("first", "second")) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.writer = FolderWriter(path, {"name": name, "created": "2026-01-02T03:04:05+00:00"})
        self.streams = [Stream(i, n, "activation", "ReLU", "", (2, 4), i, AXIS) for i, n in enumerate(layers)]
        for stream in self.streams:
            self.writer.declare(stream)
        self.number = 0

    def add(self, batches: int = 1, start: int = 0) -> None:
        """Append training batches and flush; the index of the first is moved by `start`."""
        rows = np.tile(np.array([0, 1, 4, 2, 0, 1, 0, 0, 0, 3, 8, 1], np.int64), len(self.streams))
        moments = np.tile([[1.0, 4.0, -1.0, 3.0]], (len(self.streams), 1))
        for _ in range(batches):
            batch = Batch(
                self.number, start + self.number, "train", self.number // 4, self.number, 1e9, True, {"loss": 0.5}
            )
            self.writer.append(batch, self.streams, rows, moments)
            self.number += 1
        self.writer.flush()

    def close(self) -> Path:
        self.writer.close("stopped")
        return self.path


@pytest.fixture(scope="session")
def record() -> Callable[..., Recording]:
    """Begin a run."""
    return Recording
