"""The public face: wires the recorder, a store and the views together."""

from __future__ import annotations

import atexit
import fnmatch
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from colordim import termination
from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.column import Phase, Stream
from colordim.diagnosis.finding import Finding
from colordim.diagnosis.muting import project_mute
from colordim.diagnosis.text import in_a_line
from colordim.errors import ArgumentError, DependencyError, RecordingError, SelectionError, TrainingStopped
from colordim.publish.live import Live
from colordim.publish.target import targets
from colordim.publish.telling import OnFinding, Teller, Telling, tellers
from colordim.publish.watch import Watch
from colordim.store.disk import create
from colordim.store.files import RUN, rank_name
from colordim.store.memory import MemoryStore
from colordim.store.place import is_url
from colordim.store.ranks import RunReader
from colordim.store.resume import Resume, declared
from colordim.store.writer import FolderWriter
from colordim.views import Run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from torch import nn
    from torch.optim import Optimizer

    from colordim.recording.facets import FacetsOf
    from colordim.recording.kinds import Kinds
    from colordim.recording.ranks import Choice
    from colordim.recording.recorder import Recorder
    from colordim.recording.select import Layers

__all__ = ["Recording", "observe", "open", "record"]

T = TypeVar("T")
Range = tuple[float, float] | Axis | Mapping[str, tuple[float, float] | Axis] | None

# Bytes that a rank of a run may be limited to.
_LEAST_BYTES = 1_000_000
# Recorders that are attached in this process, for observe().
_attached: list[Recorder] = []
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
        _attached.append(self._recorder)
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
        if self._recorder in _attached:
            _attached.remove(self._recorder)
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
                page="resume#with-a-checkpoint",
            )
        attempt = self._info["rank"].get("attempt")
        named, position = _as_resume(state, None, None)
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


