"""The page as a widget of a notebook: the kernel answers its questions, and sends what is new by itself.

A kernel takes no messages while it runs a cell, and so none during a training. A thread therefore watches the recording
and sends the newest columns of what was looked at last; the page takes these for answers (``source_notebook.js``).
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
import zlib
from collections.abc import Mapping
from typing import Any

import anywidget
import traitlets

from colordim.column import PHASES, Phase
from colordim.errors import ColordimError
from colordim.run import Run
from colordim.store.ranks import RunReader
from colordim.web import bundle
from colordim.web.answers import MOST_STREAMS, answer, to_json
from colordim.web.head import TILE, growth, head

__all__ = ["RunWidget"]

#: Seconds between two looks at a recording, and what a look may take at most of the time of the training.
INTERVAL, SHARE = 1.0, 0.1
#: Streams in widths of columns that are sent unasked: those that were asked for last.
MOST_VIEWS = 2 * MOST_STREAMS
#: Columns of a width, from which on those four times as wide are sent too, and beyond which it is not sent any more.
COARSER, FINEST = 512, 4096
#: Bytes from which on an answer is deflated.
LARGE = 4096

_MAIN = """\
import { mountApp } from "./app.js";
import { notebookSource } from "./source_notebook.js";
function render({ model, el }) {
  const page = document.createElement("div");
  page.style.height = "min(640px, 90vh)";
  page.dataset.lmSuppressShortcuts = "true"; // what is typed here is not meant for JupyterLab
  el.append(page);
  const source = notebookSource(model);
  const unmount = mountApp(page, { source, hash: false });
  return () => {
    unmount();
    source.close();
  };
}
export default { render };
"""

#: A stream in columns of so many batches.
View = tuple[int, Phase, int]


class RunWidget(anywidget.AnyWidget):  # type: ignore[misc]  # without types
    """A run in a notebook; made by ``run.widget()``.

    Parameters
    ----------
    run : Run
        The widget reads its folder by itself, so that the run changes only in its own ``refresh()``.
    picture : bytes
        PNG that a saved notebook shows where there is no kernel.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    _css = traitlets.Unicode().tag(sync=True)
    head = traitlets.Dict().tag(sync=True)

    def __init__(self, run: Run, picture: bytes = b"") -> None:
        self._run = Run(RunReader(run.path)) if run.path else run
        self._picture = picture
        self._lock = threading.Lock()  # a snapshot must not change while a question is answered
        self._closed = threading.Event()
        self._views = 0
        self._wanted: dict[View, None] = {}
        self._sent: dict[tuple[View, int], int] = {}
        known = head(self._run)
        super().__init__(
            _esm=bundle.bundle(_MAIN), _css=(bundle.STATIC / "style.css").read_text(encoding="utf-8"), head=_json(known)
        )
        self.on_msg(self._on_message)
        if known["ended"] is None:
            self._want_first(known)
            threading.Thread(target=self._follow, name="colordim-widget", daemon=True).start()

    def close(self) -> None:
        """Take the widget away, and stop following the recording."""
        self._closed.set()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        if found is None or not self._picture:
            return found
        data, metadata = found if isinstance(found, tuple) else (found, {})
        return {**data, "image/png": base64.b64encode(self._picture).decode()}, metadata

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        """Answer a question of the page."""
        if "view" in content:
            self._views += 1 if content["view"] == 1 else -1
            if self._views == 0:
                self._wanted.clear()  # nobody looks
            return
        number, route = str(content.get("id")), str(content.get("route"))
        parameters = {str(name): str(value) for name, value in dict(content.get("parameters", {})).items()}
        try:
            with self._lock:
                found, state = answer(self._run, route, parameters), self._state()
                if route == "tiles" and parameters.get("exact", "0") == "0":
                    self._note(found)
        except ColordimError as error:
            self.send({"id": number, "error": str(error)})
        except Exception as error:  # the page has to hear of it, or it waits
            self.send({"id": number, "error": f"the kernel could not answer: {type(error).__name__}: {error}"})
        else:
            exact = parameters.get("exact", "0") != "0"
            self._reply({"id": number, "route": route, "state": state, "exact": exact}, found)

    def _reply(self, content: dict[str, Any], data: bytes) -> None:
        large = len(data) > LARGE
        self.send(content | {"deflated": large}, [zlib.compress(data, 1) if large else data])

    def _state(self) -> dict[str, Any]:
        return {"batches": {phase: self._run.length(phase) for phase in PHASES}, "ended": self._run.ended}

    def _want_first(self, known: Mapping[str, Any]) -> None:
        """Take what a page shows first for what it will ask."""
        for row in known["streams"][:MOST_STREAMS]:
            for phase in PHASES:
                width = 1
                while known["batches"][phase] > 2 * COARSER * width:
                    width *= 4
                self._wanted[row["id"], phase, width] = None

    def _note(self, frames: bytes) -> None:
        """Keep in mind what the page has been sent, of tiles that still grow."""
        for tile in _headers(frames):
            view: View = (tile["id"], tile["phase"], tile["width"])
            self._wanted.pop(view, None)
            self._wanted[view] = None
            while len(self._wanted) > MOST_VIEWS:
                del self._wanted[next(iter(self._wanted))]
            self._sent[view, tile["index"]] = tile["settled"]

    def _follow(self) -> None:
        """Send what is new, until the recording has ended."""
        pause, seen = INTERVAL, (-1, "")
        while not self._closed.wait(pause):
            began = time.perf_counter()
            try:
                with self._lock:
                    self._run.refresh()
                    seen, messages = self._news(seen)
                for content, data in messages:
                    self._reply(content, data)
                if self._run.ended is not None:
                    return
            except ColordimError:  # a part that another process is just replacing, or a disk that is away
                pass
            except Exception:
                if self.comm is None:  # closed, or the kernel ends
                    return
                raise
            pause = max(INTERVAL, (time.perf_counter() - began) / SHARE)

    def _news(self, seen: tuple[int, str]) -> tuple[tuple[int, str], list[tuple[dict[str, Any], bytes]]]:
        run = self._run
        now = (len(run.batches["batch"]), str(run.ended))
        if now == seen:
            return seen, []
        if now[0] < seen[0]:  # resumed, and what was behind the checkpoint is gone
            self._sent.clear()
        grown, state = growth(run), self._state()
        if grown["count"] != len(self.head["streams"]):
            self.head = _json(head(run))
            if not self._wanted and not self._views:
                self._want_first(self.head)
        messages = [
            ({"push": True, "route": "tiles", "state": state}, tiles) for tiles in self._newest(grown["batches"])
        ]
        messages += [
            ({"push": True, "route": each, "phase": ""}, answer(run, each, {})) for each in ("marks", "findings")
        ]
        for phase in PHASES:
            if grown["batches"][phase]:
                content = {"push": True, "route": "scalars", "phase": phase}
                messages.append((content, answer(run, "scalars", {"phase": phase, "points": "1500"})))
        return now, [*messages, ({"push": True, "route": "growth"}, to_json(grown))]

    def _newest(self, batches: Mapping[str, int]) -> list[bytes]:
        """Return the tiles that the page lacks, of what it looks at."""
        for number, phase, width in list(self._wanted):
            if batches[phase] > COARSER * width:
                self._wanted.setdefault((number, phase, 4 * width))
        together: dict[tuple[Phase, int, int, int], list[int]] = {}
        for view in list(self._wanted)[-MOST_VIEWS:]:
            number, phase, width = view
            if not batches[phase] or batches[phase] > FINEST * width:
                continue
            for index in range((batches[phase] - 1) // (TILE * width) + 1):
                skip = self._sent.get((view, index), 0)
                if skip < TILE:
                    together.setdefault((phase, width, index, skip), []).append(number)
        found = []
        for (phase, width, index, skip), numbers in together.items():
            for first in range(0, len(numbers), MOST_STREAMS):
                streams = ",".join(map(str, numbers[first : first + MOST_STREAMS]))
                asked = {"streams": streams, "phase": phase, "width": width, "index": index, "skip": skip}
                tiles = answer(self._run, "tiles", {name: str(value) for name, value in asked.items()})
                for tile in _headers(tiles):
                    self._sent[(tile["id"], phase, width), index] = tile["settled"]
                found.append(tiles)
        return found


def _headers(frames: bytes) -> list[dict[str, Any]]:
    found, at = [], 0
    while at < len(frames):
        length, size = struct.unpack_from("<II", frames, at)
        found.append(json.loads(frames[at + 8 : at + 8 + size]))
        at += 4 + length
    return found


def _json(value: Any) -> Any:
    return json.loads(to_json(value))
