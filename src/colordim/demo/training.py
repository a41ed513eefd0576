"""The two trainings of the demo: a plain PyTorch loop, recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import colordim
from colordim.demo.data import Digits
from colordim.demo.network import healthy_network, lesson_network

__all__ = ["BAD", "GOOD", "Epoch", "Recipe", "batches_per_epoch", "pieces", "settled", "train"]

BATCH_SIZE = 128
VALID_BATCH_SIZE = 500


@dataclass(frozen=True)
class Recipe:
    """What one training differs in from the other.

    Attributes
    ----------
    name : str
        Of the run, and of its folder.
    title : str
        What the figure says above its column.
    network : callable
        Makes the model.
    lr : float
        The learning rate; its highest, if `one_cycle`.
    one_cycle : bool
        Whether the learning rate rises to `lr` and falls again, or stays.
    """

    name: str
    title: str
    network: Callable[[], nn.Module]
    lr: float
    one_cycle: bool


BAD = Recipe("bad", "bad: SGD lr 0.6, default init", lesson_network, 0.6, False)
GOOD = Recipe("good", "good: batch norm, Kaiming init, one-cycle lr up to 0.6", healthy_network, 0.6, True)


@dataclass(frozen=True)
class Epoch:
    """What one epoch achieved: mean training loss, validation loss and accuracy."""

    number: int
    train_loss: float
    valid_loss: float
    accuracy: float


def batches_per_epoch(digits: Digits) -> int:
    """Return the number of training batches of an epoch; the incomplete last one is left out."""
    return len(digits.train_labels) // BATCH_SIZE


def train(
    recipe: Recipe,
    digits: Digits,
    folder: Path,
    *,
    epochs: int,
    seed: int = 1,
    on_batch: Callable[[], object] = lambda: None,
    on_epoch: Callable[[Epoch], object] = lambda epoch: None,
) -> Any:
    """Train one network, and record it into `folder`.

    Parameters
    ----------
    recipe : Recipe
    digits : Digits
    folder : Path
        Where the run is written.
    epochs : int
    seed : int
        Of the initial weights and of the order of the digits.
    on_batch, on_epoch : callable, optional
        Called after each training batch, and with the results of each epoch.

    Returns
    -------
    Run
        The recorded run.
    """
    with settled(seed):
        model = recipe.network()
        order = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr)
        length = batches_per_epoch(digits)
        schedule = (
            torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=recipe.lr, total_steps=epochs * length, cycle_momentum=False
            )
            if recipe.one_cycle
            else None
        )
        with colordim.record(model, folder=folder, name=recipe.name, optimizer=optimizer) as recording:
            for number in range(epochs):
                model.train()
                total = 0.0
                for chosen in pieces(torch.randperm(len(digits.train_labels), generator=order), BATCH_SIZE)[:length]:
                    loss = cross_entropy(model(digits.train_images[chosen]), digits.train_labels[chosen])
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                    recording.log(loss=loss, lr=optimizer.param_groups[0]["lr"])
                    if schedule is not None:
                        schedule.step()
                    total += loss.item()
                    on_batch()
                valid_loss, accuracy = _validate(model, digits, recording)
                on_epoch(Epoch(number, total / length, valid_loss, accuracy))
        return recording.run


def _validate(model: nn.Module, digits: Digits, recording: Any) -> tuple[float, float]:
    model.eval()
    loss, correct = 0.0, 0
    with torch.no_grad():
        for images, labels in zip(
            pieces(digits.valid_images, VALID_BATCH_SIZE), pieces(digits.valid_labels, VALID_BATCH_SIZE), strict=True
        ):
            outputs = model(images)
            batch_loss = cross_entropy(outputs, labels)
            recording.log(loss=batch_loss)
            loss += batch_loss.item() * len(labels)
            correct += int((outputs.argmax(dim=1) == labels).sum())
    return loss / len(digits.valid_labels), correct / len(digits.valid_labels)


def pieces(tensor: torch.Tensor, size: int) -> Sequence[torch.Tensor]:
    """Return a tensor in pieces of `size` rows; the last may have fewer."""
    return [tensor[start : start + size] for start in range(0, len(tensor), size)]


@contextmanager
def settled(seed: int) -> Iterator[None]:
    """Seed PyTorch and let it use one thread, so that the number of cores does not change the sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