def record(
    model: nn.Module | None,
    *,
    folder: str | os.PathLike[str] | None = None,
    layers: Layers = None,
    kinds: Kinds = ("activation",),
    range: Range = None,
    bins: int = 200,
    every: int = 1,
    budget: float | None = None,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    scaler: Any = None,
    facets: Mapping[str, FacetsOf] | None = None,
    max_bytes: float | None = 4e9,
    name: str | None = None,
    ranks: Choice = "all",
    scratch: str | os.PathLike[str] | None = None,
    resume: Literal["auto"] | str | os.PathLike[str] | Run | Mapping[str, Any] | None = None,
    resume_at: int | None = None,
    log_to: Any = None,
    on_finding: OnFinding = None,
) -> Recording:
    """Record the histogram of every batch of every layer while `model` trains.

    Parameters
    ----------
    model : torch.nn.Module or None
        It trains bit for bit as without recording. None records what :func:`observe` is given between
        :meth:`Recording.begin` and :meth:`Recording.commit`, for models of other libraries (JAX).
    folder : path, optional
        Folder of the run, to be created. By default one of its own below ``runs``. If it holds a
        run already, a number is added to its name, unless that run is resumed. In a distributed training it must be the same on
        all ranks, and a folder that another training has recorded into is refused.
    layers : str, type, callable or a sequence of them, optional
        Names or patterns of layers, classes, or functions of name and module; ``"blocks"`` adds the
        repeated blocks to the leaves. By default all leaf modules.
    kinds : str, sequence of str, or mapping of str to int
        What to record of the layers: ``activation`` (their outputs), ``gradient`` (of their outputs), ``weight``,
        ``weight_gradient`` and ``update`` (what the optimiser has changed), or "all". A mapping says every how many
        recorded batches, such as ``{"activation": 1, "weight": 10, "update": 10}``.
    range : (float, float), Axis, or mapping of layer pattern to either, optional
        Counts activations into `bins` equal bins over that range, instead of buckets over all magnitudes.
    bins : int
        Number of bins of a range.
    every : int
        Record every n-th batch of each phase.
    budget : float, optional
        Share of the training time that recording may cost, such as 0.05: what it costs is measured, and every
        2nd, 4th, 8th, ... batch recorded so that it holds. By default every batch is, whatever it costs.
    optimizer : Optimizer or sequence of Optimizer, optional
        Counts optimiser steps, which differ from batches under gradient accumulation, and logs ``lr`` (``lr_1``, ...
        of further parameter groups). At its steps parameters are read; ``update`` takes one more copy of them.
    scaler : GradScaler, optional
        Gradients of outputs are divided by its scale; without it, they are recorded as the scaled loss gives them.
        Gradients of weights have no scale left at the optimiser's step.
    facets : mapping of layer pattern to str, sequence of str, or mapping, optional
        Layers of which parts are recorded besides the whole, as streams named ``head[3]``: by ``"class"`` (the last
        dimension of ``[N, C]`` and ``[N, T, C]``, dimension 1 of ``[N, C, H, W]``), also as the names of the classes,
        by ``"channel"``, or by any dimension, ``{"dim": 1, "names": [...]}``. A layer has up to 128 of them.
    max_bytes : float, optional
        Bytes that the run may take on the disk, all ranks together. Beyond that the oldest batches are dropped and
        sums of 4, 16, ... of them kept, which charts then show. None sets no limit.
    name : str, optional
        Name of the run; by default that of its folder.
    ranks : {"all", "node", "first"}
        Which ranks of a distributed training record: all, the first of each machine, or rank 0. On the others
        the recording does nothing.
    scratch : path, optional
        A folder on a disk of this machine, for clusters whose shared file system is slow or fails at times: the run is
        recorded there, and copied to `folder` a part at a time, at least every minute. Everything is in `folder` when the
        recording stops.
    resume : "auto", path, Run or dict, optional
        Go on in a run: the one that `folder` holds, if it does ("auto"), or the one that is named. What
        :meth:`Recording.state_dict` has put into a checkpoint goes on exactly behind that: what was recorded later is
        cut off, and kept in ``cut-0001`` of the run's folder. Otherwise all that was recorded stays.
    resume_at : int, optional
        Number of training batches that the checkpoint has seen, where it has no ``state_dict()``: what was recorded
        from the next one on is cut off.
    log_to : str, SummaryWriter, wandb.Run, or a sequence of them, optional
        Where to publish each epoch when it is over, on rank 0: ``"tensorboard"`` and ``"csv"`` write into the folder of the
        run, ``"tensorboard:some/folder"`` elsewhere; ``"wandb"`` logs to the active W&B run, or to one that it begins,
        in ``"wandb:some-project"`` if that is said. See docs/exports.md.
    on_finding : {"log", "warn", "stop"}, callable, or a sequence of them, optional
        Diagnose the run while it is recorded, in a thread that takes less than a millisecond a batch, on rank 0, and say
        what is wrong, each thing once: to the logger ``colordim``, in a :class:`ColordimWarning`, or to a function that
        takes the :class:`~colordim.diagnosis.Finding`, called by that thread. ``"stop"`` stops the training for a problem:
        the next training batch raises :class:`TrainingStopped`; see docs/diagnose.md.

    Returns
    -------
    Recording
        To be entered (``with colordim.record(model) as rec:``) or started. With the environment
        variable ``COLORDIM=off`` it does nothing.

    Raises
    ------
    SelectionError
        If the model has nothing to record, or a pattern matches no layer.
    AxisError
        If a range is empty or without bins.
    ArgumentError
        If `every` is below one, `budget` is no share, `max_bytes` is below a megabyte a rank, a kind is unknown, or needs an optimizer and there is none;
        if several ranks record and nothing tells all of them the same folder; if `resume` and `resume_at` do not
        say where to go on; if nothing can be published to what `log_to` names; or if `on_finding` is none of its values.
    DependencyError
        If torch is not installed, or the package that `log_to` needs.
    """
    if os.environ.get("COLORDIM", "").lower() == "off":
        return Recording(None, Path(), {"name": name or "off"})
    try:
        from colordim.recording import ranks as distributed
        from colordim.recording.facets import as_rules
        from colordim.recording.first_batch import FirstBatch
        from colordim.recording.governor import Governor
        from colordim.recording.kinds import as_kinds
        from colordim.recording.recorder import Recorder
        from colordim.recording.scaling import Scale
        from colordim.recording.select import Observed, class_name, nearest, roots, select
    except ImportError as error:
        raise DependencyError(
            'recording needs PyTorch, which is not installed: pip install "colordim[torch]".'
        ) from error
    if not isinstance(every, (int, float)) or every != int(every) or every < 1:
        raise ArgumentError(
            f"every={every!r} cannot be: record every n-th batch with a whole number n of at least one."
        )
    for argument, path in (("folder", folder), ("scratch", scratch)):
        if path is not None and is_url(path):
            raise ArgumentError(
                f"{argument}={path!r} is an address, and a run is recorded into a folder: record there, and copy it.",
                page="remote#copying-a-run-there",
            )
    Governor(budget)
    published = targets(log_to)
    told = tellers(on_finding)
    mute = project_mute() if told or published else ()
    run, position = _as_resume(resume, resume_at, folder)
    if range is None and bins != 200:
        raise ArgumentError(f"bins={bins} needs a range: give one such as range=(-10, 10), or leave bins out.")
    if model is None and not (layers is None and optimizer is None and scaler is None and facets is None):
        raise ArgumentError(
            "record(None) has no layers and no parameters, but what observe() is given: leave layers=, optimizer=, scaler= "
            "and facets= out.",
            page="frameworks",
        )
    selected = [] if model is None else select(model, layers)
    model = Observed() if model is None else model
    names = [target.name for target in selected]
    axes = {pattern: _axis(value, bins) for pattern, value in range.items()} if isinstance(range, Mapping) else {}
    default = SignedLogAxis() if range is None or isinstance(range, Mapping) else _axis(range, bins)
    for pattern in axes:
        if not any(_matches(layer, pattern) for layer in names):
            raise SelectionError(f"no recorded layer matches {pattern!r} of range=; {nearest(pattern, names)}.")

    def axis_of(stream: str) -> Axis:
        return next((axis for pattern, axis in axes.items() if _matches(stream, pattern)), default)

    optimizers: list[Optimizer] = []
    if optimizer is not None:
        optimizers = list(optimizer) if isinstance(optimizer, (list, tuple)) else [cast("Optimizer", optimizer)]
        optimizers = [_bare(each) for each in optimizers]
    for each in optimizers:
        if not hasattr(each, "register_step_post_hook"):
            raise ArgumentError(
                f"optimizer takes torch optimisers, not {each!r}: pass the one that trains the model.",
                page="kinds#parameters",
            )

    recorded = as_kinds(kinds, bool(optimizers))
    if isinstance(model, Observed) and list(recorded) != ["activation"]:
        raise ArgumentError(
            "record(None) records what observe() is given, as activations: leave kinds= out.", page="frameworks"
        )
    Scale(scaler)

    rules = as_rules(facets, selected)
    first = FirstBatch(model, selected, optimizers)

    def check(streams: Sequence[Stream]) -> None:
        for stream in streams:
            axis = axis_of(stream.facet.of if stream.facet else stream.name)
            if stream.kind == "activation" and stream.axis != axis:
                raise ArgumentError(
                    f"the run counts {stream.name!r} on {stream.axis}, and this recording would on {axis}: resume with the "
                    "range= and bins= of the run, or record into another folder.",
                    page="resume#what-is-cut-off-is-kept",
                )

    def make_recorder(writer: FolderWriter) -> Recorder:
        return Recorder(
            model,
            selected,
            writer,
            axis_of,
            every=int(every),
            budget=budget,
            optimizers=optimizers,
            kinds=recorded,
            scaler=scaler,
            first=first,
            facets=rules,
            position=writer.position,
            alarm=watch.alarm if watch else None,
        )

    label = class_name(roots(model)[-1])  # not that of a wrapper
    mine = distributed.recorded(ranks)
    if mine is None:
        idle = f"this rank does not record, as ranks={ranks!r}: read the run on rank 0, or open its folder."
        return Recording(None, Path(), {}, idle=idle)
    if max_bytes is not None and not max_bytes / mine.world_size >= _LEAST_BYTES:
        raise ArgumentError(
            f"max_bytes={max_bytes!r} cannot be: give at least {_LEAST_BYTES:,} bytes for each rank, or None for no limit.",
            page="options#max_bytes",
        )
    job = distributed.job() if mine.world_size > 1 else None
    attempt = distributed.attempt() if mine.world_size > 1 else None
    if run is not None:
        path = run
    elif folder is not None:
        path = Path(folder)
        if mine.world_size > 1:
            path = path.with_name(path.name + distributed.restart(sure=True))
    elif mine.world_size == 1:
        path = Path("runs") / f"{label}-{time.strftime('%Y-%m-%d_%H-%M-%S')}"
    elif job is not None:
        path = Path("runs") / f"{label}-{job}"
    else:
        raise ArgumentError(
            f"{mine.world_size} ranks record, and nothing tells all of them the same folder: pass the same folder= on each.",
            page="ranks#which-rank-which-folder",
        )
    info = {
        **({"name": name} if name else {}),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "rank": {**asdict(mine), **({"attempt": attempt} if attempt else {})},
        **({"job": job} if job else {}),
        "every": int(every),
        "budget": budget,
        "kinds": recorded,
        "model": {
            "class": label,
            "parameters": sum(parameter.numel() for parameter in model.parameters() if not _is_lazy(parameter)),
            "layers": names,
            **first.facts,
        },
    }
    watch = Watch(mute) if (told or published) and mine.rank == 0 else None
    return Recording(
        make_recorder,
        path,
        info,
        rank=mine.rank if mine.world_size > 1 else None,
        max_bytes=None if max_bytes is None else int(max_bytes / mine.world_size),
        scratch=scratch,
        resume=None if position is None else replace(position, attempt=attempt),
        anew=resume == "auto" or resume == {},
        check=check,
        live=Live(published, lambda: watch.diagnosis if watch else None) if published and mine.rank == 0 else None,
        watch=watch,
        told=told,
    )


