"""The page in a browser, against a server on a real port: the wall, live columns, zoom, windows, links, compare, keys."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

import colordim
from colordim.axis import LinearAxis, SignedLogAxis
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter

LAYERS = ("features.0", "features.1", "head")
HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "🔥 emoji",
    "\u202etfel-ot-thgir",
    "n" * 10_000,
)


class Writer:
    """A run written batch by batch: ReLU-like layers, of which the second is dead from batch 40 on."""

    def __init__(self, folder: Path, names: tuple[str, ...] = LAYERS, scale: float = 1.0, name: str = "") -> None:
        self.rng = np.random.default_rng(3)
        self.axis, self.scale, self.number = SignedLogAxis(3), scale, 0
        self.writer = FolderWriter(folder, {"name": name or folder.name})
        self.streams = [Stream(i, n, "activation", "ReLU", "", (16, 64), i, self.axis) for i, n in enumerate(names)]
        for stream in self.streams:
            self.writer.declare(stream)

    def add(self, batches: int) -> Writer:
        for _ in range(batches):
            rows, moments = [], []
            for stream in self.streams:
                values = np.maximum(self.rng.normal(0, self.scale * (1 + self.number / 50), 1024), 0)
                if stream.id == 1 and self.number >= 40:
                    values[:] = 0
                place = np.searchsorted(self.axis.edges, values, "right") - 1
                place[values == 0] = self.axis.zero_bin
                counts = np.bincount(place, minlength=self.axis.bins)
                rows.append(np.concatenate([counts, [0, 0, 0, 0, 0, (values == 0).sum(), 1024, 1]]))
                moments.append([values.sum(), (values**2).sum(), values.min(), values.max()])
            known = {"loss": 2.0 / (1 + self.number), "lr": 0.1}
            phase: Any = "train"
            now = Batch(self.number, self.number, phase, self.number // 25, self.number, time.time(), True, known)
            self.writer.append(now, self.streams, np.concatenate(rows).astype(np.int64), np.array(moments))
            self.number += 1
        self.writer.flush()
        return self

    def close(self) -> None:
        self.writer.close("stopped")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("page")
    Writer(made / "one").add(100).close()
    Writer(made / "two", ("features.0", "features.1", "tail"), 2.0).add(80).close()
    Writer(made / "hostile", HOSTILE, name="<b>bold</b>").add(3).close()
    return made


@pytest.fixture(scope="module")
def served(serve: Any, folder: Path) -> Iterator[Any]:
    with serve(folder) as found:
        yield found


Visit = Callable[..., None]


@pytest.fixture
def visit(page: Page, served: Any) -> Visit:
    """Go to a view with the token, and wait until so many panels are drawn."""

    def go(fragment: str, panels: int = 3, server: Any = served) -> None:
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}#{fragment}")
        settle(page, panels)

    return go


def app(page: Page, expression: str, argument: Any = None) -> Any:
    return page.evaluate(
        f"(argument) => {{ const app = document.getElementById('colordim').colordim; return {expression}; }}", argument
    )


def until(page: Page, expression: str, seconds: float = 10) -> None:
    """Wait in small steps, since the page's policy forbids the eval() of wait_for_function."""
    end = time.monotonic() + seconds
    while not page.evaluate(
        f"() => {{ const app = document.getElementById('colordim')?.colordim; return Boolean({expression}); }}"
    ):
        assert time.monotonic() < end, (
            f"{expression} is still false after {seconds} s; the page says {page.inner_text('body')[:300]}"
        )
        page.wait_for_timeout(20)


def settle(page: Page, panels: int) -> None:
    until(page, f"app?.settled && app.panels.length === {panels} && app.charts.length > 0")


def on_map(page: Page, name: str, across: float, down: float = 0.5) -> tuple[float, float]:
    """Return a place of the page within the map of a layer, by shares of its width and height."""
    found = app(
        page,
        """(() => { const panel = app.panels.find((p) => p.stream.name === argument); const r = panel.plot.getBoundingClientRect();
        const inner = panel.inner({ x: r.left, y: r.top, w: r.width, h: r.height }, 1); return [inner.x, inner.y, inner.w, inner.h]; })()""",
        name,
    )
    return found[0] + across * found[2], found[1] + down * found[3]


