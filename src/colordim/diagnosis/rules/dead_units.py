"""Units that never fire: not those that are often zero, which is how a rectifier works in good health."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number, Remedy, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Share of a layer's units. Of 76 healthy trainings with rectifiers the most was 28 %, of broken ones 70 to 100 %;
#: 70 % alone did no measurable harm in 7 trainings (see docs/diagnosis.md), so that it takes nearly all for a problem.
_SOME, _NEARLY_ALL = 0.5, 0.95
#: A window of fewer batches says too little of a unit that is seldom active.
_FEWEST = 8
_WHY = (
    "A rectifier passes nothing for a negative input, and no gradient either: a unit whose input is negative for every "
    "sample is never corrected again. What that layer computes no longer depends on those units."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers of which units were not active in a whole window of batches, in the last and the one before."""
    found: list[Finding] = []
    judged = False
    for name, windows in evidence.units.items():
        long = windows.last - windows.first + 1 >= _FEWEST
        if not long.any():
            continue
        judged = True
        first, last, share = windows.first[long], windows.last[long], windows.dead_share[long]
        if not share[-1] >= _SOME:
            continue
        since = _since(share >= _SOME)
        severity: Severity = "problem" if share[-1] >= _NEARLY_ALL else "warning"
        number = windows.active.shape[1]
        found.append(
            Finding(
                "dead-units",
                severity,
                f"{round(share[-1] * number)} of {number} units of {name} never fire",
                (name,),
                int(first[since]),
                int(last[-1]),
                (Number(f"units of {name} without a single positive value", float(share[-1]), _SOME, "above", "%"),),
                _WHY,
                _remedies(evidence, name),
            )
        )
    silent = _silent(evidence, {finding.layers[0] for finding in found})
    if not judged and not silent and not _rectified(evidence):
        raise TooThin(
            "no layer is followed by a rectifier that is a module, such as nn.ReLU(), so that no unit can be judged."
        )
    return sorted([*found, *silent], key=lambda each: each.first)


def _since(over: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> int:
    """Return since which window it has been so without a break."""
    below = np.flatnonzero(~over)
    return int(below[-1]) + 1 if below.size else 0


def _rectified(evidence: Evidence) -> list[str]:
    return [series.name for series in evidence.of("activation") if series.stream.module in ("ReLU", "ReLU6")]


def _silent(evidence: Evidence, known: set[str]) -> list[Finding]:
    """Find rectifiers that return nothing but zeros, for which a few batches suffice."""
    found = []
    owners = {value["name"]: layer for layer, value in (evidence.facts.get("followers") or {}).items() if value}
    for series in evidence.of("activation"):
        if series.stream.module not in ("ReLU", "ReLU6"):
            continue
        layer = owners.get(series.name, series.name)
        fired = np.flatnonzero(series.fired)
        if layer in known or not fired.size:
            continue
        zero = (series.zeros == series.size)[fired]
        since = _since(zero)
        if since == fired.size or fired.size - since < _FEWEST:
            continue
        first = int(series.first[fired[since]])
        found.append(
            Finding(
                "dead-units",
                "problem",
                f"{layer} is dead: {series.name} returns nothing but zeros",
                (layer,),
                first,
                int(series.last[-1]),
                (Number(f"zeros in {series.name}", 1.0, 1.0, "", "%"),),
                _WHY,
                _remedies(evidence, layer),
            )
        )
    return found


def _remedies(evidence: Evidence, layer: str) -> tuple[Remedy, ...]:
    last = layers.output(evidence)
    if last is not None and layer == last.name:
        return remedy("remove-output-activation"), lower_lr(evidence), remedy("kaiming-init")
    return remedy("leaky-relu"), lower_lr(evidence), remedy("kaiming-init"), remedy("batch-norm")


RULE = Rule("dead-units", "Dead units", find)
