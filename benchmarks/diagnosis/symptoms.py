"""Which symptoms are true of a training by the oracle's raw measurements, whatever was planted and whatever came of it.

The limits are those of earlier systems, none is tuned here: a symptom that is true may be harmless.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import median

from benchmarks.diagnosis.data import CLASSES
from benchmarks.diagnosis.spec import Spec
from benchmarks.diagnosis.train import Truth

__all__ = ["true_symptoms"]

HALF = 0.5  # of a layer's units dead, of its values saturated: SageMaker Debugger
FAST, SLOW = 1e-1, 1e-4  # std(dW) / std(W): TheDeepChecker
VANISHED, VANISHED_RATIO = 1e-4, 1e-3  # norm of the first layer's gradient, and over the last's: AutoTrainer
EXPLODED = 1e3  # norm of a gradient: torchmortem
SPREAD = 10.0  # std of outputs of a layer over that of another one at the start: SageMaker Debugger's ratio for weights
SCORES = 0.1  # between training and validation at the end, both in their usual modes


def true_symptoms(truth: Truth) -> dict[str, tuple[str, ...]]:
    """Return the keys that are true, each with the layers or parameters it is true of (() for the whole)."""
    spec, oracle = Spec.from_json(truth.spec), truth.oracle
    found: dict[str, tuple[str, ...]] = {}

    def say(key: str, layers: list[str]) -> None:
        if layers:
            found[key] = tuple(layers)

    if oracle["first_not_finite"]:
        found["not-finite"] = (oracle["first_not_finite"][1],)
    say("dead-units", [name for name, share in oracle["dead"].items() if share >= HALF])
    say("saturation", [name for name, share in oracle["saturated"].items() if share >= HALF])
    early = {name: _early(rows, truth) for name, rows in oracle["update_ratios"].items()}
    trained = {
        name: ratio
        for name, ratio in early.items()
        if not name.startswith(tuple(f"{each}." for each in spec.recipe.frozen))
    }
    gradients = {name: _early(rows, truth) for name, rows in oracle["gradient_norms"].items() if name in trained}
    say("no-gradient", [name for name in trained if name not in gradients])
    say("not-in-optimizer", [name for name, ratio in trained.items() if ratio == 0 and gradients.get(name, 0) > 0])
    moving = [ratio for ratio in trained.values() if ratio > 0]
    if any(median(ratios) > FAST for ratios in _by_batch(trained, oracle["update_ratios"])):
        found["learning-rate-too-high"] = ()
    if moving and median(moving) < SLOW:
        found["learning-rate-too-low"] = ()
    norms = list(gradients.values())
    if len(norms) > 1 and norms[0] < VANISHED and norms[0] < VANISHED_RATIO * norms[-1]:
        found["vanishing-gradients"] = (next(iter(gradients)),)
    say(
        "exploding-gradients",
        [name for name, rows in oracle["gradient_norms"].items() if max(x for _, x in rows) > EXPLODED],
    )
    weighted = {name.removesuffix(".weight") for name in early}
    start = {name: spread for name, spread in oracle["start_std"].items() if name in weighted and name != "output"}
    if start and (max(start.values()) > SPREAD * min(start.values()) or max(start.values()) > SPREAD):
        found["poor-init"] = ()
    if any(rows[0][1] == math.inf for rows in oracle["update_ratios"].values()):  # weights that are all alike
        found["poor-init"] = ()
    if spec.recipe.half:
        say("precision", [name for name, norm in gradients.items() if norm == 0])
    classes = CLASSES[spec.recipe.data]
    if classes and truth.first_loss > 2 * math.log(classes):  # TheDeepChecker: ln K off ln K
        found["overconfident-start"] = ("output",)
    if oracle["epochs"] and oracle["epochs"][-1]["output_spread"] == 0:
        found["dead-output"] = ("output",)
    train, valid = truth.scores[-1]
    if train - valid > SCORES:
        found["train-valid-mismatch"] = ()
    return found


def _by_batch(names: Iterable[str], ratios: Mapping[str, list[tuple[int, float]]]) -> Iterable[list[float]]:
    batches: dict[int, list[float]] = {}
    for name in names:
        for batch, ratio in ratios[name]:
            if math.isfinite(ratio):
                batches.setdefault(batch, []).append(ratio)
    return batches.values()


def _early(rows: list[tuple[int, float]], truth: Truth) -> float:
    """Return the median of the first epoch, where the learning rate can be judged."""
    values = [value for batch, value in rows if batch < truth.batches_per_epoch and math.isfinite(value)]
    return median(values) if values else math.nan
