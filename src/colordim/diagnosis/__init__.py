"""Reads the chart: what is wrong, where, since when, why, and what to try.

`read.py` takes the evidence from a run, each module of `rules/` looks for one symptom in it, `causes.py` puts
consequences below their causes. Nothing here draws, and nothing needs torch.
"""

from colordim.diagnosis.diagnosing import SYMPTOMS, diagnose
from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import SEVERITIES, Declined, Diagnosis, Finding, Number, Remedy, Severity
from colordim.diagnosis.read import gather

__all__ = [
    "SEVERITIES",
    "SYMPTOMS",
    "Declined",
    "Diagnosis",
    "Evidence",
    "Finding",
    "Number",
    "Remedy",
    "Severity",
    "diagnose",
    "gather",
]
