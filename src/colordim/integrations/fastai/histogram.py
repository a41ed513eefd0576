"""The callback of 2019, with its arguments: the colorful dimension in two lines of fastai."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastai.layers import flatten_model
from fastai.learner import Learner
from fastai.torch_core import rank_distrib
from torch import nn

from colordim.axis import LinearAxis
from colordim.errors import ArgumentError, SelectionError
from colordim.integrations.fastai.acts_hist import acts_hist
from colordim.integrations.fastai.callback import RecordingCallback
from colordim.integrations.fastai.live import LiveChart
from colordim.recording.select import layer_name, roots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from colordim.run import StreamKey

__all__ = ["ActivationsHistogram"]


class ActivationsHistogram(RecordingCallback):
    """Records the histograms of a learner's layers, and draws them: ``learn.activations_histogram``.

    Parameters
    ----------
    modulesId : int or sequence of int, optional
        Numbers of the modules to record in the flattened model, of which -1 is the last; by default all. They are those
        of ``fastai.layers.flatten_model(learn.model)``.
    hMin, hMax : float, optional
        Range of the histograms; what lies outside is counted apart. Without `hMin` it is -`hMax`, without both there is
        no range to choose: buckets over all magnitudes.
    nBins : int
        Number of bins of the range.
    useClasses : bool
        Record besides the last of these layers each class of it, named by ``learn.dls.vocab``.
    liveChart : bool
        Draw the Twin Peaks chart after each epoch: in a notebook below the cell, elsewhere into ``twin_peaks.png`` in
        the folder of the run.
    **options
        Those of :class:`RecordingCallback`. ``layers`` takes the place of `modulesId`, ``range`` and ``bins`` that of
        `hMin`, `hMax` and `nBins`.

    Raises
    ------
    ArgumentError
        If it is called with a learner, as fastai 1 did, or `modulesId` holds anything but numbers.
    AxisError
        If the range is empty or without bins.
    """

    def __init__(
        self,
        modulesId: int | Sequence[int] | None = None,  # noqa: N803 - the names are those of 2019
        hMin: float | None = -10,  # noqa: N803
        hMax: float | None = 10,  # noqa: N803
        nBins: int = 200,  # noqa: N803
        useClasses: bool = False,  # noqa: N803
        liveChart: bool = True,  # noqa: N803
        **options: Any,
    ) -> None:
        if isinstance(modulesId, Learner):
            raise ArgumentError(
                "ActivationsHistogram takes no learner, as it did from callback_fns= of fastai 1: write "
                "vision_learner(dls, resnet18, cbs=ActivationsHistogram(modulesId=None, hMin=-10, hMax=10, nBins=200)).",
                page="fastai#arguments",
            )
        self._numbers = _numbers(modulesId)
        if self._numbers is not None and options.get("layers") is not None:
            raise ArgumentError(
                "modulesId and layers both say which layers to record: leave one of them out.", page="fastai#arguments"
            )
        if hMax is not None and "range" not in options:
            options["range"] = LinearAxis(-hMax if hMin is None else hMin, hMax, nBins)
        self._classes = useClasses
        self._live = LiveChart() if liveChart else None
        super().__init__(**options)

    def options_for(self, learn: Any) -> dict[str, Any]:
        options: dict[str, Any] = {}
        flat = flatten_model(roots(learn.model)[-1])
        chosen = flat if self._numbers is None else [_module(flat, number) for number in self._numbers]
        if self._numbers is not None:
            options["layers"] = chosen
        if self._classes:
            names = {id(module): layer_name(path, module) for path, module in learn.model.named_modules()}
            last = next(names[id(module)] for module in reversed(chosen) if id(module) in names)
            options["facets"] = {last: _vocab(learn.dls), **(self._options.get("facets") or {})}
        return options

    def fit_begun(self) -> None:
        if self._live is not None:
            self._live.begin()

    def epoch_over(self) -> None:
        if self._live is not None and not rank_distrib():
            self._live.update(self.run)

    def plotActsHist(  # noqa: N802
        self,
        cols: int | None = None,
        figsize: tuple[float, float] | None = None,
        toDisplay: StreamKey | Sequence[StreamKey] | None = None,  # noqa: N803
        hScale: float | None = None,  # noqa: N803
        showEpochs: bool = True,  # noqa: N803
        showLayerInfo: bool = True,  # noqa: N803
        aspectAuto: bool = True,  # noqa: N803
        showImage: bool = True,  # noqa: N803
        **options: Any,
    ) -> Figure:
        """Draw the colorful dimension: a panel for every layer, a column of colours for every training batch.

        Parameters
        ----------
        cols : int, optional
            Panels beside each other; by default as many as suit their number.
        figsize : (float, float), optional
            Inches.
        toDisplay : int, str or a sequence of them, optional
            Numbers among the recorded layers, or names; by default all. One layer that was recorded with its classes is
            drawn with them.
        hScale : float, optional
            Width of the curves of `showEpochs`, in batches for each value that a bin holds in a batch. By default the
            fullest bin reaches over nine tenths of its epoch.
        showEpochs : bool
            Superimpose each epoch's average histogram (black), and that of its last quarter (grey).
        showLayerInfo : bool
            Whether titles say the shape of the output and the arguments of the layer.
        aspectAuto : bool
            False makes all cells square: as high as a bin, and as wide as a batch.
        showImage : bool
            False leaves the colours out, and shows the curves alone.
        **options
            Others of :meth:`colordim.Run.colorful`.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        RecordingError
            If nothing was recorded yet.
        ArgumentError
            If an argument is none of its values.
        """
        chosen = self._options.get("range")
        if isinstance(chosen, LinearAxis) and options.get("kind", "activation") == "activation":
            options.setdefault("window", (chosen.lo, chosen.hi))
        return acts_hist(
            self.run, toDisplay, cols=cols, figsize=figsize, reach=hScale, epochs=showEpochs, info=showLayerInfo,
            stretch=aspectAuto, image=showImage, **options,
        )  # fmt: skip


def _numbers(modules: object) -> tuple[int, ...] | None:
    if modules is None:
        return None
    numbers = tuple(modules) if isinstance(modules, (list, tuple, range)) else (modules,)
    if not numbers or not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise ArgumentError(
            f"modulesId={modules!r} cannot be: give numbers of modules of the flattened model, or layers= with their names.",
            page="fastai#arguments",
        )
    return numbers


def _module(flat: Sequence[nn.Module], number: int) -> nn.Module:
    if not -len(flat) <= number < len(flat):
        raise SelectionError(
            f"modulesId={number} cannot be: the flattened model has {len(flat)} modules, from 0 to {len(flat) - 1}.",
            page="fastai#arguments",
        )
    return flat[number]


def _vocab(dls: Any) -> str | list[str]:
    """Return the names of the classes; of data whose inputs have a vocabulary too, those of the last one."""
    vocab: Sequence[Any] = getattr(dls, "vocab", None) or []
    if len(vocab) and not isinstance(vocab[0], str) and hasattr(vocab[0], "__len__"):
        vocab = vocab[-1]
    return [str(each) for each in vocab] or "class"
