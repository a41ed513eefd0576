"""What to try: a sentence for each remedy, with the numbers of the run where they are known."""

from __future__ import annotations

import numpy as np

from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Remedy

__all__ = ["TEXTS", "lower_lr", "raise_lr", "remedy"]

TEXTS = {
    "lower-lr": "Lower the learning rate by 10.",
    "raise-lr": "Raise the learning rate by 10, and again while the loss falls faster for it.",
    "warm-up": "Let the learning rate rise from zero over the first epoch or so (OneCycleLR, or a linear warm-up).",
    "kaiming-init": "Initialise the weights for their activation function: nn.init.kaiming_normal_ for ReLU and its kin, "
    "nn.init.xavier_normal_ with gain 5/3 for tanh, and the biases with zero.",
    "scale-output-init": "Make the weights of the last layer 10 to 100 times smaller before training, and its bias zero.",
    "standardise-input": "Standardise the inputs: subtract the mean of the training data, and divide by its standard deviation.",
    "leaky-relu": "Replace the rectifiers by nn.LeakyReLU(0.1), so that a unit that is negative still learns.",
    "batch-norm": "Put a normalisation (nn.BatchNorm, nn.LayerNorm) between the layers and their activation functions.",
    "clip-gradients": "Clip the gradients: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) before the step.",
    "relu-instead": "Replace the bounded activation functions of the hidden layers by nn.ReLU.",
    "add-to-optimizer": "Give all parameters to the optimiser: torch.optim.Adam(model.parameters()), after the last layer is made.",
    "remove-detach": "Look for .detach(), .item(), .numpy(), .data or torch.no_grad() between this layer and the loss.",
    "zero-grad": "Call optimizer.zero_grad() once for every optimizer.step().",
    "guard-operation": "Guard log, sqrt and divisions with a small number, such as log(x + 1e-8) or x.clamp(min=1e-8).",
    "loss-scaling": "Scale the loss (torch.amp.GradScaler), or compute in bfloat16 or float32.",
    "same-preprocessing": "Give validation the preprocessing of training: the same scaling, with the training data's mean and deviation.",
    "eval-mode": "Call model.eval() before validation and model.train() after it, and see that batch norm has seen enough batches.",
    "unfreeze": "Set requires_grad = True on these parameters, if they should learn.",
    "remove-softmax": "Remove the softmax: nn.CrossEntropyLoss takes the plain outputs of the last layer.",
    "train-longer": "Train for more epochs.",
}  # fmt: skip


def remedy(key: str, text: str | None = None) -> Remedy:
    """Return a remedy with its usual text, or another one."""
    return Remedy(key, text or TEXTS[key])


def lower_lr(evidence: Evidence, batch: int = -1) -> Remedy:
    """Return the advice to lower the learning rate, with that of a batch if it is known."""
    lr = _lr(evidence, batch)
    return remedy("lower-lr", f"Lower the learning rate by 10, from {lr:.2g} to {lr / 10:.2g}." if lr else None)


def raise_lr(evidence: Evidence, batch: int = -1) -> Remedy:
    """Return the advice to raise the learning rate, with that of a batch if it is known."""
    lr = _lr(evidence, batch)
    text = (
        f"Raise the learning rate by 10, from {lr:.2g} to {10 * lr:.2g}, and again while the loss falls faster for it."
    )
    return remedy("raise-lr", text if lr else None)


def _lr(evidence: Evidence, batch: int) -> float:
    values = evidence.logged.get("lr", np.zeros(0))
    known = values[: batch + 1 or None]
    known = known[np.isfinite(known)]
    return float(known[-1]) if known.size else 0.0
