"""Evidence: shares against NumPy on the values, and what was known at an earlier batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from colordim.diagnosis.course import course_of, smoothed
from colordim.diagnosis.steps import steps_of


def test_shares_are_those_of_the_values_at_edges_of_bins(made: Any) -> None:
    values = made.normal(2.0)
    values[3][0, :5] = 0.0
    made.add("activation", "a", values)
    series = made.evidence().get("activation", "a")
    for magnitude in (0.5, 1.0, 4.0):  # powers of two are edges
        assert series.below(magnitude) == pytest.approx([np.mean(np.abs(each) < magnitude) for each in values])
        assert series.above(magnitude) == pytest.approx([np.mean(each > magnitude) for each in values])
        assert series.above(-magnitude) == pytest.approx([np.mean(each > -magnitude) for each in values])
        assert series.number_below(magnitude) == sum(int(np.sum(np.abs(each) < magnitude)) for each in values)
    assert series.above(0.0) == pytest.approx([np.mean(each > 0) for each in values])


def test_shares_leave_out_what_is_not_finite_and_are_nan_of_nothing(made: Any) -> None:
    made.add("activation", "a", [np.array([np.nan, np.inf, 0.25, 8.0]), None] + [np.ones(4)] * 58)
    share = made.evidence().get("activation", "a").below(1.0)
    assert share[0] == 0.5
    assert np.isnan(share[1])


def test_until_is_what_was_known_then(learning: Any) -> None:
    values = [np.ones(4) for _ in range(60)]
    values[30] = np.array([1.0, np.nan, 1.0, 1.0])
    learning.add("activation", "broken", values)
    learning.valid_loss = [2.0, 1.0, 0.5]
    evidence = learning.evidence()
    before, after = evidence.until(30), evidence.until(31)
    assert before.length == 30
    assert before.get("activation", "broken").not_finite == -1
    assert after.get("activation", "broken").not_finite == 30
    assert before.epochs.tolist() == [0, 20]
    assert before.valid_loss[0].tolist() == [20]
    assert len(before.loss) == 30
    assert all(len(series) == 30 for series in before.series.values())


def test_only_keeps_the_streams_of_the_kinds(made: Any) -> None:
    made.add("activation", "a")
    made.add("gradient", "a")
    assert list(made.evidence().only(("gradient",)).series) == [("gradient", "a")]


def test_smoothed_is_the_mean_of_the_last_values() -> None:
    assert smoothed(np.array([4.0, 2.0, 0.0, 6.0]), 2).tolist() == [4.0, 3.0, 1.0, 3.0]


def test_the_course_of_a_loss_by_hand(learning: Any) -> None:
    learning.loss([3.0] + [2.0] * 29 + [1.0] * 30)
    course = course_of(learning.evidence())
    assert (course.start, course.now, course.best, course.worst) == (3.0, 1.0, 1.0, 2.0)
    assert course.guess == pytest.approx(np.log(10))  # of ten outputs
    assert course.base == pytest.approx(np.log(10))  # the first loss was above guessing
    assert course.left == pytest.approx(1 / np.log(10))
    assert course.learnt
    assert not course.stuck


def test_a_loss_that_was_never_logged_is_not_known(made: Any) -> None:
    course = course_of(made.evidence())
    assert not course.known
    assert not course.learnt
    assert not course.stuck


def test_steps_are_the_ratio_of_the_deviations(learning: Any) -> None:
    for name, size in (("first", 1e-2), ("second", 1e-3), ("head", 1e-4)):
        learning.add("weight", f"{name}.weight", learning.normal(0.5))
        learning.add("update", f"{name}.weight", learning.normal(0.5 * size))
    steps = steps_of(learning.evidence())
    assert steps is not None
    series = learning.series
    expected = [
        np.log10(series["update", f"{name}.weight"].std / series["weight", f"{name}.weight"].std)
        for name in ("first", "second", "head")
    ]
    assert steps.ratio == pytest.approx(np.array(expected))
    assert steps.middle == pytest.approx(np.median(expected, axis=0))
    assert steps.high == pytest.approx(np.percentile(expected, 90, axis=0))
    assert steps.middle == pytest.approx(-3, abs=0.1)


def test_steps_without_a_value_are_left_out(learning: Any) -> None:
    for name in ("first", "second"):
        learning.add("weight", f"{name}.weight", learning.normal(0.5))
        learning.add("update", f"{name}.weight", [None if batch % 2 else np.zeros(10) for batch in range(60)])
    steps = steps_of(learning.evidence())
    assert steps is not None
    assert np.isnan(steps.middle[1::2]).all()
    assert np.isneginf(steps.ratio[:, ::2]).all()  # an update without any spread
