"""Runs that draw themselves: what is to be seen is read here, and drawn by :mod:`colordim.charts`.

Matplotlib is imported only when something is drawn.
"""

from __future__ import annotations

import html
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import colordim.run
from colordim import asking, reading
from colordim.column import KINDS, PHASES, Kind, Phase
from colordim.diagnosis.diagnosing import diagnose
from colordim.diagnosis.finding import Diagnosis
from colordim.diagnosis.muting import project_mute
from colordim.diagnosis.read import gather
from colordim.errors import ArgumentError, DependencyError, StreamError
from colordim.export import dataframe, uhi
from colordim.run import StreamKey

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from colordim.charts.colorful_grid import WindowChoice
    from colordim.web.widget import RunWidget

__all__ = ["Run"]


class Run(colordim.run.Run):
    """A recorded run with its charts, and what it is exported to.

    Each chart is a :class:`matplotlib.figure.Figure` that belongs to no window and to no pyplot state: a
    notebook shows it when it is the value of a cell, ``figure.savefig(path)`` writes it.
    """

    to_hist = uhi.to_hist
    to_pandas = dataframe.to_pandas

    def colorful(
        self,
        layers: StreamKey | Sequence[StreamKey] | None = None,
        *,
        kind: Kind = "activation",
        phase: Phase | Sequence[Phase] = "train",
        start: int | None = None,
        stop: int | None = None,
        window: WindowChoice | None = None,
        by: Literal["class"] | None = None,
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
        window : {"shared", "own", "symlog"} or (float, float), optional
            Values on show. ``"shared"``: linear, symmetric about zero, wide enough for 99.5 % of the values
            of nine layers in ten; ``"own"``: chosen for each layer; ``"symlog"``: every value, on a
            symmetric logarithmic scale. What lies outside is in the strips at the edges. By default
            activations share theirs; other kinds, whose layers differ by orders of magnitude, do not.
        by : {"class"}, optional
            Draw one layer with its classes: over the panel, and below it for each class, the average
            histogram of the last quarter of an epoch. Needs facets, as ``record(facets={"head": "class"})``
            records them; `rows`, `cols`, `profiles`, `focus`, `colorbar` and a second phase do not apply.
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
        from colordim.charts.window import window_from

        asking.check("color", color, ("share", "count"))
        asking.check("colorbar", colorbar, ("auto", "each", "shared", None))
        asking.check("by", by, (None, "class"))
        if window is None:
            window = "shared" if kind == "activation" else "own"
        if window not in ("shared", "own", "symlog"):
            window_from(window)  # type: ignore[arg-type]  # a bad window is told before anything is read
        if by == "class":
            asking.refuse("by='class'", rows=rows, cols=cols, profiles=profiles or None, focus=focus)
            return self._by_class(layers, kind, phase, start, stop, window, color, mean, figsize, title)
        asked = asking.asked(self, layers, kind, phase, start, stop)
        if isinstance(asked, str):
            return self._sentence(asked, figsize)
        streams, phases, spans = asked.streams, asked.phases, asked.spans
        if focus is not None:
            streams = reading.most_changed(self, streams, focus, phases[0], spans[phases[0]])
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
            panels, grid, window=window, color=color, bar=bar, mean=mean, profiles=averages, value_name=asking.NAMES[kind],
            title=self._title(title, f"{asking.PLURALS[kind]}, {' and '.join(shown)}"), note=reading.notes(self),
        )  # fmt: skip

    def _by_class(
        self,
        layers: StreamKey | Sequence[StreamKey] | None,
        kind: Kind,
        phase: Phase | Sequence[Phase],
        start: int | None,
        stop: int | None,
        window: WindowChoice,
        color: Literal["share", "count"],
        mean: bool,
        figsize: tuple[float, float] | None,
        title: str | None,
    ) -> Figure:
        from colordim.charts.classes import FEW, PANEL_WIDTH, classes_figure

        asked = asking.asked(self, layers, kind, phase, start, stop)
        if isinstance(asked, str):
            return self._sentence(asked, figsize)
        with_parts = [(stream, parts) for stream in asked.streams if (parts := self.facets(stream))]
        if not with_parts:
            name = asked.streams[-1].name
            raise StreamError(
                f'no classes of {name!r} were recorded: pass facets={{"{name}": "class"}} to colordim.record.',
                page="facets",
            )
        if len(with_parts) > 1 or len(asked.phases) > 1:
            names = ", ".join(repr(stream.name) for stream, _ in with_parts)
            raise ArgumentError(
                f"by='class' draws one layer in one phase: name one of {names}, and one phase.", page="facets"
            )
        ((stream, parts),) = with_parts
        (one,) = asked.phases
        span = asked.spans[one]
        panel = reading.panel(self, stream, one, span, reading.epochs(self, one), PANEL_WIDTH)
        counted = reading.class_counts(self, stream, parts, one, span, 1 if len(parts) > FEW else 12)
        if not counted:
            return self._sentence(f"No batch of {stream.name} was recorded in what is to be shown.", figsize)
        return classes_figure(
            panel, counted, window=window, color=color, mean=mean, value_name=asking.NAMES[kind], figsize=figsize,
            title=self._title(title, f"{asking.PLURALS[kind]} of {stream.name} by class, {one}"), note=reading.notes(self),
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

        A wide ReLU layer has many zeros in good health. Where the units of a layer were recorded, the share of
        those that were not active even once in a window of batches is drawn too: these are dead.

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

        if not threshold >= 0:
            raise ArgumentError(f"threshold={threshold} cannot be: near zero is |x| <= threshold, so it is at least 0.")
        asked = asking.asked(self, layers, kind, phase, start, stop)
        if isinstance(asked, str):
            return self._sentence(asked, figsize)
        grid = grid_of(len(asked.streams), rows=rows, cols=cols, figsize=figsize)
        units = [reading.dead_units(self, s, phase, asked.spans[phase]) for s in asked.streams]
        return dead_grid(
            asked.panels(self, grid.panel_width), grid, threshold=threshold, units=units if kind == "activation" else (),
            title=self._title(title, f"zeros among the {asking.PLURALS[kind]}, {phase}"), note=reading.notes(self),
        )  # fmt: skip

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
        """Draw mean and standard deviation of all layers over the batches.

        Up to eight layers are lines; of more each is a strip, whose colour is the value.

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
        from colordim.charts.profile import PANEL_WIDTH, profile_figure

        asked = asking.asked(self, layers, kind, phase, start, stop)
        if isinstance(asked, str):
            return self._sentence(asked, figsize)
        panels = asked.panels(self, PANEL_WIDTH)
        return profile_figure(panels, figsize=figsize, title=self._title(title, f"{asking.PLURALS[kind]}, {phase}"))

    def updates(
        self,
        layers: StreamKey | Sequence[StreamKey] | None = None,
        *,
        phase: Phase = "train",
        start: int | None = None,
        stop: int | None = None,
        figsize: tuple[float, float] | None = None,
        title: str | None = None,
    ) -> Figure:
        """Draw log10 of std(update) / std(weight) of each parameter over the batches.

        The rule of thumb is -3: "a rough heuristic is that this ratio should be somewhere around 1e-3" (Karpathy,
        CS231n notes 3, "Ratio of weights:updates"; plotted as here, of the matrices, in his makemore 3). Below -4
        steps count as too small and above -1 as too large by TheDeepChecker (Braiek and Khomh, TOSEM 2022,
        ``settings.yaml``: the same ratio, of mean magnitudes over ten steps). Healthy runs that fade their learning
        rate out leave the band downwards: judge it early, and beside the schedule.

        Up to eight parameters are lines, of more each is a strip. An update that is exactly zero (a frozen
        parameter, one outside of the optimiser) is marked as such; the ratio of a weight without spread, such as
        a bias before the first step, is not defined and left blank.

        Parameters
        ----------
        layers : Stream, str, int or a sequence of them, optional
            Parameters, as :meth:`colordim.run.Run.select` takes them; by default all of at least two dimensions,
            since of biases and gains the ratio says little.
        phase, start, stop, figsize, title
            As in :meth:`colorful`.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        StreamError
            If a part of `layers` names no parameter with updates, or the weights were not recorded.
        ValueError
            If `phase` is none.
        """
        from colordim.charts.updates import PANEL_WIDTH, updates_figure

        asked = asking.asked(self, layers, "update", phase, start, stop)
        if isinstance(asked, str):
            return self._sentence(asked, figsize)
        matrices = [stream for stream in asked.streams if len(stream.shape) > 1]
        streams = asked.streams if layers is not None or not matrices else matrices
        span = asked.spans[phase]
        rows = reading.update_rows(self, streams, phase, span, PANEL_WIDTH)
        if not rows:
            raise StreamError(
                f"the weights of {streams[0].name!r} were not recorded, only their updates: "
                'pass kinds=("weight", "update") to colordim.record.',
                page="kinds#parameters",
            )
        left_out = len(asked.streams) - len(streams)
        notes = [f"{left_out} biases and gains left out"] if left_out else []
        return updates_figure(
            rows, phase=phase, start=span[0], stop=span[1], epochs=reading.epochs(self, phase), figsize=figsize,
            title=self._title(title, "updates relative to the weights"),
            note="  ·  ".join([*notes, *filter(None, [reading.notes(self)])]),
        )  # fmt: skip

    def scalars(
        self,
        names: str | Sequence[str] | None = None,
        *,
        start: int | None = None,
        stop: int | None = None,
        rows: int | None = None,
        cols: int | None = None,
        figsize: tuple[float, float] | None = None,
        title: str | None = None,
    ) -> Figure:
        """Draw what was logged, on the axis of the training batches: a panel for each name.

        Of validation the mean of each pass is drawn where it ran. Positive values that span more than two
        decades (a learning rate, a loss that explodes) are on a logarithmic scale.

        Parameters
        ----------
        names : str or sequence of str, optional
            By default all that was logged, what recording cost left out.
        start, stop, rows, cols, figsize, title
            As in :meth:`colorful`.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ValueError
            If nothing was logged under one of the names.
        """
        from colordim.charts.scalars import grid_of, scalars_grid
        from colordim.store.base import BATCH_COLUMNS

        logged = [name for name in self.batches if name not in BATCH_COLUMNS]
        if names is None:
            chosen = reading.logged(self)
        else:
            chosen = list(dict.fromkeys([names] if isinstance(names, str) else names))
        for name in chosen:
            if name not in logged:
                there = f"there is {', '.join(map(repr, logged))}" if logged else "nothing was logged at all"
                raise ArgumentError(f"nothing was logged as {name!r}: {there}.")
        if not chosen:
            return self._sentence("Nothing was logged: rec.log(loss=loss) puts a value on this axis.", figsize)
        phase: Phase = "train" if self.length("train") else "valid"
        span = reading.spans(self, (phase,), start, stop)[phase]
        grid = grid_of(len(chosen), rows=rows, cols=cols, figsize=figsize)
        return scalars_grid(
            reading.series(self, chosen, span), grid, start=span[0], stop=span[1], epochs=reading.epochs(self, phase),
            phase=phase, title=self._title(title, "what was logged"),
        )  # fmt: skip

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
        from colordim.charts.twin_peaks import twin_peaks_figure
        from colordim.charts.window import window_from

        chosen = None if window is None else window_from(window)
        asked = asking.asked(self, layer, kind, PHASES)
        if isinstance(asked, str):
            return self._sentence(asked, figsize)
        if len(asked.streams) > 1:
            raise ArgumentError(f"twin_peaks draws one layer, and {layer!r} names {len(asked.streams)}.")
        (stream,) = asked.streams
        number = asking.epoch_number(self.batches["epoch"], epoch)
        return twin_peaks_figure(
            reading.twin_sides(self, stream, number), stream.axis, reading.caption(stream), number, window=chosen, value_name=asking.NAMES[kind], figsize=figsize,
            title=self._title(title, f"twin peaks, epoch {number}"),
        )  # fmt: skip

    def report(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        columns: int = 750,
        exact: bool = False,
        layers: StreamKey | Sequence[StreamKey] | None = None,
        kind: Kind | Sequence[Kind] = KINDS,
        phase: Phase | Sequence[Phase] = PHASES,
    ) -> Path:
        """Write the run as one HTML file: the page of ``colordim view``, which opens from the disk and needs no network.

        Parameters
        ----------
        path : path-like, optional
            The file; it is replaced if it is there. By default the name of the run and ``-report.html``.
        columns : int
            Columns of a panel at most, each the exact sum of adjacent batches; the file grows with them.
        exact : bool
            Keep every count exactly, not with one byte each (within 6 %), for about four times the bytes.
        layers : Stream, str, int or a sequence of them, optional
            As :meth:`colordim.run.Run.select` takes them; all by default.
        kind, phase : str or a sequence of them
            All that was recorded by default.

        Returns
        -------
        pathlib.Path
            Of the file.

        Raises
        ------
        StreamError
            If a part of `layers` names no stream of any of the kinds.
        StoreError
            If `path` is a folder.
        ValueError
            If another argument is none of its values.
        """
        from colordim.web.report import report

        streams, phases = asking.streams_of(self, layers, kind), asking.phases_of(phase)
        file = Path(path) if path is not None else Path(f"{asking.file_name(self.name)}-report.html")
        return report(self, file, streams=streams, phases=phases, columns=columns, exact=exact)

    def diagnose(self, mute: Collection[str] | None = None) -> Diagnosis:
        """Say what is wrong, in which layers, since which batch, why, and what to try; or that nothing is.

        Parameters
        ----------
        mute : collection of str, optional
            Symptoms that are not to be looked for, such as ``"massive-activations"``, or ``"dead-units:features.*"`` for
            some layers. By default those that ``[tool.colordim] mute`` of the nearest ``pyproject.toml`` names.

        Returns
        -------
        Diagnosis
            To be printed, or shown as the value of a cell. ``findings`` has the root causes, each with what it explains.

        Raises
        ------
        ArgumentError
            If a muted symptom is none; the message names the nearest.
        """
        if isinstance(mute, str):
            raise ArgumentError(
                f"mute={mute!r} cannot be: it is a list of symptoms, such as [{mute!r}].", page="diagnose#muting"
            )
        return diagnose(gather(self), project_mute() if mute is None else mute)

    def widget(self) -> RunWidget:
        """Return the page of ``colordim view`` as a widget: in Jupyter, VS Code and Colab, live while the run is recorded.

        Returns
        -------
        anywidget.AnyWidget
            Shown when it is the value of a cell. A saved notebook keeps a picture in its place. ``close()`` takes it away.

        Raises
        ------
        DependencyError
            If anywidget is not installed.
        """
        try:
            import anywidget  # noqa: F401  # of its own, so that no other missing package is mistaken for it
        except ImportError:
            raise DependencyError(
                'widget needs anywidget, which is not installed: pip install "colordim[notebook]".', page="notebook"
            ) from None
        from colordim.web.widget import RunWidget

        return RunWidget(self, self._picture())

    def _repr_html_(self) -> str:
        """Return a picture of the run, for a notebook."""
        try:
            from colordim.web import still

            return still.image(self._picture(), f"{self!r}, a panel for each layer: its values against the batches")
        except Exception:  # a notebook must show something, whatever is wrong with the run
            return f"<pre>{html.escape(repr(self))}</pre>"

    def _picture(self) -> bytes:
        from colordim.web import still

        kind: Kind = next((stream.kind for stream in self.streams), "activation")
        many = len(self.select(kind=kind)) > still.MOST_PANELS
        phase: Phase = "train" if self.length("train") or not self.length("valid") else "valid"
        return still.png(self.colorful(kind=kind, phase=phase, focus=still.MOST_PANELS if many else None))

    def _sentence(self, sentence: str, figsize: tuple[float, float] | None) -> Figure:
        from colordim.charts.frame import sentence_figure

        return sentence_figure(sentence, figsize)

    def _title(self, title: str | None, default: str) -> str:
        if title is not None:
            return title
        return f"{self.name}: {default}" if self.name else default[0].upper() + default[1:]
