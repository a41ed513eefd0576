"""Trainings of the benchmark: each fault does what it says, by PyTorch's own tensors."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.diagnosis import data
from benchmarks.diagnosis.initial import initialise
from benchmarks.diagnosis.oracle import Oracle
from benchmarks.diagnosis.run import cached, fill
from benchmarks.diagnosis.spec import Recipe, Spec
from benchmarks.diagnosis.symptoms import true_symptoms
from benchmarks.diagnosis.train import read_truth, train
from benchmarks.diagnosis.zoo import ARCHITECTURES, build
from torch import nn

import colordim

WINE = Recipe(data="wine", width=8, depth=2, batch_size=16, epochs=2, lr=5e-3)  # 89 rows, 6 batches an epoch


def spec(**changes: Any) -> Spec:
    """Return a training of a moment."""
    return Spec("wine", 0, recipe=WINE).with_recipe(**changes)


def test_validation_rows_are_the_same_for_every_seed_and_training_is_standardised() -> None:
    one, other = data.load(WINE, 1), data.load(WINE, 2)
    assert torch.equal(one.valid_x, other.valid_x)
    assert torch.equal(one.x, other.x)
    np.testing.assert_allclose(one.x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(one.x.std(0, correction=0), 1, atol=1e-5)


def test_labels_and_rows() -> None:
    digits = Recipe()
    true = data.load(digits, 3).y
    shuffled = data.load(Recipe(labels="shuffled"), 3).y
    assert torch.equal(true.sort().values, shuffled.sort().values)
    assert float((true == shuffled).float().mean()) < 0.2
    noisy = data.load(Recipe(labels="noisy"), 3).y
    assert 0.30 < float((true != noisy).float().mean()) < 0.42  # 40 % drawn, of which a tenth hits the truth
    assert len(data.load(Recipe(examples=60), 3).x) == 60
    counts = data.load(Recipe(imbalance=0.1), 3).y.bincount()
    assert 0.08 < float(counts[9] / counts[0]) < 0.12


def test_planted_initial_weights_and_the_remedy_that_comes_after() -> None:
    recipe = Recipe(dead=("linear1", 0.75), gain=100.0, output_gain=0.01)
    model = build("mlp3", recipe)
    initialise(model, recipe)
    linear, output = model.get_submodule("linear1"), model.get_submodule("output")
    assert isinstance(linear, nn.Linear)
    assert isinstance(output, nn.Linear)
    assert int((linear.bias < -10).sum()) == 48
    assert 14 < float(linear.weight.detach().std()) < 21  # 100 x sqrt(2 / 64)
    initialise(model, Recipe(dead=("linear1", 0.75), gain=100.0, again=("kaiming", "output")))
    assert float(linear.bias.detach().abs().max()) == 0
    assert 0.14 < float(linear.weight.detach().std()) < 0.21
    assert float(output.weight.detach().std()) < 0.02


def test_recording_changes_nothing_and_the_truth_is_read_back(tmp_path: Path) -> None:
    recorded = train(spec(), tmp_path)
    assert train(spec(), None, watch=False).scores == recorded.scores
    assert np.array_equal(read_truth(tmp_path).scores, recorded.scores)
    run = colordim.open(tmp_path / "run")
    assert len(run.counts("linear1")) == recorded.batches == 12
    assert len(run.moments("linear1", phase="valid")["nan"]) == 2


def test_nan_comes_from_the_named_operation_at_its_batch(tmp_path: Path) -> None:
    truth = train(spec(nan=("divide", "act1", 4)), None)
    assert truth.oracle["first_not_finite"] == (4, "divide", "activation")
    assert truth.nan
    assert truth.batches == 10  # five after the first whose loss is NaN
    assert not train(spec(nan=("divide", "act1", 4), guarded=True), None).nan


def test_what_is_cut_off_or_left_out_stays() -> None:
    for changes, still in (({"detach": "act1"}, "linear1.weight"), ({"left_out": ("linear2",)}, "linear2.weight")):
        ratios = train(spec(**changes), None).oracle["update_ratios"]
        assert {ratio for _, ratio in ratios[still]} == {0.0}
        assert all(ratio > 0 for _, ratio in ratios["output.weight"])


def test_small_losses_underflow_in_half_precision_unless_scaled() -> None:
    lost = train(spec(half=True, loss_factor=1e-9), None).oracle["gradient_norms"]["linear1.weight"]
    kept = train(spec(half=True, loss_factor=1e-9, loss_scaling=True), None).oracle["gradient_norms"]["linear1.weight"]
    assert {norm for _, norm in lost} == {0.0}
    assert all(norm > 0 for _, norm in kept)


def test_the_oracle_measures_units_ratios_and_spread() -> None:
    def made() -> nn.Sequential:
        return nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU())

    model, x = made(), torch.tensor([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(
            torch.tensor([[1.0, 5.0], [0.0, 5.0]])
        )  # the second unit is zero on all rows
    oracle = Oracle(model, made(), x, 1)
    oracle.begin_batch(0)
    model(x).sum().backward()
    oracle.before_step()
    with torch.no_grad():
        model.get_parameter("0.weight").add_(torch.tensor([[0.1, 0.0], [0.0, 0.0]]))
    oracle.after_step(0)
    oracle.end_epoch(0)
    said = oracle.end()
    assert said["dead"] == {"1": 0.5}
    [(_, ratio)] = said["update_ratios"]["0.weight"]
    weights = np.array([1.0, 5.0, 0.0, 5.0])
    assert math.isclose(ratio, np.std([0.1, 0, 0, 0], ddof=1) / np.std(weights, ddof=1), rel_tol=1e-5)
    assert said["first_not_finite"] is None
    outputs = [1.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    assert math.isclose(said["start_std"]["1"], np.std(outputs, ddof=1), rel_tol=1e-5)


def test_every_architecture_takes_its_data() -> None:
    for name, arch in ARCHITECTURES.items():
        x = data.load(arch.recipe, 0).x[:4]
        assert build(name, arch.recipe)(x).shape == (4, max(1, data.CLASSES[arch.recipe.data]))


def test_a_cache_is_filled_once_and_broken_trainings_are_named(tmp_path: Path) -> None:
    good, broken = spec(epochs=1), spec(nan=("log", "no-such-layer", 0))
    failed = fill([good, broken], tmp_path, jobs=1)
    assert len(failed) == 1
    assert broken.id in failed[0]
    [(_, folder)] = cached([good, broken], tmp_path)
    assert json.loads((folder / "truth.json").read_text())["spec"] == good.to_json()
    assert [each.name for each in tmp_path.iterdir()] == [good.id]
    before = (folder / "truth.json").stat().st_mtime_ns
    assert fill([good], tmp_path, jobs=1) == []
    assert (folder / "truth.json").stat().st_mtime_ns == before


def test_true_symptoms_are_those_of_the_tensors() -> None:
    def said(**changes: Any) -> dict[str, tuple[str, ...]]:
        return true_symptoms(train(spec(**changes), None))

    assert said() == {}
    assert said(left_out=("linear1",)) == {"not-in-optimizer": ("linear1.weight",)}
    assert said(detach="act1") == {"no-gradient": ("linear1.weight",)}
    assert said(frozen=("linear1",)) == {}
    assert "act2" in said(dead=("linear2", 1.0))["dead-units"]
    assert "learning-rate-too-low" in said(lr=1e-7)
    assert "learning-rate-too-high" in said(lr=3.0)
    assert said(nan=("log", "act1", 3))["not-finite"] == ("log",)
