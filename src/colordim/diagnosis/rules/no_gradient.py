"""Parameters that are to learn, and that the loss does not reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Batches with gradients of other parameters before one without is called cut off.
_FEWEST = 3
_WHY = (
    "The backward pass starts at the loss and goes back through whatever led to it; these parameters were never reached. "
    "Something between them and the loss has cut the way, and they keep the values that they began with."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers of which no parameter had a gradient in any batch, while others had."""
    gradients = {series.name: series for series in evidence.of("weight_gradient")}
    if not gradients:
        raise TooThin(
            'gradients of weights were not recorded: colordim.record(model, kinds="all", optimizer=optimizer).'
        )
    batches = max(int(np.count_nonzero(series.fired)) for series in gradients.values())
    if batches < _FEWEST:
        return []
    reached: dict[str, bool] = {}
    for row in layers.parameters(evidence):
        if not row["requires_grad"] or row.get("in_optimizer") is False or row["shared_with"]:
            continue
        series = gradients.get(row["path"])
        # Zeros everywhere are no cut: a dead layer has them as well.
        had = series is not None and bool(series.fired.any())
        reached[row["module"]] = reached.get(row["module"], False) or had
    order = layers.call_order(evidence)
    cut = [name for name, had in reached.items() if not had and name in order]
    if not cut or not any(reached.values()):
        return []
    cut.sort(key=lambda name: -order[name])  # that next to the cut first
    return [
        Finding(
            "no-gradient",
            "problem",
            f"no gradient reaches {cut[0]}"
            + (f" and {len(cut) - 1} other layer{'s' if len(cut) > 2 else ''}" if len(cut) > 1 else ""),
            tuple(cut),
            0,
            evidence.length - 1,
            (Number("batches with gradients, none of them here", batches, _FEWEST, "above"),),
            _WHY,
            (remedy("remove-detach"),),
        )
    ]


RULE = Rule("no-gradient", "Cut off from the loss", find)
