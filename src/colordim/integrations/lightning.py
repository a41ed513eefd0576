"""PyTorch Lightning, under both of its names: the events of its trainer become windows."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any, TypeVar

from torch.nn.modules.loss import _Loss
from torch.nn.parallel import DistributedDataParallel

import colordim
from colordim.errors import ArgumentError, DependencyError
from colordim.handle import describe
from colordim.integrations.launched import Note
from colordim.integrations.session import Session
from colordim.recording.select import select

if TYPE_CHECKING:
    from torch import nn

    from colordim import Recording, Run

__all__ = ["ColorDim"]

_Self = TypeVar("_Self", bound="ColorDim")

#: The packages of Lightning, and the modules of its callbacks: classes of one are strangers to trainers of the other.
_FAMILIES = {"lightning": "lightning.pytorch.callbacks", "pytorch_lightning": "pytorch_lightning.callbacks"}


class ColorDim:
    """Records every batch of a fit: ``Trainer(callbacks=[ColorDim()])``.

    Training batches (micro-batches, under accumulation) and the validation batches between them are recorded, with
    their losses; the sanity check, the tuner, and ``trainer.validate``, ``test`` and ``predict`` are not. Further fits
    go on in the same run, and so does a fit from a checkpoint, exactly where that was saved. In a distributed training
    all processes record, into the one run that rank 0 names.

    Parameters
    ----------
    log_to : "loggers", or as for record()
        Where each epoch is published: by default those loggers of the trainer that take pictures and histograms
        (TensorBoard, W&B), None for nowhere.
    **options
        Those of :func:`colordim.record`. `optimizer` and `scaler` are the trainer's. Without `layers`, modules that are
        losses or metrics are left out.

    Raises
    ------
    ArgumentError
        If `optimizer` is given.
    DependencyError
        If Lightning is not installed.
    """

    def __new__(cls: type[_Self], *_: Any, **__: Any) -> _Self:
        """Make a callback of whichever Lightning is there: of both, if both are loaded."""
        made: _Self = _revive(cls.__dict__.get("_plain", cls), _families())
        return made

    def __init__(self, *, log_to: Any = "loggers", **options: Any) -> None:
        if "optimizer" in options:
            raise ArgumentError("ColorDim takes the optimizers of the trainer: leave optimizer= out.", page="lightning")
        inspect.signature(colordim.record).bind(None, **options)  # a wrong name is an error here, and not in the fit
        self._to_loggers = isinstance(log_to, str) and log_to == "loggers"
        self._session = Session(**options, log_to=None if self._to_loggers else log_to)
        self._note = Note()
        self._handed: dict[str, Any] = {}  # where a launched process goes on
        self._fitting = True

    @property
    def run(self) -> Run:
        """The run as it is now; also in a process that has only launched those that trained.

        Raises
        ------
        RecordingError
            If nothing was recorded yet, or this rank does not record.
        """
        self._hear()
        return self._session.run

    @property
    def recording(self) -> Recording:
        """What the last fit recorded with, in this process.

        Raises
        ------
        RecordingError
            If nothing was recorded yet.
        """
        return self._session.recording

    # The fit.

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._fitting = stage == "fit"
        if self._fitting:
            self._session.stop("interrupted")
            self._session.load_state_dict(self._handed)
            self._handed = {}
            self._hear()
            # In front, so that what other callbacks run at the end of a batch is no part of it.
            trainer.callbacks = [self, *(each for each in trainer.callbacks if each is not self)]

    # Before the sanity check, where a compiled model is traced with the hooks that it has; and as late as that, since
    # before it modules are replaced, checkpoints loaded, and learning rates tried out.
    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        self._start(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._start(trainer, pl_module)

    def _start(self, trainer: Any, pl_module: Any) -> None:
        if self._session.attached:
            return
        model = trainer.strategy.model
        options: dict[str, Any] = {}
        if self._session.options.get("layers") is None and (layers := _layers(pl_module)):
            options["layers"] = layers
        if self._to_loggers:
            options["log_to"] = _takers(trainer)
        self._session.start(
            model if isinstance(model, DistributedDataParallel) else pl_module,
            trainer.optimizers,
            agree=trainer.strategy.broadcast if trainer.world_size > 1 else None,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            **options,
        )
        if trainer.local_rank == 0 and self._session.path:
            self._note.leave({"run": self._session.path})

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._session.epoch()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._session.begin("train")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        # Automatic optimisation has divided the loss by the number of batches that it accumulates.
        parts = trainer.accumulate_grad_batches if pl_module.automatic_optimization else 1
        self._commit(outputs, parts)
        if self._session.wants_stop():
            trainer.should_stop = True

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self._session.discard()  # a batch that was skipped
        self._session.epoch()  # before a checkpoint is saved

    def on_validation_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if not trainer.sanity_checking:
            self._session.begin("valid")

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.sanity_checking:
            return
        if len(trainer.num_val_batches) > 1:
            self._session.log(dataloader=dataloader_idx)
        self._commit(outputs)

    def _commit(self, outputs: Any, parts: int = 1) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
        if loss is not None:
            self._session.log(loss=loss * parts)
        self._session.commit()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._stop(trainer, describe(exception))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self._stop(trainer, "stopped")

    def _stop(self, trainer: Any, reason: str) -> None:
        if self._session.attached:
            self._session.stop(reason)
            if trainer.local_rank == 0 and self._session.path:
                self._note.leave(self._session.state_dict())

    # Checkpoints and copies.

    @property
    def state_key(self) -> str:
        """Where a checkpoint keeps the state: of several of these callbacks, each needs a name of its own."""
        name = self._session.options.get("name")
        return "ColorDim" if name is None else f"ColorDim({name!r})"

    def state_dict(self) -> dict[str, Any]:
        """Return where the recording is, in JSON types; empty before the first fit."""
        self._hear()
        return self._session.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the fit that is beginning go on where the checkpoint was saved.

        Nothing is done for a checkpoint that is loaded to be tested, or that a tuner puts back during a fit.
        """
        if self._fitting and not self._session.attached:
            self._session.load_state_dict(state_dict)

    def _hear(self) -> None:
        """Take over what a process that was launched for a fit has left behind."""
        if not self._session.attached and (state := self._note.read()):
            self._session.load_state_dict(state)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        kind = type(self)
        modules = {base.__module__ for base in kind.__mro__}
        families = tuple(name for name, callbacks in _FAMILIES.items() if f"{callbacks}.callback" in modules)
        if get_spawning_popen() is None:  # a copy, which is to know nothing of the fits of this one
            state = {**self.__dict__, "_note": Note(), "_handed": {}}
        else:
            state = {**self.__dict__, "_handed": self.state_dict()}
        return _revive, (kind.__dict__.get("_plain", kind), families), state


