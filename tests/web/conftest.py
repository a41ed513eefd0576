"""What the tests of the viewer share: a browser, a server on a real port, and runs to show."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from colordim.axis import LinearAxis, SignedLogAxis
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter
from colordim.web import bundle
from colordim.web.catalogue import Catalogue
from colordim.web.security import Access
from colordim.web.server import STATIC, Viewer, listen, make_server

_spec = spec_from_file_location("colordim_chromium", Path(__file__).with_name("chromium.py"))
assert _spec is not None
assert _spec.loader is not None
chromium = module_from_spec(_spec)
_spec.loader.exec_module(chromium)


# Playwright's loop counts as running in this thread until it is stopped, which other modules' asyncio.run() would not bear.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = chromium.find()
    assert path is not None, "no Chromium: python tests/web/chromium.py installs one, COLORDIM_CHROMIUM names one"
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        yield browser
        browser.close()


@pytest.fixture
def trouble() -> list[str]:
    """What the page complained of; a test that provokes it looks at it and clears it."""
    return []


@pytest.fixture
def page(browser: Browser, trouble: list[str]) -> Iterator[Page]:
    """A page in a context of its own; the test fails with the page's errors and failed requests."""

    def console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            trouble.append(f"console: {message.text}")

    def failed(request: Request) -> None:
        if "ERR_ABORTED" not in (request.failure or ""):  # what a page leaves behind when it is closed
            trouble.append(f"request: {request.url} {request.failure}")

    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.on("console", console)
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("requestfailed", failed)
    yield page
    context.close()
    assert trouble == []


FAKE = """
import { askJson } from "./source.js";
import { readTiles } from "./tile.js";
const MARKUP = "</script><!--<script>";
export function mountApp(element, { source }) {
  Object.assign(window, { source, readTiles, MARKUP });
  askJson(source, "head").then((head) => (element.textContent = `${head.name}: ${head.count} streams`));
  return () => (element.textContent = "closed");
}
"""


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page's modules with an app that only asks and shows: what is under it is tested alone."""
    folder = tmp_path_factory.mktemp("static")
    for path in bundle.STATIC.glob("*.js"):
        shutil.copy(path, folder)
    (folder / "app.js").write_text(FAKE)
    (folder / "style.css").write_text("#colordim { color: rgb(1, 2, 3) }\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "STATIC", folder)
        yield folder


@pytest.fixture(scope="session")
def tiles() -> Callable[[bytes], list[dict[str, Any]]]:
    def read(data: bytes) -> list[dict[str, Any]]:
        """Read an answer as tile.py describes it, with NumPy."""
        found = []
        while data:
            (length,) = struct.unpack_from("<I", data)
            frame, data = data[4 : 4 + length], data[4 + length :]
            (head,) = struct.unpack_from("<I", frame)
            tile = json.loads(frame[4 : 4 + head])
            at, n, bins = 4 + head, tile["columns"], tile["bins"]
            tile["occupied"] = np.frombuffer(frame, "<u4", bins, at)
            at += 4 * bins + -4 * bins % 8
            shuffled = np.frombuffer(frame, np.uint8, 14 * 8 * n, at).reshape(8, -1)
            tile["arrays"] = np.ascontiguousarray(shuffled.T).view("<f8").reshape(14, n)
            at += 14 * 8 * n
            tile["codes"] = np.frombuffer(frame, np.uint8, bins * n, at).reshape(bins, n)
            at += bins * n + -bins * n % 8
            if tile["exact"]:
                shuffled = np.frombuffer(frame, np.uint8, 8 * bins * n, at).reshape(8, -1)
                tile["counts"] = np.ascontiguousarray(shuffled.T).view("<f8").reshape(bins, n)
            found.append(tile)
        return found

    return read


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    def written(folder: Path, layers: int, batches: int, name: str = "made", layer: str = "layer{}") -> Path:
        """Write activations that drift, of a normal distribution: as noisy as those of 100,000 values a batch are."""
        rng, axis = np.random.default_rng(0), SignedLogAxis()
        streams = [Stream(i, layer.format(i), "activation", "ReLU", "", (128, 784), i, axis) for i in range(layers)]
        writer = FolderWriter(folder, {"name": name})
        for stream in streams:
            writer.declare(stream)
        for b in range(batches):
            rows, moments = [], []
            for i in range(layers):
                values = rng.normal(0.2 * np.sin(b / 90 + i), np.exp(0.3 * np.sin(b / 60 + 2 * i)), 2000).astype(
                    np.float32
                )
                counts = 50 * np.histogram(values, axis.edges)[0]
                rows.append([*counts, 0, 0, 0, 0, 0, counts[axis.zero_bin], counts.sum(), 1])
                moments.append([values.sum(), (values**2).sum(), values.min(), values.max()])
            row = Batch(b, b, "train", b // 100, b, 1e9 + b, True, {"loss": 1 / (1 + b)})
            writer.append(row, streams, np.concatenate(rows).astype(np.int64), np.array(moments, np.float64))
        writer.close("stopped")
        return folder

    return written


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
