"""Rules on how a training begins, on what validation sees, and on number formats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from colordim.diagnosis.evidence import Passes
from colordim.diagnosis.rule import TooThin
from colordim.diagnosis.rules import input_scale, overconfident_start, poor_init, precision, train_valid_mismatch

# -- the start -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("std", "words"), [(1e-3, "too small"), (10.0, "too large")])
def test_weights_that_begin_with_the_wrong_spread(learning: Any, std: float, words: str) -> None:
    learning.loss(2.3)
    for row in learning.parameters[:2]:
        row["std"] = std
    (found,) = poor_init.find(learning.evidence())
    assert (found.severity, found.layers) == ("problem", ("first", "second"))
    assert words in found.title
    assert found.numbers[0].value == pytest.approx(std * np.sqrt(10))


def test_weights_that_begin_constant(learning: Any) -> None:
    learning.loss(2.3)
    learning.parameters[1].update(std=0.0, mean=0.05)
    (found,) = poor_init.find(learning.evidence())
    assert found.layers == ("second",)
    assert "the same value" in found.title


def test_one_layer_that_begins_with_zero_is_meant(learning: Any) -> None:
    learning.parameters[1].update(std=0.0, mean=0.0)
    assert poor_init.find(learning.evidence()) == []


def test_a_signal_that_dies_out_layer_by_layer(made: Any) -> None:
    made.loss(2.3)
    for number in range(6):
        made.layer(f"layer{number}", made.normal(0.2**number))
    (found,) = poor_init.find(made.evidence())
    assert found.layers == (
        "layer3",
        "layer4",
    )  # 0.2^3 = 0.008 is the first below a hundredth; the last one is the output
    made.layer("output")


def test_one_layer_that_stands_out_is_no_dying_signal(made: Any) -> None:
    made.loss(2.3)
    for number, scale in enumerate((1.0, 1.0, 200.0, 1.0, 1.0)):
        made.layer(f"layer{number}", made.normal(scale))
    assert poor_init.find(made.evidence()) == []


@pytest.mark.parametrize("gain", [0.577, 1.0, 1.414, 1.667])
def test_usual_initialisations_are_none_of_that(learning: Any, gain: float) -> None:
    learning.loss(2.3)
    for row in learning.parameters:
        row["std"] = gain / np.sqrt(10)
    assert poor_init.find(learning.evidence()) == []


def test_the_scale_of_the_inputs_is_read_from_the_first_layer(made: Any) -> None:
    made.loss(2.3)
    inputs = made.random.uniform(0, 255, size=(60, 64, 100))
    weight = made.random.normal(0, 0.1, size=(100, 50))
    made.layer("first", list(inputs @ weight), std=float(weight.std()), mean=float(weight.mean()), fan_in=100)
    (found,) = input_scale.find(made.evidence())
    assert found.severity == "problem"
    assert found.numbers[0].value == pytest.approx(np.sqrt(np.mean(inputs[0] ** 2)), rel=0.15)


def test_a_layer_that_passes_the_inputs_on_tells_their_scale(learning: Any) -> None:
    learning.series = {}
    learning.parameters = []
    learning.add("activation", "flatten", learning.normal(80.0), "Flatten")
    learning.layer("first")
    (found,) = input_scale.find(learning.evidence())
    assert found.numbers[0].value == pytest.approx(80, rel=0.1)


def test_standardised_inputs_are_fine_and_lookups_tell_nothing(learning: Any) -> None:
    learning.series = {}
    learning.parameters = []
    learning.layer("first", learning.normal(np.sqrt(10) * 0.4))
    assert input_scale.find(learning.evidence()) == []
    learning.modules[-1]["class"] = "Embedding"
    with pytest.raises(TooThin):
        input_scale.find(learning.evidence())


def test_a_first_loss_far_above_guessing_with_large_outputs(made: Any) -> None:
    made.loss(np.linspace(30.0, 2.0, 60))
    made.layer("first")
    made.layer("head", made.normal(20.0))
    (found,) = overconfident_start.find(made.evidence())
    assert found.numbers[0].value == pytest.approx(30 / np.log(10))
    assert found.layers == ("head",)


def test_large_outputs_behind_as_large_layers_are_not_the_outputs_fault(made: Any) -> None:
    made.loss(np.linspace(30.0, 2.0, 60))
    made.layer("first", made.normal(20.0))
    made.layer("head", made.normal(20.0))
    assert overconfident_start.find(made.evidence()) == []


# -- training against validation -------------------------------------------------------------------------------------------


def test_the_divergence_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    p, q = random.integers(0, 50, size=(2, 30))
    q[:10] = 0
    found = train_valid_mismatch.divergence(p, q)
    assert found == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert train_valid_mismatch.divergence(p, p) == pytest.approx(0)
    assert np.isnan(train_valid_mismatch.divergence(p, 0 * q))


def sides(train: Any, valid: Any, epochs: int = 3) -> Passes:
    """Return histograms of two Gaussians over equal bins, the same in each epoch."""
    edges = np.linspace(-10, 10, 101)
    counts = [np.histogram(each, edges)[0].astype(float) for each in (train, valid)]
    zero, size = np.zeros(epochs), np.full(epochs, float(np.size(train)))
    return Passes(
        epoch=np.arange(epochs), end=np.arange(1, epochs + 1) * 20, train=np.tile(counts[0], (epochs, 1)),
        valid=np.tile(counts[1], (epochs, 1)), train_zeros=zero, valid_zeros=zero, train_size=size, valid_size=size,
        train_bad=zero, valid_bad=zero, edges=edges,
    )  # fmt: skip


def test_a_validation_that_sees_something_else(learning: Any) -> None:
    learning.valid_loss = [8.0, 8.0, 8.0]
    for name in ("first", "second", "head"):
        learning.passes[name] = sides(learning.random.normal(size=5000), learning.random.normal(4, 1, size=5000))
    (found,) = train_valid_mismatch.find(learning.evidence())
    assert (found.severity, found.layers[0], found.first) == ("problem", "first", 19)


def test_a_network_that_overfits_sees_the_same(learning: Any) -> None:
    learning.valid_loss = [8.0, 8.0, 8.0]
    for name in ("first", "second"):
        learning.passes[name] = sides(learning.random.normal(size=5000), learning.random.normal(size=5000))
    learning.passes["head"] = sides(learning.random.normal(size=5000), learning.random.normal(4, 1, size=5000))
    assert train_valid_mismatch.find(learning.evidence()) == []


def test_a_validation_that_is_as_good_is_not_judged_by_its_histograms(learning: Any) -> None:
    learning.valid_loss = [0.2, 0.2, 0.2]  # that of training ends at 0.23
    learning.passes["first"] = sides(learning.random.normal(size=5000), learning.random.normal(4, 1, size=5000))
    assert train_valid_mismatch.find(learning.evidence()) == []


def test_of_few_samples_epochs_differ_as_much_as_validation(learning: Any) -> None:
    learning.valid_loss = [8.0, 8.0, 8.0]
    small = [sides(learning.random.normal(size=60), learning.random.normal(size=60), 1) for _ in range(3)]
    merged = {name: np.concatenate([getattr(each, name) for each in small]) for name in ("train", "valid")}
    learning.passes["first"] = replace(sides(np.ones(60), np.ones(60)), **merged)
    assert train_valid_mismatch.find(learning.evidence()) == []


def dropout(made: Any, before: float, drops: float, valid: float) -> None:
    """Add a dropout whose input has a share of zeros, and that has another one in validation."""
    made.valid_loss = [0.2, 0.2, 0.2]
    made.add("activation", "drop", module="Dropout")
    key = ("activation", "drop")
    made.series[key] = replace(
        made.series[key], stream=replace(made.series[key].stream, arguments=f"p={drops}, inplace=False")
    )
    zeros = np.full(3, 100.0)
    made.passes["drop"] = replace(
        sides(np.ones(100), np.ones(100)),
        train_zeros=zeros * (before + drops * (1 - before)),
        valid_zeros=zeros * valid,
    )


@pytest.mark.parametrize(("before", "drops"), [(0.0, 0.5), (0.6, 0.5), (0.5, 0.2)])
def test_dropout_that_stays_on_in_validation(learning: Any, before: float, drops: float) -> None:
    dropout(learning, before, drops, before + drops * (1 - before))
    (found,) = train_valid_mismatch.find(learning.evidence())
    assert (found.layers, found.remedies[0].key) == (("drop",), "eval-mode")


@pytest.mark.parametrize(("before", "drops"), [(0.0, 0.5), (0.6, 0.1), (0.45, 0.2), (0.9, 0.3), (0.5, 0.0)])
def test_dropout_behind_a_functional_relu_is_fine_in_evaluation_mode(
    learning: Any, before: float, drops: float
) -> None:
    dropout(learning, before, drops, before)
    assert train_valid_mismatch.find(learning.evidence()) == []


# -- number formats --------------------------------------------------------------------------------------------------------


def test_gradients_that_were_rounded_to_float16_end_sharply(learning: Any) -> None:
    learning.loss(2.3)
    values = [each.astype(np.float16).astype(np.float64) for each in learning.normal(2e-8, shape=(100, 100))]
    learning.add("weight_gradient", "first.weight", values)
    (found,) = precision.find(learning.evidence())
    assert (found.severity, found.layers) == ("problem", ("first.weight",))
    assert "float16" in found.title
    assert found.numbers[0].value == pytest.approx(np.mean(np.array(values) == 0))


def test_gradients_as_small_in_float32_are_not_cut_off(learning: Any) -> None:
    learning.add("weight_gradient", "first.weight", learning.normal(2e-8, shape=(100, 100)))
    assert precision.find(learning.evidence()) == []


def test_gradients_of_weights_that_are_all_zero_below_tiny_ones_of_outputs(learning: Any) -> None:
    learning.loss(2.3)
    for name in ("first", "second", "head"):
        learning.add("gradient", name, learning.normal(1e-9))
        learning.add("weight_gradient", f"{name}.weight", [np.zeros((10, 10))] * 60)
    (found,) = precision.find(learning.evidence())
    assert found.severity == "problem"
    learning.series = {key: each for key, each in learning.series.items() if key[0] != "gradient"}
    assert precision.find(learning.evidence()) == []


def test_zeros_of_a_dead_layer_are_no_rounding(learning: Any) -> None:
    values = [np.where(each > 0, each, 0.0) for each in learning.normal(1e-3)]
    learning.add("weight_gradient", "first.weight", values)
    assert precision.find(learning.evidence()) == []
