"""What is known of a cached training, and what colordim and the rival rule sets say of it."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.diagnosis.monitor import Verdict
from benchmarks.diagnosis.outcome import Reference, judge
from benchmarks.diagnosis.rivals import read
from benchmarks.diagnosis.scoring import Answer, Case, spoken
from benchmarks.diagnosis.spec import Spec
from benchmarks.diagnosis.train import RUN, VERDICTS, Truth, read_truth

import colordim
from colordim import diagnosis
from colordim.column import Kind
from colordim.diagnosis import Diagnosis, Evidence, diagnose, gather

__all__ = ["ALONE", "OURS", "Row", "answer", "answer_all", "case_of", "evidence_of", "prefixes"]

OURS, ALONE = "colordim", "colordim, activations alone"
EARLY = 0.1  # share of the planned batches that foresight may see
MANY = 0.5  # share of dead units, or of saturated values, of a layer from which the symptom is true
EVIDENCE = "evidence.pkl"
ACTIVATION: tuple[Kind, ...] = ("activation",)


@dataclass(frozen=True)
class Row:
    """A training with all answers.

    Attributes
    ----------
    answers : dict of str to (Answer or None)
        By rule set; None where it has not watched.
    remedy : str
        Key of the first remedy of colordim's first problem; "" if there is none.
    factor : float
        What it says that the learning rate is to be multiplied by.
    """

    spec: Spec
    case: Case
    answers: dict[str, Answer | None]
    remedy: str
    factor: float


def case_of(spec: Spec, truth: Truth, reference: Reference) -> Case:
    """Return what is known of a training."""
    oracle = truth.oracle
    truths = {"not-finite": oracle.get("first_not_finite") is not None}
    for symptom, shares in (("dead-units", oracle.get("dead")), ("saturation", oracle.get("saturated"))):
        if shares:
            truths[symptom] = max(shares.values()) >= MANY
    label = spec.label
    return Case(
        id=spec.id,
        arch=spec.arch,
        kind=spec.kind,
        family=spec.family,
        outcome=judge(truth, reference),
        symptoms=label.symptoms,
        layers=label.layers,
        onset=label.onset,
        batches=truth.batches,
        epoch=truth.batches_per_epoch,
        early=math.ceil(EARLY * spec.recipe.epochs * truth.batches_per_epoch),
        truths=truths,
    )


def prefixes(case: Case, quick: bool = False) -> list[int]:
    """Return after how many batches colordim is asked, beside the end.

    Densely behind the onset and at quarters; if it is to be quick, at a tenth alone, and delays are upper bounds.
    """
    if quick:
        return [case.early] if case.early < case.batches else []
    doubling = [case.onset + 2**power for power in range(20)]
    wanted = [*doubling, case.onset + case.epoch, case.early, *(case.batches * part // 4 for part in (1, 2, 3))]
    return sorted({each for each in wanted if 0 < each < case.batches})


def answer(evidence: Evidence, case: Case, quick: bool = False) -> Answer:
    """Ask colordim at the end and after some prefixes."""
    whole = diagnose(evidence)
    said = {upto: _defects(diagnose(evidence.until(upto))) for upto in prefixes(case, quick)}
    said[case.batches] = _defects(whole)
    alarms = tuple(upto - 1 for upto, defects in said.items() if defects)
    return Answer(said[case.batches], alarms, bool(said[min(case.early, case.batches)]))


def answer_all(spec: Spec, folder: Path, reference: Reference, quick: bool = False) -> Row:
    """Return every rule set's answer to a cached training."""
    case = case_of(spec, read_truth(folder), reference)
    evidence = evidence_of(folder)
    answers: dict[str, Answer | None] = {
        OURS: answer(evidence, case, quick),
        ALONE: answer(evidence.only(ACTIVATION), case, quick),
    }
    for name, verdicts in read(_verdicts(folder)).items():
        answers[name] = None if verdicts is None else spoken(case, verdicts)
    problems = [each for each in diagnose(evidence).findings if each.severity == "problem" and each.remedies]
    first = problems[0].remedies[0] if problems else None
    return Row(spec, case, answers, first.key if first else "", first.factor if first else 1.0)


def evidence_of(folder: Path) -> Evidence:
    """Return the evidence of a recorded run, from beside it unless the code that gathers it has changed since."""
    digest, kept = _digest(), folder / EVIDENCE
    if kept.exists() and (content := kept.read_bytes()).startswith(digest):
        evidence: Evidence = pickle.loads(zlib.decompress(content[len(digest) :]))
        return evidence
    evidence = gather(colordim.open(folder / RUN))
    partial = kept.with_suffix(".part")
    partial.write_bytes(digest + zlib.compress(pickle.dumps(evidence, pickle.HIGHEST_PROTOCOL), 1))
    partial.replace(kept)
    return evidence


def _digest() -> bytes:
    room = Path(diagnosis.__file__).parent
    return hashlib.sha1(b"zlib" + b"".join((room / name).read_bytes() for name in ("evidence.py", "read.py"))).digest()


def _defects(said: Diagnosis) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(each.symptom, each.symptom, each.layers[0] if each.layers else None, each.first)
        for each in said.findings
        if each.severity == "problem"
    )


def _verdicts(folder: Path) -> Mapping[str, list[Verdict]]:
    if not (folder / VERDICTS).exists():
        return {}
    written: dict[str, list[dict[str, Any]]] = json.loads((folder / VERDICTS).read_text())
    return {name: [Verdict(**each) for each in said] for name, said in written.items()}
