"""Units that never fire: not those that are often zero, which is how a rectifier works in good health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence, Series, unbroken
from colordim.diagnosis.finding import Finding, Number, Remedy, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin
from colordim.run import UnitWindows

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


@dataclass(frozen=True)
class _Dead:
    layer: str
    share: float
    first: int
    last: int
    title: str


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers of which units were not active in a whole window of batches, in the last and the ones before."""
    judged = {name: windows for name, windows in evidence.units.items() if np.any(_long(windows))}
    dead = [each for name, windows in judged.items() if (each := _in_windows(name, windows)) is not None]
    known = {each.layer for each in dead}
    rectifiers = [each for each in evidence.of("activation") if each.stream.module in ("ReLU", "ReLU6")]
    if not judged and not rectifiers:
        raise TooThin(
            "no layer is followed by a rectifier that is a module, such as nn.ReLU(), so that no unit can be judged."
        )
    owners = {each["name"]: layer for layer, each in layers.followers(evidence).items()}
    for series in rectifiers:
        layer = owners.get(series.name, series.name)
        silent = _silent(series, layer) if layer not in known else None
        dead += [silent] if silent is not None else []
    if not dead:
        return []
    order = {series.name: place for place, series in enumerate(evidence.of("activation"))}
    dead.sort(key=lambda each: (each.first, order.get(each.layer, 0)))
    first, worst = dead[0], max(dead, key=lambda each: each.share)
    severity: Severity = "problem" if worst.share >= _NEARLY_ALL else "warning"
    numbers = [Number(f"units of {first.layer} without a single positive value", first.share, _SOME, "above", "%")]
    if worst is not first:
        numbers.append(
            Number(
                f"in the worst layer, {worst.layer}",
                worst.share,
                _NEARLY_ALL,
                "above" if worst.share >= _NEARLY_ALL else "below",
                "%",
            )
        )
    more = (
        f", and {len(dead) - 1} more {'layers have' if len(dead) > 2 else 'layer has'} such units"
        if len(dead) > 1
        else ""
    )
    return [
        Finding(
            "dead-units",
            severity,
            first.title + more,
            tuple(each.layer for each in dead),
            first.first,
            max(each.last for each in dead),
            tuple(numbers),
            _WHY,
            _remedies(evidence, first.layer),
        )
    ]


def _long(windows: UnitWindows) -> npt.NDArray[np.bool_]:
    return np.asarray(windows.last - windows.first + 1 >= _FEWEST)


def _in_windows(layer: str, windows: UnitWindows) -> _Dead | None:
    long = _long(windows)
    first, last, share = windows.first[long], windows.last[long], windows.dead_share[long]
    if not share[-1] >= _SOME:
        return None
    number = windows.active.shape[1]
    title = f"{round(share[-1] * number)} of {number} units of {layer} never fire"
    return _Dead(layer, float(share[-1]), int(first[unbroken(share >= _SOME)]), int(last[-1]), title)


def _silent(series: Series, layer: str) -> _Dead | None:
    """Return a rectifier that returns nothing but zeros, for which a few batches suffice."""
    fired = np.flatnonzero(series.fired)
    if not fired.size:
        return None
    since = unbroken((series.zeros == series.size)[fired])
    if fired.size - since < _FEWEST:
        return None
    title = f"{layer} is dead: {series.name} returns nothing but zeros"
    return _Dead(layer, 1.0, int(series.first[fired[since]]), int(series.last[-1]), title)


def _remedies(evidence: Evidence, layer: str) -> tuple[Remedy, ...]:
    last = layers.output(evidence)
    if last is not None and layer == last.name:
        return remedy("remove-output-activation"), lower_lr(evidence), remedy("kaiming-init")
    return remedy("leaky-relu"), lower_lr(evidence), remedy("kaiming-init"), remedy("batch-norm")


RULE = Rule("dead-units", "Dead units", find)
