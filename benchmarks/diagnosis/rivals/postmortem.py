"""torchmortem as it ships (PyPI): its `Autopsy` with default settings, called as its documentation says.

It judges when it is detached, so all that it says is said after the last batch. What it calls information is left out; what it
calls critical is severe. A finding of several layers names the first that it lists.
"""

from __future__ import annotations

import atexit
import warnings
from importlib.util import find_spec
from typing import Any

from benchmarks.diagnosis.monitor import Task, Verdict
from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Torchmortem"]

KEYS = (  # beginnings of its titles
    ("Dead units", "dead-units"),
    ("Vanishing gradients", "vanishing-gradients"),
    ("Exploding gradients", "exploding-gradients"),
    ("Gradient stalling", "vanishing-gradients|no-gradient"),
    ("Training divergence", "divergence|learning-rate-too-high"),
    ("Loss plateau", "plateau"),
    ("Activation saturation", "saturation"),
    ("Update ratio too low", "learning-rate-too-low|not-in-optimizer|no-gradient"),
    ("Update ratio too high", "learning-rate-too-high"),
    ("Weight norm explosion", "divergence|learning-rate-too-high"),
    ("Stagnant weight norms", "not-in-optimizer|no-gradient|learning-rate-too-low"),
    ("Inter-layer weight norm imbalance", "poor-init"),
)  # without a counterpart: gradient noise, rank collapse


class Torchmortem:
    """An autopsy of the training."""

    name = "torchmortem"

    @staticmethod
    def is_there() -> bool:
        """Whether the package is installed."""
        return find_spec("torchmortem") is not None

    def begin(self, model: nn.Module, optimizer: Optimizer, task: Task) -> None:
        from torchmortem import Autopsy

        self._autopsy: Any = Autopsy(model, optimizer=optimizer)
        self._autopsy.attach()
        self._loss = float("nan")
        self._last = 0

    def before_step(self, batch: int, inputs: Tensor, outputs: Tensor, loss: float) -> None:
        self._loss, self._last = loss, batch

    def after_step(self, batch: int) -> None:
        self._autopsy.step(loss=self._loss)

    def epoch(
        self, number: int, batch: int, train_loss: float, valid_loss: float, train_score: float, valid_score: float
    ) -> None:
        """Take nothing: it is not told of epochs."""

    def end(self) -> list[Verdict]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as errors, NumPy's on NaN would silence its detectors
            self._autopsy.detach()
        atexit.unregister(self._autopsy._atexit_handler)  # it would keep the model for the life of the process
        verdicts = []
        for finding in self._autopsy.get_report().findings:
            if finding.severity.name == "INFO":
                continue
            key = next((key for title, key in KEYS if finding.title.startswith(title)), "")
            native = finding.title.split(" in ")[0]
            layer = finding.affected_layers[0] if finding.affected_layers else None
            verdicts.append(Verdict(key, native, layer, self._last, finding.severity.name == "CRITICAL"))
        return verdicts
