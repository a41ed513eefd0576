"""Runs that draw themselves: what is to be seen is read here, and drawn by :mod:`colordim.charts`.

Matplotlib is imported only when something is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

import colordim.run
from colordim import reading
from colordim.column import PHASES, Kind, Phase, Stream
from colordim.errors import ArgumentError
from colordim.run import StreamKey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from colordim.charts.colorful_grid import WindowChoice

__all__ = ["Run"]


_PLURALS = {
    "activation": "activations",
    "gradient": "gradients of the outputs",
    "weight": "weights",
    "weight_gradient": "gradients of the weights",
    "update": "updates of the weights",
}


class Run(colordim.run.Run):
    """A recorded run with its charts.

    Each returns a :class:`matplotlib.figure.Figure` that belongs to no window and to no pyplot state: a
    notebook shows it when it is the value of a cell, ``figure.savefig(path)`` writes it.
    """

    def colorful(
        self,
        layers: StreamKey | Sequence[StreamKey] | None = None,
        *,
        kind: Kind = "activation",
        phase: Phase | Sequence[Phase] = "train",
        start: int | None = None,
        stop: int | None = None,
        window: WindowChoice = "shared",
        color: Literal["share", "count"] = "share",
        rows: int | None = None,
        cols: int | None = None,
        figsize: tuple[float, float] | None = None,
        mean: bool = False,
        profiles: bool = False,
        focus: int | None = None,
        colorbar: Literal["auto", "each", "shared"] | None = "auto",
        title: str | None = None,
    ) -> Figure:
        """Draw the colorful dimension: a column of colours for every batch, a panel for every layer.

        Nothing is sampled: where there are more batches than pixels, a column is the exact mean of
        adjacent batches.

        Parameters
        ----------
        layers : Stream, str, int or a sequence of them, optional
            As :meth:`colordim.run.Run.select` takes them; all by default.
        kind : str
            ``"activation"``, ``"gradient"``, ``"weight"``, ``"weight_gradient"`` or ``"update"``.
        phase : {"train", "valid"} or a sequence of both
            Of both, each layer has two panels beside each other.
        start, stop : int, optional
            Batches ``start <= batch < stop`` of the (first) phase, as in a slice; of another phase, what
            ran meanwhile.
        window : {"shared", "own", "symlog"} or (float, float)
            Values on show. ``"shared"``: linear, symmetric about zero, wide enough for 99.5 % of the values
            of nine layers in ten; ``"own"``: chosen for each layer; ``"symlog"``: every value, on a
            symmetric logarithmic scale. What lies outside is in the strips at the edges.
        color : {"share", "count"}
            Whether colour is a cell's share of the layer's values or its count; on a log scale.
        rows, cols : int, optional
            Of the grid of panels.
        figsize : (float, float), optional
            Inches.
        mean : bool
            Superimpose the mean, and dashed mean +- std.
        profiles : bool
            Superimpose each epoch's average histogram, and in grey that of its last quarter.
        focus : int, optional
            Draw only so many layers: those whose distribution changed most.
        colorbar : {"auto", "each", "shared"}, optional
            One for each panel, one for all, or none; ``"auto"`` chooses by the number of panels.
        title : str, optional

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        AxisError
            If the window is empty.
        StreamError
            If a part of `layers` names no stream.
        ValueError
            If another argument is none of its values.
        """
        from colordim.charts.colorful_grid import colorful_grid, grid_of
        from colordim.charts.frame import sentence_figure
        from colordim.charts.window import window_from

        _check("color", color, ("share", "count"))
        _check("colorbar", colorbar, ("auto", "each", "shared", None))
        if window not in ("shared", "own", "symlog"):
            window_from(window)  # type: ignore[arg-type]  # a bad window is told before anything is read
        phases = _phases(phase)
        spans = reading.spans(self, phases, start, stop)
        streams = self.select(layers, kind)
        if focus is not None:
            streams = reading.most_changed(self, streams, focus, phases[0], spans[phases[0]])
        if (reason := self._nothing(streams, kind, spans)) is not None:
            return sentence_figure(reason, figsize)
        shown = [phase for phase in phases if spans[phase][1] > spans[phase][0]]
        grid, bar = grid_of(
            len(streams) * len(shown),
            window=window,
            bar=colorbar,
            rows=rows,
            cols=cols,
            figsize=figsize,
            multiple=len(shown),
        )
        epochs = {phase: reading.epochs(self, phase) for phase in shown}
        panels = [
            reading.panel(
                self,
                stream,
                phase,
                spans[phase],
                epochs[phase],
                grid.panel_width,
                mark=phase if len(phases) > 1 else "",
            )
            for stream in streams
            for phase in shown
        ]
        averages = None
        if profiles:
            keys = [(stream, phase) for stream in streams for phase in shown]
            averages = {i: reading.epoch_counts(self, *key, spans[key[1]]) for i, key in enumerate(keys)}
        return colorful_grid(
            panels, grid, window=window, color=color, bar=bar, mean=mean, profiles=averages, value_name=kind.replace("_", " "),
            title=self._title(title, f"{_PLURALS[kind]}, {' and '.join(shown)}"), note=reading.notes(self),
        )  # fmt: skip

    def dead(
        self,
        layers: StreamKey | Sequence[StreamKey] | None = None,
        *,
        kind: Kind = "activation",
        phase: Phase = "train",
        start: int | None = None,
        stop: int | None = None,
        threshold: float = 0.05,
        rows: int | None = None,
        cols: int | None = None,
        figsize: tuple[float, float] | None = None,
        title: str | None = None,
    ) -> Figure:
        """Draw the share of values that are exactly zero, and of those near zero, over the batches.

        Parameters
        ----------
        layers, kind, phase, start, stop, rows, cols, figsize, title
            As in :meth:`colorful`.
        threshold : float
            Near zero is ``|x| <= threshold``; 0.05 is that of fastai.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        StreamError
            If a part of `layers` names no stream.
        ValueError
            If `threshold` is negative or `phase` is none.
        """
        from colordim.charts.dead import dead_grid, grid_of
        from colordim.charts.frame import sentence_figure

        if not threshold >= 0:
            raise ArgumentError(f"threshold={threshold} cannot be: near zero is |x| <= threshold, so it is at least 0.")
        spans = reading.spans(self, _phases(phase), start, stop)
        streams = self.select(layers, kind)
        if (reason := self._nothing(streams, kind, spans)) is not None:
            return sentence_figure(reason, figsize)
        grid = grid_of(len(streams), rows=rows, cols=cols, figsize=figsize)
        epochs = reading.epochs(self, phase)
        panels = [reading.panel(self, stream, phase, spans[phase], epochs, grid.panel_width) for stream in streams]
        return dead_grid(
            panels, grid, threshold=threshold, title=self._title(title, f"zeros among the {_PLURALS[kind]}")
        )

    def profile(
        self,
        layers: StreamKey | Sequence[StreamKey] | None = None,
        *,
        kind: Kind = "activation",
        phase: Phase = "train",
        start: int | None = None,
        stop: int | None = None,
        figsize: tuple[float, float] | None = None,
        title: str | None = None,
    ) -> Figure:
        """Draw mean and standard deviation of all layers over the batches, coloured by depth.

        Parameters are those of :meth:`colorful`.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        StreamError
            If a part of `layers` names no stream.
        ValueError
            If `phase` is none.
        """
        from colordim.charts.frame import sentence_figure
        from colordim.charts.profile import PANEL_WIDTH, profile_figure

        spans = reading.spans(self, _phases(phase), start, stop)
        streams = self.select(layers, kind)
        if (reason := self._nothing(streams, kind, spans)) is not None:
            return sentence_figure(reason, figsize)
        epochs = reading.epochs(self, phase)
        panels = [reading.panel(self, stream, phase, spans[phase], epochs, PANEL_WIDTH) for stream in streams]
        return profile_figure(panels, figsize=figsize, title=self._title(title, f"{_PLURALS[kind]}, {phase}"))

    def twin_peaks(
        self,
        layer: StreamKey = -1,
        epoch: int = -1,
        *,
        kind: Kind = "activation",
        window: tuple[float, float] | None = None,
        figsize: tuple[float, float] | None = None,
        title: str | None = None,
    ) -> Figure:
        """Draw what the end of an epoch's training says against what its validation says.

        The mean histogram of the last quarter of the epoch's training batches, and that of its whole
        validation pass; of the last layer of a binary classifier they have two peaks, its no and its yes.

        Parameters
        ----------
        layer : Stream, str or int
            The last by default.
        epoch : int
            Number of the epoch; negative numbers count from the end.
        kind : str
        window : (float, float), optional
            Values on show; by default 99.5 % of them.
        figsize : (float, float), optional
            Inches.
        title : str, optional

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        AxisError
            If the window is empty.
        StreamError
            If there is no such layer.
        ValueError
            If there is no such epoch.
        """
        from colordim.charts.frame import sentence_figure
        from colordim.charts.twin_peaks import twin_peaks_figure
        from colordim.charts.window import window_from

        chosen = None if window is None else window_from(window)
        streams = self.select(None, kind)
        spans = reading.spans(self, PHASES, None, None)
        if (reason := self._nothing(streams, kind, spans)) is not None:
            return sentence_figure(reason, figsize)
        stream = self.stream(layer, kind)
        table = self.batches
        number = _epoch_number(table["epoch"], epoch)
        counted = (table["epoch"] == number) & table["recorded"]
        train = table["index"][counted & (table["phase"] == "train")]
        valid = table["index"][counted & (table["phase"] == "valid")]
        sides = {
            "train": reading.add_up(self, stream, "train", train[3 * len(train) // 4 :]),
            "valid": reading.add_up(self, stream, "valid", valid),
        }
        return twin_peaks_figure(
            sides, stream.axis, reading.caption(stream), number, window=chosen, value_name=kind.replace("_", " "), figsize=figsize,
            title=self._title(title, f"twin peaks, epoch {number}"),
        )  # fmt: skip

    def _nothing(self, streams: Sequence[Stream], kind: Kind, spans: dict[Phase, tuple[int, int]]) -> str | None:
        """Return the sentence that stands where there is nothing to draw."""
        if not self.streams or not len(self.batches["batch"]):
            if self.problems:
                return f"Nothing can be shown: {self.problems[0]}"
            if self.ended is not None:
                return "The recording ended without a batch in which a layer was counted."
            return "Nothing has been recorded yet: a column is added with every batch that the model runs."
        if not streams:
            kinds = sorted({stream.kind for stream in self.streams})
            return f"The run has no {_PLURALS[kind]}: it holds {' and '.join(_PLURALS[kind] for kind in kinds)}."
        if all(stop <= start for start, stop in spans.values()):
            return f"There are no {' or '.join(spans)} batches in what is to be shown."
        return None

    def _title(self, title: str | None, default: str) -> str:
        if title is not None:
            return title
        return f"{self.name}: {default}" if self.name else default[0].upper() + default[1:]


def _phases(phase: Phase | Sequence[Phase]) -> tuple[Phase, ...]:
    phases: tuple[Any, ...] = (phase,) if isinstance(phase, str) else tuple(dict.fromkeys(phase))
    for one in phases:
        _check("phase", one, PHASES)
    if not phases:
        raise ArgumentError(f"no phase was given: take one of {', '.join(PHASES)}, or both.")
    return phases


def _check(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise ArgumentError(f"{name}={value!r} is unknown: take one of {', '.join(map(repr, allowed))}.")


def _epoch_number(epochs: npt.NDArray[np.int64], epoch: int) -> int:
    known = sorted(set(epochs.tolist()))
    if epoch < 0 and -epoch <= len(known):
        return int(known[epoch])
    if epoch in known:
        return epoch
    raise ArgumentError(f"the run has no epoch {epoch}: it has {len(known)}, from {known[0]} to {known[-1]}.")
