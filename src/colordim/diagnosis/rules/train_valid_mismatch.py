"""Training and validation that see different things: the twin peaks, for every layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from colordim.diagnosis import layers
from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence, Passes
from colordim.diagnosis.finding import Finding, Number, Severity
from colordim.diagnosis.remedies import remedy
from colordim.diagnosis.rule import Rule, TooThin

__all__ = ["RULE", "divergence"]

#: Jensen-Shannon divergence in bits, from 0 (alike) to 1 (nothing in common).
_APART = 0.05
#: Validation loss relative to that of training.
_WORSE = 2.0
_WHY = (
    "The histograms of this layer at the end of an epoch's training and in its validation should be nearly the same, and they are not: "
    "the network is shown something else in validation, or computes something else. What validation measures is not what was trained."
)


def divergence(first: npt.ArrayLike, second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the Jensen-Shannon divergence of histograms in bits (Lin 1991), shape ``[...]`` of counts ``[..., m]``.

    NaN where one of the two is empty.
    """
    p, q = (np.asarray(each, np.float64) for each in (first, second))
    with np.errstate(divide="ignore", invalid="ignore"):
        p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
        middle = (p + q) / 2
        terms = np.where(p > 0, p * np.log2(p / middle), 0.0) + np.where(q > 0, q * np.log2(q / middle), 0.0)
    result = terms.sum(axis=-1) / 2
    return np.asarray(np.where(np.isnan(p).any(axis=-1) | np.isnan(q).any(axis=-1), np.nan, result), np.float64)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find the first layer whose validation parts from its training, while the validation loss is much worse."""
    outputs = [series for series in evidence.of("activation") if series.name in evidence.passes]
    known = [series for series in outputs if len(evidence.passes[series.name].epoch)]
    if not known:
        raise TooThin("no validation pass was recorded.")
    dropping = _dropping(evidence)
    if dropping is not None:
        return [dropping]
    course = course_of(evidence)
    losses = evidence.valid_loss[1]
    if not course.known or not losses.size or not np.isfinite(losses[-1]):
        raise TooThin("the validation loss was not logged: rec.log(loss=loss) in validation too.")
    worse = float(losses[-1] / max(course.now, 1e-12))
    apart = {
        series.name: divergence(*_sides(evidence.passes[series.name]))
        for series in layers.weighted(evidence)
        if series in known
    }
    if not apart or not worse > _WORSE:
        return []
    order = list(apart)
    early = [name for name in order[: max((len(order) + 1) // 2, 1)] if apart[name][-1] > _APART]
    if not early:
        return []
    first = early[0]
    over = np.flatnonzero(apart[first] > _APART)
    severity: Severity = "problem"
    return [
        Finding(
            "train-valid-mismatch",
            severity,
            f"training and validation part at {first}",
            tuple(early),
            int(max(evidence.passes[first].end[over[0]] - 1, 0)),
            evidence.length - 1,
            (
                Number(
                    f"divergence of {first} between training and validation",
                    float(apart[first][-1]),
                    _APART,
                    "above",
                    "bits",
                ),
                Number("validation loss relative to that of training", worse, _WORSE, "above", "times"),
            ),
            _WHY,
            (remedy("same-preprocessing"), remedy("eval-mode")),
        )
    ]


def _sides(passes: Passes) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return passes.train, passes.valid


def _dropping(evidence: Evidence) -> Finding | None:
    """Find dropout that is still active in validation: zeros where evaluation mode would have none."""
    for series in evidence.of("activation"):
        passes = evidence.passes.get(series.name)
        if passes is None or "Dropout" not in series.stream.module or not len(passes.epoch):
            continue
        train, valid = passes.train_zeros / passes.train_size, passes.valid_zeros / passes.valid_size
        before = _zeros_before(evidence, series.name)
        if train[-1] - before[0] > 0.05 and valid[-1] - before[1] > 0.8 * (train[-1] - before[0]):
            return Finding(
                "train-valid-mismatch",
                "warning",
                f"{series.name} still drops {100 * (valid[-1] - before[1]):.0f} % of its values in validation",
                (series.name,),
                int(max(passes.end[0] - 1, 0)),
                evidence.length - 1,
                (Number("zeros that dropout adds in validation", float(valid[-1] - before[1]), 0.0, "above", "%"),),
                "Dropout is meant for training alone; in evaluation mode it passes everything. "
                "As it is, validation measures a network with parts of it switched off.",
                (remedy("eval-mode"),),
            )
    return None


def _zeros_before(evidence: Evidence, name: str) -> tuple[float, float]:
    """Return the share of zeros of the layer called before, in training and validation: a ReLU's are not dropout's."""
    names = [series.name for series in evidence.of("activation")]
    place = names.index(name)
    passes = evidence.passes.get(names[place - 1]) if place else None
    if passes is None or not len(passes.epoch):
        return 0.0, 0.0
    return float(passes.train_zeros[-1] / passes.train_size[-1]), float(passes.valid_zeros[-1] / passes.valid_size[-1])


RULE = Rule("train-valid-mismatch", "Training and validation differ", find)
