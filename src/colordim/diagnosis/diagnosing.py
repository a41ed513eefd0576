"""From the evidence to a diagnosis: every rule is asked, and what one finding explains is put below it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from colordim.diagnosis import causes, healthy
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Declined, Diagnosis, Finding
from colordim.diagnosis.rules import RULES

__all__ = ["SYMPTOMS", "diagnose"]

#: Keys of all symptoms, in the order in which the rules are asked.
SYMPTOMS: tuple[str, ...] = tuple(rule.symptom for rule in RULES)


def diagnose(evidence: Evidence, mute: Collection[str] = ()) -> Diagnosis:
    """Ask every rule, and put what one finding explains below it.

    Parameters
    ----------
    evidence : Evidence
    mute : collection of str
        Symptoms that are not to be looked for, or ``symptom:layer`` for a layer alone, where the layer may hold
        the wildcards ``*``, ``?`` and ``[...]``.

    Returns
    -------
    Diagnosis

    Raises
    ------
    ArgumentError
        If a muted symptom is none; the message names the nearest.
    """
    silent = causes.muted(mute, SYMPTOMS)
    found: list[Finding] = []
    declined: list[Declined] = []
    for rule in RULES:
        if rule.symptom in mute:
            continue
        said = rule(evidence)
        if isinstance(said, Declined):
            declined.append(said)
        else:
            found += [finding for finding in said if not silent(finding)]
    findings = causes.ordered(found)
    sentence = _sentence(findings[0]) if _serious(findings) else healthy.sentence(evidence, findings)
    epochs = tuple(int(first) for first in evidence.epochs)
    return Diagnosis(findings, sentence, tuple(declined), evidence.length, evidence.name, tuple(sorted(mute)), epochs)


def _serious(findings: Sequence[Finding]) -> bool:
    return bool(findings) and findings[0].severity != "note"


def _sentence(finding: Finding) -> str:
    named = finding.title.startswith(finding.layers)  # the name of a layer stays as it is
    title = finding.title if named else finding.title[0].upper() + finding.title[1:]
    return f"{title}, since batch {finding.first}."
