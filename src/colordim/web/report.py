"""A run as one HTML file: the page, its style, and the answers to its questions, deflated and in base64."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from colordim.charts.columns import column_width
from colordim.column import PHASES, Phase, Stream
from colordim.errors import ArgumentError, StoreError
from colordim.run import Run
from colordim.store.files import replacing
from colordim.web import bundle
from colordim.web.answers import ROUTES, to_json
from colordim.web.findings import findings_now
from colordim.web.head import head, marks
from colordim.web.tile import pack, tile_columns

__all__ = ["COLUMNS", "report"]

#: Columns of a panel unless more are asked for.
COLUMNS = 750
#: What a report holds at most of what has no columns: epochs that twin peaks are drawn of, points of what was logged,
#: windows of units.
EPOCHS, POINTS, WINDOWS = 24, 1500, 500

_MAIN = """\
import { mountApp } from "./app.js";
import { reportSource } from "./source_report.js";
mountApp(document.getElementById("colordim"), { source: reportSource(document), hash: true });
"""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src '{script_hash}'; \
style-src '{style_hash}'; img-src data: blob:; connect-src 'none'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body class="cd-page">
<noscript>This page draws its pictures itself: allow it JavaScript. It fetches nothing and sends nothing.</noscript>
<div id="colordim"></div>
{blocks}<script type="module">{script}</script>
</body>
</html>
"""


def report(
    run: Run,
    path: Path,
    *,
    streams: Sequence[Stream],
    phases: Sequence[Phase] = PHASES,
    columns: int = COLUMNS,
    exact: bool = False,
) -> Path:
    """Write a run as one HTML file, which needs no network; return its path.

    Parameters
    ----------
    run : Run
    path : Path
        The file, which is replaced if it is there; its folder is created.
    streams : sequence of Stream
    phases : sequence of {"train", "valid"}
    columns : int
        Of a panel at most: each is the exact sum of adjacent batches.
    exact : bool
        Whether to keep every count exactly, instead of with one byte each (within 6 %).

    Raises
    ------
    ArgumentError
        If `columns` is less than 1.
    StoreError
        If there is a folder of that name.
    """
    if columns < 1:
        raise ArgumentError(f"columns={columns} cannot be: a panel has at least 1.", page="report")
    if path.is_dir():
        raise StoreError(
            f"{path} is a folder: name a file to write the report to, such as {path / 'report.html'}.", page="report"
        )
    script = _harmless(bundle.bundle(_MAIN))
    style = (bundle.STATIC / "style.css").read_text(encoding="utf-8")
    page = _PAGE.format(
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
        title=html.escape(f"{run.name or 'run'} · colordim"),
        blocks="\0",
    )
    before, _, after = page.partition("\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(before)
        for key, data in _blocks(run, streams, phases, columns, exact):
            text = base64.b64encode(zlib.compress(data, 9)).decode()
            file.write(f'<script type="application/octet-stream" data-key="{html.escape(key)}">{text}</script>\n')
        file.write(after)
    return path


def _blocks(
    run: Run, streams: Sequence[Stream], phases: Sequence[Phase], columns: int, exact: bool
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the answer of each question that the report can answer; ``source_report.js`` reads them."""
    shown = [phase for phase in phases if run.length(phase)]
    taken = {phase: column_width(run.length(phase), columns, run.finest(phase)) for phase in shown}
    tile = max((-(-run.length(phase) // width) for phase, (width, _) in taken.items()), default=1)
    numbers = np.unique(run.batches["epoch"])
    epochs = (
        np.unique(numbers[np.linspace(0, len(numbers) - 1, EPOCHS).round().astype(int)]) if len(numbers) else numbers
    )
    yield "head", to_json(_head(run, streams, {phase: width for phase, (width, _) in taken.items()}, tile, exact))
    yield "findings", to_json(findings_now(run))
    for phase, (width, level) in taken.items():
        for stream in streams:
            found = tile_columns(run, stream, phase, 0, run.length(phase), width, level)
            header = {"id": stream.id, "phase": phase, "index": 0, "settled": tile}
            yield f"tiles {phase} {stream.id}", pack(found, header, exact)
        yield f"scalars {phase}", to_json(_ask(run, "scalars", phase=phase, points=POINTS))
    for stream in streams:
        if len(epochs):
            yield f"twin {stream.id}", to_json([_twin(run, stream, int(epoch), exact) for epoch in epochs])
        windows = {phase: _units(run, stream, phase) for phase in shown}
        yield f"units {stream.id}", to_json({phase: each for phase, each in windows.items() if each["first"]})
    yield "facts", to_json({str(stream.id): _ask(run, "facts", stream=stream.id) for stream in streams})


def _head(run: Run, streams: Sequence[Stream], widths: Mapping[Phase, int], tile: int, exact: bool) -> dict[str, Any]:
    whole = head(run)
    kept = {stream.id for stream in streams}
    for name in ("batches", "recorded"):
        whole[name] = {phase: each if phase in widths else 0 for phase, each in whole[name].items()}
    return whole | {
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "marks": _marks(run, list(widths)),
        "path": PurePath(whole["path"]).name,  # whoever is sent the report need not know where it lay
        "streams": [row for row in whole["streams"] if row["id"] in kept],
        "count": len(kept),
        "levels": {phase: [{"width": widths.get(phase, 1), "kept": 0}] for phase in PHASES},
        "tile": tile,
        "exact": exact,
    }


def _marks(run: Run, shown: Sequence[Phase]) -> dict[str, Any]:
    whole = marks(run)
    nothing: dict[str, list[int]] = {"first": [], "number": [], "at": []}
    return whole | {"epochs": {phase: each if phase in shown else nothing for phase, each in whole["epochs"].items()}}


def _twin(run: Run, stream: Stream, epoch: int, exact: bool) -> Any:
    sums = _ask(run, "twin", stream=stream.id, epoch=epoch)
    if not exact:
        for phase in PHASES:
            sums[phase]["counts"] = [_three_digits(count) for count in sums[phase]["counts"]]
    return sums


def _three_digits(count: int) -> int:
    return round(count, 3 - len(str(count))) if count > 999 else count


def _units(run: Run, stream: Stream, phase: Phase) -> Any:
    windows = _ask(run, "units", stream=stream.id, phase=phase)
    every = -(-len(windows["first"]) // WINDOWS) or 1
    return windows | {name: windows[name][::every] for name in ("first", "last", "dead")}


def _ask(run: Run, route: str, **parameters: Any) -> Any:
    return ROUTES[route][0](run, {name: str(value) for name, value in parameters.items()})


def _harmless(script: str) -> str:
    """Escape what would end the element that a script is in; in its strings that changes nothing."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
