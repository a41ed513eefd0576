"""The handle of a training that is being recorded: what begins, marks and ends a recording."""

from __future__ import annotations

import atexit
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colordim import termination
from colordim.column import Phase, Stream
from colordim.diagnosis.finding import Finding
from colordim.diagnosis.text import in_a_line
from colordim.errors import RecordingError, TrainingStopped
from colordim.publish.live import Live
from colordim.publish.telling import Teller, Telling
from colordim.publish.watch import Watch
from colordim.resuming import AT_A_CHECKPOINT, as_resume
from colordim.store.disk import create
from colordim.store.files import RUN, rank_name
from colordim.store.memory import MemoryStore
from colordim.store.ranks import RunReader
from colordim.store.resume import Resume, declared
from colordim.store.writer import FolderWriter
from colordim.views import Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from colordim.recording.recorder import Recorder

__all__ = ["Recording", "attached", "describe", "free_folder"]

#: Recorders that are attached in this process, for observe().
attached: list[Recorder] = []
# How many recordings of this process, on one of several ranks, were meant for a folder.
_begun: Counter[Path] = Counter()


class Recording:
    """A training being recorded; made by :func:`record`.

    As a context manager it starts on entering and stops on leaving; :meth:`start` and :meth:`stop`
    do the same by hand.
    """

    def __init__(
        self,
        make_recorder: Callable[[FolderWriter], Recorder] | None,
        folder: Path,
        info: dict[str, Any],
        *,
        rank: int | None = None,
        max_bytes: int | None = None,
        idle: str = "",
        scratch: str | os.PathLike[str] | None = None,
        resume: Resume | None = None,
        anew: bool = False,
        check: Callable[[Sequence[Stream]], None] = lambda _: None,
        live: Live | None = None,
        watch: Watch | None = None,
        told: Sequence[Teller] = (),
    ) -> None:
        self._make_recorder = make_recorder
        self._rank = rank  # None unless several ranks record
        self._max_bytes = max_bytes
        self._idle = idle  # why this rank has no run
        self._resume = resume
        self._anew = anew  # whether a run is begun if there is none to be resumed
        self._check = check  # whether streams of a run can be gone on with
        self._live = live
        self._watch = watch
        self._told = told
        self._stopped_by: Finding | None = None
        self._folder = folder
        self._info = info
        self._scratch = scratch
        self._recorder: Recorder | None = None
        self._terminable: _Terminable | None = None
        self._run: Run | None = None

    def __enter__(self) -> Recording:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop("stopped" if error is None else describe(error))

    def start(self) -> Recording:
        """Create the run's folder, or go on in the one that is there, and attach the hooks.

        Raises
        ------
        StoreError
            If the folder or the scratch folder cannot be created or written, or the run to be resumed is being recorded.
        NotARunError
            If there is no run to be resumed.
        ArgumentError
            If the run to be resumed has a stream on another axis, or nothing tells all ranks where to go on.
        RecordingError
            If the recording was started before.
        """
        if self._make_recorder is None:
            return self
        if self._recorder is not None:
            raise RecordingError("a recording is started once: begin another with colordim.record(...).")
        wanted = self._folder
        if self._resume is None:
            self._folder = free_folder(wanted) if self._rank is None else _shared_folder(wanted)
        part = self._folder if self._rank is None else self._folder / rank_name(self._rank)
        self._info.setdefault("name", self._folder.name)
        resume = self._resume
        if resume is not None and self._anew and not (self._folder / RUN).exists():
            if resume.train:
                create(part, self._info)
            else:
                resume = None
        if resume is not None:
            self._check(declared(part))
        writer = FolderWriter(part, self._info, resume, max_bytes=self._max_bytes, scratch=self._scratch)
        self._recorder = self._make_recorder(writer)
        self._recorder.attach()
        for sentence in writer.said:
            self._recorder.notices.say(sentence, sentence)
        if self._folder != wanted and not self._rank:  # once, not on every rank
            self._recorder.notices.say("folder", f"{wanted} holds a run already, so this one is in {self._folder}.")
        attached.append(self._recorder)
        atexit.register(self.stop, "the process ended")
        self._terminable = _Terminable(self._recorder, writer)
        termination.watch(self._terminable)
        if self._watch is not None:
            say = self._recorder.notices.say
            telling = Telling(self._told, self._halt, say, writer.position.index["train"])
            self._watch.start(self._folder, self._recorder, telling, say)
        if self._live is not None:
            recorder = self._recorder
            self._live.start(self._folder, writer.position.batch, lambda: recorder.current_epoch, recorder.notices.say)
        return self

    def stop(self, reason: str = "stopped") -> None:
        """Detach everything and finish the run; a second call does nothing."""
        if self._recorder is None:
            return
        self._recorder.detach(reason)
        if self._recorder in attached:
            attached.remove(self._recorder)
        atexit.unregister(self.stop)
        if self._terminable is not None:
            termination.unwatch(self._terminable)
        if self._watch is not None:
            self._watch.stop()
        if self._live is not None:
            self._live.stop()

    def _halt(self, finding: Finding) -> None:
        """Ask the training to stop; called by the thread that diagnoses."""
        self._stopped_by = finding
        if self._recorder is None:
            return
        sentence = f'on_finding="stop" has stopped the training. {in_a_line(finding)}'
        if self._recorder.managed:
            self._recorder.notices.say("stop", sentence)
        else:
            self._recorder.halt = TrainingStopped(
                f'{sentence} What was recorded is in {self._folder}; to train on all the same, leave "stop" out, or mute '
                f"{finding.symptom} in pyproject.toml.",
                finding,
                finding.page,
            )

    @property
    def stopped_by(self) -> Finding | None:
        """The problem for which ``on_finding="stop"`` wants the training to stop; None as long as there is none.

        In a plain loop the next training batch raises :class:`colordim.TrainingStopped`; loops of frameworks, which open
        batches after :meth:`manage`, are to look here.
        """
        return self._stopped_by

    @property
    def diagnosis_ms(self) -> float:
        """What diagnosing beside the training has taken so far: milliseconds of processor time a batch, on average."""
        return 0.0 if self._watch is None else self._watch.milliseconds

    @property
    def path(self) -> str:
        """Folder of the run."""
        return "" if self._make_recorder is None else str(self._folder)

    @property
    def run(self) -> Run:
        """The run as it is now, of all ranks; after :meth:`stop`, all that this rank has recorded.

        Raises
        ------
        RecordingError
            If nothing is recorded yet, or this rank does not record.
        """
        if self._idle:
            raise RecordingError(self._idle)
        if self._make_recorder is None:
            self._run = self._run or Run(MemoryStore(self._info))
            return self._run
        if self._recorder is None:
            raise RecordingError("nothing is recorded yet: enter the recording, or call its start().")
        self._recorder.flush()
        self._run = self._run.refresh() if self._run else Run(RunReader(self._folder))
        return self._run

    @property
    def notices(self) -> tuple[str, ...]:
        """What the recording had to say: what was not recorded, and why."""
        return self._recorder.notices.said if self._recorder else ()

    @contextmanager
    def batch(self, phase: Phase = "train") -> Iterator[None]:
        """Take all calls inside the ``with`` block for one batch of `phase`.

        After the first such block nothing outside of one is counted. A block that is left by an
        exception is not kept.
        """
        self.begin(phase)
        try:
            yield
        except BaseException:
            self.discard()
            raise
        self.commit()

    def manage(self, unless: Callable[[], bool] | None = None) -> Recording:
        """Take for batches only what lies between :meth:`begin` and :meth:`commit`, and pass over the rest without a word.

        For callbacks of a framework, around whose batches the model runs for other reasons too: sanity checks, learning
        rate finders, predictions.

        Parameters
        ----------
        unless : callable, optional
            Is asked for each output between the two; where it returns true, as while text is generated, nothing is
            counted.
        """
        if self._recorder is not None:
            self._recorder.manage(unless)
        return self

    def begin(self, phase: Phase = "train") -> None:
        """Open a batch of `phase`, where the two ends of :meth:`batch` lie in two functions: callbacks of a framework.

        From the first one on nothing outside of a batch is counted.

        Raises
        ------
        ArgumentError
            If there is no such phase.
        RecordingError
            If a batch that was opened here is open.
        TrainingStopped
            If there is a problem, and :func:`record` was asked to stop the training for one.
        """
        if self._recorder is not None:
            if phase == "train":
                self._recorder.stop_here()
            self._recorder.begin(phase)

    def expect(self, phase: Phase = "valid", when: Callable[[], bool] | None = None) -> None:
        """Open a batch of `phase` as soon as a layer runs, for frameworks that do not tell where one begins.

        Until then, what is logged belongs to the batch before. :meth:`commit` opens it if no layer ran, and
        :meth:`discard` forgets that one was expected.

        Parameters
        ----------
        phase : {"train", "valid"}
        when : callable, optional
            Outputs for which it returns false do not open the batch.
        """
        if self._recorder is not None:
            self._recorder.expect(phase, when)

    def commit(self) -> None:
        """Close the batch that :meth:`begin` opened, and keep it."""
        if self._recorder is not None:
            self._recorder.commit()

    def discard(self) -> None:
        """Close the batch that :meth:`begin` opened, and forget it."""
        if self._recorder is not None:
            self._recorder.discard()

    def forward_over(self) -> None:
        """Count no further outputs into the batch that is open, but what its backward pass and its step bring."""
        if self._recorder is not None:
            self._recorder.forward_over()

    def state_dict(self) -> dict[str, Any]:
        """Return where the recording is, for the checkpoint of the training: ``record(resume=...)`` goes on from there.

        To be called after the optimiser's step and what is logged of it, outside of :meth:`batch`. The batches up to
        there are on the disk when it returns.

        Returns
        -------
        dict
            Of JSON types: ``run``, its folder; ``train`` and ``valid``, how many batches of each phase are over; and the
            epoch and the steps so far. Empty where nothing is recorded (``COLORDIM=off``, ranks that do not record).

        Raises
        ------
        RecordingError
            If the recording was not started.
        """
        if self._make_recorder is None:
            return {}
        if self._recorder is None:
            raise RecordingError("nothing is recorded yet: enter the recording, or call its start().")
        state = self._recorder.state()
        return {"run": str(self._folder.absolute()), "rank": self._rank or 0, **state} if state else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint when the recording starts, as ``record(resume=state)`` does.

        For what keeps objects with this method in its checkpoints: ``accelerator.register_for_checkpointing(rec)``.

        Parameters
        ----------
        state : dict
            What :meth:`state_dict` has returned. Where its run is not there any more, the one in the recording's
            own folder is gone on with; where it is empty, a new run is begun.

        Raises
        ------
        RecordingError
            If the recording was started before.
        """
        if self._make_recorder is None or not state:
            return
        if self._recorder is not None:
            raise RecordingError(
                "a recording goes on from a checkpoint as it starts: load the state before that.",
                page=AT_A_CHECKPOINT,
            )
        attempt = self._info["rank"].get("attempt")
        named, position = as_resume(state, None, None)
        if named is not None and position is not None:
            self._resume = replace(position, attempt=attempt)
            self._folder = named if (named / RUN).exists() else self._folder

    def epoch(self) -> None:
        """Mark the border between two epochs, before the first batch of each or after the last.

        Without any such call, a training batch after validation batches begins a new epoch. The first call after a
        resume in the middle of an epoch begins none.
        """
        if self._recorder is not None:
            self._recorder.epoch()

    def log(self, **values: Any) -> None:
        """Log numbers (loss, learning rate, ...) with the current batch.

        Parameters
        ----------
        **values : float or tensor with one element
            What is no number is left out, with a warning.
        """
        if self._recorder is not None:
            self._recorder.log(values)


class _Terminable:
    """What SIGTERM does to a recording, as a :class:`~colordim.termination.Terminable`."""

    def __init__(self, recorder: Recorder, writer: FolderWriter) -> None:
        self._recorder, self._writer = recorder, writer

    def hurry(self, dying: bool) -> None:
        self._recorder.hand_on(dying)
        self._writer.hurry("ended by SIGTERM" if dying else None)

    def wait(self, until: float) -> None:
        self._writer.wait(until)


def free_folder(path: Path) -> Path:
    """Return `path`, or the first of path-2, path-3, ... if it holds a run: no run is ever overwritten."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(each for each in chain([path], numbered) if not (each / "run.json").exists())


def _shared_folder(path: Path) -> Path:
    """Return `path`, and for further recordings of this process path-2, path-3, ...: on every rank alike."""
    _begun[path.absolute()] += 1
    number = _begun[path.absolute()]
    return path if number == 1 else path.with_name(f"{path.name}-{number}")


def describe(error: BaseException) -> str:
    """Return why a recording ended that an exception has ended: its class, and the first line of its message."""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
