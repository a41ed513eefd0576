from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from benchmarks.diagnosis import answers
from benchmarks.diagnosis.intervals import Share, balanced_accuracy, bootstrap, f1, f1_margin
from benchmarks.diagnosis.monitor import Verdict
from benchmarks.diagnosis.scoring import Answer, Case, baselines, margin, score, spoken, symptom_rates
from benchmarks.diagnosis.table import confusion_table, family_table, main_table, proof, sizes
from scipy.stats import beta, binom

from colordim.diagnosis import Diagnosis, Finding


def defect(symptom: str, layer: str | None = None, batch: int = 0, native: str = "") -> Verdict:
    return Verdict(symptom, native or symptom, layer, batch)


def said(*defects: Verdict, at: tuple[int, ...] = (0,), early: bool = False) -> Answer:
    return Answer(defects, at if defects else (), early)


# -- intervals -------------------------------------------------------------------------------------------------------------


def test_share_of_none_and_of_all_has_the_closed_form() -> None:
    assert Share(0, 120).interval() == pytest.approx((0, 1 - 0.025 ** (1 / 120)))
    assert Share(120, 120).interval() == pytest.approx((0.025 ** (1 / 120), 1))


@pytest.mark.parametrize(("count", "of"), [(1, 9), (7, 9), (50, 120)])
def test_interval_is_that_of_clopper_and_pearson(count: int, of: int) -> None:
    wanted = beta.ppf(0.025, count, of - count + 1), beta.ppf(0.975, count + 1, of - count)
    assert Share(count, of).interval() == pytest.approx(wanted)
    assert Share(count, of).upper() == pytest.approx(beta.ppf(0.95, count + 1, of - count))


def test_share_of_no_runs_knows_nothing() -> None:
    assert Share(0, 0).interval() == (0, 1)
    assert math.isnan(Share(0, 0).value)
    assert str(Share(0, 0)) == "none"


def test_two_percent_takes_149_runs_without_a_false_alarm() -> None:
    assert Share(0, 148).upper() > 0.02 > Share(0, 149).upper()
    assert "2 % takes 149 runs" in proof(Share(1, 60))


def test_f1_and_balanced_accuracy_of_cells() -> None:
    cells = np.array([[8.0, 2, 2, 8], [0, 0, 0, 5]])
    assert f1(cells)[0] == pytest.approx(0.8)  # 16 / (16 + 2 + 2)
    assert balanced_accuracy(np.array([6.0, 1, 2, 9])) == pytest.approx((6 / 8 + 9 / 10) / 2)
    assert np.isnan(f1(cells)[1])


def test_margin_is_of_the_same_runs() -> None:
    cells = np.zeros((2, 2, 2))
    cells[1, 1, 0], cells[1, 1, 1], cells[0, 0, 1], cells[0, 0, 0] = (
        3,
        5,
        2,
        6,
    )  # ours: 8 hits; theirs: 5, 2 false, 3 missed
    assert f1_margin(cells) == pytest.approx(1 - 10 / 15)


def test_bootstrap_draws_runs() -> None:
    found = bootstrap([30, 0, 0, 70], lambda cells: cells[..., 0] / 100)
    low, high = binom.ppf([0.025, 0.975], 100, 0.3) / 100
    assert (found.value, found.low, found.high) == pytest.approx((0.3, low, high), abs=0.011)
    sure = bootstrap([5, 0, 0, 5], f1)
    assert (sure.value, sure.low, sure.high) == (1, 1, 1)
    assert math.isnan(bootstrap([0, 0, 0, 0], f1).value)


# -- scoring ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "outcome", "group"),
    [
        ("healthy", "fine", "healthy"),
        ("healthy", "grey", "set aside"),
        ("healthy", "harmful", "set aside"),
        ("fault", "harmful", "harmful"),
        ("fault", "fine", "harmless"),
        ("fault", "grey", "set aside"),
        ("out-of-scope", "harmful", "out-of-scope"),
    ],
)
def test_group(kind: str, outcome: str, group: str) -> None:
    assert Case("x", "mlp", kind, "f", outcome).group == group


def test_layer_stands_for_its_parameters_and_children() -> None:
    case = Case("x", "mlp", "fault", "f", "harmful", layers=("linear1", "block2"))
    assert [case.is_layer(name) for name in ("linear1", "linear1.weight", "block2.act", "linear10", None)] == [
        *(True, True, True),
        *(False, False),
    ]


