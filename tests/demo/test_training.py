from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from colordim.demo.data import Digits
from colordim.demo.training import BAD, GOOD, Epoch, Recipe, batches_per_epoch, train


def few_digits() -> Digits:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(300, 1, 28, 28, generator=generator)
    labels = torch.arange(300) % 10
    return Digits(images, labels, images[:20], labels[:20])


@pytest.mark.parametrize("recipe", [BAD, GOOD])
def test_every_batch_is_recorded_with_its_loss(tmp_path: Path, recipe: Recipe) -> None:
    digits = few_digits()
    epochs: list[Epoch] = []
    batches: list[None] = []
    run = train(
        recipe, digits, tmp_path / "run", epochs=2, on_batch=lambda: batches.append(None), on_epoch=epochs.append
    )
    assert batches_per_epoch(digits) == 2  # 300 = 2 * 128 + 44
    assert len(batches) == 4
    assert (run.length("train"), run.length("valid")) == (4, 2)
    assert run.epochs("train").tolist() == [0, 2]
    assert run.name == recipe.name
    assert run.ended == "stopped"
    train_losses = run.batches["loss"][run.batches["phase"] == "train"]
    assert [epoch.train_loss for epoch in epochs] == pytest.approx(train_losses.reshape(2, 2).mean(axis=1).tolist())
    assert [epoch.valid_loss for epoch in epochs] == pytest.approx(
        run.batches["loss"][run.batches["phase"] == "valid"].tolist()
    )
    # 128 images of 8 channels of 14 x 14 in each of four batches
    assert run.moments("conv1")["size"].tolist() == [128 * 8 * 14 * 14] * 4


def test_only_the_good_learning_rate_changes(tmp_path: Path) -> None:
    rates = {
        recipe.name: train(recipe, few_digits(), tmp_path / recipe.name, epochs=4).batches["lr"]
        for recipe in (BAD, GOOD)
    }
    bad, good = (rates[name][np.isfinite(rates[name])] for name in ("bad", "good"))
    assert bad.tolist() == [0.6] * 8
    assert good[0] == pytest.approx(0.6 / 25)
    assert good.max() <= 0.6
    assert good.argmax() not in (0, 7)


def test_a_training_is_repeatable_and_leaves_the_state_of_torch_alone(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    state = torch.get_rng_state()
    first, second = (train(BAD, few_digits(), tmp_path / name, epochs=1, seed=3) for name in "ab")
    np.testing.assert_array_equal(first.counts("conv4"), second.counts("conv4"))
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    third = train(BAD, few_digits(), tmp_path / "c", epochs=1, seed=4)
    assert (first.counts("conv4") != third.counts("conv4")).any()