@pytest.fixture
def listed(page: Page, served: Any) -> None:
    page.goto(f"http://127.0.0.1:{served.port}/?token={served.token}")
    page.get_by_role("link", name="one").wait_for()


@pytest.mark.usefixtures("listed")
def test_from_the_list_to_the_layer_that_died(page: Page) -> None:
    assert "token" not in page.url
    page.get_by_role("link", name="one").click()
    settle(page, 3)
    notes = [each.inner_text() for each in page.locator(".cd-wall .cd-note").all()]
    assert notes[1] == "only zeros since batch 40"
    assert "only zeros" not in notes[0] + notes[2]
    for words in ("100 batches", "4 epochs", "3 layers", "all values counted"):
        assert words in page.inner_text(".cd-facts")
    page.get_by_role("button", name="features.1").click()
    until(page, "app.state.layer === 'features.1'")
    page.go_back()
    settle(page, 3)
    page.get_by_role("link", name="colordim").click()
    page.get_by_role("link", name="two").wait_for()


@pytest.mark.parametrize("few", [True, False])
def test_what_was_logged_is_known_at_once_of_a_short_run(
    page: Page, visit: Visit, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not few:
        monkeypatch.setattr("colordim.web.head._SOON", 99)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.partition("/api/")[2].partition("?")[0]))
    visit("run=one")
    assert asked.count("marks") == (0 if few else 1)
    assert [app(page, f"app.charts[{i}].title") for i in range(2)] == ["loss", "lr"]
    assert "4 epochs" in page.inner_text(".cd-facts")


def test_the_window_follows_from_what_is_drawn(page: Page, serve: Any, write: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "long", 1, 700, layer="fc")  # two tiles of single batches
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with serve(tmp_path) as server:
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}#run=long&layer=fc")
        until(page, "app?.settled && app.panels.length > 0")
        widths = {part for url in asked if "/api/tiles" in url for part in url.split("&") if part.startswith("width=")}
        summary = app(
            page,
            "(() => { const s = app.model.summary(app.model.streams[0], 'train'); return { ...s, counts: [...s.counts] }; })()",
        )
        page.goto("about:blank")
    assert widths == {"width=1"}
    run = colordim.open(path)
    counts, moments = run.counts(0), run.moments(0)
    assert summary["size"] == moments["size"].sum()
    assert summary["zeros"] == pytest.approx(moments["zeros"].sum() / moments["size"].sum())
    assert summary["largest"] == max(-moments["min"].min(), moments["max"].max())
    assert summary["number"] == 700
    np.testing.assert_allclose(summary["counts"], counts.sum(axis=0), rtol=0.06)


def test_the_strip_of_the_run_draws_the_loss(page: Page, visit: Visit) -> None:
    visit("run=one")
    found = app(
        page,
        """(() => { const { canvas, track } = app.brush; const { width, height } = canvas;
        const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
        const tops = [];
        for (let x = 0; x < width; x++) { let y = 0; while (y < height && !data[4 * (y * width + x) + 3]) y++; tops.push(y); }
        return { width, height, track: [track.clientWidth, track.clientHeight], tops }; })()""",
    )
    assert [found["width"], found["height"]] == found["track"]
    steps = np.linspace(0, found["width"] - 1, 50).astype(int)[2:-2]
    curve = np.array(found["tops"])[steps]
    # 1 / (1 + batch), as it was logged, from the top downwards; marks of epochs reach the top
    expected = 3 + (found["height"] - 6) * (1 - 1 / (1 + 100 * steps / found["width"]))
    assert np.median(np.abs(curve - expected)) < 2


def test_windows_of_many_layers_are_asked_for_at_once(page: Page, serve: Any, write: Any, tmp_path: Path) -> None:
    write(tmp_path / "deep", 90, 20)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with serve(tmp_path) as server:
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}#run=deep")
        until(page, "app?.drawn && app.panels.length === 90")
        overviews = [url for url in asked if "/api/tiles" in url and "width=16" in url]
        page.goto("about:blank")
    assert len(overviews) == 1


