"""A recorded run as arrays: read-only, growing while it is being recorded, without torch."""

from __future__ import annotations

import difflib
import fnmatch
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from colordim.column import COUNTERS, MOMENTS, OF_PARAMETERS, PHASES, Kind, Phase, Stream, Units
from colordim.errors import ArgumentError, FormatError, StreamError, warn
from colordim.store.base import Block, Reader
from colordim.store.pyramid import FACTOR, coarsest_level

__all__ = ["Run", "StreamKey", "UnitWindows"]

#: What names a stream: the stream itself, its name, or its position in ``run.streams``.
StreamKey = Stream | str | int


class Run:
    """A recorded run.

    What it returns is a snapshot: a run that is still being written grows only by
    :meth:`refresh`, so that arrays that are taken one after the other fit together.

    Parameters
    ----------
    reader : Reader
        The store that holds the run.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._told: set[str] = set()

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.length(phase)} {phase}" for phase in PHASES)
        state = self.ended or "live or cut off"
        return f"<Run {self.name!r}: {len(self.streams)} streams, {counts} batches, {state}>"

    @property
    def path(self) -> str:
        """Folder or address of the run; empty for a run in memory."""
        return self._reader.path

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self._reader.info.get("name", ""))

    @property
    def info(self) -> Mapping[str, Any]:
        """What was written once, at the start: name, time, library versions, model."""
        return self._reader.info

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known of the model: ``class``, ``named_modules``, ``named_parameters``, ``followers``.

        As of the first recorded batch where the model was changed before it; ``docs/facts.md`` names every field.
        """
        return {**self.info.get("model", {}), **self._reader.facts}

    @property
    def ended(self) -> str | None:
        """Why the recording ended; None while it goes on, or if the process was cut off."""
        return self._reader.ended

    @property
    def problems(self) -> tuple[str, ...]:
        """A sentence for each part of the run that could not be read, and each rank that lacks batches."""
        return self._reader.problems

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All streams in the order of their first call."""
        return tuple(sorted(self._reader.streams, key=lambda stream: (stream.order, stream.id)))

    @property
    def batches(self) -> Mapping[str, npt.NDArray[Any]]:
        """One row a batch, of all phases: batch, index, epoch, step, phase, time, recorded, and what was logged.

        `index` counts within the phase and is the x axis of the charts; `batch` counts over all. A run of
        several ranks has two more columns: `ranks`, how many of them hold the batch, and `partial`.
        """
        table = self._reader.batches()
        self._tell_problems()
        return table

    @property
    def cost(self) -> float:
        """What recording cost, as a share of the training time without it; NaN while nothing is known of it."""
        table = self.batches
        if "step_s" not in table:
            return float("nan")
        known = np.isfinite(table["step_s"]) & np.isfinite(table["recording_s"])
        step = float(table["step_s"][known].sum())
        return float(table["recording_s"][known].sum()) / step if step else float("nan")

    def refresh(self) -> Self:
        """Take in what was recorded since the last snapshot; return the run itself."""
        self._reader.refresh()
        return self

    def apart(self) -> Self:
        """Return the run as it is now through a reader of its own, for another thread; one in memory itself."""
        reopen = getattr(self._reader, "reopen", None)
        return self if reopen is None else type(self)(reopen())

    def follow(self, interval: float = 0.5) -> Iterator[int]:
        """Yield the number of batches each time the run has grown, until it ends.

        Parameters
        ----------
        interval : float
            Seconds between two looks at the store.
        """
        seen = -1
        while True:
            ended = self._reader.ended is not None
            self.refresh()
            number = len(self.batches["batch"])
            if number != seen:
                seen = number
                yield number
            if ended:
                return
            time.sleep(interval)

    def length(self, phase: Phase = "train") -> int:
        """Return the number of batches of a phase, those skipped by ``every=`` included."""
        return self._extent(phase)[0]

    def extent(self, phase: Phase = "train") -> tuple[int, int]:
        """Return :meth:`length`, and how many of these batches were recorded; known without reading them."""
        return self._extent(phase)

    @property
    def ranks(self) -> int:
        """How many ranks write the run; 1 for a training of one process."""
        return int(getattr(self._reader, "ranks", 1))

    def partial(self, phase: Phase = "train") -> npt.NDArray[np.bool_]:
        """Return which batches of a phase some ranks do not hold, or not yet; bool of shape ``[batches]``.

        Their columns add up the other ranks. A run of one process has none.
        """
        table = self._phase(phase)
        return np.asarray(table.get("partial", np.zeros(len(table["index"]), np.bool_)))

    def epochs(self, phase: Phase = "train") -> npt.NDArray[np.int64]:
        """Return the index, within the phase, of each epoch's first batch; int64 of shape ``[epochs]``."""
        table = self._phase(phase)
        starts = np.flatnonzero(np.diff(table["epoch"], prepend=-1))
        return np.asarray(table["index"][starts], dtype=np.int64)

    def stream(self, key: StreamKey, kind: Kind | None = None) -> Stream:
        """Return one stream.

        Parameters
        ----------
        key : Stream, str or int
            A stream, its name, or its position in :attr:`streams` (-1 is the last).
        kind : str, optional
            Kind of the stream, where several share the name; by default the first one's.

        Raises
        ------
        StreamError
            If there is no such stream; the message names the nearest.
        """
        streams = [stream for stream in self.streams if kind is None or stream.kind == kind]
        if isinstance(key, Stream):
            key = key.name if key not in streams else streams.index(key)
        if isinstance(key, str):
            for stream in streams:
                if stream.name == key:
                    return stream
            raise StreamError(f"the run has no stream named {key!r}; {_nearest(key, streams)}")
        try:
            return streams[key]
        except IndexError:
            raise StreamError(f"the run has {len(streams)} streams, so there is no number {key}.") from None

    def select(
        self, layers: StreamKey | Sequence[StreamKey] | None = None, kind: Kind = "activation"
    ) -> tuple[Stream, ...]:
        """Return the streams that `layers` names, in call order, each once.

        Parameters
        ----------
        layers : Stream, str, int or a sequence of them, optional
            A string may hold the wildcards ``*``, ``?`` and ``[...]``; ``"head[*]"`` is every part of ``head``.
            A number is a position among the whole layers of the kind. Of weights, their gradients and updates
            the name of a layer stands for all its parameters.
        kind : str
            Kind of the streams.

        Streams that hold one facet of a layer (``head[3]``) are returned only if they are named, or if a
        pattern matches nothing but facets.

        Raises
        ------
        StreamError
            If a part of `layers` names no stream.
        """
        streams = tuple(stream for stream in self.streams if stream.kind == kind)
        whole = tuple(stream for stream in streams if stream.facet is None)
        if layers is None:
            return whole
        keys = [layers] if isinstance(layers, (Stream, str, int)) else list(layers)
        chosen: set[int] = set()
        for key in keys:
            if isinstance(key, str) and all(stream.name != key for stream in streams):
                pattern = key.replace("[*]", "[[]*]")
                matching = [stream for stream in streams if fnmatch.fnmatchcase(stream.name, pattern)]
                if not matching and kind in OF_PARAMETERS:  # a layer stands for its parameters
                    matching = [stream for stream in streams if stream.name.startswith(f"{key}.")]
                if not matching:
                    raise StreamError(f"no stream of the run matches {key!r}; {_nearest(key, streams)}")
                chosen |= {stream.id for stream in matching if stream.facet is None} or {s.id for s in matching}
            elif isinstance(key, int) and not -len(whole) <= key < len(whole):
                raise StreamError(f"the run has {len(whole)} streams of the kind {kind}, so there is no number {key}.")
            else:
                chosen.add(whole[key].id if isinstance(key, int) else self.stream(key, kind).id)
        return tuple(stream for stream in streams if stream.id in chosen)

    def facets(self, stream: StreamKey, kind: Kind | None = None) -> tuple[Stream, ...]:
        """Return the streams that hold one class or channel each of a layer's output, by their number."""
        found = self.stream(stream, kind)
        parts = [s for s in self.streams if s.facet is not None and s.facet.of == found.name and s.kind == found.kind]
        return tuple(sorted(parts, key=lambda part: part.facet.index if part.facet else 0))

    def columns(
        self,
        stream: StreamKey,
        phase: Phase = "train",
        start: int | None = None,
        stop: int | None = None,
        level: int = 0,
    ) -> Block:
        """Return columns of a stream with everything that was counted of them.

        Parameters
        ----------
        stream : Stream, str or int
        phase : {"train", "valid"}
        start, stop : int, optional
            Batches ``start <= index < stop`` of the phase; negative numbers count from the end.
        level : int
            Level k adds groups of ``4**k`` batches up to one column, exactly. Columns at the ends hold the batches
            of the range alone; where single batches were dropped (see :meth:`finest`), all that they are the sum of.

        Returns
        -------
        Block

        Warns
        -----
        ColordimWarning
            If a damaged part of the run was left out, see :attr:`problems`, or columns that were dropped to keep within
            ``max_bytes``; once for each.
        """
        found = self.stream(stream)
        first, last, _ = slice(start, stop).indices(self.length(phase))
        if first < min(self.kept(phase, level), last):
            finest = self.finest(phase, first)
            self._tell(
                f"{phase} batches before {self.kept(phase, level)} were dropped at level {level}, to keep within "
                f"max_bytes, and are left out: ask for level={finest}, which has them all.",
                "store#how-large-it-becomes",
            )
        if level and (single := self.kept(phase, 0)) > first:
            # A sum cannot be taken apart any more.
            width = FACTOR**level
            first -= first % width
            last = last if last >= single else -(-last // width) * width
        block = self._reader.columns(found, phase, first, last, level)
        self._tell_problems()
        return block

    def counts(
        self,
        stream: StreamKey,
        phase: Phase = "train",
        start: int | None = None,
        stop: int | None = None,
        level: int = 0,
    ) -> npt.NDArray[np.int64]:
        """Return the histograms of a stream, one row a recorded batch, zeros where it did not fire.

        Parameters are those of :meth:`columns`.

        Returns
        -------
        ndarray of int64, shape ``[batches, bins]``
            Never logged, scaled or clipped.
        """
        return self.columns(stream, phase, start, stop, level).counts

    def moments(
        self,
        stream: StreamKey,
        phase: Phase = "train",
        start: int | None = None,
        stop: int | None = None,
        level: int = 0,
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the counters and moments that belong to the rows of :meth:`counts`.

        Returns
        -------
        dict of str to ndarray, each of shape ``[batches]``
            int64: ``first, last, number`` (which batches the row holds), ``under, over, nan, pos_inf,
            neg_inf, zeros, size, calls``. float64, over the finite values: ``sum, sum_sq, min, max``.
        """
        return moments_of(self.columns(stream, phase, start, stop, level))

    def units(self, stream: StreamKey, phase: Phase = "train") -> UnitWindows:
        """Return which units of a layer were active, window by window.

        Parameters
        ----------
        stream : Stream, str or int
            The layer, or the activation function on whose output its units are judged.
        phase : {"train", "valid"}

        Returns
        -------
        UnitWindows
            Of 64 training batches each, and of each validation pass (at most 64 batches); a last one that
            is shorter than the one before is joined to it.
            Without windows if the units of that layer are not recorded.
        """
        if phase not in PHASES:
            raise ArgumentError(
                f"{phase!r} is not a phase: take one of {', '.join(PHASES)}.", page="facts#which-units-are-dead"
            )
        found = self.stream(stream)
        windows = list(self._reader.units(found, phase))
        if not windows:  # an activation function stands for the layer before it, if there is only one
            owners = [
                (s, each) for s in self.streams for each in self._reader.units(s, phase) if each.judged_on == found.name
            ]
            windows = [each for s, each in owners] if len({s.id for s, _ in owners}) == 1 else []
        return UnitWindows.of(windows).settled()

    def dead_units(self, layer: StreamKey, phase: Phase = "train", window: int = -1) -> npt.NDArray[np.int64]:
        """Return the numbers of the units of a layer that were not active even once in a window of batches.

        Parameters
        ----------
        layer : Stream, str or int
            The layer, or the activation function on whose output its units are judged.
        phase : {"train", "valid"}
        window : int
            Number of the window in :meth:`units`; the last by default.

        Returns
        -------
        ndarray of int64, shape ``[dead]``
            Ascending.

        Raises
        ------
        StreamError
            If there is no such layer, or its units were not recorded.
        ValueError
            If there is no such window.
        """
        windows = self.units(layer, phase)
        if not len(windows):
            raise StreamError(
                f"the {phase} batches hold nothing about the units of {self.stream(layer).name!r}: they are judged on the "
                "activation function that follows, which has to be a recorded module (nn.ReLU(), not F.relu).",
                page="facts#which-units-are-dead",
            )
        if not -len(windows) <= window < len(windows):
            raise ArgumentError(
                f"window={window} cannot be: there are {len(windows)}, from 0 to {len(windows) - 1}.",
                page="facts#which-units-are-dead",
            )
        return np.flatnonzero(~windows.active[window])

    def overview(self, stream: StreamKey, columns: int = 1000, phase: Phase = "train") -> Block:
        """Return the whole run at the coarsest level that still has `columns` columns."""
        level = coarsest_level(self._extent(phase)[1], columns)
        return self.columns(stream, phase, level=max(level, self.finest(phase)))

    def finest(self, phase: Phase = "train", start: int = 0) -> int:
        """Return the finest level at which all batches from `start` on can be had; 0 unless some were dropped.

        A run that outgrows ``max_bytes`` drops its oldest columns, first those of single batches, then sums of 4, ...
        """
        level = 0
        while self.kept(phase, level) > start:
            level += 1
        return level

    def kept(self, phase: Phase = "train", level: int = 0) -> int:
        """Return the index of the first batch from which on all columns of a level can be had; 0 unless some were dropped."""
        return self._reader.kept(phase, level)

    def _tell_problems(self) -> None:
        for sentence in self._reader.problems:
            self._tell(sentence, "ranks#what-is-read" if sentence.startswith("rank ") else FormatError.page)

    def _tell(self, sentence: str, page: str) -> None:
        """Warn of something, once."""
        if sentence not in self._told:
            self._told.add(sentence)
            warn(sentence, page)

    def _extent(self, phase: Phase) -> tuple[int, int]:
        if phase not in PHASES:
            raise ArgumentError(f"{phase!r} is not a phase: take one of {', '.join(PHASES)}.")
        extent = self._reader.extent(phase)
        self._tell_problems()
        return extent

    def _phase(self, phase: Phase) -> dict[str, npt.NDArray[Any]]:
        if phase not in PHASES:
            raise ArgumentError(f"{phase!r} is not a phase: take one of {', '.join(PHASES)}.")
        table = self.batches
        chosen = table["phase"] == phase
        return {name: values[chosen] for name, values in table.items()}


@dataclass(frozen=True)
class UnitWindows:
    """Which units (channels, features) of a layer were active at least once in windows of batches.

    Attributes
    ----------
    first, last : ndarray of int64, shape ``[windows]``
        First and last batch of each window, by their index within the phase; ascending.
    active : ndarray of bool, shape ``[windows, units]``
    judged_on : str
        Name of the stream on whose values the units were judged; empty without windows.
    """

    first: npt.NDArray[np.int64]
    last: npt.NDArray[np.int64]
    active: npt.NDArray[np.bool_]
    judged_on: str

    @classmethod
    def of(cls, found: Sequence[Units]) -> UnitWindows:
        """Add up, by OR, what was found of the same units in windows that overlap.

        Calls and ranks give windows of the same batches. Where ranks cut their windows differently the
        windows become one: a unit that was active in it may not be called dead in a part of it.
        """
        number = max((units.number for units in found), default=0)
        spans: list[list[int]] = []
        rows: list[npt.NDArray[np.bool_]] = []
        for units in sorted(found, key=lambda units: units.first):
            if not spans or units.first > spans[-1][1]:
                spans.append([units.first, units.last])
                rows.append(np.zeros(number, np.bool_))
            spans[-1][1] = max(spans[-1][1], units.last)
            bits = np.unpackbits(np.frombuffer(units.active, np.uint8), count=units.number)
            rows[-1][: units.number] |= bits.astype(np.bool_)
        first, last = np.array(spans, np.int64).reshape(-1, 2).T
        return cls(
            first, last, np.array(rows, np.bool_).reshape(len(rows), number), found[0].judged_on if found else ""
        )

    def settled(self) -> UnitWindows:
        """Return the same with a last window that is shorter than the one before joined to it.

        A window that has only begun holds too few batches to call a unit dead that is seldom active.
        """
        if len(self) < 2 or self.last[-1] - self.first[-1] >= self.last[-2] - self.first[-2]:
            return self
        active = np.concatenate([self.active[:-2], self.active[-2:].any(axis=0, keepdims=True)])
        return UnitWindows(self.first[:-1], np.append(self.last[:-2], self.last[-1:]), active, self.judged_on)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def dead_share(self) -> npt.NDArray[np.float64]:
        """Share of the units that were not active in each window, shape ``[windows]``."""
        return (~self.active).mean(axis=1) if self.active.size else np.full(len(self.first), np.nan)

    @property
    def dead(self) -> npt.NDArray[np.int64]:
        """Numbers of the units that were not active in the last window."""
        return np.flatnonzero(~self.active[-1]) if len(self.active) else np.zeros(0, np.int64)


def moments_of(block: Block) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of a block without its counts, by name."""
    table: dict[str, npt.NDArray[Any]] = {"first": block.first, "last": block.last, "number": block.number}
    table.update({name: block.counters[:, i] for i, name in enumerate(COUNTERS)})
    table.update({name: block.moments[:, i] for i, name in enumerate(MOMENTS)})
    return table


def _nearest(key: str, streams: Sequence[Stream]) -> str:
    names = [stream.name for stream in streams]
    near = difflib.get_close_matches(key, names, n=3, cutoff=0.4) or names[:3]
    return "the nearest is " + ", ".join(repr(name) for name in near) + "." if near else "it has no streams at all."
