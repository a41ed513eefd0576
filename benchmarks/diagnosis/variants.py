"""Healthy changes of a base recipe that earlier rule sets take for faults."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.diagnosis.spec import Label, Recipe, Spec
from benchmarks.diagnosis.zoo import ARCHITECTURES

__all__ = ["healthy"]

RELU = ("mlp3", "mlp8", "wine", "regression", "cnn", "cnn_bn", "resmlp_ln", "gru")
SMALL = ("mlp3", "tanh5", "wine", "mlp_gelu", "gru")  # where three times the epochs take no time
DROPOUT = ("mlp3", "wine", "cnn", "cnn_bn", "resmlp_ln", "transformer", "gru")
NAMED_FIRST = {
    "transformer": "embed",
    "resmlp_ln": "stem",
    "gru": "gru",
    "cnn": "conv1",
    "cnn_bn": "conv1",
    "cnn_gn": "conv1",
}


def healthy(arch: str, seed: int) -> Iterator[Spec]:
    """Yield the base training of an architecture and its healthy variants."""
    base = ARCHITECTURES[arch].recipe
    for name, changes in _changes(arch, base).items():
        yield Spec(arch, seed, "healthy", name, recipe=replace(base, **changes), label=Label())


def _changes(arch: str, base: Recipe) -> dict[str, dict[str, Any]]:
    adam = base.optimizer == "adam"
    changes: dict[str, dict[str, Any]] = {
        "base": {},
        "sgd" if adam else "adam": {"optimizer": "sgd", "lr": 0.02} if adam else {"optimizer": "adam", "lr": 1e-3},
        "one-cycle": {"schedule": "one-cycle", "lr": 3 * base.lr},
        "warm-up": {"schedule": "warm-up"},
        "cosine": {"schedule": "cosine"},
        "clip": {"clip": 1.0},
        "unit-inputs": {"inputs": "unit"},
        "frozen-first": {"frozen": (NAMED_FIRST.get(arch, "linear1"),)},
        "weight-decay": {"optimizer": "adamw", "lr": base.lr if adam else 1e-3, "weight_decay": 0.3},
        "wider": {"width": 2 * base.width},
    }
    if base.data != "wine":
        changes["small-batch"] = {"batch_size": 16, "lr": base.lr / 2, "epochs": max(3, base.epochs // 2)}
    if base.data != "diabetes":
        changes["smoothing"] = {"smoothing": 0.1}
        changes["imbalanced"] = {"imbalance": 0.3}
    if arch in SMALL:
        changes["long"] = {"epochs": 4 * base.epochs}
    if arch in RELU:
        changes["gelu"] = {"activation": "gelu"}
    if arch in DROPOUT:
        changes["dropout"] = {"dropout": 0.5 if arch in ("mlp3", "wine", "gru") else 0.3}
    if arch in ("mlp3", "mlp8"):
        changes["sparse"] = {"width": 512, "bias": -0.5}  # most outputs are zero, few units are dead
    if base.init == "kaiming":
        changes["default-init"] = {"init": "default"}
    if base.norm == "batch":
        changes["high-lr"] = {"lr": 10 * base.lr}
        changes["high-lr-sgd"] = {"optimizer": "sgd", "lr": 0.3}
    return changes
