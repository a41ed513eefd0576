"""The demo from beginning to end: train, draw, say what to look at."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from colordim.demo.data import load_digits
from colordim.demo.figure import side_by_side
from colordim.demo.guide import accuracies, commands, guide
from colordim.demo.training import BAD, GOOD, Epoch, batches_per_epoch, train
from colordim.diagnosis import diagnose, gather
from colordim.errors import StoreError
from colordim.opener import open_for_user

__all__ = ["play"]

PICTURE = "bad-and-good.png"
GUIDE = "what-to-look-at.md"


def play(out: Path, console: Console, *, epochs: int = 8, seed: int = 7, show: bool = True) -> None:
    """Train both networks, and write the runs, the picture and the guide into `out`.

    Parameters
    ----------
    out : Path
        Made if need be; the runs of an earlier demo in it are replaced.
    console : Console
    epochs, seed : int
    show : bool
        Whether the picture is opened, where there is a display.

    Raises
    ------
    DependencyError
        If the digits are not installed.
    StoreError
        If `out` cannot be written, or holds something else in the place of a run.
    """
    began = time.perf_counter()
    digits = load_digits()
    folders = [_vacant(out / recipe.name) for recipe in (BAD, GOOD)]
    console.print(
        f"Two trainings on {len(digits.train_labels):,} digits; every activation of every batch is counted.\n"
    )
    runs, results = [], []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("batches"), TimeRemainingColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        for recipe, folder in zip((BAD, GOOD), folders, strict=True):
            console.print(f"[bold]{recipe.title}[/bold]")
            task = progress.add_task(recipe.name, total=epochs * batches_per_epoch(digits))
            done: list[Epoch] = []

            def on_epoch(epoch: Epoch, done: list[Epoch] = done) -> None:
                done.append(epoch)
                console.print(_line(epoch))

            def on_batch(task: object = task) -> None:
                progress.advance(task)  # type: ignore[arg-type]  # Rich's TaskID

            runs.append(train(recipe, digits, folder, epochs=epochs, seed=seed, on_batch=on_batch, on_epoch=on_epoch))
            results.append(done)
            console.print()
    picture, text = out / PICTURE, out / GUIDE
    with console.status("Drawing"):
        notes = [f"validation accuracy by epoch: {accuracies(done)}" for done in results]
        side_by_side(runs, [BAD.title, GOOD.title], notes).savefig(picture)
    text.write_text(guide(results[0], results[1], len(digits.valid_labels), out), encoding="utf-8")
    opened = show and open_for_user(picture.resolve())
    console.print(f"[bold]{picture}[/bold]{' is opened' if opened else ''} sets the two side by side:", soft_wrap=True)
    console.print("  left, values rise, crash to zero and start again, worse from layer to layer;")
    console.print("  right, they keep their spread from the first batch to the last.")
    console.print("What colordim reads from them:")
    for recipe, run in zip((BAD, GOOD), runs, strict=True):
        console.print(f"  {recipe.name}: {diagnose(gather(run)).sentence}", markup=False, soft_wrap=True)
    console.print(f"[bold]{text}[/bold] says what to look at.\n\nLook further:", soft_wrap=True)
    for command in commands(out):
        console.print(f"  {command}", soft_wrap=True, markup=False)
    console.print(f"\n[dim]{time.perf_counter() - began:.0f} s in all[/dim]")


def _line(epoch: Epoch) -> str:
    return (
        f"  epoch {epoch.number:2}   train loss {epoch.train_loss:6.3f}   "
        f"valid loss {epoch.valid_loss:6.3f}   accuracy {100 * epoch.accuracy:5.1f} %"
    )


def _vacant(folder: Path) -> Path:
    """Make room for a run where an earlier demo left one; whatever else is there stays."""
    if (folder / "run.json").is_file():
        shutil.rmtree(folder)
    elif folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise StoreError(f"{folder} is not a run of an earlier demo: name another folder with --out.")
    return folder
