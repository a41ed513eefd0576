"""What a chart is asked for: arguments checked, names resolved, and a sentence where there is nothing to draw."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from colordim import reading
from colordim.column import KINDS, PHASES, Kind, Phase, Stream
from colordim.errors import ArgumentError, StreamError
from colordim.run import Run, StreamKey

if TYPE_CHECKING:
    from colordim.charts.frame import Panel

__all__ = [
    "NAMES",
    "PLURALS",
    "Asked",
    "asked",
    "check",
    "epoch_number",
    "file_name",
    "phases_of",
    "refuse",
    "streams_of",
]

#: What the titles of charts call the values of each kind.
PLURALS = {
    "activation": "activations",
    "gradient": "gradients of the outputs",
    "weight": "weights",
    "weight_gradient": "gradients of the weights",
    "update": "updates of the weights",
}
#: What the axis of values is called, by kind.
NAMES = {
    "activation": "activation",
    "gradient": "gradient of the output",
    "weight": "weight",
    "weight_gradient": "gradient of the weight",
    "update": "update of the weight",
}


@dataclass(frozen=True)
class Asked:
    """What a chart is to be drawn of: streams, phases, and the batches of each."""

    streams: Sequence[Stream]
    phases: tuple[Phase, ...]
    spans: dict[Phase, tuple[int, int]]

    def panels(self, run: Run, inches: float) -> list[Panel]:
        """Return the streams in the (first) phase, as panels of so many inches."""
        phase = self.phases[0]
        epochs = reading.epochs(run, phase)
        return [reading.panel(run, stream, phase, self.spans[phase], epochs, inches) for stream in self.streams]


def asked(
    run: Run,
    layers: StreamKey | Sequence[StreamKey] | None,
    kind: Kind,
    phase: Phase | Sequence[Phase],
    start: int | None = None,
    stop: int | None = None,
) -> Asked | str:
    """Return what a chart is to be drawn of, or the sentence that says why there is nothing.

    Raises
    ------
    ArgumentError
        If `kind` or `phase` is none.
    StreamError
        If a part of `layers` names no stream.
    """
    check("kind", kind, KINDS)
    phases = phases_of(phase)
    spans = reading.spans(run, phases, start, stop)
    if not run.streams or not len(run.batches["batch"]):
        if run.problems:
            return f"Nothing can be shown: {run.problems[0]}"
        if run.ended is not None:
            return "The recording ended without a batch in which a layer was counted."
        return "Nothing has been recorded yet: a column is added with every batch that the model runs."
    kinds = sorted({stream.kind for stream in run.streams}, key=KINDS.index)
    if kind not in kinds:
        return f"The run has no {PLURALS[kind]}: it holds {' and '.join(PLURALS[kind] for kind in kinds)}."
    streams = run.select(layers, kind)
    if kind != "activation" and "train" not in phases:
        return f"There are no {PLURALS[kind]} of validation batches: take phase='train'."
    if all(end <= begin for begin, end in spans.values()):
        return f"There are no {' or '.join(spans)} batches in what is to be shown."
    return Asked(streams, phases, spans)


def streams_of(
    run: Run, layers: StreamKey | Sequence[StreamKey] | None, kind: Kind | Sequence[Kind]
) -> tuple[Stream, ...]:
    """Return the streams that are named, of all kinds that are given, in call order; without `layers` parts of layers too.

    Raises
    ------
    ArgumentError
        If one of the kinds is none.
    StreamError
        If `layers` names no stream of these kinds.
    """
    kinds: Sequence[Any] = (kind,) if isinstance(kind, str) else tuple(kind)
    for one in kinds:
        check("kind", one, KINDS)
    if layers is None:
        return tuple(stream for stream in run.streams if stream.kind in kinds)
    found: set[int] = set()
    missing: list[StreamError] = []
    for one in kinds:
        try:
            found |= {stream.id for stream in run.select(layers, one)}
        except StreamError as error:
            missing.append(error)
    if missing and not found:
        raise missing[0]
    return tuple(stream for stream in run.streams if stream.id in found)


def phases_of(phase: Phase | Sequence[Phase]) -> tuple[Phase, ...]:
    """Return the phases that are named, each once."""
    phases: tuple[Any, ...] = (phase,) if isinstance(phase, str) else tuple(dict.fromkeys(phase))
    for one in phases:
        check("phase", one, PHASES)
    if not phases:
        raise ArgumentError(f"no phase was given: take one of {', '.join(PHASES)}, or both.")
    return phases


def check(name: str, value: object, allowed: Sequence[object]) -> None:
    """Refuse an argument that is none of its values."""
    if value not in allowed:
        raise ArgumentError(f"{name}={value!r} is unknown: take one of {', '.join(map(repr, allowed))}.")


def file_name(name: str) -> str:
    """Return what a file of a run of that name can be called."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:100] or "run"


def refuse(because: str, **options: object) -> None:
    """Refuse options that a chart would not heed: those that are not None."""
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(f"{name}={value!r} does not apply with {because}: leave it out.")


def epoch_number(epochs: npt.NDArray[np.int64], epoch: int) -> int:
    """Return the number of the epoch that the user means; negative numbers count from the end."""
    known = sorted(set(epochs.tolist()))
    if epoch < 0 and -epoch <= len(known):
        return int(known[epoch])
    if epoch in known:
        return epoch
    raise ArgumentError(f"the run has no epoch {epoch}: it has {len(known)}, from {known[0]} to {known[-1]}.")
