"""Every code block of README and of the manual is run, page by page and in order, as it stands there."""

from __future__ import annotations

import ast
import gc
import re
import threading
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import matplotlib.pyplot as plt
import pytest
import torch
import yaml
from ipywidgets import Widget
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser
from tests.docs.pages import ELSEWHERE, NOT_RUN, REPLACED, Names, names_of

import colordim

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"))
    if "_build" not in path.parts
)


def blocks(page: str, *languages: str) -> list[tuple[int, str]]:
    """Return the line and the text of each fenced block of some languages."""
    found = Sybil([CodeBlockParser(language, lambda _: None) for language in languages]).parse(ROOT / page)
    return [(example.line, str(example.parsed)) for example in found.examples()]


def with_blocks(*languages: str) -> list[str]:
    return [page for page in PAGES if blocks(page, *languages)]


def why_not(page: str, code: str) -> str | None:
    return next((why for (name, piece), why in NOT_RUN.items() if name == page and piece in code), None)


def plain(code: str) -> str:
    """Return a block without the magics of notebooks, in lines of the same number."""
    return re.sub(r"^[%!].*$", "", code, flags=re.M)


def execute(page: str, line: int, code: str, names: Names) -> None:
    for there, here in REPLACED.get(page, {}).items():
        code = code.replace(there, here)
    tree = ast.parse(code, f"{page} (block of line {line})")
    ast.increment_lineno(tree, line)
    try:
        exec(compile(tree, page, "exec"), names)
    except NameError as error:
        pytest.fail(
            f"{page}, block of line {line}: {error}. If the page presumes it, say what it is: a function for the page in PAGES of "
            "tests/docs/pages.py, which returns {name: function that makes it}, or defaults() there if many pages do."
        )


@pytest.fixture
def _alone() -> Iterator[None]:
    """What a page leaves behind is stopped, closed or put back."""
    threads = torch.get_num_threads()
    yield
    plt.close("all")
    for each in gc.get_objects():  # of any name: what a block made, a later block may have named anew
        if type(each) is colordim.Recording:
            each.stop()
    Widget.close_all()
    for thread in threading.enumerate():
        if thread.name == "colordim-widget":
            thread.join(10)
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("colordim")]
    torch.set_num_threads(threads)
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def stop(names: dict[str, Any]) -> None:
    for value in list(names.values()):
        if isinstance(value, colordim.Recording):
            value.stop()


@pytest.mark.parametrize("page", [page for page in with_blocks("python") if page not in ELSEWHERE])
@pytest.mark.usefixtures("here", "_alone")
@pytest.mark.filterwarnings(
    "ignore::colordim.ColordimWarning",  # pages record twice what others record once
    "ignore::DeprecationWarning:(fastai|fastcore|lightning|transformers|torch|wandb)[.]",
    "ignore::FutureWarning:(fastai|fastcore|lightning|transformers|torch)[.]",
    "ignore::UserWarning:(fastai|fastcore|lightning|transformers|torch)[.]",
)
def test_python_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    names = names_of(page, monkeypatch)
    try:
        for line, code in blocks(page, "python"):
            if code.startswith("%pip"):  # a cell to be copied into an empty notebook: it knows nothing of the page
                execute(page, line, plain(code), Names({}))
            elif why_not(page, code) is None:
                execute(page, line, plain(code), names)
    finally:
        stop(names)


@pytest.mark.parametrize("page", with_blocks("python"))
def test_python_compiles(page: str) -> None:
    for line, code in blocks(page, "python"):
        try:
            with warnings.catch_warnings():
                ast.parse(plain(code))
        except SyntaxError as error:
            pytest.fail(f"{page}, block of line {line}: {error}")


def test_what_other_tests_run_is_run_there() -> None:
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text("utf-8")


def test_no_reason_is_left_over() -> None:
    for page, piece in NOT_RUN:
        assert any(piece in code for _, code in blocks(page, "python")), f"{page} has no such block: {piece}"


def test_sql_runs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that read files run in the folder of the runs, the others over the views of `colordim ls --query`."""
    from colordim import fleet

    monkeypatch.chdir(here / "runs")
    with duckdb.connect() as connection:
        for code in [code for page in PAGES if page not in ELSEWHERE for _, code in blocks(page, "sql")]:
            if "read_" in code or ".parquet" in code:
                connection.execute(code)
            else:
                fleet.query(here / "runs", code)


@pytest.mark.parametrize("page", with_blocks("toml", "yaml", "yml"))
def test_settings_parse(page: str) -> None:
    for _, text in blocks(page, "toml"):
        assert tomllib.loads(text)
    for _, text in blocks(page, "yaml", "yml"):
        assert yaml.safe_load(text)
