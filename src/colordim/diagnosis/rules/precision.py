"""Values that the number format cannot hold: gradients cut off below, values near the upper end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence, Series
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["FORMATS", "RULE"]

#: Smallest positive (subnormal) and largest finite number of each format (IEEE 754 binary16; OCP 8-bit floating point 1.0, 2023).
FORMATS = {"float16": (2.0**-24, 65504.0), "float8 e5m2": (2.0**-16, 57344.0), "float8 e4m3": (2.0**-9, 448.0)}
#: Share of the values within four times the smallest number that tells of a cut: without one, smaller ones would follow.
_NEAR = 0.002
_LOST = 0.5
#: Share of zeros below which it is not worth a word.
_WORTH = 0.1
_FEWEST = 8
_WHY = (
    "No gradient of this layer is smaller than the smallest number of {}, and many are just zero: they were rounded away. "
    "Weights whose gradients are rounded to zero do not learn."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find gradients that end sharply at the smallest number of a format, and the zeros below it."""
    series = (*evidence.of("weight_gradient"), *evidence.of("gradient"))
    if not series:
        raise TooThin('gradients were not recorded: colordim.record(model, kinds="all", optimizer=optimizer).')
    cut = [(each, name) for each in series for name in FORMATS if _cut(each, FORMATS[name][0])]
    if not cut:
        return _gone(evidence)
    name = cut[0][1]
    mine = [each for each, which in cut if which == name]
    lost = {each.name: float(each.zeros.sum() / max(each.size.sum(), 1)) for each in mine}
    worst = max(lost, key=lambda each: lost[each])
    if lost[worst] < _WORTH:
        return []
    course = course_of(evidence)
    severity: Severity = "note"
    if lost[worst] > _LOST:
        severity = "warning" if course.learnt else "problem"
    names = sorted(lost, key=lambda each: -lost[each])
    return [
        Finding(
            "precision",
            severity,
            f"gradients are lost below the smallest number of {name}: {100 * lost[worst]:.0f} % of those of {worst} are zero",
            tuple(names),
            int(mine[0].first[0]),
            int(mine[0].last[-1]),
            (
                Number(
                    f"zeros among the gradients of {worst}",
                    lost[worst],
                    _LOST,
                    "above" if lost[worst] > _LOST else "below",
                    "%",
                ),
                Number(f"smallest number of {name}", FORMATS[name][0]),
            ),
            _WHY.format(name),
            (remedy("loss-scaling"),),
        )
    ]


def _gone(evidence: Evidence) -> Sequence[Finding]:
    """Find gradients of weights that are all zero although those of the layers' outputs are not: tiny, in a better format."""
    smallest = FORMATS["float16"][0]
    outputs = {each.name: each for each in evidence.of("gradient")}
    lost = []
    for row in layers.matrices(evidence):
        weight, output = evidence.get("weight_gradient", row["path"]), outputs.get(row["module"])
        if weight is None or output is None or np.count_nonzero(weight.fired) < _FEWEST:
            continue
        zero = bool(np.all(weight.zeros == weight.size))
        if zero and 0 < np.nanmedian(output.rms) < smallest:
            lost.append((row["path"], float(np.nanmedian(output.rms))))
    if not lost or 2 * len(lost) < len(layers.matrices(evidence)):
        return []
    return [
        Finding(
            "precision",
            "problem",
            f"all gradients of {lost[0][0]} are rounded to zero: they are smaller than the smallest number of float16",
            tuple(name for name, _ in lost),
            0,
            max(evidence.length - 1, 0),
            (
                Number(
                    f"gradient of the output there, root mean square {lost[0][1]:.2g}, relative to the smallest number",
                    lost[0][1] / smallest,
                    1.0,
                    "below",
                ),
                Number("smallest number of float16", smallest),
            ),
            _WHY.format("float16"),
            (remedy("loss-scaling"),),
        )
    ]


def _cut(series: Series, smallest: float) -> bool:
    fired = series[series.fired]
    if len(fired) < _FEWEST or not fired.counts.shape[1]:
        return False
    number, zeros = float((fired.size - fired.nan - fired.inf).sum()), float(fired.zeros.sum())
    # The bucket of the smallest number begins with it: a little below, so as not to take part of it.
    below = fired.number_below(smallest * (1 - 1e-9)) - zeros
    near = fired.number_below(4 * smallest) - zeros - below
    return zeros > _NEAR * number and near > _NEAR * number and below <= 1e-3 * near


RULE = Rule("precision", "Precision", find)
