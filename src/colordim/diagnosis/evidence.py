"""What the rules look at: arrays of all streams of a run, its losses, and the facts of its model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.column import Kind, Stream
from colordim.run import UnitWindows

__all__ = ["Evidence", "Passes", "Series", "unbroken"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Series:
    """A stream over the batches: n columns, single batches first, later ones perhaps sums of 4, 16, ...

    Attributes
    ----------
    stream : Stream
    first, last : ndarray of int64, shape ``[n]``
        Batches of each column, by their index within the phase.
    calls, size, zeros, nan, inf : ndarray of int64, shape ``[n]``
        Counters; `inf` of either sign.
    mean, std, rms, min, max : ndarray of float64, shape ``[n]``
        Of the finite values; NaN where there are none.
    counts : ndarray of float32, shape ``[n, m]``
        Counts of the bins between the outermost that are occupied; of weights and updates none (m = 0).
    edges : ndarray of float64, shape ``[m + 1]``
    offset : int
        Number, on the stream's axis, of the first of these bins.
    not_finite : int
        First batch with NaN or infinities; -1 if there is none.
    """

    stream: Stream
    first: IntArray
    last: IntArray
    calls: IntArray
    size: IntArray
    zeros: IntArray
    nan: IntArray
    inf: IntArray
    mean: FloatArray
    std: FloatArray
    rms: FloatArray
    min: FloatArray
    max: FloatArray
    counts: npt.NDArray[np.float32]
    edges: FloatArray
    offset: int = 0
    not_finite: int = -1

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, which: slice | npt.NDArray[Any]) -> Series:
        """Return the series of some of its columns."""
        changed = {
            field.name: getattr(self, field.name)[which]
            for field in fields(self)
            if field.name not in ("stream", "edges", "offset", "not_finite")
        }
        return replace(self, **changed)

    @property
    def name(self) -> str:
        return self.stream.name

    @property
    def fired(self) -> npt.NDArray[np.bool_]:
        """Which columns have values; bool of shape ``[n]``."""
        return self.size > 0

    def until(self, batch: int) -> Series:
        """Return the columns of the batches before `batch` alone."""
        cut = self[: int(np.searchsorted(self.last, batch))]
        return replace(cut, not_finite=self.not_finite if 0 <= self.not_finite < batch else -1)

    def below(self, magnitude: float) -> FloatArray:
        """Return the share of each column's finite values with ``|x| < magnitude``, shape ``[n]``; NaN where there are none.

        Bins that `magnitude` cuts are split in proportion.
        """
        return self._share(_inside(self.edges, magnitude))

    def number_below(self, magnitude: float) -> float:
        """Return how many finite values of all columns have ``|x| < magnitude``."""
        return float(self.counts.sum(axis=0, dtype=np.float64) @ _inside(self.edges, magnitude))

    def above(self, value: float) -> FloatArray:
        """Return the share of each column's finite values with ``x > value``, shape ``[n]``; NaN where there are none."""
        lower, upper = self.edges[:-1], self.edges[1:]
        point = lower == upper
        width = np.where(point, 1.0, upper - lower)
        part = np.where(point, lower > value, np.clip((upper - np.maximum(lower, value)) / width, 0.0, 1.0))
        return self._share(part)

    def _share(self, part: FloatArray) -> FloatArray:
        number = (self.size - self.nan - self.inf).astype(np.float64)
        inside = np.asarray(self.counts, np.float64) @ part
        share: FloatArray = np.divide(inside, number, out=np.full(len(self), np.nan), where=number > 0)
        return share


def _inside(edges: FloatArray, magnitude: float) -> FloatArray:
    """Share of each bin that lies within a magnitude of zero."""
    lower, upper = edges[:-1], edges[1:]
    point = lower == upper
    width = np.where(point, 1.0, upper - lower)
    part = np.clip((np.minimum(upper, magnitude) - np.maximum(lower, -magnitude)) / width, 0.0, 1.0)
    return np.asarray(np.where(point, np.abs(lower) < magnitude, part), np.float64)


def unbroken(over: npt.NDArray[np.bool_]) -> int:
    """Return since which place it has been so without a break; the length if it is not so at the end."""
    below = np.flatnonzero(~over)
    return int(below[-1]) + 1 if below.size else 0


