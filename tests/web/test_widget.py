"""The page in a notebook: answers of the kernel, and what it sends while it is busy."""

from __future__ import annotations

import base64
import json
import re
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient
from playwright.sync_api import Page

import colordim
from colordim.axis import SignedLogAxis
from colordim.column import Batch, Stream
from colordim.errors import DependencyError
from colordim.store.writer import FolderWriter
from colordim.views import Run
from colordim.web import bundle, widget
from colordim.web.answers import answer
from colordim.web.head import TILE
from colordim.web.widget import RunWidget

RUNS = Path(__file__).parents[1] / "fixtures" / "runs" / "v1"

pytestmark = pytest.mark.usefixtures("static")

MODEL = """([esm, head]) => {
  const handlers = new Set();
  const model = {
    get: (name) => (name === "head" ? head : undefined),
    send: (content) => toKernel(content),
    on: (_, handler) => handlers.add(handler),
    off: (_, handler) => handlers.delete(handler),
  };
  window.deliver = (content, texts) => {
    const buffers = texts.map((text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer));
    for (const handler of handlers) handler(content, buffers);
  };
  window.handlers = handlers;
  const url = URL.createObjectURL(new Blob([esm], { type: "text/javascript" }));
  return import(url).then((module) => (window.cleanup = module.default.render({ model, el: document.body })));
}"""


class Notebook:
    """A page and a kernel, with the messages between them: those to a busy kernel wait."""

    def __init__(self, page: Page, shown: RunWidget, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page, self.shown = page, shown
        self.to_kernel: list[Any] = []
        self.to_page: list[tuple[Any, list[bytes]]] = []
        self.busy = False
        monkeypatch.setattr(shown, "send", lambda content, buffers=(): self.to_page.append((content, list(buffers))))
        page.expose_function("toKernel", lambda content: self.to_kernel.append(content))
        page.evaluate(MODEL, [shown._esm, shown.head])

    def pump(self) -> None:
        while self.to_kernel and not self.busy:
            self.shown._on_message(None, self.to_kernel.pop(0), [])
        while self.to_page:
            content, buffers = self.to_page.pop(0)
            self.page.evaluate("([c, b]) => deliver(c, b)", [content, [base64.b64encode(b).decode() for b in buffers]])
        self.page.wait_for_timeout(10)

    def begin(self, name: str, route: str, **parameters: Any) -> None:
        self.page.evaluate(
            """([name, route, parameters]) => {
              window[name] = null;
              source.ask(route, parameters).then((buffer) => {
                const bytes = new Uint8Array(buffer);
                let text = "";
                for (let i = 0; i < bytes.length; i += 4096) text += String.fromCharCode(...bytes.subarray(i, i + 4096));
                window[name] = [btoa(text), ""];
              }, (error) => (window[name] = ["", error.message]));
            }""",
            [name, route, parameters],
        )

    def end(self, name: str) -> bytes:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            self.pump()
            if found := self.page.evaluate("(name) => window[name]", name):
                if found[1]:
                    raise RuntimeError(found[1])
                return base64.b64decode(found[0])
        raise TimeoutError(name)

    def ask(self, route: str, **parameters: Any) -> bytes:
        self.begin("answered", route, **parameters)
        return self.end("answered")


@pytest.fixture
def made() -> Iterator[Callable[[Run], RunWidget]]:
    shown: list[RunWidget] = []

    def make(run: Run) -> RunWidget:
        shown.append(RunWidget(run))
        return shown[-1]

    yield make
    for each in shown:
        each.close()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget, "INTERVAL", 0.02)
    monkeypatch.setattr(widget, "SHARE", 1.0)


