"""The viewer in a browser without a GPU: how long a report and a page take to open, and a redraw while panning.

Runs are written from counts that are drawn at random, without a training: 60 layers x 2,000 batches, one of 1,000 and one
of many batches. Each measure is repeated, those that are compared in turn.

What is timed is opening a link in a window that is there: Chromium takes more than a second of processor time for a new
one, whatever it shows. The page tells the time itself, as a script that asks it again and again would take a part of it.

    python benchmarks/viewer.py [--batches N] [--folder DIR]
"""

from __future__ import annotations

import argparse
import importlib
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.table import Table

import colordim
from colordim.axis import SignedLogAxis
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "web"))
chromium: Any = importlib.import_module("chromium")

ROLES = ("conv1", "bn1", "relu", "conv2", "bn2", "out")
SIZE = 200_000  # values a batch and layer
REPEATS = 5

APP = "document.getElementById('colordim')?.colordim"
#: Seconds that a new window is left alone.
REST = 2.0
#: Seconds in which any page is opened.
PATIENCE = 30.0
#: Notes when all that is in view was drawn and is on the screen, in milliseconds since 1970.
WATCH = f"""(() => {{
  const look = () => {{
    const app = {APP};
    if (app?.drawn && app.panels.length) requestAnimationFrame(() => requestAnimationFrame(() => (window.shown = performance.timeOrigin + performance.now())));
    else setTimeout(look, 5);
  }};
  look();
}})();"""
#: Redraws while the batches on show move, and while they grow; milliseconds between one frame and the next, and of drawing.
MOVE = """async ([kind]) => {
  const app = document.getElementById("colordim").colordim;
  const end = app.model.head.batches.train;
  const settled = () => new Promise((resolve) => { const look = () => (app.settled ? resolve() : setTimeout(look, 10)); setTimeout(look, 30); });
  const frame = () => new Promise(requestAnimationFrame);
  app.showBatches(0.3 * end, 0.6 * end);
  await settled();
  app.showBatches(0.3 * end, 0.7 * end);
  await settled();
  app.showBatches(0.3 * end, 0.6 * end);
  await settled();
  await frame();
  const between = [];
  app.stage.times.length = 0;
  let last = await frame();
  for (let i = 1; i <= 60; i++) {
    if (kind === "pan") app.showBatches((0.3 + 0.002 * i) * end, (0.6 + 0.002 * i) * end);
    else if (kind === "zoom") app.showBatches(0.3 * end, (0.6 + 0.002 * i) * end);
    else app.set({ window: `${-1 - 0.05 * i},${1 + 0.05 * i}` });
    const now = await frame();
    between.push(now - last);
    last = now;
  }
  return { between, drawing: [...app.stage.times] };
}"""


