"""A few values that are enormous beside all others: usual in trained transformers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis.evidence import Evidence, Series
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.rule import Rule

__all__ = ["RULE"]

#: Sun et al. 2024 ("Massive Activations in Large Language Models"): above 100 and about 1,000 times the median magnitude.
_SIZE, _TIMES = 100.0, 1000.0
_WHY = (
    "A handful of values of this layer is thousands of times as large as the typical one, always in the same few places. "
    "In trained transformers that is usual and harmless: they serve as constants; it matters if you quantise the model."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers whose largest magnitude is a thousand times their median, and above 100."""
    found = []
    for series in evidence.of("activation"):
        fired = np.flatnonzero(series.fired & np.isfinite(series.rms))
        if not fired.size:
            continue
        last = series[fired[-8:]]
        largest = float(np.max(np.abs([last.min, last.max])))
        # Where zeros are the majority, the median says nothing of what is left.
        if (
            largest > _SIZE
            and last.zeros.sum() < 0.25 * last.size.sum()
            and (middle := _median(last)) * _TIMES < largest
        ):
            found.append((largest / max(middle, 1e-30), series, largest, middle))
    if not found:
        return []
    times, series, largest, middle = max(found, key=lambda each: each[0])
    return [
        Finding(
            "massive-activations",
            "note",
            f"a few values of {series.name} are {times:.2g} times the typical one",
            tuple(each[1].name for each in sorted(found, key=lambda each: -each[0])),
            int(series.first[0]),
            int(series.last[-1]),
            (
                Number("largest magnitude", largest, _SIZE, "above"),
                Number("relative to the median", times, _TIMES, "above", "times"),
            ),
            _WHY,
        )
    ]


def _median(series: Series) -> float:
    """Return the median magnitude over all columns, to a bucket."""
    counts = series.counts.sum(axis=0, dtype=np.float64)
    size = np.maximum(np.abs(series.edges[:-1]), np.abs(series.edges[1:]))
    order = np.argsort(size)
    total = np.cumsum(counts[order])
    return float(size[order][np.searchsorted(total, total[-1] / 2)]) if total.size and total[-1] else 0.0


RULE = Rule("massive-activations", "Massive activations", find)
