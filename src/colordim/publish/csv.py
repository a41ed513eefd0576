"""A table with a row for each layer and epoch, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable
from pathlib import Path

from colordim.diagnosis.finding import Diagnosis
from colordim.diagnosis.text import FINDINGS, rows_of
from colordim.errors import ArgumentError
from colordim.publish.epochs import Epoch, Layer, folder_of, layers_of_batches

__all__ = ["COLUMNS", "Csv"]

#: Columns of the tables; shares are those of all values, moments those of the finite ones.
COLUMNS = (
    "run", "epoch", "phase", "kind", "layer", "first_batch", "last_batch", "batches", "size", "calls", "mean", "std", "min",
    "max", "zeros", "zeros_share", "near_zero_share", "dead_share", "under", "over", "nan", "pos_inf", "neg_inf",
)  # fmt: skip


class Csv:
    """Writes ``epochs.csv``, ``findings.csv`` and on request ``batches.csv`` into a folder.

    An epoch that is in the table already, and all after it, give way: so goes on a training that was resumed. Those of
    another run do not: an ArgumentError says so.

    Parameters
    ----------
    folder : path-like, optional
        By default ``csv`` in the folder of the run.
    every_batch : bool
        Also write a row for each layer and batch.
    """

    name = "CSV"
    draws = False

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, every_batch: bool = False) -> None:
        self._folder = None if folder is None else Path(folder)
        self._every_batch = every_batch
        self._next: int | None = None  # the epoch up to which the table is known to be ours

    @property
    def folder(self) -> Path | None:
        """Where the tables are; None before the first epoch if nobody said."""
        return self._folder

    def publish(self, epoch: Epoch) -> None:
        if self._folder is None:
            self._folder = folder_of(epoch.run, "csv")
        number = epoch.span.epoch
        self._folder.mkdir(parents=True, exist_ok=True)
        anew = self._next is None or number < self._next
        run = epoch.run.name
        _write(self._folder / "epochs.csv", run, number if anew else None, map(_row, epoch.layers))
        if self._every_batch:
            batches = map(_row, layers_of_batches(epoch.run, epoch.span))
            _write(self._folder / "batches.csv", run, number if anew else None, batches)
        if epoch.diagnosis is not None:
            _write_findings(self._folder / "findings.csv", run, epoch.diagnosis)
        self._next = number + 1

    def close(self) -> None:
        pass


def _write(path: Path, run: str, since: int | None, rows: Iterable[list[object]]) -> None:
    """Append rows; where `since` is given, behind those of earlier epochs alone."""
    if since is not None:
        kept: list[list[str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                there = [row for row in list(csv.reader(file))[1:] if len(row) == len(COLUMNS)]
            others = sorted({row[0] for row in there} - {run})
            if others:
                raise ArgumentError(
                    f"{path} holds the epochs of another run, {others[0]!r}: write into another folder.", page="exports"
                )
            kept = [row for row in there if int(row[1]) < since]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *kept])
    with path.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([run, *row] for row in rows)


def _write_findings(path: Path, run: str, diagnosis: Diagnosis) -> None:
    """Write what is wrong as far as it is known now, in place of what was known before."""
    rows = [[run, *row] for row in rows_of(diagnosis)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("run", *FINDINGS), *rows])


def _row(layer: Layer) -> list[object]:
    at = layer.counters
    near_zero = layer.near_zero if layer.stream.kind == "activation" else float("nan")
    moments = (layer.mean, layer.std, layer.min, layer.max)
    shares = (layer.share(at["zeros"]), near_zero, layer.dead)
    return [
        layer.epoch, layer.phase, layer.stream.kind, layer.stream.name, layer.first, layer.last, layer.number,
        at["size"], at["calls"], *map(_cell, moments), at["zeros"], *map(_cell, shares),
        *(at[name] for name in ("under", "over", "nan", "pos_inf", "neg_inf")),
    ]  # fmt: skip


def _cell(value: float) -> object:
    return value if math.isfinite(value) else ""
