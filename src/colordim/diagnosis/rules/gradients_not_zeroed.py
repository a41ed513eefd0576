"""Gradients that add up from batch to batch, as without ``optimizer.zero_grad()``.

Gradients of single batches differ at random about their mean, sums of them are a random walk: the sum of a parameter's
gradient in one batch is then nearly that in the batch before. What tells them apart is the correlation of a gradient's
sum with the one before, over several parameters, beside that of its differences.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Von Neumann's ratio of a series: mean square of its differences over twice its variance. 1 for independent values, 0 for a smooth course.
_RATIO = 0.1
_FEWEST, _MOST = 24, 96
_WHY = (
    "PyTorch adds each backward pass to the gradients that are there, until somebody sets them to zero. "
    "Without that every step follows the sum of all batches so far, which grows, and points to the past."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find gradients of weights whose sums wander smoothly over single batches in most parameters."""
    series = evidence.of("weight_gradient")
    if not series:
        raise TooThin(
            'gradients of weights were not recorded: colordim.record(model, kinds="all", optimizer=optimizer).'
        )
    # Nobody zeroes the gradients of what is in no optimiser, and nothing comes of it.
    outside = {row["path"] for row in layers.parameters(evidence) if row.get("in_optimizer") is False}
    ratios, growth = [], []
    for each in series:
        if each.name in outside:
            continue
        single = each[(each.first == each.last) & each.fired & np.isfinite(each.mean)][:_MOST]
        if len(single) < _FEWEST or not np.ptp(single.mean) > 0:
            continue
        ratios.append(_von_neumann(single.mean * single.size))
        growth.append(float(np.median(single.rms[-8:]) / max(np.median(single.rms[:3]), 1e-30)))
    if len(ratios) < 3:
        return []
    ratio, grown = float(np.median(ratios)), float(np.median(growth))
    if not ratio < _RATIO or not grown > 1.5:
        return []
    return [
        Finding(
            "gradients-not-zeroed",
            "problem",
            "the gradients add up from batch to batch: zero_grad() seems to be missing",
            (),
            0,
            evidence.length - 1,
            (
                Number(
                    "difference of a gradient from the one before, 1 if they were independent", ratio, _RATIO, "below"
                ),
                Number("growth of the gradients since the first batches", grown, 1.5, "above", "times"),
            ),
            _WHY,
            (remedy("zero-grad"),),
        )
    ]


def _von_neumann(values: npt.NDArray[np.float64]) -> float:
    """Return the ratio of von Neumann (1941): mean square successive difference over twice the variance."""
    variance = float(values.var())
    return float(np.mean(np.diff(values) ** 2) / (2 * variance)) if variance > 0 else 1.0


RULE = Rule("gradients-not-zeroed", "Gradients not zeroed", find)
