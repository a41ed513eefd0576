"""The commands that bring runs to other tools, and from them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from colordim.errors import ArgumentError
from colordim.teaching import taught

if TYPE_CHECKING:
    from colordim.publish.target import Target

__all__ = ["add_commands"]


class Targets(Enum):
    """What a run can be exported to."""

    tensorboard = "tensorboard"
    wandb = "wandb"
    csv = "csv"


class Kinds(Enum):
    """What imported histograms can be of."""

    activation = "activation"
    gradient = "gradient"
    weight = "weight"
    weight_gradient = "weight_gradient"
    update = "update"


def add_commands(app: typer.Typer, group: str) -> None:
    """Add ``export`` and ``import`` to a command line."""
    exports = taught(
        "exports",
        (
            "export runs/lenet --to tensorboard",
            "Writes lenet-tensorboard/ here: tensorboard --logdir lenet-tensorboard",
        ),
        ("export runs/lenet --to csv --out tables --every-batch", "Writes tables, an epoch and a batch a row."),
        ("export runs/lenet --to wandb --project lessons", "Makes a run of W&B of it; WANDB_MODE=offline works."),
    )
    imports = taught(
        "exports#import",
        ("import logs/keras -o runs/keras", "Makes a run of the histograms in TensorBoard's event files."),
        (
            "import logs/torch -o runs/torch --kind weight --range=-1,1",
            "Says what they are of, and on which bins: 200 equal ones.",
        ),
    )
    app.command("export", rich_help_panel=group, cls=exports)(_export)
    app.command("import", rich_help_panel=group, cls=imports)(_import)


def _export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a run, or its address.")],
    to: Annotated[Targets, typer.Option(metavar="WHERE", help="tensorboard, wandb or csv.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write into; by default NAME-tensorboard or NAME-csv here, NAME being that of the run's folder."
        ),
    ] = None,
    every_batch: Annotated[bool, typer.Option("--every-batch", help="csv: also a row for every batch.")] = False,
    project: Annotated[str | None, typer.Option(help="wandb: the project.")] = None,
    name: Annotated[str | None, typer.Option(help="wandb: name of its run; by default that of RUN.")] = None,
    figures: Annotated[
        int, typer.Option(min=0, help="Of how many epochs the figure is drawn, the last in any case.")
    ] = 10,
) -> None:
    """Give a run to TensorBoard, W&B or a spreadsheet: an entry for every epoch."""
    import colordim
    from colordim.publish.publisher import export
    from colordim.publish.target import target

    if to is not Targets.csv and every_batch:
        raise ArgumentError("--every-batch is of --to csv: leave it out, or export to csv.", page="exports")
    if to is not Targets.wandb and (project or name):
        raise ArgumentError(
            "--project and --name are of --to wandb: leave them out, or export to wandb.", page="exports"
        )
    opened = colordim.open(run)
    chosen: Target
    if to is Targets.wandb:
        if out is not None:
            raise ArgumentError(
                "--out is not of --to wandb, which writes where WANDB_DIR says: leave it out.", page="exports"
            )
        target("wandb")  # says what to install
        from colordim.publish.wandb import Wandb

        chosen, where = Wandb(project=project, name=name), "W&B"
    else:
        folder = out or Path(f"{Path(run).name or Path(run).resolve().name}-{to.value}")
        where = str(folder)
        if to is Targets.tensorboard and any(folder.glob("*tfevents*")):
            raise ArgumentError(
                f"{folder} holds events already, and these would be mixed: name another --out.", page="exports"
            )
        chosen = target(f"{to.value}:{folder}")
        if every_batch:
            from colordim.publish.csv import Csv

            chosen = Csv(folder, every_batch=True)
    epochs = export(opened, chosen, figures=figures)
    typer.echo(f"Wrote {epochs} epoch{'' if epochs == 1 else 's'} to {where}")


def _import(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="With event files of TensorBoard.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run, to be created.")],
    kind: Annotated[
        Kinds, typer.Option(metavar="KIND", help="Of what: activation, gradient, weight, weight_gradient or update.")
    ] = Kinds.activation,
    range_: Annotated[
        str | None, typer.Option("--range", help="LO,HI of equal bins; by default buckets over every magnitude.")
    ] = None,
    bins: Annotated[int | None, typer.Option(min=1, help="Bins of a range; 200 by default.")] = None,
) -> None:
    """Make a run of the histograms that TensorBoard holds: approximate, but no value is lost."""
    from colordim.axis import LinearAxis
    from colordim.importing import import_tensorboard

    axis = None
    if range_ is not None:
        try:
            low, high = (float(part) for part in range_.split(","))
        except ValueError:
            raise ArgumentError(
                f"--range {range_} is no range: take two numbers, as --range=-10,10.", page="exports#import"
            ) from None
        axis = LinearAxis(low, high, bins or 200)
    elif bins is not None:
        raise ArgumentError(
            "--bins needs a range: add one such as --range=-10,10, or leave it out.", page="exports#import"
        )
    run = import_tensorboard(folder, out, axis=axis, kind=kind.value)
    steps = len(run.batches["batch"])
    typer.echo(f"Wrote {len(run.streams)} streams, {steps} batch{'' if steps == 1 else 'es'}, to {out}")
