"""Layers that are frozen: mostly meant, worth knowing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule

__all__ = ["RULE"]

_WHY = (
    "These parameters have requires_grad = False, so that training leaves them as they are. "
    "That is how a pretrained part is kept; if nobody meant it, the layer stays as random as it began."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers whose parameters all have ``requires_grad=False`` while others learn."""
    frozen: dict[str, bool] = {}
    size = total = 0
    for row in layers.parameters(evidence):
        number = int(np.prod(row["shape"] or [0]))
        total += number
        size += 0 if row["requires_grad"] else number
        frozen[row["module"]] = frozen.get(row["module"], True) and not row["requires_grad"]
    names = tuple(name for name, all_of_it in frozen.items() if all_of_it)
    if not names or len(names) == len(frozen):
        return []
    return [
        Finding(
            "frozen",
            "note",
            f"{len(names)} layer{'s are' if len(names) > 1 else ' is'} frozen, beginning with {names[0]}",
            names,
            0,
            max(evidence.length - 1, 0),
            (Number("parameters that are frozen", size / total, None, "", "%"),),
            _WHY,
            (remedy("unfreeze"),),
        )
    ]


RULE = Rule("frozen", "Frozen layers", find)
