"""Scores as Markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.diagnosis.intervals import Estimate, Share
from benchmarks.diagnosis.scoring import Case, Score

__all__ = ["confusion_table", "family_table", "main_table", "proof", "rates_table", "sizes"]

COLUMNS = (
    "rule set", "false alarms on healthy", "recall on harmful", "precision", "F1", "ours minus its F1", "right symptom first",
    "right layer first", "median batches to report", "of NaN", "within an epoch", "names too many", "silent out of scope",
    "foresight (balanced accuracy)", "foreseen", "foresight's precision",
)  # fmt: skip


def main_table(scores: Mapping[str, Score | None], margins: Mapping[str, Estimate]) -> str:
    """Return a row for each rule set; one that is None was not there."""
    rows = []
    for name, each in scores.items():
        if each is None:
            rows.append([name, "has not watched these trainings", *[""] * (len(COLUMNS) - 2)])
            continue
        rows.append(
            [
                name,
                *map(str, (each.false_alarms, each.recall, each.precision, each.f1, margins.get(name, ""))),
                *map(str, (each.named, each.placed)),
                *map(_batches, (each.delay, each.nan_delay)),
                str(each.in_epoch),
                f"{each.extra:.2g}",
                *map(str, (each.silent, each.foresight, each.foreseen, each.foresight_precision)),
            ]
        )
    return _markdown(COLUMNS, rows)


def family_table(score: Score) -> str:
    """Return found, named and placed for each family of faults."""
    rows = [[family, *(_short(share) for share in shares)] for family, shares in score.families.items()]
    return _markdown(("family", "found", "right symptom first", "right layer first"), rows)


def confusion_table(score: Score) -> str:
    """Return what was said first of each family: its names, the most frequent first."""
    rows = []
    for family in score.families:
        said = Counter({name: count for (of, name), count in score.confusion.items() if of == family})
        rows.append([family, str(said.total()), ", ".join(f"{name} {count}" for name, count in said.most_common())])
    return _markdown(("family", "harmful runs", "said first"), rows)


def rates_table(rates: Mapping[str, tuple[Share, Share]]) -> str:
    """Return precision and recall of symptoms against raw tensors."""
    rows = [[symptom, str(precision), str(recall)] for symptom, (precision, recall) in rates.items()]
    return _markdown(("symptom", "precision", "recall"), rows)


def sizes(cases: Sequence[Case]) -> str:
    """Say how many trainings count as what."""
    counted = Counter[str](case.group for case in cases)
    named = ("healthy", "harmful", "harmless", "out-of-scope", "set aside")
    return f"{len(cases)} trainings: " + ", ".join(f"{counted[name]} {name}" for name in named)


def proof(share: Share) -> str:
    """Say what a share of false alarms can prove, one-sided."""
    if not share.of:
        return "No healthy run, no proof."
    return (
        f"{share.count} false alarms on {share.of} verified-healthy runs: below {100 * share.upper():.2g} % at 95 % confidence "
        f"(none on as many would be below {100 * Share(0, share.of).upper():.2g} %; 2 % takes {math.ceil(math.log(0.05) / math.log(0.98))} runs without any)."
    )


def _batches(value: float) -> str:
    return "none" if math.isnan(value) else "never" if math.isinf(value) else f"{value:g}"


def _short(share: Share) -> str:
    return f"{share.count}/{share.of}" if share.of else ""


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)
