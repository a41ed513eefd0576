"""DeepDiagnosis, restated from its code.

Source: DeepDiagnosis/ICSE2022, callback/callbacks.py (class mapFaluireToFix and the functions it calls); Wardat et al.,
DeepDiagnosis, ICSE 2022.

As there, the first failure ends the search. Differences: the batch looked at is the epoch's last, not the first rows of the
training set, so that tensors that do not change are found only where they are constant. Not restated: the range of the output
(in a classification it means a missing softmax, which PyTorch's cross entropy brings; in a regression it wants the targets), and
what the tool derives from a failure to advise a fix. A learning rate or poor weights are never a failure of their own there.
"""

from __future__ import annotations

import math

from benchmarks.diagnosis.monitor import Task, Verdict
from benchmarks.diagnosis.rivals.watch import Said, Watch
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["DeepDiagnosis"]

ZEROS = 0.7
SATURATED, SATURATED_SHARE = 5.0, 0.5
VANISHED = 1e-7
EPOCHS, ACCURACY_EPOCHS = 5, 20  # windows in which something must change

UNCHANGED = "not-in-optimizer|no-gradient|frozen|learning-rate-too-low"


class DeepDiagnosis:
    """Eight failure symptoms, at the end of each epoch."""

    name = "DeepDiagnosis"

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._said = Said()
        self._history: dict[tuple[str, str], list[float]] = {}

    def begin(self, model: nn.Module, optimizer: Optimizer, task: Task) -> None:
        self._task = task
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
        failure = self._forward(number) or self._metrics(number, train_loss, train_score) or self._backward(number)
        if failure:
            self._said.say(*failure, batch)

    def end(self) -> list[Verdict]:
        self._watch.end()
        return self._said.verdicts

    def _forward(self, number: int) -> tuple[str, str, str | None] | None:
        watch = self._watch
        names = list(watch.outputs)
        constant = []
        for place, name in enumerate(names):
            output = watch.outputs[name]
            mean = output.mean().item()
            constant.append(self._constant("forward", name, mean, number))
            if _numerical(mean):
                return (
                    "not-finite" if not math.isfinite(mean) else "dead-output|dead-units",
                    "Numerical Problem Forward",
                    name,
                )
            last = number == self._task.epochs - 1
            if last and isinstance(watch.modules[name], nn.ReLU) and (output <= 0).float().mean().item() >= ZEROS:
                return "dead-units", "Dead Node Problem", name
            following = watch.modules[names[place + 1]] if place + 1 < len(names) else None
            if (
                (number + 1) % EPOCHS == 0
                and isinstance(following, nn.Sigmoid | nn.Tanh)
                and (output.abs() >= SATURATED).float().mean().item() > SATURATED_SHARE
            ):
                return "saturation", "Saturated Activation Problem", name
        for name, still in zip(names[:-1], constant[:-1], strict=True):
            if still and not isinstance(watch.modules[name], nn.Flatten):
                return UNCHANGED, "Unchange Tensor in forward", name
        return None

    def _metrics(self, number: int, loss: float, score: float) -> tuple[str, str, str | None] | None:
        if not math.isfinite(loss):
            return "not-finite", "Invalid loss", None
        if self._constant("loss", "", loss, number):
            return "plateau", "Loss Not Decreasing", None
        if self._task.kind == "classification":
            if _numerical(score):
                return "plateau", "Invalid accuracy", None
            if self._constant("accuracy", "", score, number, ACCURACY_EPOCHS):
                return "plateau", "Accuracy Not Increasing", None
        return None

    def _backward(self, number: int) -> tuple[str, str, str | None] | None:
        watch = self._watch
        dense = [name for name in watch.gradients if watch.gradients[name].ndim == 2 and name.endswith("weight")]
        still: list[tuple[str, str, str | None]] = []
        for name in reversed(dense):
            mean = watch.gradients[name].mean().item()
            if _numerical(mean):
                key = "not-finite" if not math.isfinite(mean) else "vanishing-gradients|dead-units|no-gradient"
                return key, "Numerical Error in delta Weights", name
            if watch.gradient_size[name] < VANISHED:
                return "vanishing-gradients", "Vanishing Gradient Problem in delta Weights", name
            weight = watch.parameters[name].detach().mean().item()
            if _numerical(weight):
                return "not-finite", "Numerical Error in Weights", name
            if self._constant("gradient", name, mean, number):
                still.append((UNCHANGED, "Unchange Tensor in Delta Weights", name))
            if self._constant("weight", name, weight, number):
                still.append((UNCHANGED, "Unchange Tensor in Weights", name))
        return still[0] if still else None

    def _constant(self, kind: str, name: str, value: float, number: int, window: int = EPOCHS) -> bool:
        """Keep a value; at the end of each window, say whether all of the window are the same, and start anew."""
        history = self._history.setdefault((kind, name), [])
        history.append(value)
        if (number + 1) % window:
            return False
        constant = len(history) == window and len(set(history)) == 1
        history.clear()
        return constant


def _numerical(value: float) -> bool:
    return not math.isfinite(value) or value == 0