def test_columns_appear_while_a_training_runs(page: Page, serve: Any, tmp_path: Path) -> None:
    writer = Writer(tmp_path / "live").add(10)
    with contextlib.closing(writer), serve(tmp_path) as server:
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}#run=live")
        settle(page, 3)
        assert page.inner_text(".cd-state") == "live"
        drawn = "app.panels[0].heat.at({0})?.columns.of.size[{0}] === 1024"
        assert not app(page, drawn.format(12))
        for number in (15, 40, 90):
            writer.add(number - writer.number)
            # a flush is on screen within a second; a busy machine is given more
            until(page, f"{drawn.format(number - 1)} && app.head !== 0", seconds=8)
        counts = colordim.open(tmp_path / "live").counts("head")
        shown = app(
            page,
            "(() => { const { columns, at } = app.panels[2].heat.at(85); return columns.sums.filter((_, i) => i % columns.length === at).reduce((a, b) => a + b); })()",
        )
        assert shown == pytest.approx(counts[85].sum(), rel=0.06)
        assert "90 batches" in page.inner_text(".cd-facts")


def test_zoom_pan_and_windows_are_linked_and_in_the_address(page: Page, visit: Visit) -> None:
    visit("run=one")
    page.mouse.move(*on_map(page, "head", 0.5))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    settle(page, 3)
    views = app(page, "app.panels.map((p) => [p.view.from, p.view.to])")
    assert views[0] == views[1] == views[2]
    start, stop = views[0]
    assert 0 < start < 50 < stop < 100
    assert stop - start == pytest.approx(100 * np.exp(-0.8), rel=0.02)
    assert (start + stop) / 2 == pytest.approx(50, abs=1)  # around the pointer
    x, y = on_map(page, "head", 0.5)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=3)
    page.mouse.up()
    moved = app(page, "[app.panels[0].view.from, app.panels[0].view.to]")
    assert moved[0] < start
    assert moved[1] - moved[0] == pytest.approx(stop - start, abs=0.02)
    before = app(page, "app.panels[0].window.hi")
    page.keyboard.down("Alt")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Alt")
    settle(page, 3)
    assert app(page, "app.panels[0].window.hi") < before
    url = page.url
    state = app(page, "[app.state.x, app.state.window]")
    other = page.context.new_page()
    other.goto(url)
    settle(other, 3)
    assert app(other, "[app.state.x, app.state.window]") == state
    assert app(other, "[app.panels[2].view.from, app.panels[2].view.to]") == pytest.approx(moved)
    other.close()
    page.keyboard.press("0")
    assert app(page, "app.state.x") == ""


def test_the_windows_are_those_of_the_figures(page: Page, visit: Visit, folder: Path) -> None:
    run = colordim.open(folder / "one")
    visit("run=one&window=own")
    for i, name in enumerate(LAYERS):
        values = np.repeat(run.stream(name).axis.edges[1:], run.counts(name).sum(axis=0))
        half = np.quantile(np.abs(values), 0.995)
        shown = app(page, f"app.panels[{i}].window.hi")
        assert 0.85 * half < shown < 1.6 * half  # of the upper edges of bins 12 % wide, rounded up to one or two digits
    page.get_by_label("window").select_option("symlog")
    settle(page, 3)
    largest = max(run.moments(name)["max"].max() for name in LAYERS)
    assert app(page, "app.panels[0].window.scale") == "symlog"
    assert app(page, "app.panels[0].window.hi") >= largest


def test_hovering_gives_exact_numbers(page: Page, visit: Visit, folder: Path) -> None:
    run = colordim.open(folder / "one")
    visit("run=one&window=-1,4")
    page.mouse.move(*on_map(page, "head", 0.305, 0.5))
    tip = page.locator(".cd-tip")
    count = tip.locator(".cd-count")
    until(page, "document.querySelector('.cd-count') && !document.querySelector('.cd-count').textContent.includes('≈')")
    text = tip.inner_text()
    assert "batch 30 " in text
    assert "epoch 1" in text
    low, high = (float(part.replace("−", "-")) for part in text.split("values from ")[1].split("\n")[0].split(" to "))
    edges = run.stream("head").axis.edges
    inside = (edges[:-1] >= low * (1 - 1e-3)) & (edges[1:] <= high * (1 + 1e-3))
    expected = run.counts("head")[30][inside].sum()
    assert expected > 0
    assert count.inner_text().startswith(f"{expected:,} of 1,024 values")
    assert app(page, "app.panels.every((p) => getComputedStyle(p.cursor).display === 'block')")


