"""The manual in the viewer: served as the rest is, reached from a finding, and told in reports, which reach nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

import colordim
from colordim import manual
from colordim.diagnosis import Diagnosis, Finding
from colordim.web import findings as web_findings
from colordim.web.manual_page import manual_page
from colordim.web.security import HEADERS

FOUND = Diagnosis(
    (Finding("dead-units", "problem", "first is dead", ("first",), 0, 3, (), "w"),), "first is dead.", (), 4
)


@pytest.fixture(scope="module")
def folder(record: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("manual")
    run = record(made / "lenet")
    run.add(8)
    run.close()
    return Path(made)


@pytest.fixture
def served(serve: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(web_findings, "diagnose", lambda *_: FOUND)
    with serve(folder) as found:
        yield found


def test_pages_are_served_as_the_page_is(served: Any) -> None:
    for path in ("/manual/", *(f"/manual/{name}" for name in manual.names())):
        answer = served.ask(path, headers={})  # they hold nothing of anybody's
        assert answer.status == 200, path
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert b"<script" not in answer.data
        assert b"style=" not in answer.data
    assert served.ask("/manual/ranks", headers={"Host": "evil.example"}).status == 403
    assert served.ask("/manual/ranks", headers={"Origin": "http://evil.example"}).status == 403


@pytest.mark.parametrize(
    "name", ["nope", "../README", "..%2f..%2fREADME", "%2e%2e/README", "/etc/passwd", "index", "images/viewer.png"]
)
def test_nothing_else_is_served_under_it(served: Any, name: str) -> None:
    answer = served.ask(f"/manual/{name}", headers={})
    assert answer.status == 404
    assert answer.json["error"]


def test_links_between_pages_are_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    hrefs = re.findall(r'href="([^"]+)"', manual_page("diagnosis").decode())
    assert "../static/manual.css" in hrefs
    assert "diagnosis_benchmark" in hrefs
    monkeypatch.setattr(manual, "names", lambda: ("a", "cards/b"))
    monkeypatch.setattr(manual, "read", lambda name: "# T\n\n[x](../a.md#y) [z](b.md)\n")
    manual.headings.cache_clear()
    hrefs = re.findall(r'href="([^"]+)"', manual_page("cards/b").decode())
    manual.headings.cache_clear()
    assert hrefs == ["data:,", "../../static/manual.css", "../../", "../../manual/", "../a#y", "../cards/b"]


def test_a_finding_leads_to_its_heading(page: Page, served: Any) -> None:
    page.goto(f"http://127.0.0.1:{served.port}/?token={served.token}#run=lenet&why=0")
    link = page.get_by_role("link", name="what dead-units means")
    link.wait_for()
    with page.context.expect_page() as opened:
        link.click()
    shown = opened.value
    shown.wait_for_load_state()
    assert shown.url == f"http://127.0.0.1:{served.port}/manual/diagnosis#dead-units"
    assert shown.locator(":target").inner_text() == "dead-units"
    shown.wait_for_function("document.querySelector(':target').getBoundingClientRect().top < 100 && scrollY > 100")
    assert shown.evaluate("opener") is None
    for scheme in ("light", "dark"):
        shown.emulate_media(color_scheme=scheme)
        colors = shown.evaluate("[getComputedStyle(document.body).backgroundColor, document.styleSheets.length]")
        assert colors == [{"light": "rgb(255, 255, 255)", "dark": "rgb(16, 19, 22)"}[scheme], 1]
        found = Axe().run(shown).response["violations"]
        assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    for width in (400, 1280):
        shown.set_viewport_size({"width": width, "height": 800})
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shown.get_by_role("link", name="the benchmark").click()
    shown.wait_for_url("**/manual/diagnosis_benchmark")
    shown.get_by_role("link", name="all pages").click()
    shown.wait_for_url("**/manual/")
    assert shown.get_by_role("listitem").count() == len(manual.names())


def test_a_report_tells_it_itself(page: Page, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_findings, "diagnose", lambda *_: FOUND)
    file = colordim.open(folder / "lenet").report(tmp_path / "report.html")
    page.goto(file.as_uri() + "#why=0")
    page.get_by_text("what dead-units means").click()
    told = page.locator(".cd-finding details").inner_text()
    for paragraph in manual.as_paragraphs("diagnosis", "dead-units"):
        assert " ".join(paragraph.split()) in " ".join(told.split())
    assert page.locator("aside a").count() == 0
