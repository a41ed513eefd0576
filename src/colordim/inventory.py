"""The command that lists the runs of a folder, or asks all of them: ``ls``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colordim.errors import ArgumentError, ColordimError
from colordim.teaching import make_console, taught

if TYPE_CHECKING:
    from rich.console import Console

    from colordim.run import Run

__all__ = ["add_commands"]


def add_commands(app: typer.Typer, group: str) -> None:
    """Add ``ls`` to a command line."""
    app.command(
        "ls",
        rich_help_panel=group,
        cls=taught(
            "queries#fleets",
            ("ls runs", "Lists the runs below runs/: whether they train, how long they are, their loss."),
            (
                "ls runs --query 'SELECT run, max(batch) FROM batches GROUP BY run'",
                'Asks all of them in SQL (pip install "colordim[query]").',
            ),
            ("ls runs --query 'SELECT * FROM streams' --csv > streams.csv", "Writes the answer as a table."),
        ),
    )(_list_runs)


def _list_runs(
    name: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder with runs in it, however deep.")] = ".",
    query: Annotated[
        str | None,
        typer.Option(help="SQL over all of them: views batches, moments, columns, units, streams."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print the answer to the query as CSV.")] = False,
) -> None:
    """List the runs in a folder, or query them."""
    from rich.progress import track

    import colordim
    from colordim.store.description import find_runs
    from colordim.store.place import is_url

    console = make_console()
    if is_url(name):
        raise ArgumentError(
            f"ls lists folders of this machine: colordim show takes an address, that of a run in {name}.",
            page="queries#fleets",
        )
    folder = Path(name)
    if not folder.exists():
        raise ArgumentError(f"there is no folder {folder}: name one that holds runs.", page="queries#fleets")
    if csv and query is None:
        raise ArgumentError("--csv is for the answer to a query: add --query, or leave it out.", page="queries#fleets")
    if query is not None:
        _print_answer(folder, query, csv, console)
        return
    paths = find_runs(folder)
    if not paths:
        raise ArgumentError(
            f"there are no runs in {folder}: record one with colordim.record(model, folder=...).", page="queries#fleets"
        )
    rows = []
    for path in track(paths, "Reading", console=console, transient=True, disable=not console.is_terminal):
        try:
            rows.append(_row(colordim.open(path), path, folder))
        except ColordimError as error:
            rows.append([_relative(path, folder), "[red]unreadable[/red]", *[""] * (len(_COLUMNS) - 2)])
            console.print(f"[dim]{error}[/dim]", soft_wrap=True)
    _print_table(rows, console)


_COLUMNS = (
    ("run", False), ("state", False), ("train", True), ("valid", True), ("epochs", True),
    ("streams", True), ("last loss", True), ("created", False), ("size", True),
)  # fmt: skip
#: What is left out where the terminal is too narrow, in this order; and the characters of a name that are worth it.
_LEAST = ("streams", "valid", "epochs", "size", "created")
_NAME = 60


def _print_table(rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print the list of runs: names are never cut, and where there is no terminal nothing is."""
    from rich.table import Table
    from rich.text import Text

    widths = {
        heading: max(len(heading), *(Text.from_markup(row[i]).cell_len for row in rows))
        for i, (heading, _) in enumerate(_COLUMNS)
    }
    room = console.width if console.is_terminal or "COLUMNS" in os.environ else sum(widths.values()) + 2 * len(widths)
    left_out: list[str] = []
    while len(left_out) < len(_LEAST):
        shown = [heading for heading, _ in _COLUMNS if heading not in left_out]
        if sum(widths[each] + 2 for each in shown) - 2 - max(widths["run"] - _NAME, 0) <= room:
            break
        left_out.append(_LEAST[len(left_out)])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, right in _COLUMNS:
        if heading not in left_out:
            table.add_column(heading, justify="right" if right else "left", no_wrap=heading != "run", overflow="fold")
    for row in rows:
        table.add_row(*(cell for (heading, _), cell in zip(_COLUMNS, row, strict=True) if heading not in left_out))
    console.width = room
    console.print(table)
    if left_out:
        console.print(f"[dim]{room} columns have no room for {', '.join(left_out)}.[/dim]")


def _print_answer(folder: Path, sql: str, as_csv: bool, console: Console) -> None:
    import csv

    from rich.table import Table
    from rich.text import Text

    from colordim import fleet

    answer = fleet.query(folder, sql)
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows([answer.columns, *answer.rows])
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for i, name in enumerate(answer.columns):
            numbers = all(isinstance(row[i], (int, float)) for row in answer.rows)
            table.add_column(Text(name), justify="right" if numbers else "left")
        for row in answer.rows:
            table.add_row(*(Text(_cell(value)) for value in row))
        console.print(table)
    for note in answer.notes:
        sys.stderr.write(f"colordim: {note}\n")


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(run: Run, path: Path, folder: Path) -> list[str]:
    from colordim import listing

    found, files = listing.summary(run), listing.files_of(path)
    return [
        _relative(path, folder),
        _state(found.ended, listing.state(found.ended, files.written)),
        f"{found.batches['train']:,}",
        f"{found.batches['valid']:,}",
        str(found.epochs),
        str(found.streams),
        "" if found.last_loss is None else f"{found.last_loss:.4g}",
        "" if found.created is None else datetime.fromtimestamp(found.created).strftime("%Y-%m-%d %H:%M"),
        _bytes(files.size),
    ]


def _relative(path: Path, folder: Path) -> str:
    from rich.markup import escape

    return escape(str(path.relative_to(folder) if path != folder and path.is_relative_to(folder) else path))


def _state(ended: str | None, state: str) -> str:
    if ended not in (None, "stopped"):
        return f"[yellow]ended: {ended}[/yellow]"
    return {"live": "[green]live[/green]", "cut off": "[yellow]cut off[/yellow]"}.get(state, state)


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
