"""What watches a training of the benchmark, and what it says of it: the protocol that earlier rule sets are restated in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

__all__ = ["Monitor", "Task", "Verdict"]


@dataclass(frozen=True)
class Task:
    """What a rule set may know of the task.

    Attributes
    ----------
    kind : {"classification", "regression"}
    classes : int
        0 in a regression.
    epochs, batches_per_epoch : int
    """

    kind: str
    classes: int
    epochs: int
    batches_per_epoch: int


@dataclass(frozen=True)
class Verdict:
    """One thing that a rule set said of a training.

    Attributes
    ----------
    symptom : str
        The key of ours that means the same; "" if there is none.
    native : str
        The rule set's own name for it.
    layer : str or None
        The layer it named, by our name.
    batch : int
        Training batch at which it was said first.
    severe : bool
        Whether it is meant as a defect.
    """

    symptom: str
    native: str
    layer: str | None
    batch: int
    severe: bool = True


class Monitor(Protocol):
    """Watches one training. It must leave it as it is."""

    name: str

    def begin(self, model: nn.Module, optimizer: Optimizer, task: Task) -> None:
        """Take the model before its first batch; hooks may be attached to its modules."""

    def before_step(self, batch: int, inputs: Tensor, outputs: Tensor, loss: float) -> None:
        """Look at a batch after its backward pass, before the optimiser's step."""

    def after_step(self, batch: int) -> None:
        """Look at the parameters after the optimiser's step."""

    def epoch(
        self, number: int, batch: int, train_loss: float, valid_loss: float, train_score: float, valid_score: float
    ) -> None:
        """Take what an epoch achieved; `batch` is the index of its last training batch, scores are accuracies or R^2."""

    def end(self) -> list[Verdict]:
        """Detach everything, and return what was said."""
