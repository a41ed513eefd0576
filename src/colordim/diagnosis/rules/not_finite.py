"""NaN and infinities: the first layer, and the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.column import KINDS
from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence, Series
from colordim.diagnosis.finding import Finding, Number, Remedy, Severity
from colordim.diagnosis.remedies import TEXTS, lower_lr, remedy
from colordim.diagnosis.rule import Rule

__all__ = ["RULE"]

#: Within a batch: the forward pass, the backward pass from the end to the beginning, the optimiser.
_KINDS = {kind: place for place, kind in enumerate(KINDS)}
_WORDS = {
    "activation": "the output of {}",
    "gradient": "the gradient of {}'s output",
    "weight": "the parameter {}",
    "weight_gradient": "the gradient of {}",
    "update": "the update of {}",
}
_WHY = (
    "NaN (not a number) comes from an operation without a result, such as log(0), 0/0 or inf - inf, and whatever it "
    "touches becomes NaN too. Where it shows first is where to look: all that comes later only passes it on."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find the first stream that holds a NaN or an infinity, in the order in which a batch is computed."""
    bad = [series for series in evidence.series.values() if series.not_finite >= 0]
    loss = evidence.loss
    lost = np.flatnonzero(np.isnan(loss) & (np.arange(loss.size) < _logged_until(evidence)))
    if not bad:
        return _in_validation(evidence)
    bad.sort(key=_place)
    origin = bad[0]
    batch = origin.not_finite
    after = [series for series in bad if series.not_finite == batch and series.stream.kind == origin.stream.kind]
    last = max(int(series.last[np.flatnonzero(series.nan + series.inf)[-1]]) for series in bad)
    column = int(np.flatnonzero(origin.nan + origin.inf)[0])
    harmless = _skipped(evidence, bad) or _masked(evidence, bad)
    severity: Severity = "note" if harmless else "problem"
    what = "NaN" if origin.nan[column] else "infinite values"
    number = int(origin.nan[column] + origin.inf[column])
    numbers = [Number(f"{what} in {_words(origin)}", number, 0, "above", f"of {int(origin.size[column]):,} values")]
    before = origin.until(batch)
    if len(before) and np.isfinite(before.rms).any():
        with np.errstate(invalid="ignore"):
            numbers.append(Number("largest magnitude there before", float(np.nanmax(np.abs([before.min, before.max])))))
    return [
        Finding(
            "not-finite",
            severity,
            f"{what} in {_words(origin)}" + (f", and in {len(after) - 1} after it" if len(after) > 1 else ""),
            tuple(dict.fromkeys(series.name for series in after)),
            batch,
            last if not lost.size else max(last, int(lost[-1])),
            tuple(numbers),
            _WHY if not harmless else f"{harmless} Nothing else was touched by it.",
            () if harmless else _remedies(evidence, origin),
        )
    ]


def _in_validation(evidence: Evidence) -> Sequence[Finding]:
    """Find what is NaN or infinite in validation while training is finite: statistics of a normalisation, other data, other code."""
    for series in evidence.of("activation"):
        passes = evidence.passes.get(series.name)
        bad = np.flatnonzero(passes.valid_bad) if passes is not None else np.zeros(0)
        if passes is None or not bad.size or np.array_equal(passes.valid_bad > 0, passes.train_bad > 0):
            continue
        if _loss_is_finite(evidence):
            return []  # as in a mask, whatever comes of it is finite
        place = int(bad[0])
        return [
            Finding(
                "not-finite",
                "problem",
                f"NaN or infinite values in {series.name} in validation, while training is finite",
                (series.name,),
                int(max(passes.end[place] - 1, 0)),
                evidence.length - 1,
                (
                    Number(
                        f"values of {series.name} in validation that are not finite",
                        float(passes.valid_bad[place]),
                        0,
                        "above",
                    ),
                ),
                _WHY,
                (remedy("check-data"), remedy("eval-mode"), remedy("same-preprocessing")),
            )
        ]
    return []


def _loss_is_finite(evidence: Evidence) -> bool:
    losses = evidence.valid_loss[1]
    return bool(losses.size) and bool(np.isfinite(losses).all())


def _place(series: Series) -> tuple[int, int, int]:
    kind = series.stream.kind
    return series.not_finite, _KINDS[kind], -series.stream.order if kind == "gradient" else series.stream.order


def _words(series: Series) -> str:
    return _WORDS[series.stream.kind].format(series.name)


def _logged_until(evidence: Evidence) -> int:
    """Return the batch up to which something was logged: a loss that is NaN and one that was not logged look the same."""
    known = [np.flatnonzero(np.isfinite(values)) for values in evidence.logged.values()]
    return max((int(places[-1]) + 1 for places in known if places.size), default=0)


def _skipped(evidence: Evidence, bad: Sequence[Series]) -> str:
    """Say so where a gradient scaler has skipped steps: gradients alone, in few batches, and training goes on."""
    if any(series.stream.kind not in ("gradient", "weight_gradient") for series in bad):
        return ""
    share = max(float(np.mean((series.nan + series.inf)[series.fired] > 0)) for series in bad)
    if share > 0.1 or any((series.nan + series.inf)[-1] for series in bad):
        return ""
    return "Only gradients were infinite, in single batches, as when a gradient scaler tries too large a scale and skips the step."


def _masked(evidence: Evidence, bad: Sequence[Series]) -> str:
    """Say so where infinities are meant, as in the scores of masked attention: from the first batch on, in one layer, without NaN."""
    if any(series.nan.any() or series.stream.kind != "activation" for series in bad):
        return ""
    always = all(np.all(series.inf[series.fired] > 0) and series.not_finite == series.first[0] for series in bad)
    known = evidence.loss[np.isfinite(evidence.loss)]
    if not always or not known.size or evidence.length < 3:
        return ""
    return "These infinities are there in every batch and go no further, as in the scores of masked attention."


def _remedies(evidence: Evidence, origin: Series) -> tuple[Remedy, ...]:
    guard = remedy("guard-operation", f"Look at what {origin.name} computes. {TEXTS['guard-operation']}")
    rest = (lower_lr(evidence), remedy("clip-gradients"))
    if origin.stream.kind != "activation":
        return guard, *rest
    column = int(np.flatnonzero(origin.nan + origin.inf)[0])
    mine = any(row["module"] == origin.name for row in layers.parameters(evidence))
    if mine and origin.nan[column] == origin.size[column]:
        text = f"All of it is NaN, so that its weights are: look at what the loss of the batch before computes. {TEXTS['guard-operation']}"
        return remedy("guard-operation", text), remedy("record-more"), *rest
    first = next((each for each in evidence.of("activation")), None)
    return (remedy("check-data"), guard, *rest) if origin is first else (guard, *rest)


RULE = Rule("not-finite", "NaN and infinities", find)