def test_name_of_several_keys_is_right_if_any_is() -> None:
    case = Case("x", "mlp", "fault", "f", "harmful", symptoms=("frozen",))
    assert case.is_symptom("not-in-optimizer|frozen")
    assert not case.is_symptom("not-in-optimizer")
    assert not case.is_symptom("")


def test_spoken_verdicts_come_in_the_order_of_time() -> None:
    case = Case("x", "mlp", "fault", "f", "harmful", early=10)
    mild = Verdict("a", "a", None, 1, severe=False)
    answer = spoken(case, [defect("b", batch=30), mild, defect("c", batch=9)])
    assert [each.symptom for each in answer.defects] == ["c", "b"]
    assert answer.alarms == (9, 30)
    assert answer.early
    assert not spoken(case, [defect("b", batch=10)]).early


CASES = [
    Case("h1", "mlp", "healthy", "base", "fine", batches=100, epoch=10, early=10),
    Case("h2", "mlp", "healthy", "base", "fine", batches=100, epoch=10, early=10),
    Case("h3", "mlp", "healthy", "base", "fine", batches=100, epoch=10, early=10),
    Case("h4", "mlp", "healthy", "base", "harmful", batches=100, epoch=10, early=10),
    Case("dead", "mlp", "fault", "dead", "harmful", ("dead-units",), ("act1",), 0, 100, 10, 10, {"dead-units": True}),
    Case("dead2", "mlp", "fault", "dead", "harmful", ("dead-units",), ("act1",), 0, 100, 10, 10, {"dead-units": True}),
    Case("nan", "mlp", "fault", "nan", "harmful", ("not-finite",), ("log",), 50, 60, 10, 10, {"dead-units": False}),
    Case("lr", "mlp", "fault", "lr", "harmful", ("learning-rate-too-high",), (), 0, 100, 10, 10),
    Case("mild", "mlp", "fault", "lr", "fine", ("learning-rate-too-high",), (), 0, 100, 10, 10),
    Case("scope", "mlp", "out-of-scope", "labels", "harmful", batches=100, epoch=10, early=10),
    Case("scope2", "mlp", "out-of-scope", "labels", "harmful", batches=100, epoch=10, early=10),
]
ANSWERS = {
    "h1": Answer(),
    "h2": Answer(alarms=(3,)),  # said on the way, taken back
    "h3": said(defect("plateau"), early=True),
    "h4": said(defect("plateau")),
    "dead": said(defect("dead-units", "act1"), defect("saturation"), defect("plateau"), at=(4, 20), early=True),
    "dead2": said(defect("saturation", "act1"), defect("dead-units", "act2"), at=(30,)),
    "nan": said(defect("not-finite", "log"), at=(20, 50)),
    "lr": Answer(),
    "mild": said(defect("learning-rate-too-high")),
    "scope": said(defect("plateau"), defect("divergence|learning-rate-too-high")),
    "scope2": said(defect("plateau"), defect("dead-units")),
}


def test_score_of_a_hand_worked_example() -> None:
    found = score(CASES, ANSWERS)
    assert found.false_alarms == Share(1, 3)
    assert found.ever_false == Share(2, 3)
    assert found.recall == Share(3, 4)
    assert found.precision == Share(3, 4)
    assert found.f1.value == pytest.approx(0.75)
    assert found.named == Share(2, 4)
    assert found.named_if_found == Share(2, 3)
    assert found.placed == Share(3, 3)
    assert list(found.delays) == [4, 30, math.inf]
    assert found.delay == 30
    assert list(found.nan_delays) == [0]
    assert found.in_epoch == Share(1, 3)
    assert found.extra == pytest.approx((2 + 1 + 0) / 3)
    assert found.silent == Share(1, 2)
    assert found.harmless == Share(1, 1)
    assert found.foreseen == Share(1, 3)  # what acts from batch 50 on cannot be foreseen
    assert found.foresight_precision == Share(1, 2)
    assert found.foresight.value == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert found.families["dead"] == (Share(2, 2), Share(1, 2), Share(2, 2))
    assert found.confusion == {
        ("dead", "dead-units"): 1,
        ("dead", "saturation"): 1,
        ("nan", "not-finite"): 1,
        ("lr", "(nothing)"): 1,
    }


def test_cases_without_an_answer_are_left_out() -> None:
    found = score(CASES, {"h1": Answer(), "lr": Answer()})
    assert (found.false_alarms, found.recall) == (Share(0, 1), Share(0, 1))


