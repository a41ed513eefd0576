"""The contract between recording, storing and viewing: streams, batches, columns.

One *stream* is one quantity of one layer; one *column* is the histogram of a stream in one batch.
A column travels as a row of integers, the bins followed by the counters of :data:`COUNTERS`, and a
row of floats, :data:`MOMENTS`. In every column

    counts.sum() + under + over + nan + pos_inf + neg_inf == size
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from colordim.axis import Axis, axis_from_dict

__all__ = [
    "COUNTERS",
    "KINDS",
    "MOMENTS",
    "NO_MOMENTS",
    "OF_PARAMETERS",
    "PHASES",
    "Batch",
    "Facet",
    "Kind",
    "Phase",
    "Position",
    "Reduction",
    "Sink",
    "Stream",
    "Units",
]

Phase = Literal["train", "valid"]
Kind = Literal["activation", "gradient", "weight", "weight_gradient", "update"]
PHASES: tuple[Phase, ...] = get_args(Phase)
Reduction = Literal["sum", "replicated"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Kinds whose streams are named by parameters, ``fc.weight``, and not by layers.
OF_PARAMETERS: tuple[Kind, ...] = ("weight", "weight_gradient", "update")

#: Integer counters that follow the bins in a row: ``zeros`` (of either sign) are also in their bin,
#: ``size`` is the number of elements, ``calls`` how often the module ran in the batch.
COUNTERS = ("under", "over", "nan", "pos_inf", "neg_inf", "zeros", "size", "calls")

#: Float64 moments of the finite values; ``min`` is +inf and ``max`` is -inf where there was none.
MOMENTS = ("sum", "sum_sq", "min", "max")

#: The moments of no value at all, neutral in merging.
NO_MOMENTS = (0.0, 0.0, float("inf"), float("-inf"))


@dataclass(frozen=True)
class Facet:
    """Which part of a layer's output a stream holds: one class or channel.

    Attributes
    ----------
    of : str
        Name of the stream that holds all of them.
    index : int
        Number of the class or channel, from 0.
    label : str
        What people call it; the number itself if nobody said.
    """

    of: str
    index: int
    label: str


@dataclass(frozen=True)
class Stream:
    """One recorded quantity of one layer.

    Attributes
    ----------
    id : int
        Number of the stream in its run, in the order of first appearance.
    name : str
        Unique within a kind: the module's path, with ``[i]`` or ``.key`` for one of several outputs.
    kind : str
        One of :data:`KINDS`.
    module : str
        Class name of the module, or "" for an observed tensor.
    arguments : str
        The module's ``extra_repr()``.
    shape : tuple of int
        Shape of the tensor when it was first seen, batch dimension included.
    order : int
        Position in the order of the calls of the first batch.
    axis : Axis
    reduction : {"sum", "replicated"}
        How columns of several ranks become one: by adding, or by taking one of them.
    facet : Facet, optional
        The part of the layer's output that this is, if it is not all of it; the name then ends in ``[index]``.
    """

    id: int
    name: str
    kind: Kind
    module: str
    arguments: str
    shape: tuple[int, ...]
    order: int
    axis: Axis
    reduction: Reduction = "sum"
    facet: Facet | None = None

    @property
    def width(self) -> int:
        """Length of the stream's row of integers: bins and counters."""
        return self.axis.bins + len(COUNTERS)

    def to_dict(self) -> dict[str, Any]:
        """Describe the stream in JSON types."""
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "module": self.module,
            "arguments": self.arguments,
            "shape": list(self.shape),
            "order": self.order,
            "axis": self.axis.to_dict(),
            "reduction": self.reduction,
            **({"facet": asdict(self.facet)} if self.facet else {}),
        }

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Stream:
        """Return the stream that :meth:`to_dict` described; unknown keys are ignored."""
        return cls(
            id=int(description["id"]),
            name=description["name"],
            kind=description["kind"],
            module=description["module"],
            arguments=description["arguments"],
            shape=tuple(description["shape"]),
            order=int(description["order"]),
            axis=axis_from_dict(description["axis"]),
            reduction=description["reduction"],
            facet=_facet(description.get("facet")),
        )


def _facet(description: Mapping[str, Any] | None) -> Facet | None:
    return Facet(description["of"], int(description["index"]), description["label"]) if description else None


