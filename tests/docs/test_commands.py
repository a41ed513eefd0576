"""Every `colordim ...` of README and of the manual is a command with those options; those that are cheap are run."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.docs.test_blocks import PAGES, ROOT
from typer.testing import CliRunner

from colordim.cli import app

ROOT_COMMAND: Any = typer.main.get_command(app)

#: Beginnings of commands that are parsed and not run, and why.
NOT_RUN = {
    "colordim view": "serves until Ctrl-C; tests/test_viewing.py",
    "colordim compare": "serves until Ctrl-C; tests/test_viewing.py",
    "colordim demo": "trains for a minute; tests/demo",
    "colordim doctor --gpu": "needs a GPU",
    "colordim show s3:": "an address; tests/store/test_remote.py",
    "colordim export runs/lenet --to wandb": "tests/publish/test_wandb.py",
    "colordim export runs/lenet --to tensorboard": "draws a figure of each epoch; tests/publish/test_tensorboard.py",
}

#: What stands in a shell line before the command.
LINE = re.compile(r"^\s*(?:[$>] |- run: |run: )?(?:[A-Z_]+=\S+ )*(colordim(?: .*)?)$")


def without_python(text: str) -> str:
    """Return a page without its Python blocks, in which a line may look like a command."""
    return re.sub(r"^```python.*?^```$", "", text, flags=re.M | re.S)


def lines(page: str) -> list[str]:
    """Return the commands in blocks of a page, indented or fenced, each in one line and without its comment."""
    found, fenced = [], False
    for line in without_python((ROOT / page).read_text("utf-8")).replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif (fenced or line.startswith("    ")) and (match := LINE.match(line)):
            found.append(shlex.join(shlex.split(match[1], comments=True)) if "$(" not in line else match[1])
    return found


def mentioned(page: str) -> list[str]:
    """Return the commands between backquotes in the text of a page."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)
    return re.findall(r"`(colordim [a-z-][^`]*)`", re.sub(r"\n(?=\S)", " ", text))


COMMANDS = sorted({command for page in PAGES for command in lines(page)})
RUN = [
    command
    for command in COMMANDS
    if not any(map(command.startswith, NOT_RUN)) and not re.search(r"[|$>]|\.\.\.", command)
]


def words(command: str) -> list[str]:
    """Return the arguments of a command, up to a pipe or a redirection."""
    found = shlex.split(command, comments=True)[1:]
    ends = [found.index(word) for word in ("|", ">", "||", "&&", "&", ";") if word in found]
    return found[: min(ends, default=len(found))]


def names(command: str) -> None:
    """Check that the command of a sentence, and its options, exist."""
    first, *rest = words(command)
    if first.startswith("-"):
        owner, rest = ROOT_COMMAND, [first, *rest]
    else:
        assert first in ROOT_COMMAND.commands, f"there is no command {first}"
        owner = ROOT_COMMAND.commands[first]
    known = {option for parameter in owner.params for option in (*parameter.opts, *parameter.secondary_opts)} | {
        "--help",
        "-h",
    }
    for word in rest:
        if word.startswith("-") and not re.match(r"-\d", word):
            assert word.partition("=")[0] in known, f"{first} has no option {word}"


@pytest.mark.parametrize("command", COMMANDS)
def test_it_parses(command: str) -> None:
    """Arguments are read as if it were run: names, values that can be chosen, and how many there are."""
    name, *rest = words(command) or ["--help"]
    names(command) if name != "--help" else None
    if not name.startswith("-"):
        ROOT_COMMAND.commands[name].make_context(
            name, rest, resilient_parsing=any(word in ("--help", "-h") for word in rest)
        )


@pytest.mark.parametrize("page", PAGES)
def test_what_a_sentence_mentions_exists(page: str) -> None:
    for command in mentioned(page):
        try:
            names(command)
        except (AssertionError, ValueError) as error:
            pytest.fail(f"{page}: `{command}`: {error}")


@pytest.fixture
def runs(here: Path) -> Path:
    """The runs that the commands name, TensorBoard's files of one among them."""
    for name in {found for command in RUN for found in re.findall(r"(?<![/\w])runs/([\w-]+)", command)} - {"lenet"}:
        if f"-o runs/{name}" not in " ".join(RUN):
            shutil.copytree("runs/lenet", f"runs/{name}")
    return here


@pytest.mark.parametrize("command", RUN)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:(tensorboard|wandb|google)[.]")
def test_it_runs(command: str, runs: Path) -> None:
    arguments = words(command)
    if arguments and arguments[0] == "import":
        tensorboard(runs / arguments[1])
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    allowed = (0, 2, 3, 4) if arguments and arguments[0] == "diagnose" else (0,)
    assert result.exit_code in allowed, result.output


def tensorboard(folder: Path) -> None:
    import torch
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_histogram("fc", torch.linspace(-1, 1, 100), 0)


def test_no_reason_is_left_over() -> None:
    for beginning in NOT_RUN:
        assert any(command.startswith(beginning) for command in COMMANDS) or beginning == "colordim demo", beginning