def test_margin_between_two_rule_sets() -> None:
    always = baselines(CASES)["always alarm"]
    assert margin(CASES, ANSWERS, always).value == pytest.approx(0.75 - 2 * 4 / (2 * 4 + 3))
    same = margin(CASES, ANSWERS, ANSWERS)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_symptoms_against_raw_tensors() -> None:
    assert symptom_rates(CASES, ANSWERS) == {"dead-units": (Share(2, 2), Share(2, 2))}
    swapped = {**ANSWERS, "dead": Answer(), "nan": said(defect("dead-units|frozen"))}
    assert symptom_rates(CASES, swapped) == {"dead-units": (Share(1, 2), Share(1, 2))}


def test_baselines_name_what_is_most_frequent() -> None:
    both = baselines(CASES)
    always = score(CASES, both["always alarm"])
    assert (always.false_alarms, always.recall, always.named, always.placed) == (
        Share(3, 3),
        Share(4, 4),
        Share(2, 4),
        Share(2, 3),
    )
    assert (always.delay, always.nan_delay) == (0, 0)
    many = [Case(f"h{n}", "a", "healthy", "b", "fine") for n in range(700)]
    many += [Case(f"f{n}", "a", "fault", "b", "harmful", ("x",)) for n in range(300)]
    drawn = score(many, baselines(many)["random with the prevalence"])
    assert drawn.false_alarms.value == pytest.approx(0.3, abs=0.06)
    assert drawn.recall.value == pytest.approx(0.3, abs=0.09)


# -- tables ----------------------------------------------------------------------------------------------------------------


def test_table_has_a_row_for_each_rule_set_even_if_it_was_not_there() -> None:
    found = score(CASES, ANSWERS)
    lines = main_table({"ours": found, "theirs": None}, {"ours": found.f1}).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| ours | 1/3 = 33.3 % [0.84, 90.6] | 3/4 = 75 % [19.4, 99.4] |")
    assert lines[3].startswith("| theirs | has not watched these trainings |")


def test_families_and_confusion_are_listed() -> None:
    found = score(CASES, ANSWERS)
    assert "| dead | 2/2 | 1/2 | 2/2 |" in family_table(found)
    assert "| lr | 0/1 | 0/1 |  |" in family_table(found)
    assert "| dead | 2 | dead-units 1, saturation 1 |" in confusion_table(found)
    assert sizes(CASES) == "11 trainings: 3 healthy, 4 harmful, 1 harmless, 2 out-of-scope, 1 set aside"


# -- answers of ours -------------------------------------------------------------------------------------------------------


@dataclass
class Known:
    length: int

    def until(self, batch: int) -> Known:
        return Known(batch)


def test_prefixes_are_dense_behind_the_onset() -> None:
    case = Case("x", "mlp", "fault", "f", "harmful", onset=20, batches=60, epoch=7, early=6)
    assert answers.prefixes(case) == [6, 15, 21, 22, 24, 27, 28, 30, 36, 45, 52]
    assert answers.prefixes(case, quick=True) == [6]


def test_ours_is_asked_at_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    def diagnose(known: Known) -> Diagnosis:
        problem = Finding("dead-units", "problem", "", ("act1", "act2"), 3, known.length, (), "")
        warning = Finding("plateau", "warning", "", (), 0, known.length, (), "")
        return Diagnosis((problem, warning) if known.length >= 5 else (warning,), "")

    monkeypatch.setattr(answers, "diagnose", diagnose)
    case = Case("x", "mlp", "fault", "f", "harmful", onset=0, batches=10, epoch=100, early=4)
    answer = answers.answer(Known(10), case)  # type: ignore[arg-type]
    assert answer == Answer(
        (defect("dead-units", "act1", 3),), (4, 6, 7, 9), early=False
    )  # prefixes 1, 2, 4, 5, 7, 8, and all


def test_ours_at_onset_is_at_its_own_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Finding("not-finite", "problem", "", (), 20, 30, (), "")
    monkeypatch.setattr(answers, "diagnose", lambda known: Diagnosis((broken,) if known.length > 20 else (), ""))
    case = Case("x", "mlp", "fault", "f", "harmful", ("not-finite",), onset=20, batches=30, epoch=7, early=3)
    answer = answers.answer(Known(30), case)  # type: ignore[arg-type]
    assert score([case], {"x": answer}).nan_delay == 0
