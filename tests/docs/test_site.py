"""The manual builds without a warning, its links hold, and links to other files of the repository are led somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


LINKS = module(Path(__file__).with_name("links.py"))
CONF = module(DOCS / "conf.py")
CHROMIUM = module(ROOT / "tests" / "web" / "chromium.py")


def sheets(site: Path) -> dict[str, int]:
    """Return how many sheets of A4 each card of a site is printed on."""
    path = CHROMIUM.find()
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    printed = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=sandbox)
        page = browser.new_page()
        for card in sorted((site / "cards").glob("*.html")):
            page.goto(card.as_uri())
            pdf = page.pdf(format="A4", prefer_css_page_size=True)
            printed[card.stem] = len(re.findall(rb"/Type\s*/Page\b", pdf))
        browser.close()
    return printed


def test_the_site_builds_and_its_links_hold(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-E", "-q", "-d", str(tmp_path / "trees")]
    built = subprocess.run([*command, DOCS, tmp_path / "site"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert LINKS.broken(tmp_path / "site") == []
    # Anchors as GitHub gives them lead to their headings here as well.
    assert 'id="max_bytes"' in (tmp_path / "site" / "options.html").read_text("utf-8")
    # A page of the manual that includes one of the repository, whose links are meant from there.
    changelog = (tmp_path / "site" / "changelog.html").read_text("utf-8")
    assert 'href="view.html"' in changelog
    cards = sheets(tmp_path / "site")
    assert cards.pop("index") > 1, "or the sheets are not counted"
    assert len(cards) > 20
    assert set(cards.values()) == {1}, cards


def test_a_link_that_does_not_hold_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text('<h1 id="here">There</h1>')
    (tmp_path / "picture.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(
        """
        <a href="there.html">1</a> <a href="there.html#here">2</a> <a href="#own">3</a> <p id="own"></p>
        <img src="picture.png"> <a href="https://example.org/x">4</a> <img src="data:image/png;base64,AA==">
        <a href="there.html#gone">5</a> <a href="gone.html">6</a> <a href="#gone">7</a> <img src="gone.png">
        <a href="../outside.html">8</a> <script src="https://cdn.example.org/x.js"></script>
        <link rel="stylesheet" href="//fonts.example.org/x.css">
        """
    )
    (tmp_path.parent / "outside.html").write_text("")
    named = [re.search(r"(?:to|loads) (\S+?),? ", sentence) for sentence in LINKS.broken(tmp_path)]
    assert [match[1] for match in named if match] == [
        "there.html#gone", "gone.html", "#gone", "gone.png", "../outside.html", "https://cdn.example.org/x.js",
        "//fonts.example.org/x.css",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "folder", "leads_to"),
    [
        ("../README.md", "docs", "/index.md"),
        ("../README.md#use-it", "docs", "/index.md"),  # the front page has headings of its own
        ("../CHANGELOG.md", "docs", "/changelog.md"),
        ("../../CONTRIBUTING.md#how-to-add-a-chart", "docs/cards", "/contributing.md#how-to-add-a-chart"),
        ("docs/performance.md#gpu", ".", "/performance.md#gpu"),  # in a page that is included from the root
        ("docs/cards/index.md", ".", "/cards/index.md"),
        ("notebooks/lightning.ipynb", ".", "/../notebooks/lightning.ipynb"),
        ("resume.md#epochs", "docs", None),
        ("../notebooks/lightning.ipynb", "docs", None),  # MyST offers it for download
        ("#epochs", "docs", None),
        ("https://example.org/README.md", "docs", None),
        ("mailto:me@example.org", "docs", None),
    ],
)
def test_links_of_github_are_led_to_pages_of_the_site(target: str, folder: str, leads_to: str | None) -> None:
    assert CONF.resolve(target, ROOT / folder) == leads_to
