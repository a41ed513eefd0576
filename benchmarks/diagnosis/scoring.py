"""How good a rule set's answers are: pure functions of cases (what is known of trainings) and answers (what was said)."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Literal

import numpy as np
from benchmarks.diagnosis.intervals import Estimate, Share, balanced_accuracy, bootstrap, f1, f1_margin
from benchmarks.diagnosis.monitor import Verdict

__all__ = ["Answer", "Case", "Score", "baselines", "margin", "score", "spoken", "symptom_rates"]

CURVES = frozenset({"plateau", "divergence", "train-valid-mismatch"})  # what may be said of a fault in the data

Group = Literal["healthy", "harmful", "harmless", "out-of-scope", "set aside"]


@dataclass(frozen=True)
class Case:
    """What is known of a training.

    Attributes
    ----------
    kind : {"healthy", "fault", "out-of-scope"}
        By construction.
    outcome : {"fine", "harmful", "grey"}
    symptoms, layers : tuple of str
        Any of them is right; no layers: they are not judged. A layer stands for its parameters and children too.
    onset : int
        First training batch at which the fault acts.
    batches, epoch : int
        Training batches that there are, and those of an epoch.
    early : int
        Batches that foresight may see: a tenth of those planned.
    truths : mapping of str to bool
        Symptoms that raw tensors show, or do not.
    """

    id: str
    arch: str
    kind: str
    family: str
    outcome: str
    symptoms: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    onset: int = 0
    batches: int = 0
    epoch: int = 1
    early: int = 0
    truths: Mapping[str, bool] = field(default_factory=dict)

    @property
    def group(self) -> Group:
        """What it counts as: what is not what it was made to be, or lies in the grey zone, is set aside."""
        if self.kind == "out-of-scope":
            return "out-of-scope"
        if self.kind == "healthy":
            return "healthy" if self.outcome == "fine" else "set aside"
        groups: dict[str, Group] = {"harmful": "harmful", "fine": "harmless"}
        return groups.get(self.outcome, "set aside")

    def is_symptom(self, name: str) -> bool:
        """Whether a name is right; it may hold several keys, where a rule set has one name for what we tell apart."""
        return bool(set(name.split("|")) & set(self.symptoms))

    def is_layer(self, name: str | None) -> bool:
        """Whether a layer is right."""
        return name is not None and any(name == each or name.startswith(f"{each}.") for each in self.layers)


@dataclass(frozen=True)
class Answer:
    """What a rule set said of a training.

    Attributes
    ----------
    defects : tuple of Verdict
        The most important first.
    alarms : tuple of int
        Training batches at which it said that there is a defect, in order, whatever it said in the end.
    early : bool
        Whether it said so of the first tenth alone.
    """

    defects: tuple[Verdict, ...] = ()
    alarms: tuple[int, ...] = ()
    early: bool = False


@dataclass(frozen=True)
class Score:
    """How good the answers are.

    Attributes
    ----------
    false_alarms, ever_false : Share
        Of verified-healthy runs: a defect in the end, and at any time.
    recall, precision : Share
        Harmful faults with a defect, of all; and of all runs with one, healthy ones included.
    named, placed : Share
        Harmful faults whose first defect has the right name (is at the right layer, where that is judged).
    named_if_found : Share
        The same, of the faults that were found.
    delays, nan_delays : tuple of float
        Batches from the onset of each harmful fault to the first report from then on; infinite if there is none. The second:
        faults that are not finite.
    in_epoch : Share
        Harmful faults, those not finite apart, reported within one epoch of onset.
    extra : float
        Mean number of names, beyond one right one, of defects in harmful runs that were found.
    silent : Share
        Out-of-scope runs of whose internals nothing was said.
    harmless : Share
        Faults that did no harm, with a defect: neither right nor wrong.
    foresight : Estimate
        Balanced accuracy of "it will fail" from the first tenth of the batches, over faults that act by then and healthy runs.
    foreseen, foresight_precision : Share
    families : dict of str to (Share, Share, Share)
        Found, named and placed, of each family's harmful runs.
    confusion : Counter of (family, first name)
    """

    false_alarms: Share
    ever_false: Share
    recall: Share
    precision: Share
    f1: Estimate
    named: Share
    named_if_found: Share
    placed: Share
    delays: tuple[float, ...]
    nan_delays: tuple[float, ...]
    in_epoch: Share
    extra: float
    silent: Share
    harmless: Share
    foresight: Estimate
    foreseen: Share
    foresight_precision: Share
    families: dict[str, tuple[Share, Share, Share]]
    confusion: Counter[tuple[str, str]]

    @property
    def delay(self) -> float:
        """Median delay in batches, of faults that are finite."""
        return _median(self.delays)

    @property
    def nan_delay(self) -> float:
        """Median delay in batches, of faults that are not."""
        return _median(self.nan_delays)


def spoken(case: Case, verdicts: Iterable[Verdict]) -> Answer:
    """Turn verdicts, given as a training went on, into an answer: the earliest is the first."""
    defects = tuple(sorted((each for each in verdicts if each.severe), key=lambda each: each.batch))
    alarms = tuple(each.batch for each in defects)
    return Answer(defects, alarms, bool(alarms) and alarms[0] < case.early)


def score(cases: Sequence[Case], answers: Mapping[str, Answer]) -> Score:
    """Score answers, by the ids of their cases; cases without an answer are left out."""
    answered = [(case, answers[case.id]) for case in cases if case.id in answers]

    def of(group: Group) -> list[tuple[Case, Answer]]:
        return [(case, answer) for case, answer in answered if case.group == group]

    healthy, harmful = of("healthy"), of("harmful")
    found = [(case, answer) for case, answer in harmful if answer.defects]
    alarmed = sum(bool(answer.defects) for _, answer in healthy)
    cells = (len(found), alarmed, len(harmful) - len(found), len(healthy) - alarmed)
    named = [case.is_symptom(_first(answer)) for case, answer in harmful]
    late = [(case, answer, _delay(case, answer)) for case, answer in harmful]
    numbers = [(case, delay) for case, _, delay in late if case.symptoms != ("not-finite",)]
    judged = [(case, answer) for case, answer in healthy + harmful if case.onset < case.early]
    foresight = np.zeros(4)
    for case, answer in judged:
        foresight[(0 if answer.early else 2) if case.group == "harmful" else (1 if answer.early else 3)] += 1
    return Score(
        false_alarms=Share(alarmed, len(healthy)),
        ever_false=Share(sum(bool(answer.defects or answer.alarms) for _, answer in healthy), len(healthy)),
        recall=Share(len(found), len(harmful)),
        precision=Share(len(found), len(found) + alarmed),
        f1=bootstrap(cells, f1),
        named=Share(sum(named), len(harmful)),
        named_if_found=Share(sum(named), len(found)),
        placed=_placed(harmful),
        delays=tuple(delay for _, delay in numbers),
        nan_delays=tuple(delay for case, _, delay in late if case.symptoms == ("not-finite",)),
        in_epoch=Share(sum(delay <= case.epoch for case, delay in numbers), len(numbers)),
        extra=mean([_extra(case, answer) for case, answer in found]) if found else math.nan,
        silent=Share(sum(_is_silent(answer) for _, answer in of("out-of-scope")), len(of("out-of-scope"))),
        harmless=Share(sum(bool(answer.defects) for _, answer in of("harmless")), len(of("harmless"))),
        foresight=bootstrap(foresight, balanced_accuracy),
        foreseen=Share(int(foresight[0]), int(foresight[0] + foresight[2])),
        foresight_precision=Share(int(foresight[0]), int(foresight[0] + foresight[1])),
        families=_families(harmful),
        confusion=Counter((case.family, _first(answer) or "(nothing)") for case, answer in harmful),
    )


def margin(cases: Sequence[Case], ours: Mapping[str, Answer], theirs: Mapping[str, Answer]) -> Estimate:
    """Estimate F1 of ours minus theirs, on the runs that both answered, by a bootstrap of the pairs."""
    cells = np.zeros((2, 2, 2))
    for case in cases:
        if case.group in ("healthy", "harmful") and case.id in ours and case.id in theirs:
            alarms = bool(ours[case.id].defects), bool(theirs[case.id].defects)
            cells[int(case.group == "harmful"), int(alarms[0]), int(alarms[1])] += 1
    return bootstrap(cells, f1_margin)


def symptom_rates(cases: Sequence[Case], answers: Mapping[str, Answer]) -> dict[str, tuple[Share, Share]]:
    """Return precision and recall of each symptom that raw tensors tell of: said anywhere, whatever the outcome."""
    rates = {}
    for symptom in sorted({name for case in cases for name in case.truths}):
        pairs = [
            (case.truths[symptom], any(symptom in each.symptom.split("|") for each in answers[case.id].defects))
            for case in cases
            if symptom in case.truths and case.id in answers
        ]
        both = sum(true and said for true, said in pairs)
        rates[symptom] = Share(both, sum(said for _, said in pairs)), Share(both, sum(true for true, _ in pairs))
    return rates


def baselines(cases: Sequence[Case]) -> dict[str, dict[str, Answer]]:
    """Answer without looking: always an alarm, and one drawn with the prevalence of harmful faults.

    Both name the most frequent right symptom and, of each architecture, the most frequent right layer.
    """
    harmful = [case for case in cases if case.group == "harmful"]
    judged = len(harmful) + sum(case.group == "healthy" for case in cases)
    prevalence = len(harmful) / judged if judged else 0.0
    symptom = _commonest(name for case in harmful for name in case.symptoms)
    layers = {
        arch: _commonest(name for case in harmful if case.arch == arch for name in case.layers) or None
        for arch in {case.arch for case in cases}
    }
    always, drawn = {}, {}
    for case in cases:
        alarm = Answer((Verdict(symptom, symptom, layers[case.arch], 0),), (0, case.onset), True)
        always[case.id] = alarm
        drawn[case.id] = alarm if random.Random(case.id).random() < prevalence else Answer()
    return {"always alarm": always, "random with the prevalence": drawn}


def _first(answer: Answer) -> str:
    return (answer.defects[0].symptom or answer.defects[0].native) if answer.defects else ""


def _placed(runs: Sequence[tuple[Case, Answer]]) -> Share:
    judged = [(case, answer) for case, answer in runs if case.layers]
    return Share(
        sum(bool(answer.defects) and case.is_layer(answer.defects[0].layer) for case, answer in judged), len(judged)
    )


def _delay(case: Case, answer: Answer) -> float:
    return next((batch - case.onset for batch in answer.alarms if batch >= case.onset), math.inf)


def _extra(case: Case, answer: Answer) -> int:
    right = any(case.is_symptom(each.symptom) for each in answer.defects)
    return len({each.native for each in answer.defects}) - right


def _is_silent(answer: Answer) -> bool:
    return all(CURVES & set(each.symptom.split("|")) for each in answer.defects)


def _families(runs: Sequence[tuple[Case, Answer]]) -> dict[str, tuple[Share, Share, Share]]:
    table = {}
    for family in sorted({case.family for case, _ in runs}):
        some = [(case, answer) for case, answer in runs if case.family == family]
        found, named = (
            Share(sum(hits), len(some))
            for hits in ([bool(a.defects) for _, a in some], [c.is_symptom(_first(a)) for c, a in some])
        )
        table[family] = found, named, _placed(some)
    return table


def _commonest(names: Iterable[str]) -> str:
    counted = Counter(names)
    return min(counted, key=lambda name: (-counted[name], name)) if counted else ""


def _median(delays: Sequence[float]) -> float:
    return median(delays) if delays else math.nan
