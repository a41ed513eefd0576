"""The spec of a training, the split, what an outcome is, and remedies."""

import json
from dataclasses import replace
from typing import Any

import pytest
from benchmarks.diagnosis.faults import FAMILIES, HELD_OUT_FAMILIES
from benchmarks.diagnosis.outcome import Reference, judge
from benchmarks.diagnosis.remedy import REMEDIES, apply
from benchmarks.diagnosis.spec import Label, Recipe, Spec
from benchmarks.diagnosis.split import part
from benchmarks.diagnosis.train import Truth
from benchmarks.diagnosis.zoo import ARCHITECTURES, HELD_OUT, build

from colordim.diagnosis import SYMPTOMS


def test_a_spec_comes_back_from_json() -> None:
    for spec in part("heldout"):
        assert Spec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_the_id_depends_on_every_knob_but_not_on_the_label() -> None:
    spec = Spec("mlp3", 0)
    assert spec.id == Spec("mlp3", 0).id
    assert spec.id != spec.with_recipe(clip=0.5).id
    assert spec.id != replace(spec, seed=1).id
    assert spec.id == replace(spec, label=Label(("dead-units",))).id


def test_the_held_out_part_shares_nothing_with_the_others() -> None:
    held_out = part("heldout")
    for name in ("dev", "smoke"):
        seen = part(name)
        assert not {each.seed for each in held_out} & {each.seed for each in seen}
        assert not {each.arch for each in seen} & set(HELD_OUT)
        assert not {each.family for each in seen} & set(HELD_OUT_FAMILIES)
    assert {each.arch for each in held_out} == set(ARCHITECTURES)
    assert {each.family for each in held_out if each.kind == "fault"} == set(FAMILIES)
    assert sum(each.kind == "out-of-scope" for each in held_out) >= 24


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no part 'test': the parts are dev, heldout, smoke, reference"):
        part("test")


def test_labels_name_symptoms_and_modules_that_exist() -> None:
    for spec in part("dev") + part("heldout"):
        assert set(spec.label.symptoms) <= set(SYMPTOMS)
        assert (spec.kind == "fault") == bool(spec.label.symptoms)
        names = dict(build(spec.arch, spec.recipe).named_modules())
        missing = set(spec.label.layers) - set(names)
        assert not missing, (spec.id, missing)


def test_a_layer_is_right_if_it_is_inside_of_a_right_one() -> None:
    label = Label(layers=("block1", "linear2"))
    assert label.names("block1.linear1")
    assert label.names("linear2.weight")
    assert not label.names("linear20")


def test_outcomes() -> None:
    reference = Reference(score=0.9, epochs=2.0, scores=(0.9,))
    assert judge(truth(0.5, 0.82, 0.9), reference) == "fine"
    assert judge(truth(0.5, 0.82, 0.8701), reference) == "fine"  # within 0.03
    assert judge(truth(0.5, 0.82, 0.86), reference) == "grey"
    assert judge(truth(0.5, 0.82, 0.84), reference) == "harmful"  # more than 0.05 below
    assert judge(truth(*[0.5] * 5, 0.82, 0.9), reference) == "fine"  # 0.81 in epoch 6 = 3 x 2
    assert judge(truth(*[0.5] * 6, 0.82, 0.9), reference) == "harmful"  # in epoch 7
    assert judge(truth(0.5, 0.82, float("nan")), reference) == "harmful"
    assert judge(truth(0.5, 0.9, nan=True), reference) == "harmful"


def test_remedies_undo_the_fault_of_their_name() -> None:
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "lower-lr": ({"lr": 0.5}, {"lr": 0.05}),
        "add-to-optimizer": ({"left_out": ("a",), "slow": ("b",), "slow_factor": 0.0}, {}),
        "guard-operation": ({"nan": ("log", "act1", 5)}, {"nan": ("log", "act1", 5), "guarded": True}),
        "standardise-input": ({"inputs": "raw"}, {}),
        "same-preprocessing": ({"valid_inputs": "raw"}, {}),
        "eval-mode": ({"valid_mode": "train", "bn_momentum": 0.0}, {}),
        "zero-grad": ({"zero_grad": False}, {}),
    }
    for key, (planted, expected) in cases.items():
        mended = apply(Spec("mlp3", 0, recipe=Recipe(**planted)), key, 0.1 if key == "lower-lr" else 1.0)
        assert mended.recipe == Recipe(**expected)
        assert mended.remedies == (key,)
    for key in REMEDIES:
        apply(Spec("mlp3", 0), key)


def truth(*valid: float, nan: bool = False) -> Truth:
    """Return what is known of a training with these validation scores."""
    scores = [(0.0, each) for each in valid]
    return Truth({}, {}, scores, scores, nan, 10, 1, 2.3, 1.0)
