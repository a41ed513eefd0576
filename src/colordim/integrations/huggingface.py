"""The events of a Hugging Face ``Trainer`` as windows of a :class:`~colordim.integrations.session.Session`."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from colordim.errors import DependencyError
from colordim.integrations.session import Session
from colordim.recording.select import roots
from colordim.recording.window import RESERVED

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise DependencyError(
        'colordim.huggingface needs transformers, which is not installed: pip install "colordim[huggingface]".',
        page="huggingface",
    ) from error

if TYPE_CHECKING:
    from torch import nn

    from colordim import Recording, Run

__all__ = ["SIDECAR", "ColorDimCallback"]

#: File in the folder of a checkpoint that says where the recording was.
SIDECAR = "colordim.json"

# What a Trainer logs and a batch has anyhow (its rate as `lr`, of every batch), or that tells nothing of the training.
_NOT_LOGGED = RESERVED | {"learning_rate", "total_flos", "num_input_tokens_seen"}
_NOT_LOGGED_ENDS = ("_runtime", "_per_second", "_preparation_time")
# That of the Trainer is taken before clipping, `grad_norm` of a recording is of what the optimiser gets.
_RENAMED = {"grad_norm": "unclipped_grad_norm"}

_EVALUATION = frozenset({"evaluation_loop", "prediction_loop", "prediction_step"})


class ColorDimCallback(TrainerCallback):  # type: ignore[misc]
    """Records the training of a Trainer.

    Each forward and backward pass of the training is a batch of phase ``train``: under gradient accumulation a step has
    several. Each batch of an evaluation during the training is one of phase ``valid``. Nothing else is recorded: no
    evaluation or prediction outside of ``train()``, and no text that is generated. Several ``train()`` are one run; one
    that goes on from a checkpoint cuts off what was recorded after it. Each trial of a hyperparameter search is a run.

    ::

        trainer = Trainer(model, args, train_dataset=data, callbacks=[cd := ColorDimCallback()])
        trainer.train()
        cd.run.colorful()

    Parameters
    ----------
    generation : bool
        Count the forward passes of ``generate()`` as well, one a token.
    **options
        Those of :func:`colordim.record`; the optimizer and the scaler are those of the Trainer.
    """

    def __init__(self, *, generation: bool = False, **options: Any) -> None:
        self._session = Session(**options)
        self._generation = generation
        self._began: Mapping[str, Any] = {}
        self._batch_size = 0
        self._at_beginning = False

    @property
    def run(self) -> Run:
        """The run as it is now, of all ranks."""
        return self._session.run

    @property
    def recording(self) -> Recording:
        """What the last ``train()`` recorded with."""
        return self._session.recording

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        training = _training() or {}
        failed = self._session.attached and args.auto_find_batch_size and state.train_batch_size < self._batch_size
        self._session.stop("interrupted")
        if failed:  # for want of memory: what it recorded is taken back
            self._session.load_state_dict(self._began)
        elif state.global_step:
            folder = training.get("resume_from_checkpoint")
            self._session.load_state_dict(_position(Path(folder) if folder else _checkpoint(args, state)))
        elif state.is_hyper_param_search:  # each trial is a run
            self._session = Session(**self._session.options)
        session = self._session
        optimizer, model = kwargs.get("optimizer"), kwargs["model"]
        scaler = getattr(optimizer, "scaler", None)
        session.start(
            _wrapped(model, training.get("self")),
            [] if optimizer is None else [optimizer],
            scaler=scaler,
            unless=None if self._generation else _generating,
        )
        self._began, self._batch_size = session.state_dict(), state.train_batch_size
        session.epoch()  # already here, as an evaluation may come before the first event of an epoch
        self._at_beginning = True
        session.expect("valid", _evaluating)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self._at_beginning:
            self._session.epoch()
        self._at_beginning = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.begin("train")

    def on_substep_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.commit()
        self._session.begin("train")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.commit()
        self._session.expect("valid", _evaluating)
        if self._session.wants_stop():
            control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.expect("valid", _evaluating)  # the window of a micro-batch that did not come is forgotten

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if _training() is None:  # which an exception has ended, of which no event tells
            self._session.stop("interrupted")
            return
        self._session.commit()
        self._session.expect("valid", _evaluating)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "train_runtime" not in logs:  # which is in the summary of the whole training
            self._session.log(
                **{_RENAMED.get(name, name): value for name, value in logs.items() if _is_logged(name, value)}
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        position, folder = (
            self._session.state_dict(),
            _checkpoint(args, state),
        )  # on every rank, as it writes what it has
        if position and args.should_save and folder.is_dir():
            (folder / SIDECAR).write_text(json.dumps(position), encoding="utf-8")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._session.stop()


def _is_logged(name: str, value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and name not in _NOT_LOGGED
        and not name.endswith(_NOT_LOGGED_ENDS)
    )


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _position(checkpoint: Path) -> dict[str, Any]:
    """Return where the recording was at a checkpoint; empty if it was saved without one."""
    try:
        found = json.loads((checkpoint / SIDECAR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _wrapped(model: nn.Module, trainer: Any) -> nn.Module:
    """Return the model as it is called, in its wrappers, which events do not give."""
    wrapped = getattr(trainer, "model_wrapped", None)
    return wrapped if isinstance(wrapped, torch.nn.Module) and roots(wrapped)[-1] is roots(model)[-1] else model


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _training() -> dict[str, Any] | None:
    """Return the variables of the ``Trainer.train()`` that is under way; None outside of any.

    Events tell neither the checkpoint that it goes on from nor that an exception has ended it.
    """
    for frame in _frames():
        if frame.f_code.co_name == "train" and frame.f_globals.get("__name__") == "transformers.trainer":
            return frame.f_locals
    return None


def _evaluating() -> bool:
    """Whether an evaluation calls the model, and not a callback between two steps."""
    replica = threading.current_thread() is not threading.main_thread()  # of DataParallel
    return replica or any(frame.f_code.co_name in _EVALUATION for frame in _frames())


def _generating() -> bool:
    """Whether ``generate()`` calls the model; it does so without gradients."""
    return not torch.is_grad_enabled() and any(map(_is_generate, _frames()))


def _is_generate(frame: FrameType) -> bool:
    return frame.f_code.co_name == "generate" and frame.f_globals.get("__name__") == "transformers.generation.utils"
