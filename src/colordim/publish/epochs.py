"""What is published of an epoch: exact sums over its batches, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from colordim import statistics
from colordim.column import COUNTERS, KINDS, PHASES, Kind, Phase, Stream
from colordim.diagnosis.finding import Diagnosis
from colordim.errors import ArgumentError
from colordim.store.base import Block
from colordim.store.place import is_url
from colordim.store.pyramid import coarsest_level
from colordim.views import Run

__all__ = ["NEAR_ZERO", "Epoch", "Layer", "Span", "folder_of", "layers", "layers_of_batches", "spans"]

#: Near zero is ``|x|`` up to this, the threshold of fastai's ``ActivationStats``.
NEAR_ZERO = 0.05
#: Columns in which an epoch is read, at least, where sums of batches make it up.
_COLUMNS = 16

Extent = tuple[int, int]


@dataclass(frozen=True)
class Span:
    """The batches of an epoch.

    Attributes
    ----------
    epoch : int
    last : int
        Number of its last batch over all phases.
    step : int
        Index of the last training batch by then, as a training loop counts its steps; of the last validation batch
        where nothing has been trained.
    time : float
        Seconds since the epoch of the clock, at the end of its last batch.
    extents : mapping of str to (int, int)
        First batch of each phase in it, by index, and one past the last.
    partial : bool
        Whether ranks lack batches of it.
    """

    epoch: int
    last: int
    step: int
    time: float
    extents: Mapping[Phase, Extent]
    partial: bool


@dataclass(frozen=True)
class Layer:
    """What was counted of a stream in some adjacent batches of an epoch.

    Attributes
    ----------
    stream : Stream
    phase : {"train", "valid"}
    epoch : int
    first, last : int
        First and last batch, by their index within the phase.
    number : int
        Recorded batches, of which this is the sum.
    counts : ndarray of int64, shape ``[bins]``
    counters : mapping of str to int
        :data:`colordim.column.COUNTERS`.
    sum, sum_sq, min, max : float
        Over the finite values; `min` is +inf and `max` is -inf where there is none.
    dead : float
        Share of the layer's units that were not active even once in the window of batches that the epoch ends in; NaN
        if that is not known.
    """

    stream: Stream
    phase: Phase
    epoch: int
    first: int
    last: int
    number: int
    counts: npt.NDArray[np.int64]
    counters: Mapping[str, int]
    sum: float
    sum_sq: float
    min: float
    max: float
    dead: float = float("nan")

    @property
    def finite(self) -> int:
        """Number of finite values."""
        return int(statistics.finite(*(self.counters[name] for name in ("size", "nan", "pos_inf", "neg_inf"))))

    @property
    def mean(self) -> float:
        """Mean of the finite values, NaN without any."""
        return float(statistics.mean(self.sum, self.finite))

    @property
    def std(self) -> float:
        """Standard deviation of the finite values, NaN without any."""
        return float(statistics.std(self.sum, self.sum_sq, self.finite))

    @property
    def near_zero(self) -> float:
        """Share of all values with ``|x| <= 0.05``."""
        number = statistics.near_zero(self.counts, self.stream.axis.edges, NEAR_ZERO, self.counters["zeros"])
        return self.share(float(number))

    def share(self, number: float) -> float:
        """Return `number` relative to all values."""
        return float(statistics.ratio(number, self.counters["size"]))

    def scalars(self) -> dict[str, float]:
        """Return what is drawn as a curve over the epochs: what is not known, and what is wrong nowhere, is left out."""
        at = self.counters
        found = {"mean": self.mean, "std": self.std, "zeros": self.share(at["zeros"])}
        if self.stream.kind == "activation":
            found |= {"near_zero": self.near_zero, "dead": self.dead}
        wrong = {"outside": at["under"] + at["over"], "nan": at["nan"], "inf": at["pos_inf"] + at["neg_inf"]}
        found |= {name: self.share(number) for name, number in wrong.items() if number}
        return {name: value for name, value in found.items() if np.isfinite(value)}


@dataclass(frozen=True)
class Epoch:
    """What a target takes of an epoch.

    Attributes
    ----------
    run : Run
    span : Span
    layers : tuple of Layer
        Of whole layers, not of their classes or channels.
    figures : mapping of str to bytes
        PNG images by name, ``activation/train``; empty where none was drawn.
    diagnosis : Diagnosis or None
        Of the whole run so far; only with the last of several epochs that are published together.
    """

    run: Run
    span: Span
    layers: tuple[Layer, ...]
    figures: Mapping[str, bytes] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None


def spans(run: Run) -> list[Span]:
    """Return the batches of each epoch of a run, in order."""
    table = run.batches
    partial = table.get("partial", np.zeros(len(table["batch"]), np.bool_))
    ends = np.flatnonzero(np.diff(table["epoch"], append=np.iinfo(np.int64).max))
    trained = np.maximum.accumulate(np.where(table["phase"] == "train", table["index"], -1))
    found = []
    begin = 0
    for end in (ends + 1).tolist():
        part = slice(begin, end)
        extents: dict[Phase, Extent] = {}
        for phase in PHASES:
            index = table["index"][part][table["phase"][part] == phase]
            if len(index):
                extents[phase] = int(index[0]), int(index[-1]) + 1
        found.append(
            Span(
                epoch=int(table["epoch"][end - 1]),
                last=int(table["batch"][end - 1]),
                step=int(trained[end - 1] if trained[end - 1] >= 0 else table["index"][end - 1]),
                time=float(table["time"][end - 1]),
                extents=extents,
                partial=bool(partial[part].any()),
            )
        )
        begin = end
    return found


def folder_of(run: Run, name: str) -> Path:
    """Return where something is published to if nobody said: beside what was recorded.

    Raises
    ------
    ArgumentError
        If the run is in no folder of this machine.
    """
    if not run.path or is_url(run.path):
        raise ArgumentError(
            f"the run is in no folder of this machine: name one, as {name}:some/folder.", page="exports"
        )
    return Path(run.path) / name


def layers(run: Run, span: Span) -> tuple[Layer, ...]:
    """Return the sums over an epoch of all streams that fired in it."""
    found = []
    for stream, phase, (start, stop) in _parts(run, span):
        level = max(coarsest_level(stop - start, _COLUMNS), run.finest(phase, start))
        block = _within(run.columns(stream, phase, start, stop, level), start)
        fired = block.counters[:, COUNTERS.index("calls")] > 0
        if fired.any():
            dead = _dead(run, stream, phase, start, stop)
            found.append(_layer(block, fired, stream, phase, span.epoch, dead))
    return tuple(found)


def layers_of_batches(run: Run, span: Span) -> Iterator[Layer]:
    """Yield every column of an epoch, one batch each unless these were dropped to keep within ``max_bytes``."""
    for stream, phase, (start, stop) in _parts(run, span):
        block = _within(run.columns(stream, phase, start, stop, run.finest(phase, start)), start)
        for i in np.flatnonzero(block.counters[:, COUNTERS.index("calls")]):
            yield _layer(block, np.arange(len(block)) == i, stream, phase, span.epoch)


def _parts(run: Run, span: Span) -> Iterator[tuple[Stream, Phase, Extent]]:
    kinds: list[Kind] = [kind for kind in KINDS if any(stream.kind == kind for stream in run.streams)]
    for kind in kinds:
        for stream in run.select(None, kind):
            for phase, extent in span.extents.items():
                yield stream, phase, extent


def _within(block: Block, start: int) -> Block:
    """Leave a sum that begins before an epoch, and cannot be taken apart any more, to the epoch before."""
    inside = block.first >= start
    return block if inside.all() else Block(*(getattr(block, name)[inside] for name in Block.__dataclass_fields__))


def _layer(
    block: Block,
    rows: npt.NDArray[np.bool_],
    stream: Stream,
    phase: Phase,
    epoch: int,
    dead: float = float("nan"),
) -> Layer:
    counters = block.counters[rows].sum(axis=0).tolist()
    moments = block.moments[rows]
    return Layer(
        stream=stream,
        phase=phase,
        epoch=epoch,
        first=int(block.first[rows][0]),
        last=int(block.last[rows][-1]),
        number=int(block.number[rows].sum()),
        counts=block.counts[rows].sum(axis=0),
        counters=dict(zip(COUNTERS, counters, strict=True)),
        sum=float(moments[:, 0].sum()),
        sum_sq=float(moments[:, 1].sum()),
        min=float(moments[:, 2].min()),
        max=float(moments[:, 3].max()),
        dead=dead,
    )


def _dead(run: Run, stream: Stream, phase: Phase, start: int, stop: int) -> float:
    if stream.kind != "activation":
        return float("nan")
    windows = run.units(stream, phase)
    known = np.flatnonzero((windows.first < stop) & (windows.last >= start))
    return float(windows.dead_share[known[-1]]) if len(known) else float("nan")
