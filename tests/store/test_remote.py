"""Runs in object stores: an S3 server on the loopback interface, and fsspec's memory."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

import colordim
from colordim.cli import main
from colordim.column import PHASES, Batch, Stream, Units
from colordim.errors import ArgumentError, ColordimError, DependencyError, NotARunError, StoreError
from colordim.store.writer import FolderWriter

_names = count()


@dataclass(frozen=True)
class Answer:
    """What the server said to one request."""

    method: str
    path: str
    query: str
    status: int
    bytes: int


@dataclass
class Server:
    """An S3 server in a thread, and what it answered."""

    answers: list[Answer] = field(default_factory=list)
    down: bool = False

    def __post_init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status: list[str] = []

        def start(line: str, headers: Any, *rest: Any) -> Any:
            status.append(line)
            return start_response(line, headers, *rest)

        data = b"".join(self._app(environ, start))
        said = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], int(status[0][:3]), len(data)
        self.answers.append(Answer(*said))
        return [data]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, ask: Callable[[], object]) -> list[Answer]:
        """Return what was answered meanwhile."""
        self.answers.clear()
        ask()
        return list(self.answers)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/nowhere")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
        yield server
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@dataclass(frozen=True)
class Remote:
    """A folder in a store, that another program than the reader writes."""

    url: str
    system: Any

    def path(self, name: str = "") -> str:
        return f"{self.url.partition('://')[2]}/{name}".rstrip("/")

    def sync(self, folder: Path, only: str = "*") -> None:
        """Copy what is there, and delete what is not."""
        here = {path.relative_to(folder).as_posix() for path in folder.rglob(only) if path.is_file()}
        for name in here:
            self.system.pipe_file(self.path(name), (folder / name).read_bytes())
        if only == "*":
            self.delete(*(self.names() - here))

    def names(self) -> set[str]:
        begin = len(self.path()) + (self.url.startswith("memory://") and 1) + 1
        return {path[begin:] for path in self.system.find(self.path())}

    def delete(self, *names: str) -> None:
        for name in names:
            self.system.rm_file(self.path(name))

    def cut(self, name: str, size: int) -> None:
        """Keep that many bytes of a file."""
        self.system.pipe_file(self.path(name), self.system.cat_file(self.path(name))[:size])


@pytest.fixture(params=["s3", "memory"])
def remote(request: pytest.FixtureRequest, server: Server) -> Remote:
    if request.param == "s3":
        return Remote(f"s3://bucket/runs/run{next(_names)}", fsspec.filesystem("s3", skip_instance_cache=True))
    return Remote(f"memory://runs/run{next(_names)}", fsspec.filesystem("memory"))


@pytest.fixture
def s3(server: Server) -> Remote:
    return Remote(f"s3://bucket/runs/run{next(_names)}", fsspec.filesystem("s3", skip_instance_cache=True))


def assert_same(ours: colordim.Run, theirs: colordim.Run) -> None:
    """Both give the same of everything."""
    assert ours.streams == theirs.streams
    assert ours.info == theirs.info
    assert ours.facts == theirs.facts
    assert ours.ended == theirs.ended
    assert list(ours.batches) == list(theirs.batches)
    for name, values in theirs.batches.items():
        np.testing.assert_array_equal(ours.batches[name], values, err_msg=name)
    for stream in theirs.streams:
        for phase in PHASES:
            what = f"{stream.name} {phase}"
            moments = theirs.moments(stream, phase=phase)
            for name, values in ours.moments(stream, phase=phase).items():
                np.testing.assert_array_equal(values, moments[name], err_msg=f"{what} {name}")
            for level in (0, 1, 2, 3):
                assert_same_columns(ours.columns(stream, phase, level=level), theirs.columns(stream, phase, level=level))
            assert_same_columns(ours.overview(stream, 7, phase), theirs.overview(stream, 7, phase))
    assert ours.problems == theirs.problems


def assert_same_columns(ours: Any, theirs: Any) -> None:
    for name in ("first", "last", "number", "counts", "counters", "moments"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
