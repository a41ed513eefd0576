"""Which finding explains which: a symptom that is known to bring another one, and was there first."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence

from colordim.diagnosis.finding import SEVERITIES, Finding
from colordim.errors import ArgumentError

__all__ = ["BRINGS", "SLACK", "muted", "ordered"]

#: Batches: rules see what they look for with a delay that differs from rule to rule.
SLACK = 8

_SIGNAL = frozenset({"dead-units", "saturation", "vanishing-gradients", "dead-output", "plateau", "late-start"})
_GROWTH = frozenset(
    {"exploding-activations", "exploding-gradients", "massive-activations", "divergence", "not-finite", "precision"}
)
_COURSE = frozenset({"plateau", "divergence"})
#: What is said of the whole run begins with it, whenever its cause does.
_WHOLE = frozenset({"plateau", "late-start"})

#: What each symptom is known to bring. Where two may bring each other, the one that stands first here is the cause.
BRINGS: Mapping[str, frozenset[str]] = {
    "gradients-not-zeroed": _SIGNAL | _GROWTH | {"learning-rate-too-high", "collapse-and-recover", "train-valid-mismatch"},
    "not-in-optimizer": frozenset({"plateau", "late-start", "learning-rate-too-low"}),
    "softmax-twice": frozenset({"plateau", "vanishing-gradients", "learning-rate-too-low", "saturation"}),
    "no-gradient": frozenset({"plateau", "late-start", "vanishing-gradients", "learning-rate-too-low", "dead-units"}),
    "input-scale": _SIGNAL | _GROWTH | {"poor-init", "overconfident-start", "collapse-and-recover", "learning-rate-too-high", "learning-rate-too-low"},
    "poor-init": _SIGNAL | _GROWTH | {"overconfident-start", "collapse-and-recover", "learning-rate-too-high", "learning-rate-too-low"},
    "overconfident-start": _SIGNAL | {"exploding-gradients", "learning-rate-too-high", "divergence", "collapse-and-recover"},
    "learning-rate-too-high": _SIGNAL | _GROWTH | {"collapse-and-recover", "train-valid-mismatch", "batch-norm-hides-drift"},
    "collapse-and-recover": _SIGNAL | _GROWTH,
    "exploding-gradients": _SIGNAL | {"exploding-activations", "divergence", "not-finite", "precision"},
    "exploding-activations": _SIGNAL | {"divergence", "not-finite", "precision", "massive-activations", "exploding-gradients"},
    "dead-units": frozenset({"vanishing-gradients", "dead-output", "plateau", "no-gradient", "late-start"}),
    "saturation": frozenset({"vanishing-gradients", "plateau", "late-start"}),
    "precision": frozenset({"plateau", "not-finite", "vanishing-gradients", "learning-rate-too-low"}),
    "vanishing-gradients": frozenset({"saturation", "plateau", "late-start", "learning-rate-too-low"}),
    "dead-output": _COURSE | {"vanishing-gradients", "no-gradient"},
    "learning-rate-too-low": frozenset({"plateau", "late-start"}),
    "not-finite": _COURSE | {"dead-output", "train-valid-mismatch"},
    "divergence": frozenset({"not-finite", "train-valid-mismatch"}),
    "frozen": frozenset({"late-start"}),
}  # fmt: skip

_RANK = {symptom: rank for rank, symptom in enumerate(BRINGS)}


def ordered(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return the root causes, the worst first, each with what it explains.

    A finding explains another if its symptom is known to bring that one, it is no mere note, and it does not begin
    more than :data:`SLACK` batches after it. Where two would explain each other, the one that began clearly before does, and
    of two that began together the one that stands first in :data:`BRINGS`.
    """
    rest = sorted(findings, key=lambda each: (_rank(each), each.first))
    parents = [next((i for i, other in enumerate(rest) if _is_cause(other, each)), None) for each in rest]
    children: dict[int, list[Finding]] = {}
    for number in range(len(rest)):
        root, seen = number, {number}
        while (above := parents[root]) is not None and above not in seen:
            root = above
            seen.add(root)
        children.setdefault(root, [])
        if root != number:
            children[root].append(rest[number])
    found = [
        rest[root].with_consequences(tuple(sorted(explained, key=lambda each: each.first)))
        for root, explained in children.items()
    ]
    return tuple(sorted(found, key=lambda each: (SEVERITIES.index(each.severity), _rank(each), each.first)))


def muted(mute: Collection[str], symptoms: Sequence[str]) -> Callable[[Finding], bool]:
    """Return whether a finding is muted, by its symptom or for all its layers.

    Raises
    ------
    ArgumentError
        If a muted symptom is none.
    """
    patterns: dict[str, list[str]] = {}
    for each in mute:
        symptom, _, layer = each.partition(":")
        if symptom not in symptoms:
            near = difflib.get_close_matches(symptom, symptoms, n=1, cutoff=0.0)
            raise ArgumentError(
                f"{symptom!r} is no symptom that could be muted: the nearest is {near[0]!r}.", page="diagnose#muting"
            )
        patterns.setdefault(symptom, []).append(layer or "*")

    def silent(finding: Finding) -> bool:
        wanted = patterns.get(finding.symptom, [])
        if "*" in wanted:
            return True
        return bool(finding.layers) and all(
            any(fnmatch.fnmatchcase(layer, pattern) for pattern in wanted) for layer in finding.layers
        )

    return silent


def _rank(finding: Finding) -> int:
    return _RANK.get(finding.symptom, len(_RANK))


def _explains(cause: Finding, effect: Finding) -> bool:
    return (
        cause.severity != "note"
        and effect.symptom in BRINGS.get(cause.symptom, ())
        and (cause.first <= effect.first + SLACK or effect.symptom in _WHOLE)
    )


def _is_cause(cause: Finding, effect: Finding) -> bool:
    """Return whether one explains the other, and not the other way round."""
    if cause is effect or not _explains(cause, effect):
        return False
    if not _explains(effect, cause):
        return True
    return (_rank(cause), cause.first) < (_rank(effect), effect.first)
