"""The command line: demo, doctor, show, and those of `exchange`, `inventory`, `judging`, `reporting`, `teaching` and `viewing`. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console

from colordim import exchange, inventory, judging, reporting, teaching, viewing
from colordim.errors import ColordimError, DependencyError
from colordim.teaching import make_console, taught, taught_group

if TYPE_CHECKING:
    from colordim.charts.window import Window
    from colordim.column import Stream
    from colordim.run import Run

__all__ = ["app", "main"]

FORMATS = (".png", ".svg", ".pdf")

app = typer.Typer(
    name="colordim",
    help="See what happens inside a neural network while it trains: the histogram of every layer in every batch.\n\n"
    'Record with colordim.record(model, folder="runs/lenet"), then look at the run with these commands.',
    cls=taught_group(
        "",
        ("demo", "Trains two small networks on real digits, badly and well, and opens the picture."),
        ("view runs", "Opens the runs below runs/ in the browser, also while they train."),
        ("diagnose runs/lenet", "Says what is wrong with a run, since when, why, and what to try."),
        ("show runs/lenet --terminal", "Draws it right here, as over ssh."),
    ),
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Phases(Enum):
    """Phases of a run."""

    train = "train"
    valid = "valid"


class Colors(Enum):
    """What colour stands for."""

    share = "share"
    count = "count"


class Charts(Enum):
    """Charts that can be drawn."""

    colorful = "colorful"
    twin_peaks = "twin_peaks"
    dead = "dead"
    profile = "profile"
    updates = "updates"
    scalars = "scalars"


class Kinds(Enum):
    """Kinds of streams."""

    activation = "activation"
    gradient = "gradient"
    weight = "weight"
    weight_gradient = "weight_gradient"
    update = "update"


class Parts(Enum):
    """By what a layer can be taken apart."""

    classes = "class"


class UsageError(ColordimError, ValueError):
    """Options that do not go together, or a value that an option does not take."""

    page = "commands#colordim-show"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, what a command says, or 1 with one sentence on stderr."""
    # Any encoding that the terminal has must do: a picture with a question mark is better than a traceback.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    command = typer.main.get_command(app)
    warnings.showwarning = _show_warning
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        code = command.main(args=given or ["--help"], prog_name="colordim", standalone_mode=False)
    except ColordimError as error:
        _fail(str(error), page=error.page)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped.", 130)
    except BrokenPipeError:  # the reader of `colordim show ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}.")
    except Exception as error:
        # Typer's own errors have no public base class; this method is what they share.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        text = " ".join(str(message()).replace("Value error, ", "").split())
        asked = getattr(getattr(error, "ctx", None), "command_path", "colordim")
        _fail(text if text.endswith("?") else f"{text.rstrip('.')}: {asked} --help lists what there is.")
    sys.exit(code if isinstance(code, int) else 0)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write a warning as a sentence, without the line of code that it came from."""
    sys.stderr.write(f"colordim: {message}\n")


def _fail(message: str, code: int = 1, page: str = "") -> None:
    # Not through Rich: a path in a sentence must not be broken into lines.
    sys.stderr.write(f"colordim: {message}\n")
    if page:
        more = f"More: colordim docs {page}"
        sys.stderr.write(f"{typer.style(more, dim=True) if sys.stderr.isatty() else more}\n")
    sys.exit(code)


def _print_version(asked: bool) -> None:
    if asked:
        from colordim import __version__

        typer.echo(f"colordim {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the two runs, the picture and the guide.")] = Path(
        "colordim-demo"
    ),
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the picture, where there is a display.")] = True,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights and of the order of the digits.")] = 7,
) -> None:
    """Train twice on real digits, badly and well, and see the difference (under a minute)."""
    try:
        import torch  # noqa: F401
    except ImportError:
        raise DependencyError(
            'the demo trains with PyTorch, which is not installed: pip install "colordim[demo]".'
        ) from None
    from colordim.demo.play import play

    play(out, make_console(), epochs=epochs, seed=seed, show=show)


def doctor(
    run: Annotated[Path | None, typer.Argument(metavar="RUN", help="A run whose files are all to be checked.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend the run: sum levels up again, remove what is half written.")
    ] = False,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Check counting on the GPU: right? how fast? (two minutes)")
    ] = False,
) -> None:
    """Say what counts on this machine, and why; or whether a run is whole."""
    if run is None:
        if repair:
            raise UsageError("--repair needs a run: name its folder.", page="commands#colordim-doctor")
        from colordim.doctor import examine

        raise typer.Exit(examine(gpu, typer.echo))
    if gpu:
        raise UsageError(
            "--gpu checks this machine and not a run: leave one of them out.", page="commands#colordim-doctor"
        )
    raise typer.Exit(_check_run(run, repair))


def _check_run(run: Path, repair: bool) -> int:
    """Write what is wrong in a run, mend it if asked to, and return the exit code."""
    from colordim.store import check

    if repair:
        for sentence in check.repair(run):
            typer.echo(f"mended   {sentence}")
    findings = list(check.examine(run))
    for finding in findings:
        typer.echo(f"{'mendable' if finding.mendable else 'DAMAGED '} {finding.path}: {finding.sentence}.")
    mendable = sum(finding.mendable for finding in findings)
    if not findings:
        typer.echo(f"{run} is whole: every checksum and every sum is right.")
    elif mendable:
        typer.echo(f"{mendable} can be mended without a loss: colordim doctor {run} --repair")
    if mendable < len(findings):
        typer.echo("What is damaged is left out by every reader, which says so; only a copy could bring it back.")
    return 1 if findings else 0


def show(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Folder of a run, or its address, such as s3://bucket/run.")
    ],
    layer: Annotated[list[str] | None, typer.Option(help="Layer name or pattern, such as 'conv*'; repeatable.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write: .png, .svg or .pdf; by default NAME-CHART.png here.")
    ] = None,
    chart: Annotated[
        Charts, typer.Option(metavar="CHART", help="colorful, twin_peaks, dead, profile, updates or scalars.")
    ] = Charts.colorful,
    kind: Annotated[
        Kinds | None,
        typer.Option(
            metavar="KIND",
            help="activation (the default), gradient, weight, weight_gradient or update.",
            show_default=False,
        ),
    ] = None,
    phase: Annotated[
        Phases | None, typer.Option(metavar="PHASE", help="train (the default) or valid.", show_default=False)
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="WINDOW",
            help="Values on show: shared (of activations the default), own (of other kinds), symlog, or LO,HI.",
        ),
    ] = None,
    by: Annotated[Parts | None, typer.Option(metavar="PART", help="class: draw one layer with its classes.")] = None,
    color: Annotated[
        Colors | None, typer.Option(metavar="BY", help="share of the layer's values (the default), or their count.")
    ] = None,
    mean: Annotated[bool, typer.Option("--mean", help="Draw the mean and mean ± std.")] = False,
    profiles: Annotated[bool, typer.Option("--profiles", help="Draw the average profile of each epoch.")] = False,
    focus: Annotated[int | None, typer.Option(help="Draw only the layers that changed most, this many.")] = None,
    terminal: Annotated[bool, typer.Option("--terminal", "-t", help="Draw here, as text, and write no file.")] = False,
    width: Annotated[int | None, typer.Option(min=40, help="Characters of the text picture.")] = None,
    height: Annotated[int | None, typer.Option(min=12, help="Lines of each panel of the text picture.")] = None,
) -> None:
    """Draw a run: into a file, or as text in the terminal."""
    import colordim
    from colordim.asking import file_name

    console = make_console()
    opened = colordim.open(run)
    asked: dict[str, Any] = {
        "kind": kind and kind.value, "phase": phase and phase.value, "window": window and parse_window(window),
        "by": by and by.value, "color": color and color.value, "mean": mean or None, "profiles": profiles or None,
        "focus": focus,
    }  # fmt: skip
    options = {name: value for name, value in asked.items() if value is not None}
    shown = options.get("kind", "activation")
    if terminal:
        if chart is not Charts.colorful or out is not None:
            raise UsageError("--terminal draws the colorful chart as text: leave out --chart and --out.")
        _only(options, ("kind", "phase", "window", "color"), "--terminal")
        streams = opened.select(layer or None, shown)
        if not streams:
            raise _no_streams(opened, shown)
        limits = options.get("window", "own" if shown != "activation" else "shared")
        print_run(
            opened, streams, console, options.get("phase", "train"), limits, options.get("color", "share"),
            width or console.width, height,
        )  # fmt: skip
        return
    if chart not in (Charts.updates, Charts.scalars) and opened.streams and not opened.select(None, shown):
        raise _no_streams(opened, shown)
    draw = getattr(opened, chart.value)
    given = {
        **({"layer": layer} if layer else {}),
        **({"width": width} if width else {}),
        **({"height": height} if height else {}),
    }
    takes = inspect.signature(draw).parameters
    _only({**options, **given}, (*takes, *(("layer",) if "layers" in takes else ())), f"--chart {chart.value}")
    if layer:
        options["layers" if "layers" in takes else "layer"] = layer
    name = out or Path(f"{file_name(opened.name or Path(run).resolve().name)}-{chart.value}.png")
    if name.suffix.lower() not in FORMATS:
        raise UsageError(f"{name.name} ends in none of {', '.join(FORMATS)}: name the file --out picture.png.")
    with console.status("Drawing"):
        import matplotlib as mpl

        mpl.use("Agg")
        figure = draw(**options)
        name.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(name)
    typer.echo(f"Wrote {name}")


def _no_streams(run: Run, kind: str) -> UsageError:
    kinds = sorted({stream.kind for stream in run.streams})
    but = f", but of {' and '.join(kinds)}: record them with kinds=" if kinds else ""
    return UsageError(f"the run has no streams of the kind {kind}{but}.", page="kinds")


def _only(given: Mapping[str, object], taken: Sequence[str], what: str) -> None:
    """Refuse options that a chart would not heed."""
    idle = [f"--{name}" for name in given if name not in taken]
    if idle:
        raise UsageError(
            f"{' and '.join(idle)} would change nothing in {what}: leave {'it' if len(idle) == 1 else 'them'} out."
        )


def parse_window(text: str) -> str | tuple[float, float]:
    """Return the window that ``--window`` names.

    Raises
    ------
    UsageError
        If it is neither a name nor two numbers.
    """
    if text in {"shared", "own", "symlog"}:
        return text
    try:
        lo, hi = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"--window {text} is no window: take shared, own, symlog, or two numbers as --window=-3,3."
        ) from None
    return lo, hi


def print_run(
    run: Run,
    streams: Sequence[Stream],
    console: Console,
    phase: Any,
    window: str | tuple[float, float],
    color: str,
    width: int,
    height: int | None,
) -> None:
    """Print streams of a run as text: one large panel, or a wall of small ones under one colour bar."""
    from rich.table import Table

    from colordim.charts import terminal
    from colordim.charts.columns import column_width

    blocks = terminal.draws_blocks(console)
    columns = max(1, min(width // 48, len(streams)))
    panel = width if columns == 1 else (width - 2 * (columns - 1)) // columns
    lines = height or (min(max(console.height, 30), 40) - 4 if len(streams) == 1 else 14)
    maps = []
    for stream, shown in zip(streams, _windows(run, streams, phase, window), strict=True):
        level = column_width(run.length(phase), panel - terminal.FRAME_WIDTH, run.finest(phase))[1]
        block = run.columns(stream, phase, level=level)
        maps.append(
            terminal.heat_map(
                block.counts, block.counters, stream.axis, shown.edges,
                first=block.first, number=block.number, epochs=run.epochs(phase), title=_title(stream, phase),
                width=panel, height=lines, blocks=blocks, color=color,
            )
        )  # fmt: skip
    low, high = terminal.limits(maps)
    drawn = [terminal.draw(heat, low=low, high=high, blocks=blocks, width=panel) for heat in maps]
    sizes = {heat.size for heat in maps}
    wall = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(columns):
        wall.add_column(width=panel, no_wrap=True)
    for start in range(0, len(drawn), columns):
        wall.add_row(*drawn[start : start + columns])
    console.print(wall, crop=False, no_wrap=True)
    size = sizes.pop() if len(sizes) == 1 else None
    console.print(terminal.color_bar(low, high, size, color=color, blocks=blocks, width=width), end="")


def _title(stream: Stream, phase: str) -> str:
    shape = f" {list(stream.shape)}" if stream.shape else ""
    what = "" if stream.kind == "activation" else f" {stream.kind}"
    return f"{stream.name}{what}  {stream.module}{shape}{'' if phase == 'train' else f'  {phase}'}"


def _windows(run: Run, streams: Sequence[Stream], phase: Any, window: str | tuple[float, float]) -> list[Window]:
    from colordim.charts import window as windows
    from colordim.statistics import half_width

    if not isinstance(window, str):
        return [windows.window_from(window)] * len(streams)
    halves, largest = [], 0.0
    for stream in streams:
        block = run.overview(stream, 2, phase)
        under, over = (int(block.counters[:, i].sum()) for i in (0, 1))
        halves.append(half_width(block.counts.sum(axis=0), stream.axis.edges, windows.SHARE, under, over))
        finite = block.moments[block.moments[:, 2] <= block.moments[:, 3]]
        largest = max(largest, abs(float(finite[:, 2:].min(initial=0))), abs(float(finite[:, 2:].max(initial=0))))
    if window == "own":
        return [windows.symmetric(half) for half in halves]
    if window == "symlog":
        return [windows.symlog_window(halves, largest)] * len(streams)
    return [windows.symmetric(windows.shared_half_width(halves))] * len(streams)


_BEGIN, _LOOK, _JUDGE, _EXCHANGE, _CHECK = "Begin", "Look", "Judge", "Bring to other tools, and from them", "Check"

# In the order in which the help lists them.
app.command(
    rich_help_panel=_BEGIN,
    cls=taught(
        "start",
        ("demo", "Trains both networks, writes into colordim-demo/ and opens the picture."),
        ("demo --out /tmp/demo --epochs 3 --no-open", "A shorter training, elsewhere, without a display."),
        ("diagnose colordim-demo/bad", "Then asks why the bad one is bad."),
    ),
)(demo)
teaching.add_commands(app, _BEGIN)
viewing.add_commands(app, _LOOK)
app.command(
    rich_help_panel=_LOOK,
    cls=taught(
        "charts",
        ("show runs/lenet", "Draws all layers into lenet-colorful.png here."),
        ("show runs/lenet --terminal --layer 'conv*'", "Draws some layers right here, as text."),
        ("show runs/lenet --kind gradient --out gradients.svg", "Draws the gradients, if they were recorded."),
        ("show s3://bucket/runs/lenet --chart dead", "Draws the dead units of a run in an object store."),
    ),
)(show)
reporting.add_commands(app, _LOOK)
inventory.add_commands(app, _LOOK)
judging.add_commands(app, _JUDGE)
exchange.add_commands(app, _EXCHANGE)
app.command(
    rich_help_panel=_CHECK,
    cls=taught(
        "commands#colordim-doctor",
        ("doctor", "Says whether the compiled kernel counts here, and what the GPU would take."),
        ("doctor runs/lenet", "Reads the whole run, and compares every checksum and every sum."),
        ("doctor runs/lenet --repair", "Mends what can be mended without a loss."),
        ("doctor --gpu", "Checks and times counting on the GPU."),
    ),
)(doctor)

if __name__ == "__main__":
    main()
