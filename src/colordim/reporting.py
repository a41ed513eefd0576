"""The command that writes a run as one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from colordim.teaching import taught

__all__ = ["add_commands"]


def add_commands(app: typer.Typer, group: str) -> None:
    """Add ``report`` to a command line."""
    app.command(
        "report",
        rich_help_panel=group,
        cls=taught(
            "report",
            ("report runs/lenet", "Writes lenet-report.html here, to be sent or kept."),
            ("report runs/lenet -o lenet.html --layer 'conv*'", "Some layers, in a file of that name."),
            ("report runs/lenet --exact --columns 2000", "Every count exactly, and finer columns: a larger file."),
        ),
    )(_report)


def _report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its address.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; by default NAME-report.html here.")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layer name or pattern, such as 'conv*'; repeatable.")] = None,
    columns: Annotated[
        int, typer.Option(min=1, help="Columns of a panel at most, each the sum of adjacent batches.")
    ] = 750,
    exact: Annotated[bool, typer.Option("--exact", help="Keep every count exactly, not within 6 %.")] = False,
) -> None:
    """Write a run as one HTML file that needs no network: to open, to send, to keep."""
    import colordim

    path = colordim.open(run).report(out, columns=columns, exact=exact, layers=layer or None)
    typer.echo(f"Wrote {path}, {path.stat().st_size / 1e6:.1f} MB")
