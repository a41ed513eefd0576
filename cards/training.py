"""A plain PyTorch loop over packaged digits, recorded: what every card trains with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import colordim
from colordim import Run
from colordim.demo.data import Digits, load_digits
from colordim.demo.training import pieces, settled

__all__ = ["adam", "digits", "fit", "one_cycle", "sgd"]


@cache
def digits() -> Digits:
    """Return 4,000 digits of MNIST to train on and 1,000 to validate on."""
    return load_digits()


def sgd(lr: float, momentum: float = 0.0) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Return what makes the SGD optimiser of a model."""
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def adam(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """Return what makes the Adam optimiser of a model."""
    return lambda model: torch.optim.Adam(model.parameters(), lr=lr)


def one_cycle(lr: float) -> Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler]:
    """Return what makes a schedule that rises to `lr` and falls again, for :func:`fit`."""
    return lambda steps, batches: torch.optim.lr_scheduler.OneCycleLR(
        steps, max_lr=lr, total_steps=batches, cycle_momentum=False
    )


def fit(
    build: Callable[[], nn.Module],
    folder: Path,
    *,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    epochs: int,
    batch_size: int = 128,
    seed: int = 7,
    data: Digits | None = None,
    loss_function: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    schedule: Callable[[torch.optim.Optimizer, int], torch.optim.lr_scheduler.LRScheduler] | None = None,
    validate: bool = True,
    **options: Any,
) -> Run:
    """Train a classifier and record it: outputs, gradients, weights, their gradients and updates.

    Parameters
    ----------
    build : callable
        Makes the model, once the seed is set.
    folder : Path
        Of the run.
    optimizer : callable
        Makes the optimiser of a model; see :func:`sgd`.
    epochs, batch_size, seed : int
    data : Digits, optional
        What to train on; :func:`digits` by default.
    loss_function : callable
        Of outputs and labels.
    schedule : callable, optional
        Makes the schedule of an optimiser for so many batches in all; it is stepped after each.
    validate : bool
        Whether each epoch is validated.
    **options
        For :func:`colordim.record`.

    Returns
    -------
    Run
    """
    data = data or digits()
    with settled(seed):
        model = build()
        steps = optimizer(model)
        order = torch.Generator().manual_seed(seed)
        length = len(data.train_labels) // batch_size
        rates = schedule(steps, epochs * length) if schedule else None
        options = {"kinds": "all", **options}
        with colordim.record(model, folder=folder, name=folder.name, optimizer=steps, **options) as recording:
            for _ in range(epochs):
                model.train()
                for chosen in pieces(torch.randperm(len(data.train_labels), generator=order), batch_size)[:length]:
                    loss = loss_function(model(data.train_images[chosen]), data.train_labels[chosen])
                    steps.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    steps.step()
                    recording.log(loss=loss)
                    if rates is not None:
                        rates.step()
                model.eval()
                if not validate:
                    continue
                with torch.no_grad():
                    for images, labels in zip(
                        pieces(data.valid_images, 500), pieces(data.valid_labels, 500), strict=True
                    ):
                        recording.log(loss=loss_function(model(images), labels))
        return recording.run
