"""``ActivationStats`` of fastai, read from a recorded run: nothing is kept here but the names of layers.

What decides the design, of fastai 2.8: layers are numbered as the model lists them, those with parameters unless
others are asked for; its histograms are ``histc(40, 0, 10)``, of which each bin is five of the axis that is recorded by
default, and its ``near_zero`` counts every value up to 0.05, all negative ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from fastai.layers import ParameterModule
from fastcore.foundation import L
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from colordim import reading
from colordim.column import Kind, Phase, Stream
from colordim.errors import ArgumentError, StreamError
from colordim.integrations.fastai.callback import RecordingCallback
from colordim.integrations.session import Session
from colordim.recording.select import is_leaf, select
from colordim.run import moments_of
from colordim.statistics import finite, mean, near_zero, ratio, std

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from colordim import Run
    from colordim.charts.colorful import Colorful
    from colordim.charts.colorful_grid import WindowChoice

__all__ = ["ActivationStats"]

FloatArray = npt.NDArray[np.float64]

#: Recorded by default: the bins of fastai are unions of these, and the values that it drops are in the others.
RANGE, BINS = (-10.0, 10.0), 400
#: Of the histograms of fastai.
LOW, HIGH, HIST_BINS = 0.0, 10.0, 40
#: Near zero is ``|x| <= NEAR_ZERO``.
NEAR_ZERO = 0.05


class ActivationStats(RecordingCallback):
    """Mean, standard deviation, share near zero and histogram of the layers of a learner in every batch.

    It takes the place of ``fastai.callback.hook.ActivationStats``: same arguments, same methods, layers by the same
    numbers. All fits are one run, :attr:`RecordingCallback.run`, which has every other chart as well, and validation
    batches. Where theirs and this differ is measured in ``docs/fastai_stats.md``.

    Parameters
    ----------
    with_hist : bool
        Whether :attr:`stats` holds histograms. They are recorded in any case.
    modules : sequence of Module, optional
        Layers in the order of their numbers. By default all that call no other module and have parameters, each once,
        in the order of the model.
    every : int, optional
        Record every n-th batch of each phase.
    remove_end, detach, cpu : bool
        Without effect: nothing is attached between fits, and values are counted where they are.
    is_forward : bool
        Take outputs; False takes their gradients instead, as ``kinds="gradient"`` does.
    include_paramless : bool
        Take layers without parameters too: activation functions, of which :meth:`dead_chart` tells most.
    **options
        Those of :func:`colordim.record` and :class:`RecordingCallback`. By default ``range=(-10, 10), bins=400``, on which
        :meth:`hist` is exact; on another axis a bin that an edge of the histogram cuts is split in proportion.
        ``range=None`` tells values of every magnitude apart.

    Raises
    ------
    ArgumentError
        If `modules` and `layers` are given.
    """

    def __init__(
        self,
        with_hist: bool = False,
        modules: Sequence[nn.Module] | None = None,
        every: int | None = None,
        remove_end: bool = True,
        is_forward: bool = True,
        detach: bool = True,
        cpu: bool = True,
        include_paramless: bool = False,
        **options: Any,
    ) -> None:
        if modules is not None and "layers" in options:
            raise ArgumentError(
                "modules= and layers= both name the layers: leave one of them out.", page="fastai_stats"
            )
        if "range" not in options:
            options = {"range": RANGE, "bins": BINS, **options}
        if not include_paramless and modules is None:
            options.setdefault("layers", _has_parameters)
        options.setdefault("kinds", "activation" if is_forward else "gradient")
        super().__init__(every=1 if every is None else every, **options)
        self.with_hist = with_hist
        self._kind: Kind = "activation" if is_forward else "gradient"
        # Until the first fit: then their names, which a copy of the learner shares.
        self._given = None if modules is None else [m for m in modules if not isinstance(m, ParameterModule)]
        self._names: list[str] | None = None

    def _start(self) -> None:
        if self._given is not None:
            names = {id(target.module): target.name for target in select(self.learn.model, self._given)}
            self._names = [names[id(module)] for module in self._given]
            self._given = None
            self._options["layers"] = self._names
            self._session = Session(**self._options)
        super()._start()

    # Numbers.

    @property
    def stats(self) -> L:
        """What was recorded of each training batch, all fits one after the other.

        Returns
        -------
        L of L of dict
            By batch and layer: ``mean``, ``std`` (of a sample, as :meth:`torch.Tensor.std` has it; 0 of a single value)
            and ``near_zero`` (share of ``|x| <= 0.05``) of the finite values, ``not_finite`` (how many are not), and
            ``hist`` if it was asked for: float64 of shape ``[40]``, counts from 0 to 10. A list of dicts where a layer
            returns several tensors, None where it did not run. Read anew from the run each time.
        """
        run = self.run
        layers = [self._of_layer(run, name) for name in self._layers(run)]
        columns = L(L(self._dicts(run, streams, name)) for name, streams in layers)
        recorded = run.batches["recorded"] & (run.batches["phase"] == "train")
        return L(L(column[i] if column else None for column in columns) for i in range(int(recorded.sum())))

    def layer_stats(self, idx: int | str, phase: Phase = "train") -> L:
        """Return means, standard deviations and shares near zero of a layer, a list over the batches each.

        Parameters
        ----------
        idx : int or str
            Number of the layer, -1 the last, or name of a stream of the run. Of a layer that returns several tensors
            the number means the first; the others are named ``lstm[1][0]`` and so on.
        phase : {"train", "valid"}

        Raises
        ------
        StreamError
            If there is no such layer, or it did not run.
        """
        run = self.run
        found = _numbers(run, self._stream(run, idx), phase)
        return L(L(found[name].tolist()) for name in ("mean", "std", "near_zero"))

    def hist(self, idx: int | str, phase: Phase = "train") -> Tensor:
        """Return the logarithm of one plus the counts in 40 bins from 0 to 10, as fastai's does.

        What lies outside is in the run: ``run.counts(name)`` has all bins, ``run.moments(name)`` under- and overflow, NaN
        and infinities.

        Parameters are those of :meth:`layer_stats`.

        Returns
        -------
        Tensor of float32, shape ``[40, batches]``
        """
        run = self.run
        return torch.from_numpy(_counts(run, self._stream(run, idx), phase)).t().float().log1p()

    def share_at_most(self, idx: int | str, value: float = NEAR_ZERO, phase: Phase = "train") -> L:
        """Return the share of values up to `value` in each batch: what fastai's ``near_zero`` is.

        Exact if `value` is an edge of the axis, but for values that equal it; a bin that it cuts is split in proportion.
        Parameters are those of :meth:`layer_stats`.
        """
        run = self.run
        stream = self._stream(run, idx)
        block = run.columns(stream, phase)
        counters = moments_of(block)
        below = stream.axis.project([value, np.inf])[0]
        return L(ratio(block.counts @ below + counters["under"] + counters["neg_inf"], counters["size"]).tolist())

    # Charts: figures that a notebook shows where they are the value of a cell.

    def color_dim(
        self,
        idx: int | str,
        figsize: tuple[float, float] = (10, 5),
        ax: Axes | None = None,
        *,
        phase: Phase = "train",
        window: WindowChoice = "own",
    ) -> Figure | Colorful:
        """Draw the colorful dimension of a layer, negative values included: see :meth:`colordim.Run.colorful`.

        Parameters
        ----------
        idx, phase
            As in :meth:`layer_stats`.
        figsize : (float, float)
            Inches.
        ax : Axes, optional
            Draw there, into empty axes, instead of a figure of its own.
        window : {"own", "symlog"} or (float, float)
            Values on show; fastai's are ``(0, 10)``.

        Returns
        -------
        Figure, or the artists in `ax`
        """
        run = self.run
        stream = self._stream(run, idx)
        if ax is None:
            return run.colorful(stream, kind=self._kind, phase=phase, window=window, figsize=figsize)
        from colordim.charts.colorful_grid import colorful_in

        span = (0, run.length(phase))
        inches = ax.get_window_extent().width / ax.figure.dpi
        panel = reading.panel(run, stream, phase, span, reading.epochs(run, phase), inches)
        return colorful_in(ax, panel, window=window)

    def plot_layer_stats(
        self, idx: int | str, figsize: tuple[float, float] = (12, 3), *, phase: Phase = "train"
    ) -> Figure:
        """Draw mean, standard deviation and share near zero of a layer over the batches; parameters as above."""
        from colordim.charts.scalars import Series, grid_of, scalars_grid

        run = self.run
        stream = self._stream(run, idx)
        found = _numbers(run, stream, phase)
        index = np.asarray(run.columns(stream, phase).first, np.float64)
        titles = {"mean": "mean", "std": "std", "near_zero": f"share of |x| ≤ {NEAR_ZERO}"}
        span = (0, run.length(phase))
        bad = reading.not_finite(run, stream, phase, span) if found["not_finite"].any() else ""
        return scalars_grid(
            [
                Series(title, {phase: (index, found[name])}, bad, (0.0, 1.0) if name == "near_zero" else None)
                for name, title in titles.items()
            ],
            grid_of(3, rows=1, cols=3, figsize=figsize), start=0, stop=span[1], epochs=reading.epochs(run, phase),
            phase=phase, title=f"{run.name}: {stream.name}",
        )  # fmt: skip

    def dead_chart(self, figsize: tuple[float, float] | None = None, *, phase: Phase = "train") -> Figure:
        """Draw the share of values near zero over the batches, a panel for each layer: see :meth:`colordim.Run.dead`.

        After Jeremy Howard's lesson. Layers die behind their activation functions: record with `include_paramless`, and
        where the units of layers are known, the share that never was active is drawn too.
        """
        run = self.run
        return run.dead(self._all(run), kind=self._kind, phase=phase, threshold=NEAR_ZERO, figsize=figsize)

    def plot_stats(self, figsize: tuple[float, float] | None = None, *, phase: Phase = "train") -> Figure:
        """Draw the means and the standard deviations of all layers: see :meth:`colordim.Run.profile`.

        After Jeremy Howard's lesson.
        """
        run = self.run
        return run.profile(self._all(run), kind=self._kind, phase=phase, figsize=figsize)

    # Layers and their streams.

    def _layers(self, run: Run) -> list[str]:
        """Return the names of the layers by their numbers."""
        return self._names or list(run.info["model"]["layers"])

    def _of_layer(self, run: Run, name: str) -> tuple[str, list[Stream]]:
        """Return the streams of what a layer returns, as many as it returns tensors."""
        layers = self._layers(run)
        return name, [stream for stream in run.select(kind=self._kind) if _owner(stream, layers) == name]

    def _all(self, run: Run) -> list[Stream]:
        layers = self._layers(run)
        return [stream for stream in run.select(kind=self._kind) if _owner(stream, layers)]

    def _stream(self, run: Run, idx: int | str) -> Stream:
        if isinstance(idx, str) and any(stream.name == idx for stream in run.streams):
            return run.stream(idx, self._kind)
        layers = self._layers(run)
        if isinstance(idx, str) and idx in layers:
            idx = layers.index(idx)
        if isinstance(idx, str):
            return run.stream(idx, self._kind)  # which says what is nearest
        if not -len(layers) <= idx < len(layers):
            raise StreamError(f"{len(layers)} layers are recorded, so there is no number {idx}.", page="fastai_stats")
        name, streams = self._of_layer(run, layers[idx])
        if not streams:
            raise StreamError(f"layer {name!r} has not run, so nothing is known of it.", page="fastai_stats")
        return streams[0]

    def _dicts(self, run: Run, streams: list[Stream], layer: str) -> list[Any]:
        """Return what :attr:`stats` says of a layer, by batch; empty if it never ran."""
        outputs = []
        for stream in streams:
            found: dict[str, Any] = {name: values.tolist() for name, values in _numbers(run, stream, "train").items()}
            calls = found.pop("calls")
            if self.with_hist:
                found["hist"] = torch.from_numpy(_counts(run, stream, "train"))
            outputs.append([
                {name: values[i] for name, values in found.items()} if ran else None for i, ran in enumerate(calls)
            ])  # fmt: skip
        if [stream.name for stream in streams] == [layer]:
            return list(outputs[0])
        return [[each for each in batch if each is not None] or None for batch in zip(*outputs, strict=True)]


def _has_parameters(_: str, module: nn.Module) -> bool:
    """Whether a module is a layer with parameters; the projection that an attention never calls is none."""
    called = is_leaf(module) and not isinstance(module, NonDynamicallyQuantizableLinear)
    return called and any(True for _ in module.parameters())


def _owner(stream: Stream, layers: Sequence[str]) -> str | None:
    """Return the layer of a stream, which is named by it and by its place in what the layer returns."""
    fitting = [name for name in layers if stream.name == name or stream.name.startswith((f"{name}[", f"{name}."))]
    return max(fitting, key=len, default=None)


def _numbers(run: Run, stream: Stream, phase: Phase) -> dict[str, npt.NDArray[Any]]:
    """Return what :attr:`ActivationStats.stats` says of a stream, by batch, and how often the layer ran."""
    block = run.columns(stream, phase)
    of = moments_of(block)
    number = finite(of["size"], of["nan"], of["pos_inf"], of["neg_inf"])
    return {
        "mean": mean(of["sum"], number),
        "std": std(of["sum"], of["sum_sq"], number) * np.sqrt(number / np.maximum(number - 1, 1)),
        "near_zero": ratio(near_zero(block.counts, stream.axis.edges, NEAR_ZERO, of["zeros"]), of["size"]),
        "not_finite": of["size"] - number,
        "calls": of["calls"],
    }


def _counts(run: Run, stream: Stream, phase: Phase) -> FloatArray:
    """Return the counts in fastai's bins, shape ``[batches, 40]``."""
    rows = stream.axis.window(LOW, HIGH, HIST_BINS)[1:-1]
    return np.asarray(run.counts(stream, phase) @ rows.T, np.float64)
