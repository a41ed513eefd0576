"""One run over all fits of a training whose loop a framework runs."""

from __future__ import annotations

import difflib
import inspect
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed

import colordim
from colordim.errors import ArgumentError, ColordimError, RecordingError, with_page
from colordim.handle import free_folder
from colordim.publish import telling
from colordim.publish.target import portable
from colordim.recording.ranks import recorded
from colordim.recording.select import class_name, roots
from colordim.store import files
from colordim.store.disk import read_json

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from colordim import Recording, Run
    from colordim.column import Phase

__all__ = ["Session"]

# What the sessions of this process record with, by the folders of the runs.
_recordings: dict[Path, Recording] = {}


class Session:
    """A run that several fits record into, and the windows that the events of a framework open.

    Between fits nothing is attached to the model. A copy of a session, as checkpoints and exports pickle it, is inert:
    it knows where the run is, and records into one of its own if it is started.

    Parameters
    ----------
    **options
        Those of :func:`colordim.record`, without ``optimizer``.

    Raises
    ------
    ArgumentError
        If there is no such option.
    """

    def __init__(self, **options: Any) -> None:
        known = inspect.signature(colordim.record).parameters.keys() - {"model", "optimizer"}
        for name in options.keys() - known:
            if name == "optimizer":
                raise ArgumentError(
                    "the optimizers are those that the framework trains with: leave optimizer= out.",
                    page="kinds#parameters",
                )
            near = difflib.get_close_matches(name, known, 1)
            raise ArgumentError(
                f"there is no option {name!r}"
                + (f": did you mean {near[0]!r}?" if near else ": see help(colordim.record).")
            )
        self._options = options
        self._recording: Recording | None = None
        self._path: str | None = None
        self._position: Mapping[str, Any] | None = None
        self._open = False
        self._attached = False

    @property
    def recording(self) -> Recording:
        """What the last fit recorded with.

        Raises
        ------
        RecordingError
            If nothing was recorded yet.
        """
        if self._recording is None:
            raise RecordingError("nothing is recorded yet: train first.")
        return self._recording

    @property
    def run(self) -> Run:
        """The run as it is now.

        Raises
        ------
        RecordingError
            If nothing was recorded yet.
        """
        if self._path is not None and (self._recording is None or not self._is_its_folder(self._recording.path)):
            return colordim.open(self._path)
        return self.recording.run

    def _is_its_folder(self, path: str) -> bool:
        return self._path is not None and Path(path).absolute() == Path(self._path).absolute()

    @property
    def options(self) -> Mapping[str, Any]:
        """Those of all fits."""
        return self._options

    @property
    def path(self) -> str | None:
        """Folder of the run; None before the first fit."""
        return self._path

    @property
    def attached(self) -> bool:
        """Whether a fit is being recorded."""
        return self._attached

    def start(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer] = (),
        *,
        agree: Callable[[Any], Any] | None = None,
        unless: Callable[[], bool] | None = None,
        scaler: Any = None,
        **options: Any,
    ) -> None:
        """Attach to a model, in a run of its own the first time, and in that run from then on.

        Parameters
        ----------
        model : Module
        optimizers : sequence of Optimizer
            Those that train it.
        agree : callable, optional
            Returns on every rank what rank 0 has passed to it, so that all of them record where rank 0 does.
        unless : callable, optional
            Nothing is counted where it is true, as :meth:`colordim.Recording.manage` says.
        scaler : GradScaler, optional
            That of the framework, unless one is among the options.
        **options
            Those of this fit, in place of the session's: what only the model tells.

        Raises
        ------
        ColordimError
            As :func:`colordim.record` and :meth:`colordim.Recording.start` do.
        """
        self.stop("interrupted")  # by an exception, of which the framework tells nobody
        options = {"scaler": scaler, **self._options, **options, "optimizer": list(optimizers) or None}
        place = self._place()
        if agree is not None:
            if not place and options.get("resume") is None:
                label = f"{class_name(roots(model)[-1])}-{time.strftime('%Y-%m-%d_%H-%M-%S')}"
                folder = Path(options.get("folder") or Path("runs") / label)
                place = {"folder": str(free_folder(folder.absolute()))}
            place = agree(place)
        if "resume" in place:
            options.pop("resume_at", None)
            if (other := _recordings.pop(Path(place["folder"]).absolute(), None)) is not None:
                other.stop("interrupted")  # of a session that an exception has left, as a new one takes its place
        recording = colordim.record(model, **{**options, **place})
        recording.start().manage(unless)
        self._recording, self._attached = recording, True
        self._path = recording.path or None
        if self._path is not None:
            _recordings[Path(self._path).absolute()] = recording

    def _place(self) -> dict[str, Any]:
        """Return where the run goes on, in options of :func:`colordim.record`; nothing if one is to begin."""
        if self._position is None or self._path is None:
            return {}
        why, mine = "is not there any more", recorded(self._options.get("ranks", "all"))
        if (Path(self._path) / files.RUN).exists():
            ranks = [read_json(path) for path in Path(self._path).glob(f"rank=*/{files.RANK_FILE}")]
            there = {rank["world_size"] for rank in ranks if "world_size" in rank}
            if mine is None or there <= {mine.world_size}:
                return {"folder": self._path, "resume": self._position}
            why = f"was recorded by {max(there)} ranks, and this training has {mine.world_size}"
        warnings.warn(
            with_page(f"colordim: the run {self._path} {why}, so another one is begun.", "resume"), stacklevel=3
        )
        return {}

    def begin(self, phase: Phase) -> None:
        """Open the window of a batch; one that is open was left by an exception, and is forgotten."""
        if self._attached:
            self.discard()
            self.recording.begin(phase)
            self._open = True

    def expect(self, phase: Phase, when: Callable[[], bool] | None = None) -> None:
        """Let the next layer that runs (while `when` is true) open the window of a batch, as no event tells that it begins."""
        if self._attached:
            self.discard()
            self.recording.expect(phase, when)
            self._open = True

    def forward_over(self) -> None:
        """Count no further outputs into the batch that is open."""
        if self._open:
            self.recording.forward_over()

    def commit(self) -> None:
        """Keep the batch that is open, if one is."""
        if self._open:
            self._open = False
            self.recording.commit()

    def discard(self) -> None:
        """Forget the batch that is open, if one is."""
        if self._open:
            self._open = False
            self.recording.discard()

    def epoch(self) -> None:
        """Mark the border between two epochs."""
        if self._attached:
            self.recording.epoch()

    def log(self, **values: Any) -> None:
        """Log numbers with the batch that is open, or the last one."""
        if self._attached:
            self.recording.log(**values)

    def wants_stop(self) -> bool:
        """Return whether ``on_finding="stop"`` has found a problem; on every rank what rank 0 has found.

        To be asked on all ranks alike, after the same batches.
        """
        if not telling.wants_stop(self._options.get("on_finding")) or os.environ.get("COLORDIM", "").lower() == "off":
            return False
        return _any_rank(self._attached and self.recording.stopped_by is not None)

    def stop(self, reason: str = "stopped") -> None:
        """Detach from the model, and forget a batch that is open; a second call does nothing."""
        if not self._attached:
            return
        self.discard()
        self._attached = False
        try:
            self._position = self.recording.state_dict() or None
        except ColordimError:
            self._position = None
        self.recording.stop(reason)
        if self._path is not None:
            _recordings.pop(Path(self._path).absolute(), None)

    def state_dict(self) -> dict[str, Any]:
        """Return where the recording is, for a checkpoint; empty before the first fit."""
        if self._attached:
            return self.recording.state_dict()
        return dict(self._position or {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next fit go on where a checkpoint was saved: what was recorded later is cut off, and kept aside.

        A state of nothing but ``run`` says where the run is, and the next fit begins another.
        """
        if state:
            self._path, self._position = str(state["run"]), dict(state) if len(state) > 1 else None

    def __getstate__(self) -> dict[str, Any]:
        options = {
            **self._options,
            "log_to": portable(self._options.get("log_to")),
            "on_finding": telling.portable(self._options.get("on_finding")),
        }
        return {**Session(**options).__dict__, "_path": self._path}

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        copy = Session.__new__(Session)
        copy.__dict__.update(self.__getstate__())
        return copy


def _any_rank(mine: bool) -> bool:
    """Return whether it is so on any rank: none may stop alone, as the others would wait for it."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return mine
    on_host = "nccl" not in torch.distributed.get_backend()
    flag = torch.tensor(int(mine), device="cpu" if on_host else torch.device("cuda", torch.cuda.current_device()))
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag.item())