def test_the_kernel_answers(page: Page, made: Any, tiles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = colordim.open(RUNS / "ended")
    notebook = Notebook(page, made(run), monkeypatch)
    ids = ",".join(str(stream.id) for stream in run.streams)
    for route, asked in (
        ("tiles", {"streams": ids, "phase": "train", "width": "1", "index": "0", "exact": "1"}),
        ("tiles", {"streams": ids, "phase": "valid", "width": "4", "index": "0"}),
        ("column", {"stream": "0", "phase": "train", "start": "3", "batches": "8", "width": "1"}),
        ("twin", {"stream": "0", "epoch": "1"}),
        ("scalars", {"phase": "train"}),
    ):
        assert notebook.ask(route, **asked) == answer(run, route, asked), route
    assert json.loads(notebook.ask("head"))["streams"] == json.loads(answer(run, "head", {}))["streams"]
    with pytest.raises(RuntimeError, match="there is no route 'shell'"):
        notebook.ask("shell")
    with pytest.raises(RuntimeError, match="'night' is not a phase"):
        notebook.ask("scalars", phase="night")
    page.evaluate("cleanup()")
    assert page.evaluate("[handlers.size, document.body.textContent]") == [0, "closed"]


def test_the_page_itself_is_shown(page: Page, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "STATIC", Path(bundle.__file__).with_name("static"))
    run = colordim.open(RUNS / "ended")
    notebook = Notebook(page, made(run), monkeypatch)
    page.add_style_tag(content=notebook.shown._css)
    until = time.monotonic() + 20
    while len(page.locator(".cd-wall .cd-panel").all()) < len(run.select()) and time.monotonic() < until:
        notebook.pump()
    assert page.locator(".cd-wall .cd-panel h3").all_inner_texts() == [stream.name for stream in run.select()]
    for _ in range(20):
        notebook.pump()
    page.evaluate("cleanup()")
    assert page.evaluate("[handlers.size, document.body.textContent]") == [0, ""]


def test_many_questions_wait_for_their_turn(page: Page, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(page, made(colordim.open(RUNS / "ended")), monkeypatch)
    notebook.pump()
    notebook.busy = True
    for number in range(30):
        notebook.begin(f"answer{number}", "column", stream=0, phase="train", start=number, batches=1, width=1)
    notebook.pump()
    assert [content["route"] for content in notebook.to_kernel] == ["column"] * 8
    notebook.busy = False
    assert [json.loads(notebook.end(f"answer{number}"))["first"] for number in range(30)] == list(range(30))


class Training:
    """Two layers that are recorded a batch at a time, with bins that come and go."""

    def __init__(self, folder: Path) -> None:
        axis = SignedLogAxis()
        self.streams = [Stream(i, f"layer{i}", "activation", "ReLU", "", (8, 4), i, axis) for i in range(2)]
        self.writer = FolderWriter(folder, {"name": "live"})
        for stream in self.streams:
            self.writer.declare(stream)
        self.number = 0

    def step(self, batches: int) -> None:
        for _ in range(batches):
            b, rows = self.number, []
            for stream in self.streams:
                bins = np.zeros(stream.axis.bins, np.int64)
                bins[stream.axis.zero_bin + np.array([b % 7, 20 + b % 11, 40 + stream.id])] = [b + 1, 10 * b, 2]
                rows.append([*bins, 0, 1, b % 2, 0, 0, bins[stream.axis.zero_bin], bins.sum() + 1 + b % 2, 1])
            row = Batch(b, b, "train", b // 100, b, 1e9 + b, True, {"loss": 1 / (1 + b)})
            moments = np.array([[1.0 + b, 3.0 + b, -1.0 - b, 1.0]] * 2)
            self.writer.append(row, self.streams, np.concatenate(rows).astype(np.int64), moments)
            self.number += 1
        self.writer.flush()


def dense(tile: dict[str, Any]) -> Any:
    codes = np.zeros((SignedLogAxis().bins, tile["columns"]), np.uint8)
    codes[tile["occupied"]] = tile["codes"]
    return codes


@pytest.mark.usefixtures("at_once")
def test_a_busy_kernel_shows_new_columns(
    page: Page, made: Any, tiles: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path / "run")
    training.step(5)
    notebook = Notebook(page, made(colordim.open(tmp_path / "run")), monkeypatch)
    notebook.pump()
    page.evaluate("void source.onGrowth((growth) => (window.grown = growth))")
    assert tiles(notebook.ask("tiles", streams="0,1", phase="train", width=1, index=0))[1]["columns"] == 5
    notebook.busy = True
    notebook.begin("later", "tiles", streams="0", phase="train", width=1, index=1)  # is answered when its columns come
    for batches in (20, 1, TILE + 44, 7):
        training.step(batches)
        notebook.begin("early", "tiles", streams="1", phase="train", width=1, index=9)  # is never answered
        until = time.monotonic() + 20
        while page.evaluate("window.grown?.batches.train") != training.number and time.monotonic() < until:
            notebook.pump()
        now = colordim.open(tmp_path / "run")
        for index, skip in ((0, 0), (0, 5), (training.number // TILE, 0)):
            asked = {"streams": "1,0", "phase": "train", "width": "1", "index": str(index), "skip": str(skip)}
            here, there = tiles(notebook.ask("tiles", **asked)), tiles(answer(now, "tiles", asked))
            for ours, theirs in zip(here, there, strict=True):
                assert [ours[name] for name in ("id", "start", "columns", "settled")] == [
                    theirs[name] for name in ("id", "start", "columns", "settled")
                ]
                np.testing.assert_array_equal(dense(ours), dense(theirs))
                np.testing.assert_array_equal(ours["arrays"], theirs["arrays"])
        logged = json.loads(notebook.ask("scalars", phase="train", points=100))
        assert sum(each is not None for each in logged["names"]["loss"]["mean"]) > 0
    (tile,) = tiles(notebook.end("later"))
    assert tile["start"] == TILE
    assert 0 < tile["columns"] <= 70
    training.writer.close("stopped")
    until = time.monotonic() + 20
    while page.evaluate("() => window.grown.ended") != "stopped" and time.monotonic() < until:
        notebook.pump()
    (tile,) = tiles(notebook.ask("tiles", streams="0", phase="train", width=1, index=1))
    assert tile["settled"] == tile["columns"] == training.number - TILE  # nothing can be added any more
    assert (
        sum(content.get("route") == "tiles" for content in notebook.to_kernel) == 2
    )  # the two that it could not answer yet


@pytest.mark.usefixtures("at_once")
def test_it_follows_no_longer_than_it_has_to(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def followers() -> int:
        return sum(thread.name == "colordim-widget" for thread in threading.enumerate())

    def gone() -> bool:
        until = time.monotonic() + 10
        while followers() and time.monotonic() < until:
            time.sleep(0.01)
        return followers() == 0

    made(colordim.open(RUNS / "ended"))
    assert followers() == 0
    training = Training(tmp_path / "run")
    training.step(1)
    shown = made(colordim.open(tmp_path / "run"))
    assert followers() == 1
    shown.close()
    assert gone()
    made(colordim.open(tmp_path / "run"))
    training.writer.close("stopped")
    assert gone()


def test_wider_columns_are_sent_before_they_are_asked_for(made: Any, write: Any, tiles: Any, tmp_path: Path) -> None:
    run = colordim.open(write(tmp_path / "run", 2, 2 * TILE + 88))
    shown = made(run)
    shown._note(answer(run, "tiles", {"streams": "1", "phase": "train", "width": "1", "index": "2"}))
    sent = [tile for frames in shown._newest({"train": 2 * TILE + 88, "valid": 0}) for tile in tiles(frames)]
    assert sorted((tile["id"], tile["width"], tile["index"]) for tile in sent) == [
        (1, 1, 0),
        (1, 1, 1),
        (1, 1, 2),
        (1, 4, 0),
    ]
    # of what was sent only the column that may still grow is sent again
    again = [tile for frames in shown._newest({"train": 2 * TILE + 88, "valid": 0}) for tile in tiles(frames)]
    assert {(tile["width"], tile["index"], tile["columns"]) for tile in again} == {(1, 2, 0), (4, 0, 1)}


def test_an_error_of_ours_reaches_the_page(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> bytes:
        raise ZeroDivisionError("by chance")

    shown, sent = made(colordim.open(RUNS / "ended")), []
    monkeypatch.setattr(shown, "send", lambda content, buffers=(): sent.append(content))
    monkeypatch.setattr(widget, "answer", broken)
    shown._on_message(None, {"id": "7", "route": "head", "parameters": {}}, [])
    assert sent == [{"id": "7", "error": "the kernel could not answer: ZeroDivisionError: by chance"}]


def test_without_anywidget_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(DependencyError, match=r'pip install "colordim\[notebook\]"'):
        colordim.open(RUNS / "ended").widget()


def test_a_run_shows_a_picture(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = '<b>"&'
    run = colordim.open(write(tmp_path / "run", 30, 4, name))
    text = run._repr_html_()
    before, _, after = text.partition("data:image/png;base64,")
    assert before.startswith('<img alt="&lt;Run &#x27;&lt;b&gt;&quot;&amp;&#x27;: 30 streams, 4 train')
    data = base64.b64decode(after.removesuffix('">'))
    height, width, _ = imread(BytesIO(data)).shape
    assert (300 < width < 2000, 300 < height < 2000, len(data) < 600_000) == (True, True, True)
    monkeypatch.setattr(Run, "colorful", lambda *_, **__: 1 / 0)
    assert (
        run._repr_html_()
        == "<pre>&lt;Run &#x27;&lt;b&gt;&quot;&amp;&#x27;: 30 streams, 4 train, 0 valid batches, stopped&gt;</pre>"
    )


def test_the_picture_has_a_bounded_number_of_panels(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    real = Run.colorful

    def spied(self: Run, *args: Any, **options: Any) -> Any:
        drawn.append(real(self, *args, **options))
        return drawn[-1]

    monkeypatch.setattr(Run, "colorful", spied)
    colordim.open(write(tmp_path / "run", 26, 2))._repr_html_()
    texts = [text.get_text() for axes in drawn[0].axes for text in axes.texts]
    assert sum(bool(re.fullmatch(r"layer\d+", text)) for text in texts) == 24


CELLS = (
    """
import shutil, sys, time
from pathlib import Path
import numpy as np
import colordim
from colordim.axis import SignedLogAxis
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter
from colordim.web import bundle, widget

bundle.STATIC, widget.INTERVAL = Path({static!r}), 0.1
stream = Stream(0, "layer", "activation", "ReLU", "", (2, 2), 0, SignedLogAxis())
writer = FolderWriter(Path("run"), {{"name": "live"}})
writer.declare(stream)

def step(number):
    row = np.zeros(stream.width, np.int64)
    row[stream.axis.zero_bin + 3] = row[-2] = 5
    row[-1] = 1
    batch = Batch(number, number, "train", 0, number, time.time(), True, {{"loss": 1.0}})
    writer.append(batch, [stream], row, np.array([[5.0, 5.0, 1.0, 1.0]]))
    writer.flush()

step(0)
shown = colordim.open("run").widget()
shown
""",
    "for number in range(1, 9):\n    step(number)\n    time.sleep(0.15)\n",
    "shown.close(); writer.close('stopped')",
)


@pytest.mark.filterwarnings(
    "ignore:::zmq[.]", "ignore:::jupyter_client[.]", "ignore:::nbclient[.]", "ignore:::traitlets[.]"
)
def test_columns_come_while_a_cell_runs(static: Path, tmp_path: Path) -> None:
    batches: list[tuple[int, int]] = []

    class Client(NotebookClient):  # type: ignore[misc]  # without types
        def handle_comm_msg(self, outs: Any, message: Any, cell: int) -> None:
            content = message["content"].get("data", {}).get("content") or {}
            if content.get("route") == "growth":
                data = bytes(message["buffers"][0])
                batches.append(
                    (cell, json.loads(zlib.decompress(data) if content["deflated"] else data)["batches"]["train"])
                )
            super().handle_comm_msg(outs, message, cell)

    cells = [
        nbformat.v4.new_code_cell(text.format(static=str(static)) if not i else text) for i, text in enumerate(CELLS)
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    Client(notebook, timeout=60, resources={"metadata": {"path": tmp_path}}).execute()
    during = [number for cell, number in batches if cell == 1]
    assert during == sorted(during)
    assert len(during) >= 3
    (output,) = [output for output in notebook.cells[0].outputs if "data" in output]
    assert "application/vnd.jupyter.widget-view+json" in output["data"]
    picture = base64.b64decode(output["data"]["image/png"])
    assert imread(BytesIO(picture)).shape[1] > 200
    assert len(picture) < 600_000
    assert static == bundle.STATIC
