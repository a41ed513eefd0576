"""The built-in rules of Amazon SageMaker Debugger, restated from their documentation.

Source: awsdocs/amazon-sagemaker-developer-guide, doc_source/debugger-built-in-rules.md; the code of the rules is closed.
All parameters have their documented defaults, every batch is looked at, collections are the library's: weights are the
parameters with "weight" in their name, gradients those of all parameters, ReLU inputs those of `nn.ReLU`.

The documentation leaves open how PoorWeightInitialization joins its three tests: each is a verdict of its own here.
UnchangedTensor, which wants a collection, is given the weights. LossNotDecreasing sees the losses of single batches and
Overfit the losses of epochs. Not restated: TensorVariance (no default), AllZero, Overtraining and ClassImbalance (not about
faults of a training), CheckInputImages (images of several channels, 500 at once), and the rules for other models.
"""

from __future__ import annotations

import math

import torch
from benchmarks.diagnosis.monitor import Task, Verdict
from benchmarks.diagnosis.rivals.watch import Said, Watch, units
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["SageMakerDebugger"]

VANISHED = 1e-7  # VanishingGradient: threshold
INACTIVE, INACTIVE_UNITS = 0.01, 0.5  # DeadRelu and SaturatedActivation: threshold_inactivity, threshold_layer
RANGES = {nn.Tanh: (-9.4999, 9.4999), nn.Sigmoid: (-23.0, 16.99999)}  # SaturatedActivation
INIT_STEPS, INIT_RATIO, INIT_RANGE, INIT_PATIENCE = 10, 10.0, 1e-3, 5  # PoorWeightInitialization
LARGE, SMALL, EPSILON = 10.0, 1e-8, 1e-9  # WeightUpdateRatio
RTOL, ATOL, STEPS = 1e-5, 1e-8, 3  # UnchangedTensor
LOSS_STEPS = 10  # LossNotDecreasing: num_steps
OVERFIT = 0.1  # Overfit: ratio_threshold


class SageMakerDebugger:
    """Every built-in rule that concerns a neural network's training, at every batch."""

    name = "SageMaker Debugger"

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._said = Said()
        self._losses: list[float] = []
        self._since: tuple[int, float] | None = None
        self._lowest, self._stale = math.inf, 0
        self._unchanged: dict[str, int] = {}

    def begin(self, model: nn.Module, optimizer: Optimizer, task: Task) -> None:
        self._watch.begin(model)

    def before_step(self, batch: int, inputs: Tensor, outputs: Tensor, loss: float) -> None:
        watch = self._watch
        watch.before_step(batch)
        self._not_finite(batch, loss)
        for name, size in watch.gradient_size.items():
            if size < VANISHED:
                self._said.say("vanishing-gradients", "VanishingGradient", name, batch)
        for name, module in watch.modules.items():
            self._activation(name, module, batch)
        if batch < INIT_STEPS:
            self._initial(batch, loss)
        if self._since is None:
            self._since = batch, loss
        elif batch - self._since[0] >= LOSS_STEPS:
            if not loss < self._since[1]:
                self._said.say("plateau", "LossNotDecreasing", None, batch)
            self._since = batch, loss

    def after_step(self, batch: int) -> None:
        watch = self._watch
        watch.after_step(batch)
        for name, change in watch.update_size.items():
            if "weight" not in name:
                continue
            ratio = change / (watch.weight_size[name] + EPSILON)
            if ratio > LARGE:
                self._said.say("learning-rate-too-high", "WeightUpdateRatio large", name, batch)
            elif ratio < SMALL:
                self._said.say(
                    "learning-rate-too-low|not-in-optimizer|no-gradient|frozen", "WeightUpdateRatio small", name, batch
                )
            same = torch.allclose(watch.parameters[name].detach(), watch.before[name], rtol=RTOL, atol=ATOL)
            self._unchanged[name] = self._unchanged.get(name, 0) + 1 if same else 0
            if self._unchanged[name] >= STEPS - 1:
                self._said.say(
                    "not-in-optimizer|no-gradient|frozen|learning-rate-too-low", "UnchangedTensor", name, batch
                )

    def epoch(
        self, number: int, batch: int, train_loss: float, valid_loss: float, train_score: float, valid_score: float
    ) -> None:
        if train_loss and (valid_loss - train_loss) / train_loss > OVERFIT:
            self._said.say("train-valid-mismatch", "Overfit", None, batch)

    def end(self) -> list[Verdict]:
        self._watch.end()
        return self._said.verdicts

    def _not_finite(self, batch: int, loss: float) -> None:
        watch = self._watch
        for sizes in (watch.output_sums(), watch.gradient_size, watch.weight_size):
            for name, value in sizes.items():
                if not math.isfinite(value):
                    self._said.say("not-finite", "ExplodingTensor", name, batch)
        if not math.isfinite(loss):
            self._said.say("not-finite", "ExplodingTensor", None, batch)

    def _activation(self, name: str, module: nn.Module, batch: int) -> None:
        if isinstance(module, nn.ReLU):
            active, key, native = units(self._watch.outputs[name]) > 0, "dead-units", "DeadRelu"
        elif type(module) in RANGES:
            low, high = RANGES[type(module)]
            values = units(self._watch.inputs[name])
            active, key, native = (values > low) & (values < high), "saturation", "SaturatedActivation"
        else:
            return
        idle = active.float().mean(0) < INACTIVE
        if idle.float().mean() > INACTIVE_UNITS:
            self._said.say(key, native, name, batch)

    def _initial(self, batch: int, loss: float) -> None:
        watch = self._watch
        spread = [watch.inputs[name].var().item() for name, each in watch.modules.items() if isinstance(each, nn.ReLU)]
        if len(spread) > 1 and max(spread) > INIT_RATIO * min(spread):
            self._said.say("poor-init", "PoorWeightInitialization variances", None, batch)
        ends = torch.tensor([0.05, 0.95])
        for name, gradient in watch.gradients.items():
            if "weight" in name and math.isfinite(watch.gradient_size[name]):
                low, high = torch.quantile(gradient.flatten().float(), ends).tolist()
                if high - low < INIT_RANGE:
                    self._said.say("poor-init", "PoorWeightInitialization gradients", name, batch)
        self._lowest, self._stale = (loss, 0) if loss < self._lowest else (self._lowest, self._stale + 1)
        if self._stale >= INIT_PATIENCE:
            self._said.say("poor-init", "PoorWeightInitialization loss", None, batch)
