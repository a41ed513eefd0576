"""Evidence that is made by hand: values of layers by batch, counted by NumPy, and facts of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from colordim.axis import SignedLogAxis
from colordim.column import Kind, Stream
from colordim.diagnosis import Evidence
from colordim.diagnosis.evidence import Passes, Series
from colordim.run import UnitWindows

AXIS = SignedLogAxis()


def counted(values: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Count by numpy.histogram, and zeros by hand, since it cannot place them in a bin without width."""
    array = np.asarray(values, np.float64)
    finite = array[np.isfinite(array)]
    # A bucket holds its end that is nearer to zero, also below zero, where numpy's bins hold the other one.
    counts = np.histogram(finite[finite > 0], AXIS.edges)[0].astype(np.int64)
    counts += np.histogram(-finite[finite < 0], AXIS.edges)[0].astype(np.int64)[::-1]
    counts[AXIS.zero_bin] += np.count_nonzero(finite == 0)
    return counts


def series_of(kind: Kind, name: str, batches: Sequence[npt.ArrayLike | None], module: str, order: int) -> Series:
    """Return the series of a stream from the values of each batch; None where it did not fire."""
    arrays = [np.zeros(0) if each is None else np.asarray(each, np.float64) for each in batches]
    finite = [each[np.isfinite(each)] for each in arrays]
    shape = next((np.shape(each) for each in batches if each is not None), ())
    n = len(arrays)
    counts = np.array([counted(each) for each in arrays]).reshape(n, AXIS.bins)
    occupied = np.flatnonzero(counts.any(axis=0))
    low, high = (int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (0, 0)
    nan = np.array([np.isnan(each).sum() for each in arrays], np.int64)
    inf = np.array([np.isinf(each).sum() for each in arrays], np.int64)
    bad = np.flatnonzero(nan + inf)

    def moment(function: Callable[[npt.NDArray[np.float64]], Any]) -> npt.NDArray[np.float64]:
        return np.array([function(each) if each.size else np.nan for each in finite], np.float64)

    return Series(
        stream=Stream(order, name, kind, module, "", shape, order, AXIS),
        first=np.arange(n),
        last=np.arange(n),
        calls=np.array([int(each is not None) for each in batches], np.int64),
        size=np.array([each.size for each in arrays], np.int64),
        zeros=np.array([np.count_nonzero(each == 0) for each in arrays], np.int64),
        nan=nan,
        inf=inf,
        mean=moment(np.mean),
        std=moment(np.std),
        rms=moment(lambda x: np.sqrt(np.mean(x**2))),
        min=moment(np.min),
        max=moment(np.max),
        counts=counts[:, low:high].astype(np.float32),
        edges=AXIS.edges[low : high + 1],
        offset=low,
        not_finite=int(bad[0]) if bad.size else -1,
    )


@dataclass
class Maker:
    """Collects what a run would hold; :meth:`evidence` returns it."""

    length: int = 60
    epoch: int = 20
    series: dict[tuple[Kind, str], Series] = field(default_factory=dict)
    passes: dict[str, Passes] = field(default_factory=dict)
    units: dict[str, UnitWindows] = field(default_factory=dict)
    logged: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    valid_loss: Sequence[float] = ()
    modules: list[dict[str, Any]] = field(default_factory=list)
    parameters: list[dict[str, Any]] = field(default_factory=list)
    followers: dict[str, Any] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def normal(self, scale: npt.ArrayLike = 1.0, shape: tuple[int, ...] = (32, 10)) -> list[npt.NDArray[np.float64]]:
        """Return Gaussian values of each batch, with a standard deviation for all or for each of them."""
        scales = np.broadcast_to(np.asarray(scale, np.float64), (self.length,))
        return [self.random.normal(size=shape) * each for each in scales]

    def add(
        self, kind: Kind, name: str, batches: Sequence[npt.ArrayLike | None] | None = None, module: str = ""
    ) -> None:
        """Add a stream; Gaussian values if none are given."""
        order = len(self.series)
        self.series[kind, name] = series_of(kind, name, self.normal() if batches is None else batches, module, order)

    def layer(
        self, name: str, batches: Sequence[npt.ArrayLike | None] | None = None, module: str = "Linear", **facts: Any
    ) -> None:
        """Add a layer with a weight: the stream of its output, and the facts of both."""
        self.add("activation", name, batches, module)
        self.modules.append({"path": name, "class": module})
        row = {
            "path": f"{name}.weight", "module": name, "shape": [10, 10], "requires_grad": True, "in_optimizer": True,
            "shared_with": [], "mean": 0.0, "std": 0.4, "fan_in": 10, "fan_out": 10,
        }  # fmt: skip
        self.parameters.append({**row, **facts})

    def loss(self, values: npt.ArrayLike) -> None:
        """Log a loss."""
        self.logged["loss"] = np.broadcast_to(np.asarray(values, np.float64), (self.length,)).copy()

    def evidence(self) -> Evidence:
        """Return what was collected."""
        epochs = np.arange(0, self.length, self.epoch)
        ends = np.minimum(epochs + self.epoch, self.length)[: len(self.valid_loss)]
        return Evidence(
            name="made", length=self.length, epochs=epochs, series=dict(self.series), passes=dict(self.passes),
            units=dict(self.units), logged=dict(self.logged), valid_loss=(ends, np.array(self.valid_loss, np.float64)),
            facts={"named_modules": self.modules, "named_parameters": self.parameters, "followers": self.followers},
        )  # fmt: skip


@pytest.fixture
def made() -> Maker:
    """An empty run of 60 batches, 20 an epoch."""
    return Maker()


@pytest.fixture
def learning(made: Maker) -> Maker:
    """A healthy run of three layers whose loss falls from ln 10 to a tenth of it."""
    made.loss(np.log(10) * np.geomspace(1, 0.1, made.length))
    for name in ("first", "second", "head"):
        made.layer(name)
    return made


def columns_summed(series: Series, width: int) -> Series:
    """Return a series whose columns are sums of `width` adjacent ones, as of a coarser level."""
    groups = np.arange(len(series)) // width
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    number = np.add.reduceat(series.size, starts)
    power = np.add.reduceat(np.nan_to_num(series.rms) ** 2 * series.size, starts)
    return replace(
        series[starts],
        last=series.last[np.append(starts[1:], len(series)) - 1],
        size=number,
        rms=np.sqrt(power / number),
        counts=np.add.reduceat(series.counts, starts, axis=0),
    )