def test_no_bin_is_told_in_two_cells(page: Page, visit: Visit, folder: Path) -> None:
    visit("run=one")
    edges = colordim.open(folder / "one").stream("head").axis.edges
    windows: tuple[dict[str, Any], ...] = (
        {"lo": -1, "hi": 4, "scale": "linear", "linthresh": 1},
        {"lo": -8, "hi": 8, "scale": "symlog", "linthresh": 0.01},
    )
    for window in windows:
        cells = page.evaluate(
            """async (window) => { const { cellAt } = await import("./static/pointer.js");
            const panel = document.getElementById("colordim").colordim.panels[2];
            const fake = { stream: panel.stream, window, heat: { projection: { rows: 100 } } };
            return Array.from({ length: 100 }, (_, row) => { const cell = cellAt(fake, 1 - (row + 0.5) / 100); return [cell.first, cell.last]; }); }""",
            window,
        )
        for (first, last), (begin, end) in itertools.pairwise(cells):
            assert (first, last) == (begin, end) or last == begin, "a wide bin is told by all its rows, others by one"
        middles = (edges[:-1] + edges[1:]) / 2
        inside = np.flatnonzero((middles > window["lo"]) & (middles < window["hi"]))
        assert cells[0][0] <= inside[0]
        assert cells[-1][1] > inside[-1]


def test_two_runs_side_by_side_and_their_difference(page: Page, visit: Visit, folder: Path) -> None:
    visit("run=one&with=two", 5)  # three layers of the one, of which the other has two
    assert page.locator(".cd-pair").count() == 3
    assert "two has no such layer" in page.locator(".cd-pair").nth(2).inner_text()
    assert "Only two has tail" in page.inner_text(".cd-content")
    assert page.inner_text(".cd-facts").startswith("100 batches · 4 epochs (two: 80 batches · 4 epochs) · 3 layers")
    one, two = (colordim.open(folder / name) for name in ("one", "two"))
    drawn = app(
        page,
        """(() => { const [a, b] = [app.panels[0], app.panels[1]].map((p) => p.heat.at(20).columns);
        return { width: a.width, same: a.width === b.width, rows: a.rows, hi: app.panels[0].window.hi, other: app.panels[1].window.hi, a_std: 1.4,
          a: [...a.sums.filter((_, i) => i % a.length === 20)], b: [...b.sums.filter((_, i) => i % b.length === 20)] }; })()""",
    )
    assert drawn["same"]
    assert drawn["hi"] == drawn["other"]
    for run, side in ((one, "a"), (two, "b")):
        window = run.stream("features.0").axis.window(-drawn["hi"], drawn["hi"], drawn["rows"])
        assert np.allclose(drawn[side], window @ run.counts("features.0")[20], rtol=0.06, atol=0.01)
    # where only the wider run has values the picture of the difference has the colours of its end, and where both have
    # as many it is nearly white
    values = np.array([3.2 * drawn["a_std"], 0.02])
    purple, white = page.evaluate(
        """([values, hi]) => { const app = document.getElementById('colordim').colordim; const { canvas, content, top } = app.stage;
        const plot = document.querySelectorAll('.cd-pair')[0].querySelectorAll('.cd-plot')[2].getBoundingClientRect();
        const inner = app.panels[0].inner({ x: plot.left, y: plot.top, w: plot.width, h: plot.height }, 1);
        const origin = content.getBoundingClientRect(); const copy = new OffscreenCanvas(canvas.width, canvas.height);
        const ctx = copy.getContext('2d', { willReadFrequently: true }); ctx.drawImage(canvas, 0, 0);
        const x = inner.x + (20.5 / 100) * inner.w - origin.left;
        return values.map((value) => [...ctx.getImageData(x, inner.y + inner.h / 2 - (value / hi) * inner.h * 0.443 - origin.top - top, 1, 1).data]); }""",
        [values.tolist(), drawn["hi"]],
    )
    assert purple[3] > 0
    assert purple[2] > purple[0] > purple[1]
    assert white[3] > 0
    assert max(white[:3]) - min(white[:3]) < 90