def write(folder: Path, layers: int, batches: int) -> None:
    """Write a run whose layers widen and narrow like those of a training."""
    rng = np.random.default_rng(0)
    axis = SignedLogAxis(3)
    edges, zero = axis.edges, axis.zero_bin
    middle = (edges[:-1] + edges[1:]) / 2
    cdf = np.vectorize(math.erf)
    widths = np.exp(np.linspace(-2.5, 2, 40))
    shares = np.array([np.diff(0.5 * (1 + cdf(edges / (width * math.sqrt(2))))) for width in widths])
    # drawing is slow: a few draws of each width are written again and again
    draws = rng.poisson(SIZE * shares[None].repeat(6, axis=0)).astype(np.int64)
    writer = FolderWriter(folder, {"name": folder.name}, queue_bytes=64 << 20, patience=1e9)
    streams = [
        Stream(i, f"blocks.{i // 6}.{ROLES[i % 6]}", "activation", "ReLU" if i % 3 == 2 else "Conv2d", "", (128, 64, 14, 14), i, axis)
        for i in range(layers)
    ]  # fmt: skip
    for stream in streams:
        writer.declare(stream)
    for batch in range(batches):
        rows, moments = [], []
        for i in range(layers):
            place = int(19.5 + 19 * math.sin(batch / 150 + i)) if batches < 10_000 else (batch // 997 + 7 * i) % 40
            counts = draws[(batch + i) % 6, place].copy()
            if i % 3 == 2:
                counts[zero], counts[:zero] = counts[:zero].sum(), 0
            filled = np.flatnonzero(counts)
            total = float((counts * middle).sum())
            rows.append(np.concatenate([counts, [0, 0, 0, 0, 0, counts[zero], counts.sum(), 1]]))
            moments.append([total, float((counts * middle**2).sum()), edges[filled[0]], edges[filled[-1] + 1]])
        values = {"loss": 2 * math.exp(-3 * batch / batches) + 0.1 * rng.random(), "lr": 1e-3}
        now = Batch(batch, batch, "train", batch // max(batches // 8, 1), batch, time.time(), True, values)
        writer.append(now, streams, np.concatenate(rows), np.array(moments))
    writer.close("stopped")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as ``colordim view`` does; yield the link."""
    command = [sys.executable, "-m", "colordim", "view", str(folder), "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield line[line.index("http") :].split()[0]
    finally:
        process.terminate()
        process.wait(10)


def opened(browser: Browser, address: str, keep: bool = False) -> tuple[float, Page]:
    """Open an address in a window of its own; return the seconds until all that is in view is on the screen."""
    context = browser.new_context(viewport={"width": 1920, "height": 1080}, bypass_csp=True)
    context.add_init_script(WATCH)
    page = context.new_page()
    time.sleep(REST)
    began = time.time()
    page.goto(address, wait_until="commit")
    shown = None
    while shown is None and time.time() < began + PATIENCE:
        time.sleep(REST / 2)  # nothing is asked of the page before it should be there
        shown = page.evaluate("window.shown")
    if shown is None:
        raise TimeoutError(f"{address} was not drawn in {PATIENCE:.0f} s.")
    if not keep:
        context.close()
    return float(shown) / 1e3 - began, page


def latency(browser: Browser, link: str, folder: Path) -> list[float]:
    """Append batches to a run that is looked at; return the seconds from each flush until its column is drawn."""
    name = f"live-{time.time_ns()}"
    writer = FolderWriter(folder / name, {"name": "live"})
    axis = SignedLogAxis(3)
    stream = Stream(0, "fc", "activation", "Linear", "", (8, 8), 0, axis)
    writer.declare(stream)
    row = np.zeros(stream.width, np.int64)
    row[[axis.zero_bin + 300, axis.bins + 6, axis.bins + 7]] = 64, 64, 1

    def add(number: int) -> None:
        now = Batch(number, number, "train", 0, number, time.time(), True, {"loss": 1.0})
        writer.append(now, [stream], row, np.array([[64.0, 64.0, 1.0, 1.0]]))
        writer.flush()

    add(0)
    _, page = opened(browser, f"{link}#run={name}", keep=True)
    found = []
    for number in range(1, 21):
        time.sleep(0.05 * number)  # at any time between two looks of the server
        add(number)
        began = time.perf_counter()
        drawn = f"() => {APP}.drawn && {APP}.panels[0].heat.at({number}.5)?.columns.of.size[{number}] === 64"
        page.wait_for_function(drawn, polling=10)
        found.append(time.perf_counter() - began)
    page.context.close()
    writer.close("stopped")
    return found


def in_turn(calls: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Repeat each call, all in turn."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(REPEATS):
        for name, call in calls.items():
            found[name].append(call())
    return found


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--batches", type=int, default=1_000_000, help="of the long run")
    parser.add_argument("--folder", type=Path, help="where the runs stay, and are read from if they are there")
    options = parser.parse_args()
    console = Console()
    table = Table(title="The viewer, in Chromium without a GPU, 1920 x 1080", show_header=False)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        folder = options.folder or Path(temporary)
        for name, layers, batches in (("sixty", 60, 2000), ("short", 3, 1000), ("long", 3, options.batches)):
            if not (folder / name / "run.json").exists():
                with console.status(f"writing {layers} layers x {batches:,} batches"):
                    write(folder / name, layers, batches)
        report = folder / "report.html"
        colordim.open(folder / "sixty").report(report)
        exact = colordim.open(folder / "sixty").report(folder / "exact.html", exact=True, columns=2000)
        table.add_row("report of 60 layers x 2,000 batches", f"{report.stat().st_size / 1e6:.1f} MB")
        table.add_row("the same, every column and count", f"{exact.stat().st_size / 1e6:.1f} MB")
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium.find(), args=sandbox)
        with served(folder) as link:
            _, page = opened(browser, f"{link}#run=short", keep=True)  # the server's first answers are slower
            page.context.close()
            times = in_turn(
                {
                    "report, all in view drawn": lambda: opened(browser, report.as_uri())[0],
                    "page of 60 layers": lambda: opened(browser, f"{link}#run=sixty")[0],
                    "page of 3 layers x 1,000 batches": lambda: opened(browser, f"{link}#run=short")[0],
                    f"page of 3 layers x {options.batches:,} batches": lambda: opened(browser, f"{link}#run=long")[0],
                }
            )
            for name, found in times.items():
                table.add_row(
                    f"opening: {name}", f"{statistics.median(found):.2f} s ({min(found):.2f}-{max(found):.2f})"
                )
            found = latency(browser, link, folder)
            table.add_row(
                "a new column on screen after its flush",
                f"median {statistics.median(found):.2f} s, at most {max(found):.2f} s",
            )
            for where, address in (("page", f"{link}#run=sixty"), ("report", report.as_uri())):
                _, page = opened(browser, address, keep=True)
                for kind in ("pan", "zoom", "window"):
                    measured = page.evaluate(MOVE, [kind])
                    between, drawing = (sorted(measured[key]) for key in ("between", "drawing"))
                    table.add_row(
                        f"{where}, {kind}: a frame after the other; drawing alone",
                        f"median {statistics.median(between):.0f} ms, 90 % {between[int(0.9 * len(between))]:.0f} ms; "
                        f"{statistics.median(drawing):.0f} ms",
                    )
                page.context.close()
        browser.close()
    console.print(table)


if __name__ == "__main__":
    main()