def observe(name: str, tensor: T) -> T:
    """Count a tensor that no hook sees, inside a model that is being recorded.

    Parameters
    ----------
    name : str
        Name of its stream.
    tensor : Tensor or array
        Counted at once; it may be changed afterwards.

    Returns
    -------
    Tensor or array
        The same object, so that an expression can be observed in place. Without a recording, or
        outside of a batch, nothing else happens.
    """
    for recorder in _attached:
        recorder.observe(name, tensor)
    return tensor


def open(path: str | os.PathLike[str]) -> Run:
    """Open a recorded run for reading, also while it is being written. Needs no torch.

    Parameters
    ----------
    path : path-like or str
        Folder of the run, or its address: ``s3://bucket/run``, ``gs://``, ``az://``, or any other that fsspec
        reads. Credentials and endpoints are those of fsspec and of the clouds' own tools (docs/remote.md).

    Raises
    ------
    NotARunError
        If there is no run at `path`.
    FormatError
        If it was written by a newer colordim, or its description is damaged.
    StoreError
        If an address cannot be reached, or not with the credentials that are there.
    DependencyError
        If the package for an address is not installed.
    ArgumentError
        If it is an address of a kind that fsspec does not know.
    """
    return Run(RunReader(path))


def _bare(optimizer: Optimizer) -> Optimizer:
    """Return the optimiser that takes the steps, inside of those that Accelerate puts around it."""
    while not hasattr(optimizer, "_optimizer_step_post_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _as_resume(
    resume: str | os.PathLike[str] | Run | Mapping[str, Any] | None,
    resume_at: int | None,
    folder: str | os.PathLike[str] | None,
) -> tuple[Path | None, Resume | None]:
    """Return the folder of the run to be resumed, and where to go on; None for a new run.

    Raises
    ------
    ArgumentError
        If the arguments do not fit together.
    """
    if resume_at is not None:
        if not isinstance(resume_at, int) or isinstance(resume_at, bool) or resume_at < 0:
            raise ArgumentError(
                f"resume_at={resume_at!r} cannot be: it is the number of training batches that the checkpoint has seen.",
                page="resume#with-a-checkpoint",
            )
        if resume is None:
            raise ArgumentError(
                f'resume_at={resume_at} needs the run to be resumed: pass resume="auto" or its folder.',
                page="resume#with-a-checkpoint",
            )
    if resume is None:
        return None, None
    wanted = Resume(train=resume_at)
    if isinstance(resume, Mapping) and resume:
        if resume_at is not None:
            raise ArgumentError(
                "resume= says already where to go on: leave resume_at= out.", page="resume#with-a-checkpoint"
            )
        wanted = Resume.from_state(resume)
        named = resume.get("run") if folder is None else folder  # the run may have been moved
    elif isinstance(resume, Mapping) or resume == "auto":
        if folder is None and resume == "auto":
            raise ArgumentError(
                'resume="auto" needs the folder that the run is in, if there is one: pass folder=.',
                page="resume#with-a-checkpoint",
            )
        if folder is None:  # the checkpoint was saved without a recording
            return None, None
        named = folder
    else:
        named = resume.path if isinstance(resume, Run) else resume
        if folder is not None and Path(folder).absolute() != Path(named).absolute():
            raise ArgumentError(
                f"resume={str(named)!r} and folder={str(folder)!r} are two runs: leave folder= out.",
                page="resume#with-a-checkpoint",
            )
    if not isinstance(named, (str, os.PathLike)) or not str(named):
        raise ArgumentError(
            f"resume={resume!r} names no run in a folder: pass its folder.", page="resume#with-a-checkpoint"
        )
    return Path(named), wanted


