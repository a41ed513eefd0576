"""Remedies, applied as one would without knowing the fault: each is the same change of knobs whatever was planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.diagnosis.spec import Recipe, Spec

__all__ = ["KEYS", "REMEDIES", "apply"]

REMEDIES: dict[str, Callable[[Recipe], dict[str, Any]]] = {
    "steady-lr": lambda r: {"spike": None},
    "warm-up": lambda r: {"schedule": "warm-up"},
    "kaiming-init": lambda r: {"again": (*r.again, "kaiming")},
    "scale-output-init": lambda r: {"again": (*r.again, "output")},
    "standardise-input": lambda r: {"inputs": "standard"},
    "leaky-relu": lambda r: {"activation": "leaky_relu"},
    "relu-instead": lambda r: {"activation": "relu", "init": "kaiming"},
    "batch-norm": lambda r: {"norm": r.norm or "batch"},
    "clip-gradients": lambda r: {"clip": 1.0},
    "add-to-optimizer": lambda r: {"left_out": (), "slow": (), "slow_factor": 1.0},
    "remove-detach": lambda r: {"detach": ""},
    "zero-grad": lambda r: {"zero_grad": True},
    "guard-operation": lambda r: {"guarded": True},
    "loss-scaling": lambda r: {"loss_scaling": True},
    "same-preprocessing": lambda r: {"valid_inputs": ""},
    "eval-mode": lambda r: {"valid_mode": "eval", "train_mode": "train", "bn_momentum": 0.1},
    "unfreeze": lambda r: {"frozen": ()},
    "remove-softmax": lambda r: {"softmax": False},
    "remove-output-activation": lambda r: {"shut_output": False},
    "train-longer": lambda r: {"epochs": 2 * r.epochs},
}


RATES = ("lower-lr", "raise-lr")
KEYS = (*RATES, *REMEDIES)


def apply(spec: Spec, key: str, factor: float = 1.0) -> Spec:
    """Return the training with a remedy; the same one may be applied again.

    Parameters
    ----------
    spec : Spec
    key : str
    factor : float
        What the remedy says that the learning rate is to be multiplied by.

    Raises
    ------
    KeyError
        No remedy has this key.
    """
    changes = {"lr": spec.recipe.lr * factor} if key in RATES else REMEDIES[key](spec.recipe)
    recipe = replace(spec.recipe, **changes)
    return replace(spec, recipe=recipe, remedies=(*spec.remedies, key))
