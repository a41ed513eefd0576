"""The manual names each command, option and chart, and nothing that is gone; symptoms are in tests/diagnosis/test_docs.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

import colordim
from colordim.cli import Charts, Parts, app
from colordim.views import Run

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS: Mapping[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
CHARTS = {
    name: method
    for name, method in vars(Run).items()
    if inspect.isfunction(method) and not name.startswith("_") and method.__annotations__.get("return") == "Figure"
}


def sections(page: str, level: int) -> dict[str, str]:
    """Return the text below each heading of a level, up to the next of the same level or above."""
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    pieces = re.split(rf"^(#{{1,{level}}}) (.+)$", text, flags=re.MULTILINE)
    return {
        title: body
        for marks, title, body in zip(*(pieces[i::3] for i in (1, 2, 3)), strict=True)
        if len(marks) == level
    }


def first_cells(section: str) -> str:
    """Return the first column of the tables of a section that list options."""
    tables = re.findall(r"^\| option \|.*\n\|[-|]+\|\n((?:\|.*\n?)+)", section, re.MULTILINE)
    return "\n".join(row.split("|")[1] for table in tables for row in table.splitlines())


def test_each_command_has_its_heading_and_no_other_has() -> None:
    headings = [title.removeprefix("colordim ") for title in sections("commands.md", 2)]
    assert sorted(headings) == sorted(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_option_of_a_command_is_explained_and_no_other(name: str) -> None:
    section = sections("commands.md", 2)[f"colordim {name}"]
    there = {
        option
        for parameter in COMMANDS[name].params
        if parameter.param_type_name == "option"
        for option in [*parameter.opts, *parameter.secondary_opts]
    } - {"--help", "-h"}
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", first_cells(section))) == there
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", section)) <= there


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_two_to_five_examples(name: str) -> None:
    examples = re.findall(rf"^    colordim {name}\b", sections("commands.md", 2)[f"colordim {name}"], re.MULTILINE)
    assert 2 <= len(examples) <= 5


def test_each_argument_of_record_has_its_heading_and_no_other_has() -> None:
    headings = [title for title in sections("options.md", 3) if not title.startswith("rec.")]
    assert sorted(headings) == sorted(inspect.signature(colordim.record).parameters)


def test_each_part_of_a_recording_has_its_heading_and_no_other_has() -> None:
    named = [name for title in sections("options.md", 3) for name in re.findall(r"rec\.(\w+)", title)]
    assert sorted(named) == sorted(name for name in vars(colordim.Recording) if not name.startswith("_"))


def test_each_chart_has_its_heading_and_no_other_has() -> None:
    headings = {title.lower().replace(" ", "_") for title in sections("charts.md", 2)}
    parts = {f"by_{part.value}" for part in Parts}
    assert headings - {"what_they_share", "in_the_terminal", "difference"} == {*CHARTS, *parts}
    assert {chart.value for chart in Charts} == set(CHARTS)  # the command line draws all of them


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_each_option_of_a_chart_is_named_and_no_other(name: str) -> None:
    chapters = re.split(r"^## ", (DOCS / "charts.md").read_text("utf-8"), flags=re.MULTILINE)
    (chapter,) = (each for each in chapters if each.lower().startswith(name.replace("_", " ") + "\n"))
    taken = set(inspect.signature(CHARTS[name]).parameters) - {"self"}
    assert taken <= set(re.findall(r"`(\w+)", chapter))
    assert set(re.findall(r"`(\w+)", first_cells(chapter))) <= taken


def test_each_chart_has_a_small_picture() -> None:
    pictures = set(re.findall(r"!\[[^\]]+\]\((images/chart-[\w-]+\.png)\)", (DOCS / "charts.md").read_text("utf-8")))
    assert pictures == {path.relative_to(DOCS).as_posix() for path in (DOCS / "images").glob("chart-*.png")}
    assert len(pictures) >= len(CHARTS)
    for picture in pictures:
        assert (DOCS / picture).stat().st_size <= 80_000
