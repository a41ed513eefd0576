"""The page of one layer, and the strips of the wall: what is drawn, told and saved is what the run holds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib as mpl
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect
from torch import nn

import colordim
from colordim import statistics
from colordim.charts.twin_peaks import find_peaks

HEAD = '=say "<b>hi'
EPOCHS, TRAIN, VALID = 3, 12, 4


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(20, 16)
        self.act = nn.ReLU()
        self.add_module(HEAD, nn.Linear(16, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return getattr(self, HEAD)(self.act(self.body(x)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> colordim.Run:
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    folder = tmp_path_factory.mktemp("runs") / "run"
    facets = {"=say*": ["one", "two", "three"]}
    with colordim.record(model, folder=folder, kinds="all", optimizer=optimizer, facets=facets) as rec:
        for _ in range(EPOCHS):
            for phase, number in (("train", TRAIN), ("valid", VALID)):
                model.train(phase == "train")
                for _ in range(number):
                    x = torch.randn(32, 20)
                    with torch.set_grad_enabled(phase == "train"):
                        loss = nn.functional.cross_entropy(model(x), (x[:, :3]).argmax(1))
                    if phase == "train":
                        optimizer.zero_grad()
                        loss.backward()
                        optimizer.step()
                    rec.log(loss=loss.item())
            rec.epoch()
    return colordim.open(folder)


@pytest.fixture(scope="module")
def address(run: colordim.Run, serve: Any) -> Iterator[str]:
    with serve(Path(run.path)) as served:
        yield f"http://127.0.0.1:{served.port}/?token={served.token}"


def show(page: Page, address: str, **view: str) -> None:
    """Open a view, and wait until all of it has come."""
    page.goto(f"{address}#run=.&" + "&".join(f"{name}={quote(value)}" for name, value in view.items()))
    settled(page)


def settled(page: Page) -> None:
    page.wait_for_function(
        """() => { const app = document.getElementById("colordim").colordim;
        return app.model && app.panels.length && app.settled && !app.model.busy; }"""
    )


def data(page: Page, selector: str) -> Any:
    """What a chart says that it draws."""
    page.wait_for_function("s => document.querySelector(s)?.cdData", arg=selector)
    settled(page)
    text = page.evaluate(
        """s => JSON.stringify(document.querySelector(s).cdData, (_, value) => ArrayBuffer.isView(value) ? [...value] : value)""",
        selector,
    )
    return json.loads(text)


def of_epoch(run: colordim.Run, phase: str, epoch: int) -> Any:
    """The batches that twin peaks add up, counted by hand: 12 and 4 an epoch."""
    if phase == "train":
        return slice(TRAIN * epoch + 9, TRAIN * (epoch + 1))
    return slice(VALID * epoch, VALID * (epoch + 1))


def test_a_change_of_phase_keeps_what_is_on_show(page: Page, address: str) -> None:
    app = "document.getElementById('colordim').colordim"
    show(page, address, x="12,24")  # the second epoch, of 12 batches and 4 of validation
    for phase, x in (("valid", "4,8"), ("both", "12,24"), ("valid", "4,8"), ("train", "12,24")):
        page.get_by_label("phase").select_option(phase)
        settled(page)
        assert page.evaluate(f"{app}.state.x") == x
    page.get_by_label("phase").select_option("both")
    settled(page)
    views = page.evaluate(f"{app}.panels.map((p) => [p.phase, p.view.from, p.view.to])")
    assert {tuple(view) for view in views} == {("train", 12, 24), ("valid", 4, 8)}
    show(page, address, x="")
    page.get_by_label("phase").select_option("valid")
    settled(page)
    assert page.evaluate(f"{app}.state.x") == ""


def test_of_weights_there_are_training_batches_alone(page: Page, address: str, run: colordim.Run) -> None:
    app = "document.getElementById('colordim').colordim"
    weights = len([stream for stream in run.streams if stream.kind == "weight"])
    for phase in ("both", "valid"):
        show(page, address, kind="weight", phase=phase)
        assert page.evaluate(f"{app}.panels.map((p) => p.phase)") == weights * ["train"]
        assert page.get_by_label("phase").locator("option").all_inner_texts() == ["training"]
    show(page, address, phase="valid", x="4,8")
    page.get_by_label("kind").select_option("weight")
    settled(page)
    assert page.evaluate(f"[{app}.state.phase, {app}.state.x, {app}.panels.length]") == ["train", "", weights]
    assert "valid" not in page.url


def test_twin_peaks_are_the_sums_of_the_run(page: Page, address: str, run: colordim.Run) -> None:
    show(page, address, layer=HEAD, tab="twin", epoch="1")
    drawn = data(page, ".cd-twin")
    assert drawn["epoch"] == 1
    axis = run.stream(HEAD).axis
    matrix = axis.project(np.array(drawn["edges"]))
    for phase in ("train", "valid"):
        counts = run.counts(HEAD, phase)[of_epoch(run, phase, 1)].sum(axis=0)
        assert drawn[phase]["counts"] == counts.tolist()
        assert drawn[phase]["batches"] == (3 if phase == "train" else 4)
        np.testing.assert_allclose(drawn[phase]["share"], matrix @ counts / counts.sum(), atol=1e-12)
    said = page.locator(".cd-twin").get_attribute("aria-label") or ""
    peaks = find_peaks(np.array(drawn["train"]["share"][1:-1]), np.array(drawn["edges"]))
    assert len(peaks) > 0
    for peak in peaks:
        assert f"{abs(float(f'{peak:.3g}')):g}" in said


def test_numbers_are_grouped_as_the_browser_does_it(page: Page, address: str) -> None:
    page.goto(address)
    numbers: list[float] = [0, 7, 12, 999, 1000, 1234, 99999, 100000, 1234567, 10**12, 2**53, -1, -999, -1000, -1234567]
    numbers += [0.5, 0.1234, 17.96, 1234.5, 1234.5678, 999.9996, 1e6 / 3, -1234.56]
    ours, theirs = page.evaluate(
        """async (numbers) => { const { countText } = await import('./static/format.js');
        const { format } = new Intl.NumberFormat('en-US'); return [numbers.map(countText), numbers.map((n) => format(n))]; }""",
        numbers,
    )
    assert ours == theirs


def test_peaks_are_those_of_the_statistics(page: Page, address: str) -> None:
    page.goto(address)
    rng = np.random.default_rng(3)
    profiles = [
        rng.poisson(40 * np.exp(-(((np.arange(60) - a) / w) ** 2)) + rng.random()).tolist()
        for a, w in rng.uniform(3, 57, (20, 2))
    ]
    profiles += [[0.0] * 40, [1.0] * 40]
    found = page.evaluate(
        "async (profiles) => { const { findPeaks } = await import('./static/peaks.js'); return profiles.map(findPeaks); }",
        profiles,
    )
    for profile, rows in zip(profiles, found, strict=True):
        expected = statistics.peaks(profile, sigma=max(0.02 * len(profile), 1.6), prominence=0.02, own=0.25).position[
            :2
        ]
        assert rows == sorted(expected.tolist())


def test_slider_and_play_change_the_epoch(page: Page, address: str) -> None:
    show(page, address, layer=HEAD, tab="twin")
    slider = page.get_by_role("slider", name="epoch")
    assert data(page, ".cd-twin")["epoch"] == EPOCHS - 1
    slider.focus()
    slider.press("Home")
    slider.press("ArrowLeft")
    page.wait_for_function("() => document.querySelector('.cd-twin').cdData.epoch === 0")
    assert "epoch=0" in page.url
    assert HEAD in page.locator("h2").first.inner_text(), "an arrow in the slider is not one of the page"
    page.get_by_role("button", name="play through the epochs").click()
    page.wait_for_function(f"() => document.querySelector('.cd-twin').cdData.epoch === {EPOCHS - 1}")
    page.get_by_role("button", name="play through the epochs").wait_for()  # it stops at the end
    page.emulate_media(reduced_motion="reduce")
    page.reload()
    settled(page)
    page.get_by_role("button", name="next epoch").click()  # from the last to the first, and no further by itself
    page.wait_for_function("() => document.querySelector('.cd-twin').cdData?.epoch === 0")


def test_pins_and_their_difference(page: Page, address: str, run: colordim.Run) -> None:
    show(page, address, layer="body")
    plot = page.locator(".cd-large .cd-plot").first
    box = plot.bounding_box()
    assert box is not None
    for batch in (4, 30):
        x = 40 + (box["width"] - 41) * (batch + 0.5) / (EPOCHS * TRAIN)
        plot.click(position={"x": x, "y": box["height"] / 2})
    assert page.url.endswith("pins=4,30")
    counts = run.counts("body")
    moments = run.moments("body")
    page.wait_for_function("() => document.querySelector('.cd-pins').cdData?.difference?.counts")
    pins = data(page, ".cd-pins")
    for letter, batch in (("A", 4), ("B", 30)):
        assert pins[letter]["exact"]
        assert pins[letter]["counts"] == counts[batch].tolist()
        mean = moments["sum"][batch] / moments["size"][batch]
        assert pins[letter]["moments"]["mean"] == pytest.approx(mean, rel=1e-15)
        assert pins[letter]["moments"]["std"] == pytest.approx(
            np.sqrt(moments["sum_sq"][batch] / moments["size"][batch] - mean**2), rel=1e-9
        )
    assert pins["difference"]["counts"] == (counts[30] - counts[4]).tolist()
    beside = data(page, ".cd-histogram .cd-plot")
    drawn = np.array(beside["rows"]["difference"])
    window = page.evaluate("() => document.getElementById('colordim').colordim.panels[0].window")
    edges = np.linspace(window["lo"], window["hi"], len(drawn) - 1)
    matrix = run.stream("body").axis.project(edges)
    np.testing.assert_allclose(drawn, matrix @ (counts[30] - counts[4]) / counts[4].sum(), atol=1e-12)
    page.get_by_role("button", name="clear the pinned columns").click()
    assert "pins" not in page.url
    page.get_by_label("batch of column A").fill("7")
    page.get_by_label("batch of column A").press("Tab")
    page.wait_for_function("() => document.querySelector('.cd-pins').cdData?.A?.first === 7")


def test_what_the_source_refuses_is_estimated_and_says_so(
    page: Page, address: str, run: colordim.Run, trouble: list[str]
) -> None:
    for route in ("column", "moments"):
        page.route(f"**/api/{route}?*", lambda route: route.fulfill(status=400, json={"error": "not here"}))
    show(page, address, layer="body", pins="4", tab="table")
    page.get_by_text("bins estimated").wait_for()
    pin = data(page, ".cd-pins")["A"]
    size = run.moments("body")["size"][4]
    assert not pin["exact"]
    assert pin["counters"]["size"] == size
    assert sum(pin["rows"]) == pytest.approx(size, rel=0.06), "as well as the codes of a tile tell"
    page.get_by_text("mean and std to seven digits").wait_for()
    assert all("400" in each for each in trouble)
    trouble.clear()


def test_the_table_and_the_file_are_the_moments_of_the_run(
    page: Page, address: str, run: colordim.Run, tmp_path: Path
) -> None:
    show(page, address, layer=HEAD, tab="table", x="3,30", phase="train")
    moments = run.moments(HEAD)
    rows = page.get_by_role("table", name=HEAD).locator("tbody tr")
    rows.first.wait_for()
    assert rows.count() == 27
    assert rows.nth(2).locator("th").inner_text() == "5"
    drawn = data(page, ".cd-table table")
    assert drawn["exact"]
    for name in ("size", "zeros", "under", "over", "nan", "min", "max", "sum", "sum_sq"):
        assert drawn["of"][name] == moments[name][3:30].tolist()
    with page.expect_download() as saved:
        page.get_by_role("button", name="save the numbers, CSV").click()
    saved.value.save_as(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["first"]) for line in lines] == list(range(3, 30))
    assert {line["layer"] for line in lines} == {f"'{HEAD}"}, "a name is no formula"
    for column, name in (("values", "size"), ("sum", "sum"), ("sum_sq", "sum_sq"), ("min", "min"), ("max", "max")):
        assert [float(line[column]) for line in lines] == moments[name][3:30].tolist()
    assert [float(line["mean"]) for line in lines] == (moments["sum"] / moments["size"])[3:30].tolist()
    assert {line["exact"] for line in lines} == {"yes"}


def test_the_copied_python_draws_the_same_layer(browser: Browser, address: str, run: colordim.Run) -> None:
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    show(page, address, layer=HEAD, x="3,30", color="count", lines="mean", phase="both")
    page.get_by_role("button", name="copy Python").click()
    page.get_by_role("button", name="copied").wait_for()
    code = page.evaluate("navigator.clipboard.readText()")
    window = page.evaluate("() => document.getElementById('colordim').colordim.panels[0].window")
    context.close()
    statement = code.strip().splitlines()[-1]
    names: dict[str, Any] = {}
    mpl.use("Agg")
    exec(code.replace(statement, f"figure = {statement}"), names)
    texts = [text.get_text() for text in names["figure"].findobj(mpl.text.Text)]
    assert any(HEAD in text for text in texts)
    expected = run.colorful(
        HEAD, phase=("train", "valid"), start=3, stop=30, window=(window["lo"], window["hi"]), color="count", mean=True
    )
    for mine, other in zip(
        names["figure"].findobj(mpl.image.AxesImage), expected.findobj(mpl.image.AxesImage), strict=True
    ):
        np.testing.assert_array_equal(mine.get_array(), other.get_array())


def test_python_is_quoted_for_any_name(page: Page, address: str) -> None:
    page.goto(address)
    names = ["a'b\"c\\", "line\nbreak", "\u202ereversed", "\U0001f600", "\u2028", "<script>", "\x00\x7f"]
    quoted = page.evaluate(
        "async (names) => { const { pythonText } = await import('./static/python.js'); return names.map(pythonText); }",
        names,
    )
    assert [eval(text) for text in quoted] == names
    assert not any("\u202e" in text or "\u2028" in text for text in quoted)
    fields = ["=1+1", "+a", "-1.5", "-a", "@x", "\t=1", 'a"b,c', "plain", "a\r\nb"]
    cells = page.evaluate(
        "async (fields) => { const { csvField } = await import('./static/csv.js'); return fields.map(csvField); }",
        fields,
    )
    assert cells == ["'=1+1", "'+a", "-1.5", "'-a", "'@x", "'\t=1", '"a""b,c"', "plain", '"a\r\nb"']


def test_a_link_reopens_the_page(page: Page, address: str, browser: Browser) -> None:
    show(page, address, layer=HEAD, tab="classes", pins="4,v2", epoch="1", phase="both")
    link = page.url
    context = browser.new_context()
    other = context.new_page()
    show(other, address)
    other.goto(link)
    settled(other)
    assert other.get_by_role("tab", selected=True).inner_text() == "classes"
    expect(other.get_by_label("batch of column B")).to_have_value("2")
    assert data(other, ".cd-pins")["B"]["phase"] == "valid"
    other.locator(".cd-twin").first.scroll_into_view_if_needed()
    assert data(other, ".cd-twin")["epoch"] == 1
    context.close()


def test_tabs_arrows_and_neighbours_by_key(page: Page, address: str) -> None:
    show(page, address, layer="body")
    tabs = page.get_by_role("tab")
    assert tabs.all_inner_texts() == [
        "twin peaks",
        "gradient",
        "weight",
        "weight gradient",
        "update",
        "dead units",
        "table",
    ]
    tabs.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    settled(page)
    assert page.get_by_role("tab", selected=True).inner_text() == "weight"
    assert page.evaluate("document.activeElement.textContent") == "weight"
    assert page.locator(".cd-medium h3").all_inner_texts() == ["body.weight", "one column", "body.bias", "one column"]
    page.locator("body").click(position={"x": 2, "y": 2})
    page.keyboard.press("ArrowRight")
    settled(page)
    assert page.locator("h2").first.inner_text() == "act"
    page.keyboard.press("Escape")
    settled(page)
    assert "layer=" not in page.url


def test_classes_dead_units_and_strips(page: Page, address: str, run: colordim.Run) -> None:
    show(page, address, layer=HEAD, tab="classes", epoch="0")
    for index in range(3):
        page.locator(f'.cd-twin[data-part="{index}"]').scroll_into_view_if_needed()
        drawn = data(page, f'.cd-twin[data-part="{index}"]')
        part = run.counts(run.stream(f"{HEAD}[{index}]", "activation"), "valid")
        assert part.any()
        assert drawn["valid"]["counts"] == part[:VALID].sum(axis=0).tolist()
    show(page, address, layer="body", tab="dead")
    windows = run.units("body")
    assert len(windows) > 0
    page.locator(".cd-tall").first.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('.cd-tall').cdData")
    assert data(page, ".cd-tall")["dead"] == windows.dead_share.tolist()
    show(page, address, strips="dead,update")
    strips = '.cd-panel[data-stream="0"] .cd-strip'
    page.wait_for_function(
        f"() => [...document.querySelectorAll('{strips}')].every((e) => Array.isArray(e.cdData) && e.cdData.length)"
    )
    assert [cell["value"] for cell in data(page, strips)] == windows.dead_share.tolist()
    update, weight = (run.moments(run.stream("body.weight", kind)) for kind in ("update", "weight"))
    std = [np.sqrt(m["sum_sq"] / m["size"] - (m["sum"] / m["size"]) ** 2) for m in (update, weight)]
    cells = data(page, f"{strips}:last-child")
    assert [cell["from"] for cell in cells] == list(range(EPOCHS * TRAIN))
    np.testing.assert_allclose([cell["value"] for cell in cells], np.log10(std[0] / std[1]), atol=1e-5)


def test_the_picture_holds_the_page(page: Page, address: str, tmp_path: Path) -> None:
    show(page, address, layer=HEAD, tab="classes", theme="dark")
    with page.expect_download() as saved:
        page.get_by_role("button", name="save as a picture").click()
    saved.value.save_as(tmp_path / "p.png")
    assert saved.value.suggested_filename == "run-say-b-hi.png"
    pixels = mpl.image.imread(tmp_path / "p.png")
    assert pixels.shape[1] == 2 * page.evaluate("document.querySelector('.cd-content').clientWidth")
    assert (pixels[..., 3] == 1).all(), "nothing of it is see-through"
    dark = np.array([0x18, 0x1C, 0x20]) / 255
    assert np.isclose(pixels[..., :3], dark, atol=0.01).all(axis=-1).mean() > 0.5
    found = page.evaluate(  # the large map, in the picture's pixels, is the same as on the page
        """async () => { const app = document.getElementById("colordim").colordim;
        const { pictureOf } = await import("./static/picture.js");
        const one = await pictureOf(app); const two = await pictureOf(app);
        const of = (c) => c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
        const a = of(one), b = of(two); let differ = 0; for (let i = 0; i < a.length; i++) differ += a[i] !== b[i];
        return [one.width, differ]; }"""
    )
    assert found == [pixels.shape[1], 0]


VIEWS: dict[str, list[dict[str, str]]] = {
    "light": [
        {"layer": HEAD, "tab": "twin", "pins": "3,20"}, {"layer": HEAD, "tab": "classes", "phase": "both"},
        {"layer": "body", "tab": "weight"},
    ],
    "dark": [{"layer": "body", "tab": "dead", "pins": "3,20"}, {"layer": "body", "tab": "table"}, {"strips": "dead,update"}],
}  # fmt: skip


@pytest.mark.parametrize("theme", VIEWS)
def test_axe_finds_nothing_serious(page: Page, address: str, theme: str) -> None:
    for view in VIEWS[theme]:
        show(page, address, theme=theme, **view)
        found = Axe().run(page).response["violations"]
        serious = [
            (each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")
        ]
        assert serious == [], view


def test_narrow_windows_scroll_in_one_direction(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    for tab in ("twin", "classes", "table", "weight"):
        show(page, address, layer="body" if tab == "weight" else HEAD, tab=tab, pins="2,9")
        wide = page.evaluate(
            "() => { const e = document.querySelector('.cd-scroll'); return [e.scrollWidth, e.clientWidth]; }"
        )
        assert wide[0] <= wide[1], tab
