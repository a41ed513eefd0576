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
        valid=np.tile(counts[1], (epochs, 1)), train_zeros=zero, valid_zeros=zero, train_size=size, valid_size=size, edges=edges,
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


def test_dropout_that_stays_on_in_validation(learning: Any) -> None:
    learning.valid_loss = [1.0, 1.0, 1.0]
    learning.add("activation", "drop", module="Dropout")
    learning.passes["head"] = sides(np.ones(100), np.ones(100))
    half = np.full(3, 50.0)
    learning.passes["drop"] = replace(sides(np.ones(100), np.ones(100)), train_zeros=half, valid_zeros=half)
    (found,) = train_valid_mismatch.find(learning.evidence())
    assert (found.layers, found.remedies[0].key) == (("drop",), "eval-mode")


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


def test_zeros_of_a_dead_layer_are_no_rounding(learning: Any) -> None:
    values = [np.where(each > 0, each, 0.0) for each in learning.normal(1e-3)]
    learning.add("weight_gradient", "first.weight", values)
    assert precision.find(learning.evidence()) == []