def _axis(value: tuple[float, float] | Axis, bins: int) -> Axis:
    if isinstance(value, Axis):
        return value
    try:
        low, high = value
    except (TypeError, ValueError):
        raise ArgumentError(f"a range is two numbers, its lowest and its highest value, not {value!r}.") from None
    return LinearAxis(low, high, bins)


def free_folder(path: Path) -> Path:
    """Return `path`, or the first of path-2, path-3, ... if it holds a run: no run is ever overwritten."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(each for each in chain([path], numbered) if not (each / "run.json").exists())


def _shared_folder(path: Path) -> Path:
    """Return `path`, and for further recordings of this process path-2, path-3, ...: on every rank alike."""
    _begun[path.absolute()] += 1
    number = _begun[path.absolute()]
    return path if number == 1 else path.with_name(f"{path.name}-{number}")


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


def describe(error: BaseException) -> str:
    """Return why a recording ended that an exception has ended: its class, and the first line of its message."""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("colordim", "torch", "numpy", "pyarrow"):
        # A module says more of itself than its installation does: torch's build (+cpu, +cu130).
        loaded = getattr(sys.modules.get(package), "__version__", None)
        try:
            found[package] = str(loaded or version(package))
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def _is_lazy(parameter: Any) -> bool:
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(parameter))
