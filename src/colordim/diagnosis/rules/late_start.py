"""A layer that begins to move long after the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis import layers
from colordim.diagnosis.evidence import Evidence, Series
from colordim.diagnosis.finding import Finding, Number
from colordim.diagnosis.rule import Rule

__all__ = ["RULE"]

#: Change of a layer's root mean square beside its first batches: what counts as still, and as under way.
_STILL, _MOVED = 0.1, 0.5
#: How many times as many batches as the median layer it took.
_LATER = 4.0
_FEWEST = 40
_WHY = (
    "The values of this layer stayed as they began while others had changed long ago; then they began to grow. "
    "Mostly it waited for what comes before it, or its gradients were small at first; if it happens early, and the loss falls, nothing is wrong."
)


def find(evidence: Evidence) -> Sequence[Finding]:
    """Find layers that begin to change at least four times as late as the median layer."""
    outputs = layers.weighted(evidence)
    if evidence.length < _FEWEST or len(outputs) < 3:
        return []
    starts = {series.name: _begins(series) for series in outputs}
    known = [start for start in starts.values() if start is not None]
    if len(known) < 3:
        return []
    middle = float(np.median(known))
    least = max(evidence.epoch_length, evidence.length // 20)
    late = [
        (start, name) for name, start in starts.items() if start is not None and start > max(_LATER * middle, least)
    ]
    if not late or 2 * len(late) >= len(known):
        return []
    late.sort()
    return [
        Finding(
            "late-start",
            "note",
            f"{late[-1][1]} begins to change only in batch {late[-1][0]}",
            tuple(name for _, name in reversed(late)),
            late[-1][0],
            evidence.length - 1,
            (
                Number(
                    "batches before it changes, beside the median layer",
                    late[-1][0] / max(middle, 1.0),
                    _LATER,
                    "above",
                    "times",
                ),
            ),
            _WHY,
        )
    ]


def _begins(series: Series) -> int | None:
    """Return the batch in which a layer leaves where it began, if it goes far and stays there.

    That is the last batch in which it stood still before it was far for the first time: a layer that grew, fell and came
    by its first size again had begun long before.
    """
    known = series[series.fired & np.isfinite(series.rms)]
    if len(known) < _FEWEST:
        return None
    start = float(np.median(known.rms[:5]))
    change = np.abs(known.rms / max(start, 1e-30) - 1.0)
    if not np.median(change[-5:]) > _MOVED:
        return None
    far = int(np.argmax(change > _MOVED))
    still = np.flatnonzero(change[:far] < _STILL)
    return int(known.first[still[-1]]) if still.size else 0


RULE = Rule("late-start", "Late start", find)