@dataclass(frozen=True)
class Units:
    """Which units (channels, features) of a layer were active at least once over a few batches.

    Attributes
    ----------
    stream : int
        Id of the layer's stream.
    judged_on : str
        Name of the stream on whose values the units were judged: that of the activation function that follows the layer.
    phase : {"train", "valid"}
    first, last : int
        First and last batch, by their index within the phase.
    number : int
        How many units there are.
    active : bytes
        A bit for each unit, set if it was active; eight units a byte, the first in the highest bit
        (``numpy.packbits``). Of overlapping batches, other calls and other ranks these add up by OR.
    """

    stream: int
    judged_on: str
    phase: Phase
    first: int
    last: int
    number: int
    active: bytes


@dataclass(frozen=True)
class Batch:
    """What is known of one batch besides its columns.

    Attributes
    ----------
    batch : int
        Number of the batch in the run, over all phases, from 0.
    index : int
        Number of the batch within its phase, from 0; the x axis of the charts.
    phase : {"train", "valid"}
    epoch : int
        From 0.
    step : int
        Optimiser steps taken before this batch ended.
    time : float
        Seconds since the epoch of the clock, at the end of the batch.
    recorded : bool
        Whether its columns were counted (False for batches skipped by ``every=``).
    values : mapping of str to float
        What was logged with it: loss, lr, ...; and what recording it cost: ``recording_s``, seconds on all
        threads, beside ``step_s``, seconds of the training step without them.
    """

    batch: int
    index: int
    phase: Phase
    epoch: int
    step: int
    time: float
    recorded: bool = True
    values: Mapping[str, float] = field(default_factory=dict)

    def with_values(self, values: Mapping[str, float]) -> Batch:
        """Return the batch with more logged values."""
        return replace(self, values={**self.values, **values})


@dataclass(frozen=True)
class Position:
    """Where a recording goes on in a run that holds something already.

    Attributes
    ----------
    batch : int
        Number of the next batch, over all phases.
    index : mapping of str to int
        Number of the next batch of each phase.
    epoch : int
        The one that goes on.
    step : int
        Optimiser steps taken so far.
    seen : frozenset of str
        Phases of which the epoch has had batches.
    within : bool
        Whether batches of the epoch are still to come, so that :meth:`Recording.epoch` before the next one begins no other.
    told : bool
        Whether epochs are told, and not inferred.
    stepped : int
        Recorded training batches with an optimiser step so far.
    streams : tuple of Stream
        Those of the run, by id.
    """

    batch: int = 0
    index: Mapping[Phase, int] = field(default_factory=lambda: dict.fromkeys(PHASES, 0))
    epoch: int = 0
    step: int = 0
    seen: frozenset[Phase] = frozenset()
    within: bool = False
    told: bool = False
    stepped: int = 0
    streams: tuple[Stream, ...] = ()


class Sink(Protocol):
    """Where a recorder puts columns. Called from one thread; must not raise once it is open."""

    @property
    def seconds(self) -> float:
        """Processor seconds that the sink has taken on threads of its own."""

    def declare(self, stream: Stream) -> None:
        """Make a stream known before its first column; its id is the number of streams so far."""

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Take what is known of the model once it has run, in JSON types; of several the last counts."""

    def append(
        self,
        batch: Batch,
        streams: Sequence[Stream],
        rows: npt.NDArray[np.int64],
        moments: npt.NDArray[np.float64],
        units: Sequence[Units] = (),
    ) -> None:
        """Take the columns of one batch.

        Parameters
        ----------
        batch : Batch
        streams : sequence of Stream, length n
            Those that have a column in this batch, each at most once, by ascending id.
        rows : ndarray of int64, shape ``[sum of stream.width]``
            The rows of the streams one after the other: bins, then :data:`COUNTERS`.
            Only lent until the call returns: the recorder counts the next batch in the same memory.
        moments : ndarray of float64, shape ``[n, 4]``
            :data:`MOMENTS` of each stream; only lent as well.
        units : sequence of Units
            Which units were active in windows of batches that end with this one.
        """

    def flush(self) -> None:
        """Make everything that was appended readable for others."""

    def close(self, reason: str) -> None:
        """Flush and mark the run as ended; `reason` is "stopped" or names the exception."""