def test_keys_reach_everything(page: Page, visit: Visit) -> None:
    visit("run=one")
    page.keyboard.press("/")
    page.keyboard.type("head")
    until(page, "app.panels.length === 1")
    page.keyboard.press("Enter")
    until(page, "app.state.layer === 'head'")
    page.keyboard.press("ArrowLeft")
    until(page, "app.state.layer === 'features.1'")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    settle(page, 3)
    page.locator("body").press("ArrowRight")
    assert page.evaluate("() => document.activeElement.textContent") == "features.0"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("() => document.activeElement.textContent") == "features.1"
    page.keyboard.press("+")
    assert app(page, "app.state.x") != ""
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.get_by_role("slider", name="first batch on show").press("End")
    page.get_by_role("slider", name="first batch on show").press("Home")
    assert app(page, "app.panels[0].view.from") == 0


@pytest.mark.parametrize("fragment", ["run=one", "run=one&theme=dark", "run=one&with=two", ""])
def test_axe_finds_nothing_serious(page: Page, served: Any, fragment: str) -> None:
    page.goto(f"http://127.0.0.1:{served.port}/?token={served.token}#{fragment}")
    if fragment:
        until(page, "app?.settled && app.panels.length >= 3")
    else:
        page.get_by_role("link", name="one").wait_for()
    found = Axe().run(page).response["violations"]
    serious = {
        each["id"]: [node["html"][:160] for node in each["nodes"]]
        for each in found
        if each["impact"] in ("serious", "critical")
    }
    assert serious == {}


def test_names_are_data_and_never_markup(page: Page, visit: Visit, trouble: list[str]) -> None:
    page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
    visit("run=hostile", 5)
    assert page.locator(".cd-wall img, .cd-wall script, h1 b").count() == 0
    titles = [each.inner_text() for each in page.locator(".cd-wall h3").all()]
    assert set(titles[:4]) == set(HOSTILE[:4]) or titles[0] == HOSTILE[0]
    widths = page.evaluate("() => [document.documentElement.scrollWidth, innerWidth]")
    assert widths[0] <= widths[1]
    page.get_by_role("button", name=HOSTILE[0]).click()
    until(page, "app.state.layer && app.settled")
    reopened = json.loads(json.dumps(app(page, "app.state.layer")))
    page.reload()
    until(page, "app?.settled && app.state.layer")
    assert app(page, "app.state.layer") == reopened == HOSTILE[0]


def test_a_page_without_the_token_says_what_to_do(page: Page, served: Any, trouble: list[str]) -> None:
    page.goto(f"http://127.0.0.1:{served.port}/#run=one")
    page.get_by_role("alert").wait_for()
    assert "open that link" in page.inner_text("[role=alert]")
    assert all("401" in each for each in trouble)
    trouble.clear()


def test_equal_bins_and_narrow_windows(page: Page, serve: Any, tmp_path: Path) -> None:
    """A run with a range of its own, in a window of 400 pixels: nothing is wider than the page."""
    writer = FolderWriter(tmp_path / "linear", {"name": "linear"})
    axis = LinearAxis(-1, 1, 20)
    stream = Stream(0, "fc", "activation", "Linear", "", (4, 5), 0, axis)
    writer.declare(stream)
    row = np.concatenate([np.arange(20), [5, 7, 0, 0, 0, 0, 202, 1]]).astype(np.int64)
    writer.append(
        Batch(0, 0, "train", 0, 0, time.time(), True, {"loss": 1.0}), [stream], row, np.array([[1.0, 9.0, -4.0, 3.0]])
    )
    writer.close("stopped")
    page.set_viewport_size({"width": 400, "height": 700})
    with serve(tmp_path) as server:
        page.goto(f"http://127.0.0.1:{server.port}/?token={server.token}#run=linear&window=-1,1")
        settle(page, 1)
        shown = app(page, "app.panels[0].outside()")
        assert (shown["under"], shown["over"]) == (5 / 202, 7 / 202)
        assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
