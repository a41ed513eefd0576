"""What to try: a sentence for each remedy, with the numbers of the run where they are known."""

from __future__ import annotations

import math

import numpy as np

from colordim.diagnosis.evidence import Evidence
from colordim.diagnosis.finding import Remedy

__all__ = ["TEXTS", "lower_lr", "raise_lr", "remedy"]

TEXTS = {
    "steady-lr": "Look at the schedule of the learning rate: take out the jump, or let it rise over many batches.",
    "warm-up": "Let the learning rate rise from zero over the first epoch or so (OneCycleLR, or a linear warm-up).",
    "kaiming-init": "Initialise the weights for their activation function: nn.init.kaiming_normal_ for ReLU and its kin, "
    "nn.init.xavier_normal_ with gain 5/3 for tanh, and the biases with zero.",
    "scale-output-init": "Make the weights of the last layer 10 to 100 times smaller before training, and its bias zero.",
    "standardise-input": "Standardise the inputs: subtract the mean of the training data, and divide by its standard deviation.",
    "leaky-relu": "Replace the rectifiers by nn.LeakyReLU(0.1), so that a unit that is negative still learns.",
    "batch-norm": "Put a normalisation (nn.BatchNorm, nn.LayerNorm) between the layers and their activation functions.",
    "clip-gradients": "Clip the gradients: torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0) before the step.",
    "relu-instead": "Replace the bounded activation functions of the hidden layers by nn.ReLU, and initialise the weights for it (nn.init.kaiming_normal_).",
    "add-to-optimizer": "Give all parameters to the optimiser: torch.optim.Adam(model.parameters()), after the last layer is made.",
    "check-data": "Look for NaN in the data: assert torch.isfinite(x).all() before the model.",
    "record-more": "Record more to see the cause: colordim.record(model, kinds=\"all\", optimizer=optimizer).",
    "remove-detach": "Look for .detach(), .item(), .numpy(), .data or torch.no_grad() between this layer and the loss.",
    "zero-grad": "Call optimizer.zero_grad() once for every optimizer.step().",
    "guard-operation": "Guard log, sqrt and divisions with a small number, such as log(x + 1e-8) or x.clamp(min=1e-8).",
    "loss-scaling": "Scale the loss (torch.amp.GradScaler), or compute in bfloat16 or float32.",
    "same-preprocessing": "Give validation the preprocessing of training: the same scaling, with the training data's mean and deviation.",
    "eval-mode": "Call model.eval() before validation and model.train() after it, and see that batch norm has seen enough batches.",
    "unfreeze": "Set requires_grad = True on these parameters, if they should learn.",
    "remove-output-activation": "Remove the activation function behind the last layer: the loss wants its plain outputs.",
    "remove-softmax": "Remove the softmax: nn.CrossEntropyLoss takes the plain outputs of the last layer.",
    "train-longer": "Train for more epochs.",
}  # fmt: skip


#: log10 of the step relative to the weights that a new learning rate aims at: the median of the first epochs of healthy trainings
#: (docs/diagnosis.md). The rule of thumb is -3 (CS231n notes 3).
_AIM = -2.3


def remedy(key: str, text: str | None = None, factor: float = 1.0) -> Remedy:
    """Return a remedy with its usual text, or another one."""
    return Remedy(key, text or TEXTS[key], factor)


def lower_lr(evidence: Evidence, step: float | None = None) -> Remedy:
    """Return the advice to lower the learning rate: by 10, or so far that steps become as large as in healthy trainings.

    Parameters
    ----------
    evidence : Evidence
    step : float, optional
        log10 of the step relative to the weights, as it is now.
    """
    factor = 0.1 if step is None else min(_rounded(_AIM - step), 0.1)
    return remedy("lower-lr", f"{_change(evidence, factor)}.", factor)


def raise_lr(evidence: Evidence, step: float | None = None) -> Remedy:
    """Return the advice to raise the learning rate: by 10, or so far that steps become as large as in healthy trainings."""
    factor = 10.0 if step is None else max(_rounded(_AIM - step), 10.0)
    return remedy("raise-lr", f"{_change(evidence, factor)}.", factor)


def _rounded(exponent: float) -> float:
    """Return the power of ten, or three times one, that is nearest on a logarithmic scale."""
    whole = math.floor(exponent)
    nearest = min((1.0, 3.0, 10.0), key=lambda each: abs(math.log10(each) - (exponent - whole)))
    return float(nearest * 10.0**whole)


def _change(evidence: Evidence, factor: float) -> str:
    values = evidence.logged.get("lr", np.zeros(0))
    known = values[np.isfinite(values)]
    highest = float(known.max()) if known.size else 0.0
    word, by = ("Raise", factor) if factor > 1 else ("Lower", 1 / factor)
    return f"{word} the learning rate " + (
        f"from {highest:.2g} to {highest * factor:.2g}" if highest else f"{by:,.0f}-fold"
    )
