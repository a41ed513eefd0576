"""What explains what, in which order, and what is muted."""

from __future__ import annotations

import pytest

from colordim.diagnosis import SYMPTOMS, Finding, Severity, causes
from colordim.errors import ArgumentError


def finding(symptom: str, first: int = 0, severity: Severity = "problem", layers: tuple[str, ...] = ("a",)) -> Finding:
    return Finding(symptom, severity, symptom, layers, first, first, (), "why")


def tree(found: tuple[Finding, ...]) -> dict[str, list[str]]:
    return {each.symptom: [child.symptom for child in each.consequences] for each in found}


def test_what_came_first_and_is_known_to_bring_the_other_explains_it() -> None:
    found = causes.ordered(
        [finding("not-finite", 30), finding("exploding-activations", 20), finding("learning-rate-too-high", 10)]
    )
    assert tree(found) == {"learning-rate-too-high": ["exploding-activations", "not-finite"]}


def test_what_came_later_explains_nothing() -> None:
    found = causes.ordered([finding("not-finite", 1), finding("learning-rate-too-high", 10)])
    assert {each.symptom for each in found} == {"not-finite", "learning-rate-too-high"}
    assert all(not each.consequences for each in found)


@pytest.mark.parametrize(
    ("saturated", "vanished", "root"), [(0, 0, "saturation"), (0, 30, "saturation"), (30, 0, "vanishing-gradients")]
)
def test_of_two_that_bring_each_other_the_earlier_is_the_cause(saturated: int, vanished: int, root: str) -> None:
    (found,) = causes.ordered([finding("saturation", saturated), finding("vanishing-gradients", vanished)])
    assert found.symptom == root


def test_what_is_not_known_to_bring_it_explains_nothing() -> None:
    found = causes.ordered([finding("not-in-optimizer", 0), finding("not-finite", 5)])
    assert tree(found) == {"not-in-optimizer": [], "not-finite": []}


def test_a_note_explains_nothing() -> None:
    assert len(causes.ordered([finding("frozen", 0, "note"), finding("late-start", 5)])) == 2


def test_a_cause_is_as_severe_as_what_it_brings() -> None:
    (found,) = causes.ordered([finding("learning-rate-too-high", 0, "warning"), finding("dead-units", 5, "problem")])
    assert found.severity == "problem"
    assert [each.severity for each in found.walk()] == ["problem", "problem"]


def test_problems_come_first_and_notes_last() -> None:
    found = causes.ordered(
        [finding("massive-activations", 0, "note"), finding("precision", 1, "warning"), finding("dead-units", 9)]
    )
    assert [each.severity for each in found] == ["problem", "warning", "note"]


def test_all_symptoms_in_the_table_of_causes_are_symptoms() -> None:
    assert set(causes.BRINGS) <= set(SYMPTOMS)
    assert set().union(*causes.BRINGS.values()) <= set(SYMPTOMS)


def test_muting_by_symptom_and_by_layer() -> None:
    silent = causes.muted(["saturation", "dead-units:features.*"], SYMPTOMS)
    assert silent(finding("saturation"))
    assert silent(finding("dead-units", layers=("features.0", "features.3")))
    assert not silent(finding("dead-units", layers=("features.0", "head")))
    assert not silent(finding("not-finite"))


def test_an_unknown_symptom_is_refused_by_name_with_the_nearest() -> None:
    with pytest.raises(ArgumentError, match=r"'dead-unit' is no symptom .* nearest is 'dead-units'"):
        causes.muted(["dead-unit"], SYMPTOMS)
