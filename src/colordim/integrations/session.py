"""One run over all fits of a training whose loop a framework runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import colordim
from colordim.errors import ColordimError, RecordingError

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from colordim import Recording, Run
    from colordim.column import Phase

__all__ = ["Session"]


class Session:
    """A run that several fits record into, and the windows that the events of a framework open.

    Between fits nothing is attached to the model. A copy of a session, as checkpoints and exports pickle it, is inert:
    it knows where the run is, and records into one of its own if it is started.

    Parameters
    ----------
    **options
        Those of :func:`colordim.record`, without ``optimizer``.
    """

    def __init__(self, **options: Any) -> None:
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
        if self._recording is None and self._path is not None:
            return colordim.open(self._path)
        return self.recording.run

    @property
    def path(self) -> str | None:
        """Folder of the run; None before the first fit."""
        return self._path

    @property
    def attached(self) -> bool:
        """Whether a fit is being recorded."""
        return self._attached

    def start(self, model: nn.Module, optimizers: Sequence[Optimizer] = (), **options: Any) -> None:
        """Attach to a model, in a run of its own the first time, and in that run from then on.

        Parameters
        ----------
        model : Module
        optimizers : sequence of Optimizer
            Those that train it.
        **options
            Those of this fit, in place of the session's: what only the model tells, or its scaler.

        Raises
        ------
        ColordimError
            As :func:`colordim.record` and :meth:`colordim.Recording.start` do.
        """
        self.stop("interrupted")  # by an exception, of which the framework tells nobody
        options = {**self._options, **options, "optimizer": list(optimizers) or None}
        if self._position is not None and self._path is not None:
            if (Path(self._path) / "run.json").exists():
                options.update(folder=self._path, resume=self._position)
                options.pop("resume_at", None)
            else:
                warnings.warn(
                    f"colordim: the run {self._path} is not there any more, so another one is begun.", stacklevel=2
                )
        recording = colordim.record(model, **options)
        recording.start().manage()
        self._recording, self._attached = recording, True
        self._path = recording.path or None

    def begin(self, phase: Phase) -> None:
        """Open the window of a batch; one that is open was left by an exception, and is forgotten."""
        if self._attached:
            self.discard()
            self.recording.begin(phase)
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

    def state_dict(self) -> dict[str, Any]:
        """Return where the recording is, for a checkpoint; empty before the first fit."""
        if self._attached:
            return self.recording.state_dict()
        return dict(self._position or {})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next fit go on where a checkpoint was saved: what was recorded later is cut off, and kept aside."""
        if state:
            self._path, self._position = str(state["run"]), dict(state)

    def __getstate__(self) -> dict[str, Any]:
        return {**Session(**self._options).__dict__, "_path": self._path}

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        copy = Session.__new__(Session)
        copy.__dict__.update(self.__getstate__())
        return copy
