"""What cards measure of their runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from colordim import Run
from colordim.column import Kind
from colordim.diagnosis.finding import Finding

__all__ = ["found", "last_loss", "rms", "share_of_zeros"]


def found(run: Run, symptom: str) -> Finding | None:
    """Return the finding of that symptom, be it a consequence of another one; None without."""
    return next((each for top in run.diagnose().findings for each in top.walk() if each.symptom == symptom), None)


def rms(run: Run, layer: str, kind: Kind = "activation") -> npt.NDArray[np.float64]:
    """Return the root mean square of a layer's values in each training batch, float64 ``[batches]``."""
    moments = run.moments(run.stream(layer, kind))
    return np.asarray(np.sqrt(moments["sum_sq"] / moments["size"]))


def share_of_zeros(run: Run, layer: str) -> npt.NDArray[np.float64]:
    """Return the share of exact zeros of a layer in each training batch, float64 ``[batches]``."""
    moments = run.moments(layer)
    return np.asarray(moments["zeros"] / moments["size"])


def last_loss(run: Run, phase: str = "train", batches: int = 20) -> float:
    """Return the mean of the logged loss over the last batches of a phase."""
    table = run.batches
    return float(np.mean(table["loss"][table["phase"] == phase][-batches:]))
