"""W&B: curves, figures and histograms on a step metric of their own."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

from colordim.diagnosis.text import FINDINGS, rows_of
from colordim.publish.buckets import buckets
from colordim.publish.epochs import Epoch
from colordim.views import Run

__all__ = ["STEP", "Wandb"]

#: The x axis of everything that is published: the index of the last training batch of the epoch.
STEP = "colordim/batch"


class Wandb:
    """Logs to a W&B run: the one that is given, or else the one that is active, or else one that it begins.

    Nothing is logged with ``step=``, with which W&B drops what comes later for an earlier step. Into a run that
    somebody else logs to, what is published goes along with their next row: a row that was closed here would make
    W&B drop what they still log for their step.

    Parameters
    ----------
    run : wandb.Run, optional
    project, name : str, optional
        Of a run that is begun here; W&B's own defaults and the name of the colordim run otherwise.
    resumes : bool
        Whether a run that is begun here goes on in that of the same colordim run, if there is one.
    """

    name = "W&B"
    draws = True

    def __init__(
        self,
        run: Any = None,
        *,
        project: str | None = None,
        name: str | None = None,
        resumes: bool = False,
    ) -> None:
        self._run = run
        self._project, self._name = project, name
        self._resumes = resumes
        self._begun = self._defined = False
        self._waits_at: int | None = None  # W&B step of the row that holds what is not on its way yet

    def publish(self, epoch: Epoch) -> None:
        import wandb
        from PIL import Image

        run = self._open(epoch.run)
        row: dict[str, Any] = {STEP: epoch.span.step, "colordim/epoch": epoch.span.epoch}
        for layer in epoch.layers:
            part = f"{layer.stream.kind}/{layer.phase}/{layer.stream.name}"
            row |= {f"colordim/{what}/{part}": value for what, value in layer.scalars().items()}
            if (found := buckets(layer, wandb.Histogram.MAX_LENGTH)) is not None:
                row[f"colordim/histogram/{part}"] = wandb.Histogram(np_histogram=(found.counts, found.edges))
        for name, png in epoch.figures.items():
            row[f"colordim/figure/{name}"] = wandb.Image(Image.open(BytesIO(png)))
        if epoch.diagnosis is not None:
            row["colordim/findings"] = wandb.Table(columns=list(FINDINGS), data=rows_of(epoch.diagnosis))
            row["colordim/diagnosis"] = epoch.diagnosis.sentence
        if self._begun:
            run.log(row)
            return
        if self._waits_at is not None and self._waits_at == _step(run):
            run.log({}, commit=True)  # nobody else logs, and this epoch would overwrite the one before
        run.log(row, commit=False)
        self._waits_at = _step(run)

    def close(self) -> None:
        if self._begun:
            self._begun = False
            self._run.finish()

    def _open(self, run: Run) -> Any:
        import wandb

        if self._run is None:
            self._run = wandb.run
        if self._run is None:
            known: dict[str, Any] = {}
            if self._resumes:
                named = f"{Path(run.path).absolute()} {run.info.get('created')}"
                known = {"id": hashlib.sha256(named.encode()).hexdigest()[:16], "resume": "allow"}
            self._run = wandb.init(project=self._project, name=self._name or run.name, **known)
            self._begun = True
        if not self._defined:
            self._run.define_metric(STEP)
            self._run.define_metric("colordim/*", step_metric=STEP)
            self._defined = True
        return self._run


def _step(run: Any) -> int | None:
    """Return the number of the row that is open; None in a run that several processes share, which numbers none."""
    try:
        return int(run.step)
    except Exception:
        return None
