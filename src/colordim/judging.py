"""The command that says what is wrong with a run: ``diagnose``."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from colordim.teaching import taught

if TYPE_CHECKING:
    from colordim.diagnosis import Diagnosis

__all__ = ["EXIT", "add_commands"]

#: Exit status by the worst severity; 1 is an error of the command line, such as a folder that is no run.
EXIT = {"note": 2, "warning": 3, "problem": 4}


class FailOn(Enum):
    """From which severity on the exit status is not zero."""

    problem = "problem"
    warning = "warning"
    note = "note"
    never = "never"


_HELP = (
    "Say what is wrong with a run, where, since when, and what to try.\n\n"
    "The exit status is 0, or by the worst finding: 4 for a problem; 3 for a warning and 2 for a note if --fail-on asks for "
    "them; 1 if a run cannot be read. What the nearest pyproject.toml mutes is muted as well."
)


def add_commands(app: typer.Typer, group: str) -> None:
    """Add ``diagnose`` to a command line."""
    app.command(
        "diagnose",
        help=_HELP,
        rich_help_panel=group,
        cls=taught(
            "diagnose",
            ("diagnose runs/lenet", "Names the cause, the layers, the batches, and what to try; also while it trains."),
            ("diagnose runs/a runs/b --json", "For programs: a list; of one run an object."),
            ("diagnose runs/lenet --fail-on warning", "In CI: exit status 3 or 4 unless the run is healthy."),
            ("diagnose runs/lenet --mute 'dead-units:features.*'", "Without what is as it should be."),
        ),
    )(_diagnose)


def _diagnose(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Folders of runs, or their addresses.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: an object, or of several runs a list.")] = False,
    mute: Annotated[
        list[str] | None, typer.Option(help="A symptom, or symptom:layer, not to be looked for; repeatable.")
    ] = None,
    fail_on: Annotated[
        FailOn,
        typer.Option(
            metavar="SEVERITY", help="From which on the exit status is not 0: problem, warning, note or never."
        ),
    ] = FailOn.problem,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also say what was not judged, and what to record for it.")
    ] = False,
) -> None:
    import colordim
    from colordim.diagnosis.muting import project_mute
    from colordim.web.answers import to_json

    muted = tuple(dict.fromkeys([*project_mute(), *(mute or ())]))
    opened = [colordim.open(run) for run in runs]
    diagnoses = [run.diagnose(mute=muted) for run in opened]
    if as_json:
        found = [{**each.to_dict(), "path": run.path} for each, run in zip(diagnoses, opened, strict=True)]
        plain = json.loads(to_json(found[0] if len(found) == 1 else found))  # without NaN, which is no JSON
        typer.echo(json.dumps(plain, indent=2))
    else:
        for i, (name, each) in enumerate(zip(runs, diagnoses, strict=True)):
            if len(runs) > 1:
                typer.echo(f"{'' if i == 0 else chr(10)}{name}")
            _print(each, verbose)
    raise typer.Exit(_status(diagnoses, fail_on))


def _print(diagnosis: Diagnosis, verbose: bool) -> None:
    from colordim.diagnosis.text import as_text

    width = min(shutil.get_terminal_size((100, 24)).columns, 100)
    colors = {"PROBLEM:": typer.colors.RED, "WARNING:": typer.colors.YELLOW, "NOTE:": typer.colors.CYAN}
    for line in as_text(diagnosis, verbose=verbose, width=width).splitlines():
        word = line.split(" ", 1)[0]
        if word in colors and sys.stdout.isatty():
            line = typer.style(word, fg=colors[word], bold=True) + line[len(word) :]
        typer.echo(line)


def _status(diagnoses: Sequence[Diagnosis], fail_on: FailOn) -> int:
    """Return the exit status of several diagnoses: that of the worst, if it counts."""
    worst = max((EXIT[each.severity] for each in diagnoses if each.severity is not None), default=0)
    least = EXIT.get(fail_on.value)
    return worst if least is not None and worst >= least else 0
