"""Rules on what layers return: dead and saturated units, explosions, massive values, late starts, constant outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from colordim.diagnosis.rule import TooThin
from colordim.diagnosis.rules import (
    batch_norm_hides_drift,
    dead_output,
    dead_units,
    exploding_activations,
    late_start,
    massive_activations,
    not_finite,
    saturation,
)
from colordim.run import UnitWindows


def windows(*dead: float, units: int = 20, long: int = 20) -> UnitWindows:
    """Return windows of `long` batches, in each of which a share of the units is dead."""
    active = np.array([np.arange(units) >= round(share * units) for share in dead])
    first = np.arange(len(dead)) * long
    return UnitWindows(first, first + long - 1, active, "relu")


# -- dead-units ------------------------------------------------------------------------------------------------------------


def test_units_that_never_fire_are_dead_since_their_first_window(learning: Any) -> None:
    learning.units["first"] = windows(0.1, 1.0, 1.0)
    (found,) = dead_units.find(learning.evidence())
    assert (found.layers, found.first, found.last) == (("first",), 20, 59)
    assert found.severity == "problem"
    assert found.numbers[0].value == 1.0
    assert found.title == "20 of 20 units of first never fire"


def test_a_part_of_the_units_is_a_warning(learning: Any) -> None:
    learning.units["first"] = windows(0.7, 0.7)
    assert dead_units.find(learning.evidence())[0].severity == "warning"


def test_a_sparse_layer_whose_units_all_fire_now_and_then_is_not_dead(learning: Any) -> None:
    learning.units["first"] = windows(0.0, 0.1, 0.2)
    sparse = [np.where(each > 1.5, each, 0.0) for each in learning.normal()]  # 93 % zeros
    learning.add("activation", "relu", sparse, "ReLU")
    assert dead_units.find(learning.evidence()) == []


def test_units_that_came_back_are_not_dead(learning: Any) -> None:
    learning.units["first"] = windows(1.0, 1.0, 0.1)
    assert dead_units.find(learning.evidence()) == []


def test_a_rectifier_of_nothing_but_zeros_is_dead_without_windows(learning: Any) -> None:
    values = [np.abs(each) if batch < 30 else np.zeros((32, 10)) for batch, each in enumerate(learning.normal())]
    learning.add("activation", "relu", values, "ReLU")
    learning.followers = {"second": {"name": "relu", "module": "ReLU", "arguments": ""}}
    (found,) = dead_units.find(learning.evidence())
    assert (found.layers, found.first) == (("second",), 30)


def test_without_a_rectifier_nothing_is_said_of_units(learning: Any) -> None:
    with pytest.raises(TooThin, match="no layer is followed by a rectifier"):
        dead_units.find(learning.evidence())


# -- not-finite ------------------------------------------------------------------------------------------------------------


def test_the_first_layer_with_nan_in_its_first_batch(learning: Any) -> None:
    for name in ("a", "b"):
        values = learning.normal()
        values[33][0, 0] = np.nan
        learning.add("activation", name, values)
    gradient = learning.normal()
    gradient[33][:] = np.nan
    learning.add("gradient", "first", gradient)
    (found,) = not_finite.find(learning.evidence())
    assert (found.severity, found.first, found.layers) == ("problem", 33, ("a", "b"))
    assert found.remedies[0].key == "guard-operation"


def test_the_backward_pass_is_read_from_its_end(learning: Any) -> None:
    for name in ("first", "second", "head"):
        values = learning.normal()
        if name != "head":
            values[10][0, 0] = np.inf
            values[-1][0, 0] = np.nan
        learning.add("gradient", name, values)
    (found,) = not_finite.find(learning.evidence())
    assert found.layers == ("second", "first")


def test_a_step_that_a_gradient_scaler_skips_is_a_note(learning: Any) -> None:
    values = learning.normal()
    values[20][:] = np.inf
    learning.add("weight_gradient", "first.weight", values)
    assert not_finite.find(learning.evidence())[0].severity == "note"


def test_gradients_that_are_infinite_again_and_again_are_a_problem(learning: Any) -> None:
    values = [np.where(batch % 5 == 2, np.inf, each) for batch, each in enumerate(learning.normal())]
    learning.add("weight_gradient", "first.weight", values)
    assert not_finite.find(learning.evidence())[0].severity == "problem"


def test_a_first_layer_asks_for_the_data_and_weights_that_are_nan_for_the_loss(made: Any) -> None:
    made.loss(2.3)
    values = made.normal()
    values[14][3] = np.nan
    made.layer("first", values)
    assert not_finite.find(made.evidence())[0].remedies[0].key == "check-data"
    values[14][:] = np.nan
    made.layer("first", values)
    assert "the loss of the batch before" in not_finite.find(made.evidence())[0].remedies[0].text


def test_infinities_of_a_mask_are_a_note(learning: Any) -> None:
    values = [np.where(np.eye(10), -np.inf, each) for each in learning.normal(shape=(10, 10))]
    learning.add("activation", "scores", values, "Identity")
    assert not_finite.find(learning.evidence())[0].severity == "note"


def test_finite_values_are_nothing_to_speak_of(learning: Any) -> None:
    assert not_finite.find(learning.evidence()) == []


# -- saturation ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "flat"), [("Tanh", 2.0), ("Sigmoid", 4.0)])
def test_values_where_a_bounded_function_is_flat(learning: Any, module: str, flat: float) -> None:
    learning.loss(2.3)
    wide = learning.normal(10.0)
    learning.layer("wide", wide)
    learning.add("activation", "act", [np.tanh(each) for each in wide], module)
    learning.layer("output")
    (found,) = saturation.find(learning.evidence())
    assert (found.severity, found.layers, found.first) == ("problem", ("act",), 0)
    assert found.numbers[0].value == pytest.approx(np.mean(np.abs(wide[-8:]) > flat))


def test_without_its_input_the_output_tells(learning: Any) -> None:
    learning.loss(2.3)
    values = [np.tanh(each) for each in learning.normal(20.0, shape=(16, 5))]  # no layer before has that shape
    learning.add("activation", "act", values, "Tanh")
    learning.layer("output")
    (found,) = saturation.find(learning.evidence())
    assert found.numbers[0].value == pytest.approx(np.mean(np.abs(values[-8:]) > 0.875))


def test_a_tanh_in_its_middle_is_not_saturated_and_an_output_may_be(learning: Any) -> None:
    learning.add("activation", "act", [np.tanh(each) for each in learning.normal(0.7)], "Tanh")
    learning.layer("wide", learning.normal(20.0))
    learning.add("activation", "out", [np.tanh(each) for each in learning.normal(20.0)], "Tanh")
    assert saturation.find(learning.evidence()) == []


# -- exploding-activations -------------------------------------------------------------------------------------------------


def test_values_that_grow_a_hundredfold_are_named_from_there_on(made: Any) -> None:
    made.loss(np.linspace(2.3, 5.0, 60))
    made.layer("first")
    made.layer("second", made.normal(np.geomspace(1, 1e5, 60)))
    (found,) = exploding_activations.find(made.evidence())
    # a factor of 100 after 59 * 2 / 5 = 23.6 batches, give or take the noise of a batch
    assert found.layers == ("second",)
    assert found.first == pytest.approx(24, abs=1)
    assert found.severity == "problem"


def test_values_that_grow_while_the_loss_falls_are_learning(made: Any) -> None:
    made.loss(np.log(10) * np.geomspace(1, 0.1, 60))
    made.layer("first", made.normal(np.geomspace(0.2, 50, 60)))
    made.layer("head", made.normal(np.geomspace(0.2, 50, 60)))
    assert exploding_activations.find(made.evidence()) == []


def test_an_output_may_be_of_any_scale(made: Any) -> None:
    made.loss(40.0)
    for number in range(4):
        made.layer(f"layer{number}")
    made.layer("output", made.normal(1e4))
    assert exploding_activations.find(made.evidence()) == []


def test_values_that_grow_from_layer_to_layer(made: Any) -> None:
    made.loss(40.0)
    for number in range(6):
        made.layer(f"layer{number}", made.normal(9.0**number))
    (found,) = exploding_activations.find(made.evidence())
    assert found.layers[0] == "layer3"  # the first that is more than a hundred times the first
    assert found.first == 0


# -- dead-output, late-start, massive-activations, batch norm --------------------------------------------------------------


def test_an_output_without_spread_is_dead_since_then(made: Any) -> None:
    made.loss(2.3)
    made.layer("first")
    values = [each if batch < 25 else np.full((32, 10), 0.5) for batch, each in enumerate(made.normal())]
    made.layer("head", values)
    (found,) = dead_output.find(made.evidence())
    assert (found.layers, found.first, found.severity) == (("head",), 25, "problem")


def test_a_layer_that_begins_to_change_last_is_a_note(made: Any) -> None:
    for name in ("first", "second", "third"):
        made.layer(name, made.normal(np.where(np.arange(60) < 8, 1.0, 3.0)))
    made.layer("late", made.normal(np.where(np.arange(60) < 45, 1.0, 3.0)))
    made.layer(
        "sooner", made.normal(np.where(np.arange(60) < 25, 1.0, 3.0))
    )  # later than an epoch, but not four times the median
    (found,) = late_start.find(made.evidence())
    assert (found.layers, found.severity) == (("late",), "note")
    assert found.first == 44


def test_a_layer_that_comes_by_its_first_size_again_had_begun_before(made: Any) -> None:
    for name in ("first", "second", "third"):
        made.layer(name, made.normal(np.where(np.arange(60) < 8, 1.0, 3.0)))
    batches = np.arange(60)
    made.layer("crashed", made.normal(np.where((batches < 8) | ((batches > 30) & (batches < 45)), 1.0, 3.0)))
    assert late_start.find(made.evidence()) == []


def test_a_few_enormous_values_are_a_note(learning: Any) -> None:
    values = learning.normal(0.1)
    for each in values:
        each[0, 0] = 2000.0
    learning.add("activation", "residual", values)
    (found,) = massive_activations.find(learning.evidence())
    assert (found.layers, found.severity) == (("residual",), "note")
    assert found.numbers[0].value == 2000.0


def test_a_rectifier_whose_zeros_are_the_majority_has_no_massive_values(learning: Any) -> None:
    values = [np.where(each > 2, 200.0, 0.0) for each in learning.normal()]
    learning.add("activation", "relu", values, "ReLU")
    assert massive_activations.find(learning.evidence()) == []


def test_a_normalisation_that_hides_a_drift_is_a_note(learning: Any) -> None:
    learning.add("activation", "conv", learning.normal(np.geomspace(1, 50, 60)), "Conv2d")
    learning.add("activation", "norm", learning.normal(1.0), "BatchNorm2d")
    (found,) = batch_norm_hides_drift.find(learning.evidence())
    assert (found.layers, found.severity) == (("conv",), "note")
    assert found.numbers[0].value == pytest.approx(50, rel=0.3)
