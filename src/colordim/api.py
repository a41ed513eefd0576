"""The public face: wires the recorder, a store and the views together."""

from __future__ import annotations

import fnmatch
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.column import Stream
from colordim.diagnosis.muting import project_mute
from colordim.errors import ArgumentError, DependencyError, SelectionError
from colordim.handle import Recording, attached
from colordim.publish.live import Live
from colordim.publish.target import targets
from colordim.publish.telling import OnFinding, tellers
from colordim.publish.watch import Watch
from colordim.resuming import as_resume
from colordim.store.place import is_url
from colordim.store.ranks import RunReader
from colordim.store.writer import FolderWriter
from colordim.views import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    run, position = as_resume(resume, resume_at, folder)
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
    for recorder in attached:
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


def _axis(value: tuple[float, float] | Axis, bins: int) -> Axis:
    if isinstance(value, Axis):
        return value
    try:
        low, high = value
    except (TypeError, ValueError):
        raise ArgumentError(f"a range is two numbers, its lowest and its highest value, not {value!r}.") from None
    return LinearAxis(low, high, bins)


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatch.fnmatchcase(name, pattern)


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
