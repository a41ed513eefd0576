"""The sentence on a run in which nothing is wrong, with the evidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from colordim.diagnosis.course import course_of
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Finding

__all__ = ["sentence"]


def sentence(evidence: Evidence, findings: Sequence[Finding]) -> str:
    """Say that nothing is wrong, and what was looked at."""
    if not evidence.length:
        return "Nothing can be said yet: no training batch was recorded."
    outputs = evidence.of("activation")
    values = sum(int(series.size.sum()) for series in evidence.series.values())
    parts = [f"all {values:,} values are finite"]
    dead = [float(windows.dead_share[-1]) for windows in evidence.units.values() if len(windows)]
    if dead:
        parts.append(
            f"at most {100 * max(dead):.0f} % of a layer's units never fire" if max(dead) else "every unit fires"
        )
    course = course_of(evidence)
    if course.known:
        parts.append(f"the loss went from {course.start:.3g} to {course.now:.3g}")
    rms = [series.rms for series in outputs]
    ends = [(each[np.isfinite(each)][[0, -1]]) for each in rms if np.isfinite(each).any()]
    if ends:
        growth = max(float(np.max(pair) / max(np.min(pair), 1e-30)) for pair in ends)
        if growth < 100:
            parts.append(f"no layer's values grew or shrank more than {max(growth, 1):.2g} times")
    judged = bool(evidence.valid_loss[1].size) and bool(np.isfinite(evidence.valid_loss[1]).any())
    if not course.known:
        unseen = " How well it learns was not judged: no loss was logged."
    elif not judged:
        unseen = " Validation was not judged: " + (
            "its loss was not logged." if evidence.passes else "none was recorded."
        )
    else:
        unseen = ""
    known = f" Worth knowing: {findings[0].title}." if findings else ""
    layers = f"{len(outputs)} layer{'s' if len(outputs) != 1 else ''}"
    return f"Nothing is wrong in {evidence.length:,} batches of {layers}: {', '.join(parts)}.{unseen}{known}"
