"""An initialisation under which the signal dies or explodes on its way through the layers, before any step is taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: std(weight) * sqrt(fan_in): 1.41 by He et al. 2015 (ReLU), 1.67 with gain 5/3 (tanh), 1 by LeCun, 0.58 by PyTorch's default; 0.02 of a
#: transformer of width 64 gives 0.16. Outside of these limits each layer scales the signal by more than ten.
_SMALL, _LARGE = 0.1, 4.0
#: How many times smaller or larger the signal may become over all hidden layers, and from how many layers on that is asked.
_SIGNAL, _DEEP = 100.0, 4
_WHY_SCALE = (
    "Each layer multiplies the spread of its input by about std(weight) * sqrt(fan-in); over several layers that is a power. "
    "Much below one the signal and its gradient die out, much above one they explode, before the first step."
)
_WHY_CONSTANT = (
    "All weights of this layer begin with the same value, so that all its units compute the same, get the same gradient, "
    "and stay the same for ever. A layer has to begin with random weights."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find weights that began constant, or far too small or too large for their fan-in."""
    order = layers.call_order(evidence)
    rows = [
        row
        for row in layers.matrices(evidence)
        if row["module"] in order and row.get("std") is not None and row.get("fan_in") and min(row["shape"][:2]) > 1
    ]
    if not rows:
        raise TooThin("the facts of this run do not say how its weights began: it was recorded by an older version.")
    if not evidence.length:
        return []
    rows.sort(key=lambda row: order[row["module"]])
    course = course_of(evidence)
    # Behind a normalisation the scale of the weights is of no consequence.
    normed = any(layers.is_norm(each) for each in evidence.of("activation"))
    severity: Severity = "warning" if course.left < 0.1 and normed else "problem"
    constant = [row for row in rows if row["std"] <= 1e-6 * abs(row["mean"]) and row["mean"] != 0]
    zero = [row for row in rows if row["std"] == 0 and row["mean"] == 0]
    if len(zero) > 1 and 2 * len(zero) >= len(rows):  # single ones are begun with zero on purpose
        constant = zero
    found = []
    if constant:
        found.append(_finding(evidence, severity, constant, f"all weights of {constant[0]['module']} begin with the same value", _WHY_CONSTANT,
                              Number("standard deviation of the weights", float(constant[0]["std"]), 0.0, "")))  # fmt: skip
    gains = {
        row["path"]: float(row["std"] * np.sqrt(row["fan_in"]))
        for row in rows
        if row not in constant and row not in zero
    }
    hidden = [row for row in rows[:-1] if row["path"] in gains] or [row for row in rows if row["path"] in gains]
    for words, off, limit, relation in (
        ("small", [row for row in hidden if gains[row["path"]] < _SMALL], _SMALL, "below"),
        ("large", [row for row in hidden if gains[row["path"]] > _LARGE], _LARGE, "above"),
    ):
        if off:
            gain = gains[off[0]["path"]]
            mild: Severity = (
                "warning" if severity == "problem" and 3 * len(off) < len(hidden) and not course.stuck else severity
            )
            found.append(_finding(evidence, mild, off, f"the weights of {off[0]['module']} begin too {words}", _WHY_SCALE,
                                  Number("std(weight) * sqrt(fan-in)", gain, limit, relation)))  # type: ignore[arg-type]  # fmt: skip
    return found or _signal(evidence, severity)


def _signal(evidence: Evidence, severity: Severity) -> Sequence[Finding]:
    """Find a signal that the layers make a thousand times smaller or larger before the first step."""
    outputs = [each for each in layers.weighted(evidence) if each.first[0] == 0 and each.fired[0] and each.rms[0] > 0]
    if len(outputs) < _DEEP:
        return []
    first, hidden = outputs[0], outputs[1:-1]
    off = [each for each in hidden if not 1 / _SIGNAL < each.rms[0] / first.rms[0] < _SIGNAL]
    steps = np.diff(np.log2([each.rms[0] for each in (first, *hidden)]))
    # Layer by layer, and not by one that stands out: that one may have a large bias.
    if not off or not (np.all(steps < -1) or np.all(steps > 1)):
        return []
    ratio = float(off[0].rms[0] / first.rms[0])
    words = "dies out" if ratio < 1 else "explodes"
    return [
        Finding(
            "poor-init",
            severity,
            f"the signal {words} on its way through the layers: {off[0].name} begins with {ratio:.1g} times what {first.name} has",
            tuple(each.name for each in off),
            0,
            max(evidence.length - 1, 0),
            (
                Number(
                    f"{off[0].name} relative to {first.name} in the first batch",
                    ratio,
                    _SIGNAL if ratio > 1 else 1 / _SIGNAL,
                    "above" if ratio > 1 else "below",
                ),
            ),
            _WHY_SCALE,
            (remedy("kaiming-init"), remedy("batch-norm")),
        )
    ]


def _finding(
    evidence: Evidence, severity: Severity, rows: Sequence[Any], title: str, why: str, number: Number
) -> Finding:
    more = f", and those of {len(rows) - 1} more layer{'s' if len(rows) > 2 else ''}" if len(rows) > 1 else ""
    return Finding(
        "poor-init",
        severity,
        title + more,
        tuple(dict.fromkeys(row["module"] for row in rows)),
        0,
        max(evidence.length - 1, 0),
        (number,),
        why,
        (remedy("kaiming-init"), remedy("batch-norm")),
    )


RULE = Rule("poor-init", "Poor initialisation", find)
