"""Scores colordim and the rival rule sets on cached trainings: `python -m benchmarks.diagnosis.score --part dev`.

Nothing is trained, but with `--heal`, which repeats each harmful training with the first remedy that colordim suggests.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.diagnosis.answers import ALONE, OURS, Row, answer_all
from benchmarks.diagnosis.intervals import Share
from benchmarks.diagnosis.outcome import read_references
from benchmarks.diagnosis.remedy import KEYS, apply
from benchmarks.diagnosis.rivals import READINGS
from benchmarks.diagnosis.run import CACHE, cached, fill
from benchmarks.diagnosis.scoring import Answer, baselines, margin, score, symptom_rates
from benchmarks.diagnosis.spec import Spec
from benchmarks.diagnosis.split import PARTS, part
from benchmarks.diagnosis.table import confusion_table, family_table, main_table, proof, rates_table, sizes
from benchmarks.diagnosis.train import read_truth

__all__ = ["heal", "main", "report", "rows_of", "wrong"]

REGAINED = 0.95  # of the reference score


def rows_of(specs: list[Spec], cache: Path, jobs: int = 2, quick: bool = False) -> list[Row]:
    """Ask every rule set about the trainings that are in the cache."""
    references = read_references()
    work = [(spec, folder, references[spec.arch], quick) for spec, folder in cached(specs, cache)]
    if jobs == 1:
        return [answer_all(*each) for each in work]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        return list(pool.map(answer_all, *zip(*work, strict=True), chunksize=4)) if work else []


def report(rows: Sequence[Row]) -> str:
    """Return all tables as Markdown."""
    cases = [row.case for row in rows]
    answers: dict[str, dict[str, Answer]] = {}
    for name in (OURS, ALONE, *READINGS):
        answers[name] = {row.case.id: said for row in rows if (said := row.answers[name]) is not None}
    answers |= baselines(cases)
    scores = {name: score(cases, said) if said else None for name, said in answers.items()}
    margins = {name: margin(cases, answers[OURS], said) for name, said in answers.items() if name != OURS}
    ours = scores[OURS]
    if ours is None:
        return "No training is in the cache."
    parts = [
        sizes(cases),
        main_table(scores, margins),
        proof(ours.false_alarms) + f" With a problem at any prefix: {ours.ever_false}.",
        f"Right symptom first among the faults that were found: {ours.named_if_found}. Harmless faults with a problem: {ours.harmless}.",
        family_table(ours),
        confusion_table(ours),
        "Against raw tensors, on all trainings:",
        rates_table(symptom_rates(cases, answers[OURS])),
    ]
    return "\n\n".join(parts)


def wrong(rows: Sequence[Row]) -> str:
    """List colordim's mistakes, a line each: what it said first, and what it should have said."""
    lines = []
    for row in rows:
        case, said = row.case, row.answers[OURS]
        assert said is not None
        first = said.defects[0] if said.defects else None
        text = f"{first.symptom} at {first.layer}" if first else "nothing"
        if case.group == "healthy" and (first or said.alarms):
            lines.append(f"false alarm  {case.id}: {text}, alarms at {list(said.alarms)}")
        elif case.group == "out-of-scope" and first:
            lines.append(f"out of scope {case.id}: {text}")
        elif case.group == "harmful" and first is None:
            lines.append(f"missed       {case.id}: {' or '.join(case.symptoms)}")
        elif case.group == "harmful" and first and not case.is_symptom(first.symptom):
            lines.append(f"wrong name   {case.id}: {text} for {' or '.join(case.symptoms)}")
        elif case.group == "harmful" and first and case.layers and not case.is_layer(first.layer):
            lines.append(f"wrong layer  {case.id}: {text} for {', '.join(case.layers)}")
    return "\n".join(sorted(lines))


def heal(rows: Sequence[Row], cache: Path, jobs: int = 2) -> tuple[Share, list[str]]:
    """Repeat harmful trainings with the first remedy suggested.

    Returns
    -------
    Share
        Of the harmful trainings whose fault a setting can undo: how many regain 95 % of the reference. Without a suggestion
        that can be applied they do not.
    list of str
        A line for each that does not.
    """
    references = read_references()
    harmful = [row for row in rows if row.case.group == "harmful" and row.spec.label.repairable]
    healed = {row.case.id: apply(row.spec, row.remedy, row.factor) for row in harmful if row.remedy in KEYS}
    cache = cache / "remedies"  # of which only the outcome is wanted
    fill(list({each.id: each for each in healed.values()}.values()), cache, jobs, record=False)
    regained, lines = 0, []
    for row in harmful:
        spec = healed.get(row.case.id)
        final = _final(cache / spec.id) if spec else math.nan
        if final >= REGAINED * references[row.case.arch].score:
            regained += 1
        else:
            lines.append(f"not healed   {row.case.id}: {row.remedy or 'no remedy'} gives {final:.3g}")
    return Share(regained, len(harmful)), sorted(lines)


def _final(folder: Path) -> float:
    truth = read_truth(folder)
    return math.nan if truth.nan else truth.scores[-1][1]


def main() -> None:
    """Score a part of the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--quick", action="store_true", help="ask at a tenth and at the end alone: delays are upper bounds"
    )
    parser.add_argument("--wrong", action="store_true", help="list colordim's mistakes")
    parser.add_argument("--heal", action="store_true", help="train with the remedies suggested, and score them")
    given = parser.parse_args()
    begun = time.perf_counter()
    rows = rows_of(part(given.part), given.cache, given.jobs, given.quick)
    print(report(rows))
    if given.wrong:
        print("\n" + wrong(rows))
    if given.heal:
        share, lines = heal(rows, given.cache, given.jobs)
        print(f"\nRegained 95 % of the reference with the first remedy: {share}\n" + "\n".join(lines))
    print(f"\n{len(rows)} trainings in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
