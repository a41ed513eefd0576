"""TheDeepChecker, restated from its code and settings.

Source: thedeepchecker/thedeepchecker, deep_checker/hooks.py (rules on weights, biases, activations, gradients and the loss),
checkers.py (weights and loss before the training), metrics.py, config/settings.yaml; Ben Braiek and Khomh, TheDeepChecker,
TOSEM 2022.

The rules of its overfit check watch a training on mini-batches here, where they were made for one batch that is repeated: the
fluctuation of the loss is unfair then, and has to be left out of one reading (`DeepChecker.FLUCTUATION`). A saturated neuron is
judged on the range of its own function rather than on [0, 1], in which every healthy tanh counts as saturated. The initial loss
is that of the first batch. Not restated: the checks of features and targets, of initial biases (PyTorch's are not zero by
design), of the numerical gradient, of fitting a single batch, of dependence between instances, of the representativeness of the
loss, of regularisation losses, the range of outputs and targets, and the checks after training (labels, augmentation, modes).
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from itertools import pairwise

import numpy as np
import torch
from benchmarks.diagnosis.monitor import Task, Verdict
from benchmarks.diagnosis.rivals.watch import ACTIVATIONS, Said, Watch, units
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["DeepChecker"]

START, PERIOD, BUFFER = 10, 10, 10
F_CRITICAL = 2.70554
DEAD, DEAD_PERCENTILE, DEAD_UNITS = 1e-5, 0.95, 0.5
RHO_BINS, RHO, RHO_UNITS = 50, 0.85, 0.5
STD_LOW, STD_HIGH = 0.5, 2.0
OUTPUT_PATIENCE = 5
NEGATIVE, DEAD_WEIGHTS = 0.95, 0.95
WINDOW, GROWTH, DECAY = 5, 2.0, 0.5
LARGE_WEIGHT, LARGE_GRADIENT, SMALL_GRADIENT = 1e8, 1e6, 1e-6
FAST, SLOW = -1.0, -4.0
LOSS_DROP, FLUCTUATION_WINDOW, SMOOTHNESS = 0.05, 50, 0.5
SATURATING = {nn.Sigmoid: (0.0, 1.0), nn.Tanh: (-1.0, 1.0)}


class DeepChecker:
    """All of its rules on internals: non-finite values at every batch, the others every 10 batches from 10 on.

    Attributes
    ----------
    FLUCTUATION, STD, INIT : str
        Its names for the loss that fluctuates, the activations whose spread is outside a fixed band, and initial weights that
        follow no known scheme: the rules that readings of it leave out.
    """

    name = "TheDeepChecker"
    FLUCTUATION, STD, INIT = "fluctuated_loss", "act_unstable", "need_init"

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._said = Said()
        self._step_losses: list[float] = []
        self._losses: list[float] = []
        self._activations: dict[str, deque[Tensor]] = defaultdict(lambda: deque(maxlen=BUFFER))
        self._sizes: dict[tuple[str, str], deque[float]] = defaultdict(lambda: deque(maxlen=BUFFER))
        self._ratios: dict[str, list[float]] = defaultdict(list)
        self._varies: Tensor | None = None
        self._patience = OUTPUT_PATIENCE

    def begin(self, model: nn.Module, optimizer: Optimizer, task: Task) -> None:
        self._task = task
        self._watch.begin(model)
        kinds = [type(module) for module in model.modules() if isinstance(module, ACTIVATIONS)]
        function = kinds[0] if kinds else nn.Identity
        for name, each in self._watch.parameters.items():
            if each.ndim > 1:
                self._initial(name, each.detach(), function)

    def before_step(self, batch: int, inputs: Tensor, outputs: Tensor, loss: float) -> None:
        watch, say = self._watch, self._said.say
        watch.before_step(batch)
        if batch == 0 and self._task.kind == "classification":
            expected = math.log(self._task.classes)
            if abs(loss - expected) >= expected:
                say("overconfident-start", "poor_init_loss", None, batch)
        self._output(batch, outputs.detach())
        for name, module in watch.modules.items():
            if isinstance(module, ACTIVATIONS):
                self._activation(name, module, batch)
        for name, size in watch.gradient_size.items():
            if watch.parameters[name].ndim > 1:
                self._gradient(name, size, batch)
        self._loss(batch, loss)

    def after_step(self, batch: int) -> None:
        watch = self._watch
        watch.after_step(batch)
        for name, parameter in watch.parameters.items():
            self._weight(name, parameter.detach(), watch.weight_size[name], batch)
            if parameter.ndim > 1 and watch.weight_size[name]:
                self._update(name, watch.update_size[name] / watch.weight_size[name], batch)

    def epoch(
        self, number: int, batch: int, train_loss: float, valid_loss: float, train_score: float, valid_score: float
    ) -> None:
        """Nothing is read from epochs."""

    def end(self) -> list[Verdict]:
        self._watch.end()
        return self._said.verdicts

    def _initial(self, name: str, weight: Tensor, function: type) -> None:
        variance = weight.var(correction=0).item()
        if variance <= 1e-8:
            self._said.say("poor-init", "poor_init", name, 0)
            return
        field = weight[0, 0].numel()
        fan_in, fan_out = weight.shape[1] * field, weight.shape[0] * field
        schemes = {"he": 2 / fan_in, "lecun": 1 / fan_in, "glorot": 2 / (fan_in + fan_out)}
        wanted = {nn.ReLU: "he", nn.Tanh: "glorot", nn.Sigmoid: "lecun"}.get(function)
        fits = {scheme: _alike(variance, target) for scheme, target in schemes.items()}
        if not (fits[wanted] if wanted else any(fits.values())):
            self._said.say("poor-init", self.INIT, name, 0)

    def _output(self, batch: int, outputs: Tensor) -> None:
        if not math.isfinite(outputs.sum().item()):
            self._said.say("not-finite", "out_nan", None, batch)
            return
        if self._task.kind == "classification":
            outputs = outputs.softmax(-1)
        varies = outputs.reshape(len(outputs), -1).var(0, correction=0) > 0
        self._varies = varies if self._varies is None else self._varies | varies
        if batch % PERIOD == 0:
            self._patience = OUTPUT_PATIENCE if self._varies.all() else self._patience - 1
            if self._patience <= 0:
                self._said.say("dead-output", "out_cons", None, batch)

    def _activation(self, name: str, module: nn.Module, batch: int) -> None:
        values = self._watch.outputs[name]
        self._activations[name].append(values)
        if batch < START or batch % PERIOD:
            return
        if not math.isfinite(self._watch.output_sums()[name]):
            self._said.say("not-finite", "act_nan", name, batch)
            return
        rows = torch.cat([units(each) for each in self._activations[name]])
        if type(module) in SATURATING:
            if (_rho(rows, *SATURATING[type(module)]) > RHO).float().mean() > RHO_UNITS:
                self._said.say("saturation", "act_sat", name, batch)
        elif ((rows.abs() < DEAD).float().mean(0) > DEAD_PERCENTILE).float().mean() > DEAD_UNITS:
            self._said.say("dead-units", "act_dead", name, batch)
        std = rows.std(correction=0).item()
        bound = STD_LOW if std < STD_LOW else STD_HIGH
        if not STD_LOW <= std <= STD_HIGH and not _alike(std**2, bound**2):
            self._said.say("poor-init", self.STD, name, batch)

    def _gradient(self, name: str, size: float, batch: int) -> None:
        if not math.isfinite(size):
            self._said.say("not-finite", "gw_nan", name, batch)
            return
        sizes = self._sizes["gradient", name]
        sizes.append(size)
        if batch < START or batch % PERIOD:
            return
        recent = _rates(sizes)
        if size < SMALL_GRADIENT or (recent and max(recent) <= DECAY):
            self._said.say("vanishing-gradients", "gw_van", name, batch)
        if size > LARGE_GRADIENT or (recent and min(recent) >= GROWTH):
            self._said.say("exploding-gradients", "gw_exp", name, batch)

    def _weight(self, name: str, value: Tensor, size: float, batch: int) -> None:
        if not math.isfinite(size):
            self._said.say("not-finite", "w_nan", name, batch)
            return
        sizes = self._sizes["weight", name]
        sizes.append(size)
        if batch < START or batch % PERIOD:
            return
        recent = _rates(sizes)
        if size > LARGE_WEIGHT or (recent and min(recent) >= GROWTH):
            self._said.say("divergence|learning-rate-too-high", "w_div", name, batch)
        if value.ndim > 1:
            if (value < 0).float().mean() > NEGATIVE:
                self._said.say("", "w_sign", name, batch)
            if (value.abs() < DEAD).float().mean() > DEAD_WEIGHTS:
                self._said.say("poor-init", "w_dead", name, batch)

    def _update(self, name: str, ratio: float, batch: int) -> None:
        self._ratios[name].append(math.log10(ratio) if 0 < ratio < math.inf else 0.0)
        if batch == 0 or batch % PERIOD:
            return
        mean = float(np.mean(self._ratios.pop(name)))
        if mean == 0:
            self._said.say("not-in-optimizer|no-gradient|frozen", "w_untrained", name, batch)
        elif mean > FAST:
            self._said.say("learning-rate-too-high", "w_fast", name, batch)
        elif mean < SLOW:
            self._said.say("learning-rate-too-low", "w_slow", name, batch)

    def _loss(self, batch: int, loss: float) -> None:
        if not math.isfinite(loss):
            self._said.say("not-finite", "nan_loss", None, batch)
            return
        self._step_losses.append(loss)
        if batch % PERIOD:
            return
        self._losses.append(float(np.mean(self._step_losses)))
        self._step_losses.clear()
        losses = self._losses
        rates = _rates(losses)
        if rates and min(rates) > 1 - LOSS_DROP:
            self._said.say("plateau", "stagnated_loss", None, batch)
        if rates and min(rates) >= GROWTH:
            self._said.say("divergence", "div_loss", None, batch)
        if _smoothness(losses[-FLUCTUATION_WINDOW:]) < SMOOTHNESS:
            self._said.say("learning-rate-too-high|divergence", self.FLUCTUATION, None, batch)


def _rates(values: deque[float] | list[float]) -> list[float]:
    """Return the last four ratios of a value to the one before it, once there are five values, none of them zero."""
    recent = list(values)[-WINDOW:]
    if len(recent) < WINDOW or not all(recent):
        return []
    return [after / before for before, after in pairwise(recent)]


def _smoothness(losses: list[float]) -> float:
    """Return the share of losses at which the curve does not turn."""
    if not all(losses):
        return 1.0
    rises = [after / before > 1 for before, after in pairwise(losses)]
    return (len(losses) - sum(a != b for a, b in pairwise(rises))) / len(losses)


def _alike(variance: float, other: float) -> bool:
    """Whether the larger of two variances is at most the critical F times the smaller."""
    return max(variance, other) <= F_CRITICAL * min(variance, other)


def _rho(rows: Tensor, low: float, high: float) -> Tensor:
    """Return rho_B of each unit: the mean over bins of how far a bin's mean is from the middle of the range, by count."""
    bins = ((rows - low) / (high - low) * RHO_BINS).floor().long().clamp(-1, RHO_BINS) + 1
    sums = rows.new_zeros(RHO_BINS + 2, rows.shape[1]).scatter_add_(0, bins, rows)
    counts = rows.new_zeros(RHO_BINS + 2, rows.shape[1]).scatter_add_(0, bins, torch.ones_like(rows))
    return ((2 * (sums - counts * low) / (high - low) - counts).abs().sum(0)) / len(rows)