def _takers(trainer: Any) -> list[Any]:
    """Return the clients of those loggers of the trainer to which epochs can be published; on rank 0, where they are."""
    clients = [getattr(logger, "experiment", None) for logger in trainer.loggers] if trainer.is_global_zero else []
    return [client for client in clients if hasattr(client, "add_histogram_raw") or hasattr(client, "define_metric")]


def _layers(module: nn.Module) -> list[nn.Module] | None:
    """Return the leaf modules that are layers, if others are none: losses, and metrics of torchmetrics."""
    leaves = [target.module for target in select(module)]
    layers = [leaf for leaf in leaves if not isinstance(leaf, _Loss) and not _is_metric(leaf)]
    return layers if len(layers) < len(leaves) else None


def _is_metric(module: nn.Module) -> bool:
    return any(
        kind.__name__ == "Metric" and kind.__module__.startswith("torchmetrics.") for kind in type(module).__mro__
    )


# Whose callback it is.


def _families() -> tuple[str, ...]:
    """Return the packages of Lightning that are loaded, or else those that are installed.

    Raises
    ------
    DependencyError
        If there is none.
    """
    found = [name for name in _FAMILIES if name in sys.modules] or [name for name in _FAMILIES if find_spec(name)]
    if not found:
        raise DependencyError(
            'colordim.lightning needs Lightning, which is not installed: pip install "colordim[lightning]".',
            page="lightning",
        )
    return tuple(found)


@cache
def _callback_class(plain: type[Any], families: tuple[str, ...]) -> type[Any]:
    """Return a class of the same name that is a Callback of each family as well."""
    bases = [importlib.import_module(_FAMILIES[name]).Callback for name in families]
    missing = [base for base in bases if not issubclass(plain, base)]
    names = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    return type(plain.__name__, (plain, *missing), {**names, "_plain": plain}) if missing else plain


def _revive(plain: Any, families: tuple[str, ...]) -> Any:
    return object.__new__(_callback_class(plain, families))


_families()  # without Lightning, importing this is what fails
