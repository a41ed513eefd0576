"""The diagnosis in the viewer: answered without waiting, said under the title, explained beside, marked on columns and layers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

import colordim
from colordim.axis import SignedLogAxis
from colordim.column import Batch, Stream
from colordim.diagnosis import Declined, Diagnosis, Finding, Number, Remedy
from colordim.store.writer import FolderWriter
from colordim.web import findings as web_findings
from colordim.web.answers import answer
from colordim.web.findings import findings, findings_now

HOSTILE = '"><img src=x onerror=alert(1)>\u202e'
LAYERS = ("features.0", "features.1", "head", HOSTILE)
LATE = Finding("late-start", "note", "head starts late", ("head",), 50, 99, (), "It waits.")
DEAD = Finding(
    "dead-units", "problem", "9 of 10 units of features.1 never fire", ("features.1",), 40, 79,
    (Number("dead units", 0.9, 0.5, "above", "%"),), "A rectifier passes nothing for a negative input.",
    (Remedy("leaky-relu", "Take nn.LeakyReLU."), Remedy("lower-lr", "Lower the learning rate.")), (LATE,),
)  # fmt: skip
ODD = Finding("saturation", "warning", f"half of {HOSTILE} is saturated", (HOSTILE,), 0, 99, (), "w")
MADE = Diagnosis(
    (DEAD, ODD), "Most units of features.1 never fire, since batch 40.", (Declined("precision", "Record gradients."),), 100,
    "made", ("plateau",),
)  # fmt: skip


class Sick:
    """A run of four layers, written batch by batch; NaN in the second from batch 40 on."""

    def __init__(self, folder: Path) -> None:
        self.axis, self.number = SignedLogAxis(1), 0
        self.streams = [Stream(i, n, "activation", "Linear", "", (16, 64), i, self.axis) for i, n in enumerate(LAYERS)]
        self.writer = FolderWriter(folder, {"name": folder.name})
        for stream in self.streams:
            self.writer.declare(stream)

    def add(self, batches: int) -> Sick:
        rng = np.random.default_rng(self.number)
        for _ in range(batches):
            rows, moments = [], []
            for stream in self.streams:
                values = rng.normal(0, 1, 512)
                bad = 12 if stream.id == 1 and self.number >= 40 else 0
                counts = np.histogram(values[bad:], self.axis.edges)[0]
                rows.append(np.concatenate([counts, [0, 0, bad, 0, 0, 0, 512, 1]]))
                moments.append([values[bad:].sum(), (values[bad:] ** 2).sum(), values[bad:].min(), values[bad:].max()])
            now = Batch(
                self.number, self.number, "train", self.number // 25, self.number, time.time(), True, {"loss": 1.0}
            )
            self.writer.append(now, self.streams, np.concatenate(rows).astype(np.int64), np.array(moments))
            self.number += 1
        self.writer.flush()
        return self


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("findings")
    Sick(made / "sick").add(100).writer.close("stopped")
    Sick(made / "well").add(30).writer.close("stopped")
    return made


def settled(run: colordim.Run) -> dict[str, Any]:
    """Ask as the page does, until there is an answer."""
    for _ in range(500):
        found: dict[str, Any] = json.loads(answer(run, "findings", {}))
        if found["diagnosis"] or found["error"]:
            return found
        time.sleep(0.02)
    raise AssertionError


# The question.


def test_the_answer_is_the_diagnosis_and_does_not_change_once_the_run_has_ended(folder: Path) -> None:
    run = colordim.open(folder / "sick")
    assert json.loads(answer(run, "findings", {})) == {"diagnosis": None, "error": None, "again": 0.3}
    found = settled(run)
    assert found["again"] is None
    expected = json.loads(json.dumps(run.diagnose().to_dict()))
    del expected["epochs"]
    assert found["diagnosis"] == expected
    assert found["diagnosis"]["findings"][0]["symptom"] == "not-finite"


def test_asking_waits_for_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    may, run, threads = threading.Event(), colordim.open(folder / "sick"), []

    def slow(run: colordim.Run, mute: Any = None) -> Any:
        threads.append(threading.current_thread().name)
        may.wait(20)
        raise ValueError("no way")

    monkeypatch.setattr(web_findings, "gather", slow)
    for _ in range(3):
        assert json.loads(answer(run, "findings", {}))["diagnosis"] is None
    assert json.loads(answer(run, "growth", {}))["batches"]["train"] == 100
    may.set()
    assert settled(run) == {"diagnosis": None, "error": "ValueError: no way", "again": None}
    assert threads == ["colordim-diagnose"]


def test_a_growing_run_is_diagnosed_again_after_a_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sick = Sick(tmp_path / "live").add(30)
    run = colordim.open(tmp_path / "live")
    first = settled(run)
    assert first["diagnosis"]["batches"] == 30
    assert 0.3 <= first["again"] <= 5
    sick.add(30)
    assert settled(run.refresh())["diagnosis"]["batches"] == 30  # not yet
    monkeypatch.setattr(web_findings, "_REST", 0.0)
    monkeypatch.setattr(web_findings, "_SHARE", 1e9)
    with web_findings._finding:
        web_findings._finders.clear()
    assert settled(run)["diagnosis"]["batches"] == 60
    sick.writer.close("stopped")
    run.refresh()
    for _ in range(500):
        if (last := findings(run))["again"] is None:
            break
        time.sleep(0.02)
    assert last["diagnosis"]["batches"] == 60


def test_answers_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(Finding("plateau", "note", "t" * 9999, ("l",) * 999, 0, 1, (), "w" * 9999) for _ in range(999))
    monkeypatch.setattr(web_findings, "diagnose", lambda *_: Diagnosis(many, "s" * 9999))
    run = colordim.open(folder / "sick")
    found = findings_now(run)["diagnosis"]
    assert len(found["findings"]) == len(found["findings"][0]["layers"]) == 64
    assert max(len(found["sentence"]), len(found["findings"][0]["title"])) == 2001
    monkeypatch.setattr(web_findings, "_MOST_STREAMS", 3)
    assert "more than 3 streams" in findings_now(run)["error"]


def test_a_mistake_of_the_project_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.colordim]\nmute = ["plato"]')
    assert "pyproject.toml: 'plato' is no symptom" in findings_now(colordim.open(folder / "sick"))["error"]


# The page.


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_findings, "diagnose", lambda *_: MADE)


@pytest.fixture
def address(serve: Any, folder: Path) -> Iterator[str]:
    with serve(folder) as served:  # anew, so that each test has its own diagnosis
        yield f"http://127.0.0.1:{served.port}/?token={served.token}"


def show(page: Page, address: str, fragment: str) -> None:
    page.goto(f"{address}#{fragment}")
    until(page, "app.settled && app.panels.length")


def until(page: Page, condition: str) -> None:
    page.wait_for_function(
        f"() => {{ const app = document.getElementById('colordim').colordim; return app && {condition}; }}"
    )


def names(page: Page) -> list[str]:
    found: list[str] = page.locator(".cd-panel .cd-name").all_inner_texts()
    return found


def test_the_worst_is_said_under_the_title(page: Page, address: str, folder: Path) -> None:
    show(page, address, "run=sick")
    sentence = colordim.open(folder / "sick").diagnose().sentence
    assert page.locator(".cd-verdict .cd-sentence").inner_text().endswith(sentence)
    assert page.locator(".cd-verdict .cd-sign").inner_text().startswith("▲")


def test_of_a_healthy_run_it_is_said_as_well(page: Page, address: str) -> None:
    show(page, address, "run=well")
    assert "Nothing is wrong in 30 batches" in page.locator(".cd-verdict").inner_text()
    assert page.locator(".cd-verdict .cd-sign").inner_text().startswith("✓")
    assert page.locator("[data-key='show me']").count() == page.locator(".cd-badge").count() == 0


@pytest.mark.usefixtures("made")
def test_show_me_goes_to_the_layer_and_the_batches(page: Page, address: str) -> None:
    show(page, address, "run=sick&layer=head&find=x")
    page.get_by_role("button", name="show me").first.click()
    until(page, "!app.state.layer && app.panels.length === 4")
    # 40 to 79 are 40 batches, with 8 at either side, which is more than 15 %
    assert page.evaluate("document.getElementById('colordim').colordim.state.x") == "32,88"
    assert page.evaluate("document.activeElement.textContent") == "features.1"


@pytest.mark.usefixtures("made")
def test_why_explains_beside_and_gives_the_focus_back(page: Page, address: str) -> None:
    show(page, address, "run=sick")
    page.get_by_role("button", name="why, and 1 more").click()
    aside = page.locator("aside.cd-explanation")
    text = aside.inner_text()
    for part in (
        "problem: 9 of 10 units of features.1 never fire", "batches 40 to 79", "dead units: 90 % (above 50 %)",
        "A rectifier passes nothing", "Lower the learning rate.", "head starts late (from batch 50 on)",
        "what dead-units means", "Muted: plateau.", "Not judged, for want of evidence: 1",
    ):  # fmt: skip
        assert part in text
    assert "why=0" in page.url
    assert page.evaluate("document.activeElement.closest('details').dataset.number") == "0"
    page.keyboard.press("Escape")
    assert aside.is_hidden()
    assert page.evaluate("document.activeElement.dataset.key") == "why"
    page.locator(".cd-badge").nth(2).click()  # of the layer with the hostile name
    assert page.locator("details.cd-finding[open]").get_attribute("data-number") == "1"


@pytest.mark.usefixtures("made")
def test_layers_have_signs_and_columns_brackets(page: Page, address: str) -> None:
    show(page, address, "run=sick")
    signs = page.evaluate(
        "document.getElementById('colordim').colordim.panels.map(p => p.element.querySelector('.cd-badge')?.firstChild.textContent ?? '')"
    )
    assert signs == ["", "▲", "●", "◆"]
    ink = page.evaluate(
        """() => { const app = document.getElementById('colordim').colordim;
        const { canvas, ctx } = app.stage;
        const origin = canvas.getBoundingClientRect(), ratio = canvas.width / origin.width;
        const { data, width } = ctx.getImageData(0, 0, canvas.width, canvas.height);
        return app.panels.map(panel => {
          const rect = panel.plot.getBoundingClientRect();
          const inner = panel.inner({ x: (rect.left - origin.left) * ratio, y: (rect.top - origin.top) * ratio, w: rect.width * ratio, h: rect.height * ratio }, ratio);
          const at = batch => {
            const place = 4 * (Math.round(inner.y - 5 * ratio) * width + Math.round(inner.x + (batch / 100) * inner.w));
            return [...data.slice(place, place + 4)];
          };
          return [20, 60, 90].map(batch => at(batch)[3] > 128 ? at(batch).slice(0, 3).join() : '');
        }); }"""
    )
    problem = "184,64,10"  # --cd-problem of the light theme
    assert ink[0] == ["", "", ""]
    assert ink[1] == ["", problem, ""]
    assert ink[2][0] == ""


@pytest.mark.usefixtures("made")
def test_the_order_and_the_dimming_follow_the_findings(page: Page, address: str) -> None:
    show(page, address, "run=sick&order=trouble&dim=healthy")
    assert names(page)[:2] == ["features.1", HOSTILE]
    faint = page.evaluate(
        "document.getElementById('colordim').colordim.panels.map(p => p.element.classList.contains('cd-faint'))"
    )
    assert faint == [False, False, True, True]  # a note is no trouble


@pytest.mark.usefixtures("made")
def test_names_are_text(page: Page, address: str, trouble: list[str]) -> None:
    page.on("dialog", lambda dialog: trouble.append(dialog.message))
    show(page, address, "run=sick&why=1")
    said = page.locator("details[data-number='1'] summary").inner_text()
    assert said == f"◆ warning: half of {HOSTILE} is saturated".replace("\u202e", "\ufffd")
    assert page.locator("aside img, .cd-verdict img").count() == 0


@pytest.mark.usefixtures("made")
def test_axe_finds_nothing_serious(page: Page, address: str) -> None:
    show(page, address, "run=sick&why=0")
    for theme in ("light", "dark"):
        page.evaluate("t => document.getElementById('colordim').colordim.set({ theme: t })", theme)
        found = Axe().run(page).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []


def test_a_live_page_hears_of_a_new_finding(
    page: Page, serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_findings, "_REST", 0.1)
    sick = Sick(tmp_path / "live").add(30)
    with serve(tmp_path) as served:
        page.goto(f"http://127.0.0.1:{served.port}/?token={served.token}#run=live")
        page.get_by_text("Nothing is wrong in 30 batches").wait_for()
        sick.add(20)
        page.get_by_text("NaN in the output of features.1").first.wait_for()
        page.locator(".cd-badge").first.wait_for()
        page.goto("about:blank")


@pytest.mark.usefixtures("made")
def test_a_report_holds_it(page: Page, folder: Path, tmp_path: Path) -> None:
    file = colordim.open(folder / "sick").report(tmp_path / "report.html")
    page.goto(file.as_uri() + "#why=0")
    until(page, "app.settled && app.panels.length === 4")
    assert MADE.sentence in page.locator(".cd-verdict").inner_text()
    assert "Lower the learning rate." in page.locator("aside.cd-explanation").inner_text()
    assert page.locator(".cd-badge").count() == 3