@dataclass(frozen=True)
class Passes:
    """A layer's histograms at the end of each epoch's training and in its validation; e epochs that have both.

    Attributes
    ----------
    epoch : ndarray of int64, shape ``[e]``
    end : ndarray of int64, shape ``[e]``
        Training batches before the validation was over.
    train, valid : ndarray of float64, shape ``[e, m]``
        Counts of the last quarter of the epoch's training batches, and of the whole validation pass.
    train_zeros, valid_zeros, train_size, valid_size, train_bad, valid_bad : ndarray of float64, shape ``[e]``
        Counters; `bad` are NaN and infinities.
    edges : ndarray of float64, shape ``[m + 1]``
    """

    epoch: IntArray
    end: IntArray
    train: FloatArray
    valid: FloatArray
    train_zeros: FloatArray
    valid_zeros: FloatArray
    train_size: FloatArray
    valid_size: FloatArray
    train_bad: FloatArray
    valid_bad: FloatArray
    edges: FloatArray

    def until(self, batch: int) -> Passes:
        keep = self.end <= batch
        return replace(self, **{f.name: getattr(self, f.name)[keep] for f in fields(self) if f.name != "edges"})


@dataclass(frozen=True)
class Evidence:
    """All that the rules may look at.

    Attributes
    ----------
    name : str
        Of the run.
    length : int
        Training batches.
    epochs : ndarray of int64, shape ``[epochs]``
        First training batch of each epoch.
    series : mapping of (kind, name) to Series
        Of the training batches, in call order; parts of layers (facets) are left out.
    passes : mapping of name to Passes
        Of the layers' outputs.
    units : mapping of name to UnitWindows
        Of layers whose activation function is known.
    logged : mapping of str to ndarray of float64, shape ``[length]``
        What was logged with the training batches; NaN where nothing was.
    valid_loss : (ndarray of int64, ndarray of float64)
        Training batches before each validation pass was over, and its mean loss.
    facts : mapping
        See ``docs/facts.md``.
    """

    name: str
    length: int
    epochs: IntArray
    series: Mapping[tuple[Kind, str], Series]
    passes: Mapping[str, Passes]
    units: Mapping[str, UnitWindows]
    logged: Mapping[str, FloatArray]
    valid_loss: tuple[IntArray, FloatArray]
    facts: Mapping[str, Any]

    def until(self, batch: int) -> Evidence:
        """Return what was known before the training batch `batch`."""
        stop = min(batch, self.length)
        windows = {}
        for name, found in self.units.items():
            known = found.last < stop
            windows[name] = UnitWindows(found.first[known], found.last[known], found.active[known], found.judged_on)
        passed = self.valid_loss[0] <= stop
        return replace(
            self,
            length=stop,
            epochs=self.epochs[self.epochs < stop],
            series={key: series.until(stop) for key, series in self.series.items()},
            passes={name: each.until(stop) for name, each in self.passes.items()},
            units=windows,
            logged={name: values[:stop] for name, values in self.logged.items()},
            valid_loss=(self.valid_loss[0][passed], self.valid_loss[1][passed]),
        )

    def only(self, kinds: Collection[Kind]) -> Evidence:
        """Return the same without the streams of other kinds."""
        return replace(self, series={key: series for key, series in self.series.items() if key[0] in kinds})

    def of(self, kind: Kind) -> tuple[Series, ...]:
        """Return the series of a kind that have columns, in call order."""
        return tuple(series for (each, _), series in self.series.items() if each == kind and len(series))

    def get(self, kind: Kind, name: str) -> Series | None:
        """Return a series if it is there and has columns."""
        found = self.series.get((kind, name))
        return found if found is not None and len(found) else None

    @cached_property
    def loss(self) -> FloatArray:
        """The training loss, shape ``[length]``; NaN where it was not logged."""
        for name in ("loss", "train_loss", "loss/train", "train/loss"):
            if name in self.logged:
                return self.logged[name]
        return np.full(self.length, np.nan)

    @cached_property
    def epoch_length(self) -> int:
        """Training batches of an epoch: the longest so far."""
        return int(np.diff(self.epochs, append=self.length).max(initial=1))
