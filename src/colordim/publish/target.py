"""What takes published epochs, and how it is named."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from colordim.errors import ArgumentError, DependencyError
from colordim.publish.csv import Csv
from colordim.publish.epochs import Epoch
from colordim.publish.tensorboard import TensorBoard
from colordim.publish.wandb import Wandb

__all__ = ["NAMES", "Target", "portable", "target", "targets"]

#: What can be named in a string.
NAMES = ("tensorboard", "wandb", "csv")


class Target(Protocol):
    """Takes epochs in their order, from one thread."""

    name: str
    """What people call it."""
    draws: bool
    """Whether it takes figures."""

    def publish(self, epoch: Epoch) -> None:
        """Take an epoch; of one that it has had already, more batches are known now."""

    def close(self) -> None:
        """Finish what was begun here; what was passed in is left open."""


def target(to: Any, *, live: bool = False) -> Target:
    """Return the target that `to` stands for.

    Parameters
    ----------
    to : str or object
        ``"tensorboard"``, ``"csv"`` or ``"wandb"``; ``"tensorboard:folder"`` and ``"csv:folder"`` name where to write,
        by default ``tensorboard`` or ``csv`` in the folder of the run, and ``"wandb:project"`` the project. Or a
        ``SummaryWriter``, of torch or tensorboardX; a W&B run; or a :class:`Target`.
    live : bool
        Whether the run is being recorded: a W&B run that is begun for it is then gone on with when the recording is
        resumed.

    Raises
    ------
    ArgumentError
        If it is none of these.
    DependencyError
        If the package for it is not installed.
    """
    if isinstance(to, str):
        name, _, where = to.partition(":")
        if name == "csv":
            return Csv(where or None)
        if name in ("tensorboard", "wandb"):
            _need(name)
            return TensorBoard(where or None) if name == "tensorboard" else Wandb(project=where or None, resumes=live)
        raise ArgumentError(
            f"log_to={to!r} is unknown: take one of {', '.join(NAMES)}, or such as tensorboard:folder.", page="exports"
        )
    if hasattr(to, "add_histogram_raw") and hasattr(to, "add_image"):
        return TensorBoard(to)
    if hasattr(to, "define_metric") and hasattr(to, "log"):
        return Wandb(to)
    if hasattr(to, "publish") and hasattr(to, "close"):
        found: Target = to
        return found
    raise ArgumentError(
        f"nothing can be published to {to!r}: give one of {', '.join(NAMES)}, a SummaryWriter or a W&B run.",
        page="exports",
    )


def targets(log_to: Any) -> list[Target]:
    """Return the targets of ``record(log_to=...)``: one, a sequence of them, or none."""
    if log_to is None:
        return []
    return [target(each, live=True) for each in (log_to if isinstance(log_to, (list, tuple)) else [log_to])]


def portable(log_to: Any) -> Any:
    """Return what of `log_to` a copy or a pickle may hold: names, and no open writers."""
    if isinstance(log_to, (list, tuple)):
        return [each for each in log_to if isinstance(each, str)]
    return log_to if isinstance(log_to, str) else None


def _need(package: str) -> None:
    try:  # now, and not when the first epoch is over, while the model trains
        import_module("wandb" if package == "wandb" else "tensorboard.summary.writer.event_file_writer")
    except ImportError:
        what = {"tensorboard": "TensorBoard", "wandb": "W&B"}[package]
        raise DependencyError(
            f'publishing to {what} needs {package}, which is not installed: pip install "colordim[{package}]".',
            page="exports",
        ) from None
