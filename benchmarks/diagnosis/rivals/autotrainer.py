"""AutoTrainer's monitor, restated from its code.

Source: shiningrain/AUTOTRAINER, AutoTrainer/utils/monitor.py (rules), utils.py (when they are asked), modules.py (which of
several issues counts) and reproduce.py (thresholds); Zhang et al., AutoTrainer, ICSE 2021.

As there, one issue is named, and the training counts as stopped. Differences: it is asked at the end of every epoch rather
than every third (these trainings are short), looks at the gradients of the epoch's last batch rather than of the first rows in
evaluation mode, and at once at what an issue needs rather than at the next check. Not restated: the tests of the output's
activation function and of the loss function (PyTorch's cross entropy takes logits); in a regression, what judges accuracies.
"""

from __future__ import annotations

import math
from itertools import pairwise

from benchmarks.diagnosis.monitor import Task, Verdict
from benchmarks.diagnosis.rivals.watch import ACTIVATIONS, Said, Watch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["AutoTrainer"]

VANISHED, VANISHED_FIRST, EXPLODED = 1e-3, 1e-4, 70.0  # beta_1, beta_2, beta_3
ZEROS = 0.7  # gamma
SWING, SWINGING = 0.03, 0.2  # zeta, eta
GAIN, SATISFIED = 0.01, 0.6  # delta, Theta
ABNORMAL = 10.0  # omega_1
LARGE_LOSS = 1e3
JUDGED, CERTAIN = (
    0.3,
    0.5,
)  # shares of the epochs from which accuracies are judged, and from which all is asked for once

KEYS = {
    "abnormal_data": "input-scale|exploding-activations",
    "explode": "exploding-gradients|not-finite",
    "vanish": "vanishing-gradients",
    "relu": "dead-units",
    "not_converge": "learning-rate-too-low",
    "unstable": "learning-rate-too-high|divergence",
}
RANK = ("abnormal_data", "explode", "vanish", "relu", "not_converge", "unstable")  # of several issues, the first


class AutoTrainer:
    """Five training problems, at the end of each epoch."""

    name = "AutoTrainer"

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._said = Said()
        self._losses: list[float] = []
        self._train: list[float] = []
        self._valid: list[float] = []
        self._features: set[str] = set()  # what was seen once stays

    def begin(self, model: nn.Module, optimizer: Optimizer, task: Task) -> None:
        self._task = task
        self._certain = False
        self._watch.begin(model)

    def before_step(self, batch: int, inputs: Tensor, outputs: Tensor, loss: float) -> None:
        self._watch.before_step(batch)

    def after_step(self, batch: int) -> None:
        self._watch.after_step(batch)

    def epoch(
        self, number: int, batch: int, train_loss: float, valid_loss: float, train_score: float, valid_score: float
    ) -> None:
        if self._said.verdicts:
            return
        self._losses += [train_loss, valid_loss]
        self._train.append(train_score)
        self._valid.append(valid_score)
        self._gradients()
        self._curves()
        suspicious = self._features & {"nan_loss", "slow"}
        if not suspicious and (self._certain or number < CERTAIN * self._task.epochs):
            return
        self._certain = self._certain or number >= CERTAIN * self._task.epochs
        issues = self._issues()
        for issue in RANK:
            if issue in issues:
                self._said.say(KEYS[issue], issue, None, batch)
                return

    def end(self) -> list[Verdict]:
        self._watch.end()
        return self._said.verdicts

    def _gradients(self) -> None:
        gradients = self._watch.gradients
        if not gradients:
            return
        if not all(math.isfinite(size) for size in self._watch.gradient_size.values()):
            self._features.add("nan")
            return
        if not all(math.isfinite(size) for size in self._watch.weight_size.values()):
            self._features.add("nan")
        zeros = sum((each == 0).sum().item() for each in gradients.values()) / sum(
            each.numel() for each in gradients.values()
        )
        if zeros >= ZEROS:
            self._features.add("relu")
        kernels = [each.norm().item() for each in gradients.values() if each.ndim > 1]
        if not kernels:
            return
        rate = kernels[0] / kernels[-1] if kernels[-1] else math.inf if kernels[0] else math.nan
        if rate < VANISHED and kernels[0] < VANISHED_FIRST:
            self._features.add("vanish")
        if rate > EXPLODED:
            self._features.add("explode")

    def _curves(self) -> None:
        if not all(each < LARGE_LOSS for each in self._losses):  # NaN is not below it either
            self._features.add("nan_loss")
            return
        if self._task.kind != "classification" or len(self._train) < JUDGED * self._task.epochs:
            return
        if _swings(self._train) >= SWINGING * len(self._train):
            self._features.add("unstable")
        if max(self._train) < SATISFIED and max(self._valid) < SATISFIED:
            self._features.add("below")
        if _gain(self._train) < GAIN and _gain(self._valid) < GAIN:
            self._features.add("slow")

    def _issues(self) -> set[str]:
        seen, issues = self._features, set()
        modules, outputs = list(self._watch.modules.values()), list(self._watch.outputs.values())
        hidden = [  # a Keras layer brings its activation function: what goes into one is no output there
            output
            for output, following in zip(outputs[:-1], modules[1:], strict=True)
            if not isinstance(following, ACTIVATIONS)
        ]
        abnormal = any(each.abs().mean().item() >= ABNORMAL for each in hidden)
        if abnormal:
            issues.add("abnormal_data")
        if {"nan_loss", "nan"} <= seen:
            issues.add("explode")
        if seen & {"below", "slow"}:
            named = next((each for each in ("relu", "explode", "vanish") if each in seen), None)
            if named:
                issues.add(named)
            elif {"below", "slow"} <= seen and not abnormal:
                issues.add("not_converge")
        if "unstable" in seen:
            issues.add("unstable")
        return issues


def _gain(scores: list[float]) -> float:
    return max((after - before for before, after in pairwise(scores)), default=0.0)


def _swings(scores: list[float]) -> int:
    """Return how many peaks stand at least SWING above the trough with the same number."""
    triples = list(zip(scores, scores[1:], scores[2:], strict=False))
    peaks = [here for before, here, after in triples if before <= here >= after]
    troughs = [here for before, here, after in triples if before >= here <= after]
    return sum(peak - trough >= SWING for peak, trough in zip(peaks, troughs, strict=False))
