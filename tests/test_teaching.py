"""The command line teaches: every command ends its help with examples that it understands, and ``docs`` shows the manual."""

from __future__ import annotations

import io
import shlex
import sys
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from colordim import manual, teaching
from colordim.cli import app, main

GROUP: Any = typer.main.get_command(app)
COMMANDS = list(GROUP.commands)


def help_of(*command: str, columns: int = 80) -> list[str]:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": str(columns), "TERMINAL_WIDTH": None})
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def examples(*command: str) -> list[str]:
    lines = help_of(*command)
    start = lines.index(" Examples")
    return [line.strip().removeprefix("colordim ") for line in lines[start:] if line.startswith("   colordim ")]


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_ends_with_examples_and_the_page_that_says_more(command: str) -> None:
    lines = help_of(*filter(None, [command]))
    assert 2 <= len(examples(*filter(None, [command]))) <= 4
    assert lines[-1].startswith(" More: colordim docs")
    if page := lines[-1].removeprefix(" More: colordim docs").strip():
        manual.find(page)


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_the_terminal_and_nothing_is_cut(command: str, columns: int) -> None:
    lines = help_of(*filter(None, [command]), columns=columns)
    assert max(map(len, lines)) <= columns
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_examples_are_understood(command: str) -> None:
    for example in examples(*filter(None, [command])):
        name, *rest = shlex.split(example.partition(" > ")[0])
        GROUP.commands[name].make_context(name, rest, parent=typer.Context(GROUP))  # raises what it would say


def test_commands_are_grouped_in_this_order() -> None:
    lines = [line for line in help_of() if line.startswith("╭")]
    titles = [line.strip("╭╮─ ") for line in lines]
    assert titles == ["Options", "Begin", "Look", "Judge", "Bring to other tools, and from them", "Check"]


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    assert "colordim demo" in capsys.readouterr().out


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_docs_lists_the_pages(capsys: pytest.CaptureFixture[str]) -> None:
    said = run(capsys, "docs")
    for page in manual.names():
        assert any(line.split(maxsplit=1) == [page, manual.title(page)] for line in said.splitlines())


def test_docs_writes_markdown_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "docs", "resume") == manual.section("resume")
    assert run(capsys, "docs", "dead-units") == manual.section("diagnosis", "dead-units")


def test_an_unknown_page_is_a_sentence_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["docs", "resme"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("colordim: the manual has no page 'resme'; the nearest is 'resume'")


def test_a_terminal_shows_it_rendered_and_where_its_links_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("pydoc.pager", said.append)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    teaching._docs("ranks")
    (text,) = said
    assert "## Which rank" not in text
    assert "Which rank, which folder" in text
    assert "](" not in text
    assert "See also: colordim docs resume" in " ".join(text.split())
    assert "ranks#HEADING" in text


def test_pictures_are_their_text_in_the_terminal() -> None:
    out = io.StringIO()
    teaching._print("view", "the-page", Console(file=out, width=80))
    assert "The wall: what is wrong in one sentence, loss and learning rate, a panel for each layer" in " ".join(
        out.getvalue().split()
    )
    assert "viewer.png" not in out.getvalue()


def test_a_wrong_option_names_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ls", "--nope"])
    assert "colordim ls --help" in capsys.readouterr().err
