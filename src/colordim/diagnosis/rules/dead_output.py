"""A model that returns the same whatever it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence, unbroken
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

_FEWEST = 8
_WHY = (
    "The last layer returns one and the same number in every batch, so that the outputs say nothing about the inputs. "
    "Mostly the layers before it are dead, or an activation function cuts all of it off."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find outputs without any spread over several batches."""
    outputs = evidence.of("activation")
    last = layers.output(evidence)
    if last is None:
        raise TooThin("no layer with weights was recorded, so that the output is not known.")
    final = outputs[-1]
    found = None
    for series in (final, last):
        fired = np.flatnonzero(series.fired & (series.nan + series.inf == 0))
        if fired.size < _FEWEST:
            continue
        spread = series.std[fired] / np.maximum(series.rms[fired], 1e-30)
        flat = (spread < 1e-6) | (series.zeros[fired] == series.size[fired])
        since = unbroken(flat)
        if fired.size - since >= _FEWEST:
            found = series, int(series.first[fired[since]])
            break
    if found is None:
        return []
    series, since = found
    course = course_of(evidence)
    return [
        Finding(
            "dead-output",
            "warning" if course.learnt else "problem",
            f"the output is constant: {series.name} returns {series.mean[np.isfinite(series.mean)][-1]:.3g} for every sample",
            (series.name,),
            since,
            int(series.last[-1]),
            (Number("standard deviation of the outputs", float(series.std[np.isfinite(series.std)][-1]), 0.0, ""),),
            _WHY,
            (remedy("leaky-relu"), lower_lr(evidence), remedy("kaiming-init"), remedy("standardise-input")),
        )
    ]


RULE = Rule("dead-output", "Dead output", find)
