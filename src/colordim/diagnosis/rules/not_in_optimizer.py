"""Parameters that require gradients, and that no optimiser has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

_WHY = (
    "An optimiser changes only the parameters that it was given, and these were not among them. "
    "They get gradients, and keep the values that they began with: the layer stays random."
)
_WHY_STILL = (
    "These parameters are in the optimiser and have gradients, and no step has changed a single one of their values. "
    "A parameter group with a learning rate of zero does that; the layer stays random."
)
#: Steps before parameters that have not moved are said to stand still.
_FEWEST = 5


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find parameters that are outside of every optimiser and, as far as it was recorded, have not moved."""
    rows = layers.parameters(evidence)
    if not any(row.get("in_optimizer") is not None for row in rows):
        raise TooThin("no optimiser is known: colordim.record(model, optimizer=optimizer).")
    outside = [
        row for row in rows if row["requires_grad"] and row["in_optimizer"] is False and not _moved(evidence, row)
    ]
    if not evidence.length:
        return []
    if not outside:
        return _standing(evidence)
    names = tuple(dict.fromkeys(row["module"] for row in outside))
    size = sum(int(np.prod(row["shape"] or [0])) for row in outside)
    total = sum(int(np.prod(row["shape"] or [0])) for row in rows if row["requires_grad"])
    return [
        Finding(
            "not-in-optimizer",
            "problem",
            f"{len(outside)} parameter{'s' if len(outside) > 1 else ''} of {_listed(names)} are not in the optimiser",
            names,
            0,
            evidence.length - 1,
            (
                Number(
                    "parameters outside of every optimiser, of those that require gradients",
                    size / total,
                    0.0,
                    "above",
                    "%",
                ),
            ),
            _WHY,
            (remedy("add-to-optimizer"),),
        )
    ]


def _standing(evidence: Evidence) -> Sequence[Finding]:
    """Find parameters of an optimiser that have gradients, and that none of its steps has changed: a learning rate of zero."""
    rows = [row for row in layers.parameters(evidence) if row["requires_grad"] and row["in_optimizer"]]
    still = []
    moving = 0
    for row in rows:
        update, gradient = evidence.get("update", row["path"]), evidence.get("weight_gradient", row["path"])
        if update is None or gradient is None or np.count_nonzero(update.fired) < _FEWEST:
            continue
        changed = bool(np.any(update.zeros != update.size))
        moving += changed
        if not changed and np.nanmax(gradient.rms, initial=0.0) > 0:
            still.append(row)
    if not still or not moving:
        return []
    names = tuple(dict.fromkeys(row["module"] for row in still))
    return [
        Finding(
            "not-in-optimizer",
            "problem",
            f"the optimiser does not change {_listed(names)}, although there are gradients",
            names,
            0,
            evidence.length - 1,
            (
                Number(
                    "steps that changed anything there",
                    0.0,
                    0.0,
                    "",
                    f"of {int(np.count_nonzero(evidence.series['update', still[0]['path']].fired))}",
                ),
            ),
            _WHY_STILL,
            (
                remedy(
                    "add-to-optimizer",
                    "Look at the learning rate of the parameter group that these are in: it seems to be zero.",
                ),
            ),
        )
    ]


def _moved(evidence: Evidence, row: dict[str, Any] | Any) -> bool:
    """Return whether the values of a parameter have changed: another optimiser may have it, which nobody told of."""
    weight = evidence.get("weight", row["path"])
    if weight is None:
        return False
    mean = weight.mean[np.isfinite(weight.mean)]
    return bool(mean.size > 1 and np.ptp(mean) > 0)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


RULE = Rule("not-in-optimizer", "Not in the optimiser", find)
