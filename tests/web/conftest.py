"""The browser that the tests of the page share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from colordim.web import bundle

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
export function mountApp(element, { source }) {
  Object.assign(window, { source, readTiles });
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
    (folder / "style.css").write_text(".colordim { color: rgb(1, 2, 3) }\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "STATIC", folder)
        yield folder
