"""What teaches at the command line: examples below the help of each command, and the command ``docs``."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from colordim import manual

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Example", "add_commands", "make_console", "taught", "taught_group"]

#: A command line without ``colordim``, and what it does.
Example = tuple[str, str]

#: Characters of a line at most: longer ones are hard to read, however wide the terminal is.
_WIDTH = 100


def taught(page: str, *examples: Example) -> type[TyperCommand]:
    """Return a class of commands whose help ends with examples, and with the page that says more."""

    class Taught(TyperCommand):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            formatter.write(_lesson(page, examples))

    return Taught


def taught_group(page: str, *examples: Example) -> type[TyperGroup]:
    """Return a class of groups of commands, as :func:`taught` does."""

    class Taught(TyperGroup):
        def format_help(self, ctx: Any, formatter: Any) -> None:
            super().format_help(ctx, formatter)
            formatter.write(_lesson(page, examples))

    return Taught


def _lesson(page: str, examples: Sequence[Example]) -> str:
    width = min(shutil.get_terminal_size((80, 24)).columns, _WIDTH) - 1
    lines = ["", typer.style("Examples", bold=True)]
    for command, what in examples:
        lines.append("  " + typer.style(f"colordim {command}", fg=typer.colors.CYAN))
        lines += textwrap.wrap(what, width, initial_indent="      ", subsequent_indent="      ")
    more = f"colordim docs {page}" if page else "colordim docs"
    return "\n".join([*(f" {line}".rstrip() for line in lines), "", f" More: {more}", ""])


def make_console() -> Console:
    """Return a console for what a command prints; 100 columns where there is no terminal."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100
    return Console(width=width, highlight=False, soft_wrap=False)


def add_commands(app: typer.Typer, group: str) -> None:
    """Add ``docs`` to a command line."""
    app.command(
        "docs",
        rich_help_panel=group,
        cls=taught(
            "",
            ("docs", "Lists the pages."),
            ("docs resume", "Shows the page about going on in a run."),
            ("docs dead-units", "Shows what a symptom of the diagnosis means; any heading will do."),
            ("docs diagnosis#the-start > start.md", "Writes a part of a page as Markdown."),
        ),
    )(_docs)


def _docs(
    page: Annotated[
        str | None, typer.Argument(metavar="PAGE[#HEADING]", help="A page, a heading of it, or a heading alone.")
    ] = None,
) -> None:
    """Read the manual here, without a network."""
    from rich.console import Console

    if page is None:
        _list_pages()
        return
    where = manual.find(page)
    if not sys.stdout.isatty():
        typer.echo(manual.section(*where), nl=False)
        return
    console = Console()
    os.environ.setdefault("LESS", "FRX")  # colours as they are, and no pager for what fits: as git has it
    with console.pager(styles=True):
        _print(*where, console)


def _list_pages() -> None:
    width = max(map(len, manual.names()), default=0)
    for name in manual.names():
        typer.echo(f"{name:<{width}}  {manual.title(name)}")
    typer.echo(
        "\nRead one with colordim docs PAGE, or a part of it with colordim docs PAGE#HEADING; the name of a symptom will do, too."
    )


def _print(page: str, slug: str, console: Console) -> None:
    """Print a page as a terminal can show it, and where its links lead."""
    from rich.markdown import Markdown

    leads: dict[str, None] = {}

    def link(href: str) -> str | None:
        address = manual.linked(page, href)
        if address is None or address.startswith("http"):
            return address
        if address.partition("#")[0] != page:
            leads[address] = None
        return None

    shown = Markdown(manual.section(page, slug))
    shown.parsed = manual.relinked(shown.parsed, link)
    console.print(shown, width=min(console.width, _WIDTH))
    others = [each.slug for each in manual.headings(page) if each.level > 1]
    if not slug and others:
        console.print(f"\n[dim]Parts of this page: colordim docs {page}#HEADING, of {', '.join(others)}[/dim]")
    if leads:
        console.print("\n[dim]See also: " + ", ".join(f"colordim docs {each}" for each in leads) + "[/dim]")
