"""Inputs whose scale is off, as the first layer shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence, Series
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import lower_lr, remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE"]

#: Root mean square of the inputs. Standardised ones have 1, pixels in [0, 1] about 0.3, in [0, 255] about 80 to 100; DLCheck warns
#: at a mean of 10.
_LARGE, _SMALL = 5.0, 0.01
#: What passes the inputs on as they are.
_RESHAPING = ("Flatten", "Unflatten", "Identity")
_WHY = (
    "Layers are initialised for inputs of about unit size. Larger ones scale every output and every gradient of the first layer with "
    "them, so that no learning rate suits all layers."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find inputs that are much larger or smaller than 1, from what the first layer made of them in the first batch.

    Weights with mean m and deviation s that are drawn independently of the inputs give outputs with
    ``E[y^2] = fan_in * (s^2 + m^2) * E[x^2] + E[b^2]`` about.
    """
    if not evidence.length:
        return []
    first, size = _first(evidence)
    if not np.isfinite(size):
        return []
    if not size > _LARGE and not (0 < size < _SMALL):
        return []
    course = course_of(evidence)
    severity: Severity = "warning" if course.left < 0.1 else "problem"
    large = size > _LARGE
    return [
        Finding(
            "input-scale",
            severity,
            f"the inputs are too {'large' if large else 'small'}: {first.name} sees values of about {size:.2g}",
            (first.name,),
            0,
            evidence.length - 1,
            (Number("root mean square of the inputs, as the first layer shows it", size, _LARGE if large else _SMALL, "above" if large else "below"),),
            _WHY,
            (remedy("standardise-input"), remedy("batch-norm"), lower_lr(evidence)),
        )
    ]  # fmt: skip


def _first(evidence: Evidence) -> tuple[Series, float]:
    """Return the first layer that sees the inputs, and the root mean square of these."""
    weighted = {series.name for series in layers.weighted(evidence)}
    for series in evidence.of("activation"):
        begun = bool(series.fired[0]) and series.first[0] == 0 and bool(np.isfinite(series.rms[0]))
        if series.stream.module in _RESHAPING:
            if begun:
                return series, float(series.rms[0])
            continue
        if series.name not in weighted:
            break
        rows = {
            row["path"].rsplit(".", 1)[-1]: row for row in layers.parameters(evidence) if row["module"] == series.name
        }
        weight, bias = rows.get("weight"), rows.get("bias")
        if not begun or weight is None or not weight.get("fan_in") or weight.get("std") is None:
            break
        power = float(weight["std"] ** 2 + weight["mean"] ** 2) * weight["fan_in"]
        known = bias is not None and bias.get("std") is not None
        offset = float(bias["std"] ** 2 + bias["mean"] ** 2) if bias is not None and known else 0.0
        return series, float(np.sqrt(max(series.rms[0] ** 2 - offset, 0.0) / power)) if power > 0 else math.nan
    raise TooThin(
        "the first layer is none whose output tells the scale of its input, such as a linear or a convolution."
    )


RULE = Rule("input-scale", "Scale of the inputs", find)
