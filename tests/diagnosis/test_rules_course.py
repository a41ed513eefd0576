"""Rules on the course of a training: steps, collapses, gradients, losses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from colordim.diagnosis.rule import TooThin
from colordim.diagnosis.rules import (
    collapse_and_recover,
    divergence,
    exploding_gradients,
    frozen,
    gradients_not_zeroed,
    learning_rate_too_high,
    learning_rate_too_low,
    no_gradient,
    not_in_optimizer,
    plateau,
    softmax_twice,
    vanishing_gradients,
)


def step(made: Any, ratio: Any) -> None:
    """Add weights and updates of the three layers, the updates `ratio` times as large."""
    for name in ("first", "second", "head"):
        made.add("weight", f"{name}.weight", made.normal(0.4))
        made.add("update", f"{name}.weight", made.normal(0.4 * np.asarray(ratio)))


# -- learning rates --------------------------------------------------------------------------------------------------------


def test_large_steps_without_any_progress_are_a_problem(learning: Any) -> None:
    learning.loss(2.4)
    learning.logged["lr"] = np.full(60, 0.5)
    step(learning, 0.2)
    (found,) = learning_rate_too_high.find(learning.evidence())
    assert found.severity == "problem"
    assert found.numbers[0].value == pytest.approx(math.log10(0.2), abs=0.1)
    # 10^-2.3 is what healthy trainings have: 10^(-2.3 + 0.7) = 0.025, of 0.01, 0.03 and 0.1 the nearest is 0.03
    assert found.remedies[0].factor == pytest.approx(0.03)
    assert found.remedies[0].text == "Lower the learning rate from 0.5 to 0.015."


def test_ordinary_steps_are_not_too_large(learning: Any) -> None:
    step(learning, 1e-3)
    assert learning_rate_too_high.find(learning.evidence()) == []
    assert learning_rate_too_low.find(learning.evidence()) == []


def test_tiny_steps_without_progress_are_too_small(learning: Any) -> None:
    learning.loss(np.linspace(2.3, 2.25, 60))
    step(learning, 1e-6)
    (found,) = learning_rate_too_low.find(learning.evidence())
    assert found.severity == "problem"
    assert found.numbers[0].value == pytest.approx(-6, abs=0.2)


def test_tiny_steps_of_a_training_that_learns_are_fine(learning: Any) -> None:
    step(learning, 1e-6)
    assert learning_rate_too_low.find(learning.evidence()) == []


def test_a_learning_rate_that_jumps_is_told_from_steps_that_grow_by_themselves(learning: Any) -> None:
    learning.loss(np.where(np.arange(60) < 40, 2.3, 9.0))
    step(learning, np.where(np.arange(60) < 40, 1e-3, 0.3))
    learning.logged["lr"] = np.where(np.arange(60) < 40, 0.01, 1.0)
    (found,) = learning_rate_too_high.find(learning.evidence())
    assert (found.first, found.remedies[0].key) == (38, "steady-lr")
    learning.logged["lr"] = np.full(60, 0.01)
    assert learning_rate_too_high.find(learning.evidence())[0].remedies[0].key == "lower-lr"


def test_large_first_steps_are_given_time(learning: Any) -> None:
    learning.loss(2.3)
    step(learning, 0.2)
    assert learning_rate_too_high.find(learning.evidence().until(10)) == []
    learning.loss(np.where(np.arange(60) < 3, 2.3, 9.0))
    assert learning_rate_too_high.find(learning.evidence().until(10)) != []


def test_a_schedule_that_fades_out_is_not_too_low(learning: Any) -> None:
    learning.loss(np.linspace(2.3, 2.2, 60))
    step(learning, np.geomspace(3e-3, 1e-8, 60))
    assert learning_rate_too_low.find(learning.evidence()) == []


def test_without_updates_a_jump_of_loss_and_activations_together(made: Any) -> None:
    made.loss(np.where(np.arange(60) < 30, 2.2, 40.0))
    for name in ("first", "second", "head"):
        made.layer(name, made.normal(np.where(np.arange(60) < 30, 1.0, 30.0)))
    (found,) = learning_rate_too_high.find(made.evidence())
    assert (found.severity, found.first) == ("problem", 30)


def test_without_updates_nothing_is_said_of_small_steps(learning: Any) -> None:
    with pytest.raises(TooThin, match="updates were not recorded"):
        learning_rate_too_low.find(learning.evidence())


# -- collapse-and-recover --------------------------------------------------------------------------------------------------


def test_a_crash_is_a_fall_from_a_peak_that_was_risen_to() -> None:
    rise = np.geomspace(1, 8, 20)
    rms = np.concatenate([rise, [8.0, 1.0], rise, [0.5], np.full(10, 0.5)])
    places, factors = zip(*collapse_and_recover.crashes(rms), strict=True)
    assert places == (21, 42)
    assert factors == pytest.approx((8.0, 16.0))


def test_values_that_fade_slowly_do_not_crash() -> None:
    assert collapse_and_recover.crashes(np.concatenate([np.geomspace(1, 8, 20), np.geomspace(8, 1, 60)])) == []


def test_a_start_that_is_left_is_no_crash() -> None:
    assert collapse_and_recover.crashes(np.array([8.0, 1.0, 1.0, 1.0])) == []


def saw(length: int = 60) -> Any:
    """Return a course that rises eightfold and falls back, every 20 batches."""
    return np.geomspace(1, 8, 20)[np.arange(length) % 20]


def test_layers_that_crash_together_with_the_loss(made: Any) -> None:
    made.loss(np.linspace(2.3, 1.5, 20)[np.arange(60) % 20])
    made.layer("first")
    made.layer("second", made.normal(saw()))
    made.layer("third", made.normal(saw() ** 2))
    (found,) = collapse_and_recover.find(made.evidence())
    assert (found.severity, found.first, found.last) == ("problem", 20, 40)
    assert found.layers == ("third", "second")  # the deepest fall first
    assert "2 times" in found.title


def test_a_single_layer_or_a_loss_that_keeps_falling_is_no_collapse(made: Any) -> None:
    made.loss(np.linspace(2.3, 0.5, 60))
    made.layer("second", made.normal(saw()))
    made.layer("third", made.normal(saw()))
    assert collapse_and_recover.find(made.evidence()) == []
    made.loss(np.linspace(2.3, 1.5, 20)[np.arange(60) % 20])
    made.series.pop(("activation", "third"))
    assert collapse_and_recover.find(made.evidence()) == []


# -- gradients -------------------------------------------------------------------------------------------------------------


def gradients(made: Any, scales: Any) -> None:
    for name, scale in zip(("first", "second", "head"), scales, strict=True):
        made.add("weight_gradient", f"{name}.weight", made.normal(scale))


def test_gradients_that_shrink_a_thousandfold_while_nothing_is_learnt(learning: Any) -> None:
    learning.loss(2.3)
    gradients(learning, (1e-6, 1e-3, 1.0))
    (found,) = vanishing_gradients.find(learning.evidence())
    assert (found.severity, found.layers[0]) == ("problem", "first")
    assert found.numbers[0].value == pytest.approx(1e-6, rel=0.2)


def test_small_gradients_of_a_training_that_is_done_do_not_vanish(learning: Any) -> None:
    gradients(learning, (1e-9, 1e-8, 1e-7))
    assert vanishing_gradients.find(learning.evidence()) == []
    gradients(learning, (1e-6, 1e-3, 1.0))  # nor do those of one that converges
    assert vanishing_gradients.find(learning.evidence()) == []


def test_gradients_that_jump_a_thousandfold(learning: Any) -> None:
    learning.loss(2.3)
    jump = np.where(np.arange(60) == 33, 1e3, 1.0)
    gradients(learning, (1.0, jump, 1.0))
    (found,) = exploding_gradients.find(learning.evidence())
    assert (found.first, found.layers[0]) == (33, "second")


def test_gradients_that_are_never_zeroed_wander(learning: Any) -> None:
    for name in ("first", "second", "head"):
        learning.add("weight_gradient", f"{name}.weight", list(np.cumsum(np.add(learning.normal(), 0.1), axis=0)))
    (found,) = gradients_not_zeroed.find(learning.evidence())
    assert found.remedies[0].key == "zero-grad"


def test_gradients_that_wander_without_growing_or_in_no_optimiser_are_left_alone(learning: Any) -> None:
    for name in ("first", "second", "head"):
        walk = np.cumsum(np.add(learning.normal(), 0.1), axis=0)
        learning.add("weight_gradient", f"{name}.weight", list(walk[::-1]))
    assert gradients_not_zeroed.find(learning.evidence()) == []
    for name in ("first", "second", "head"):
        learning.add("weight_gradient", f"{name}.weight", list(np.cumsum(np.add(learning.normal(), 0.1), axis=0)))
    for row in learning.parameters:
        row["in_optimizer"] = False
    assert gradients_not_zeroed.find(learning.evidence()) == []


def test_gradients_of_single_batches_do_not_wander(learning: Any) -> None:
    gradients(learning, (1.0, 1.0, 1.0))
    assert gradients_not_zeroed.find(learning.evidence()) == []


# -- what is trained -------------------------------------------------------------------------------------------------------


def test_a_layer_outside_of_the_optimiser(learning: Any) -> None:
    learning.parameters[0]["in_optimizer"] = False
    learning.add("weight", "first.weight", [np.arange(9.0)] * 60)
    (found,) = not_in_optimizer.find(learning.evidence())
    assert (found.severity, found.layers) == ("problem", ("first",))
    assert found.numbers[0].value == pytest.approx(1 / 3)


def test_a_layer_that_another_optimiser_moves_is_none_of_them(learning: Any) -> None:
    learning.parameters[0]["in_optimizer"] = False
    learning.add("weight", "first.weight", learning.normal())
    assert not_in_optimizer.find(learning.evidence()) == []


def test_a_layer_that_no_step_changes_although_it_has_gradients(learning: Any) -> None:
    gradients(learning, (1.0, 1.0, 1.0))
    for name in ("first", "second", "head"):
        zeros = [np.zeros((10, 10))] * 60
        learning.add("update", f"{name}.weight", zeros if name == "second" else learning.normal(1e-3))
    (found,) = not_in_optimizer.find(learning.evidence())
    assert found.layers == ("second",)


def test_a_layer_that_no_gradient_reaches(learning: Any) -> None:
    learning.add("weight_gradient", "head.weight")
    (found,) = no_gradient.find(learning.evidence())
    assert found.layers == ("second", "first")  # that next to the cut first
    assert found.severity == "problem"


def test_a_dead_layer_is_not_cut_off(learning: Any) -> None:
    learning.add("weight_gradient", "head.weight")
    for name in ("first", "second"):
        learning.add("weight_gradient", f"{name}.weight", [np.zeros((10, 10))] * 60)
    assert no_gradient.find(learning.evidence()) == []


def test_frozen_layers_are_a_note(learning: Any) -> None:
    learning.parameters[0]["requires_grad"] = False
    (found,) = frozen.find(learning.evidence())
    assert (found.severity, found.layers) == ("note", ("first",))


# -- the loss --------------------------------------------------------------------------------------------------------------


def test_a_loss_that_stays_is_a_plateau_and_one_that_falls_late_is_not(learning: Any) -> None:
    learning.loss(np.log(10))
    assert plateau.find(learning.evidence())[0].severity == "problem"
    learning.loss(np.where(np.arange(60) < 40, np.log(10), 1.0))
    assert plateau.find(learning.evidence()) == []
    learning.loss(np.log(10) * np.where(np.arange(60) < 30, 1.02, 0.93))  # nine tenths are left, and it is falling
    assert plateau.find(learning.evidence()) == []


def test_a_loss_that_rises_again_diverges_from_there(learning: Any) -> None:
    learning.loss(np.concatenate([np.linspace(2.3, 1.0, 30), np.linspace(1.0, 6.0, 30)]))
    (found,) = divergence.find(learning.evidence())
    assert found.severity == "problem"
    assert 33 <= found.first <= 42  # 1.5 times the best is reached in batch 33, in the mean of five a little later


def test_a_noisy_loss_does_not_diverge(learning: Any) -> None:
    learning.loss(np.linspace(2.3, 0.5, 60) + learning.random.normal(0, 0.2, 60))
    assert divergence.find(learning.evidence()) == []


def test_a_softmax_in_the_model_and_another_in_the_loss(learning: Any) -> None:
    learning.add("activation", "softmax", [np.full((32, 10), 0.1)] * 60, "Softmax")
    least = math.log(math.e + 9) - 1
    learning.loss(np.linspace(math.log(10), least + 0.3, 60))
    (found,) = softmax_twice.find(learning.evidence())
    assert found.layers == ("softmax",)
    assert found.numbers[0].threshold == pytest.approx(1.4612, abs=1e-4)
    learning.loss(np.linspace(math.log(10), 0.5, 60))  # a loss that takes probabilities
    assert softmax_twice.find(learning.evidence()) == []
