"""ActivationStats says what fastai's says where that is right, and keeps what it loses."""

import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.callback import hook
    from fastai.callback.core import Callback, CancelBatchException
    from fastai.callback.progress import ProgressCallback
    from fastai.callback.schedule import Learner  # with fine_tune and lr_find
    from fastai.data.core import DataLoaders
    from fastai.layers import flatten_model
    from fastai.torch_core import set_seed

from colordim import SignedLogAxis
from colordim.errors import ArgumentError, SelectionError, StreamError
from colordim.fastai import ActivationStats

pytestmark = [
    pytest.mark.filterwarnings("ignore:You are (shadowing|setting):UserWarning"),
    pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:std:UserWarning"),  # theirs, of a single value
]
torch.set_num_threads(1)


class Data(TensorDataset):
    def new_empty(self) -> "Data":
        return Data(torch.empty(0), torch.empty(0))


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 2))


def _silent(_: Any) -> None:
    """In place of fastai's table."""


def learner(folder: Path, *cbs: Any, net: nn.Module | None = None, x: Tensor | None = None, **options: Any) -> Any:
    """Return a learner with 3 training batches of 6, and validation batches of 6 and 4."""
    set_seed(0)
    x = torch.randn(28, 4) if x is None else x
    y = (x.reshape(28, -1).sum(1) > 0).long()
    dls = DataLoaders.from_dsets(Data(x[:18], y[:18]), Data(x[18:], y[18:]), bs=6, device="cpu", num_workers=0)
    options = {"loss_func": nn.CrossEntropyLoss(), **options}
    learn = Learner(dls, net or plain(), cbs=list(cbs), path=folder, **options)
    learn.remove_cbs(ProgressCallback)
    learn.logger = _silent
    return learn


class Seen:
    """What the layers returned, call by call, as their hooks are given it: an independent record."""

    def __init__(self, *modules: nn.Module) -> None:
        self.values: list[list[Tensor]] = [[] for _ in modules]
        for module, values in zip(modules, self.values, strict=True):
            module.register_forward_hook(lambda _, __, out, values=values: values.append(out.detach().clone()))


@pytest.fixture
def ours(tmp_path: Path) -> ActivationStats:
    return ActivationStats(with_hist=True, folder=tmp_path / "run")


@pytest.mark.parametrize("options", [{}, {"include_paramless": True}, {"every": 2}], ids=str)
def test_side_by_side_with_that_of_fastai(tmp_path: Path, options: dict[str, Any]) -> None:
    theirs = hook.ActivationStats(with_hist=True, **options)
    ours = ActivationStats(with_hist=True, folder=tmp_path / "run", **options)
    learn = learner(tmp_path, theirs, ours, x=3 * torch.randn(28, 4))
    learn.fit(1, lr=0.1)
    assert len(ours.stats) == len(theirs.stats) == (2 if "every" in options else 3)
    assert len(ours.stats[0]) == len(theirs.stats[0]) == (4 if "include_paramless" in options else 3)
    for layer in range(len(theirs.stats[0])):
        assert torch.equal(ours.hist(layer), theirs.hist(layer))
        for own, their in zip(ours.layer_stats(layer)[:2], theirs.layer_stats(layer)[:2], strict=True):
            np.testing.assert_allclose(own, their, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(ours.share_at_most(layer), theirs.layer_stats(layer)[2], atol=1e-12)
        for own, their in zip(ours.stats.itemgot(layer), theirs.stats.itemgot(layer), strict=True):
            assert torch.equal(own["hist"].float(), their["hist"])
            assert own["mean"] == pytest.approx(their["mean"], rel=1e-5, abs=1e-6)
    assert {"mean", "std", "near_zero", "hist"} < set(ours.stats[0][0])


def test_the_numbers_are_those_of_the_tensors(tmp_path: Path) -> None:
    ours = ActivationStats(folder=tmp_path / "run")
    learn = learner(tmp_path, ours)
    seen = Seen(learn.model[0])
    learn.fit(1)
    for batch, own in zip(seen.values[0][:3], ours.stats.itemgot(0), strict=True):
        assert own["mean"] == pytest.approx(batch.mean().item(), rel=1e-5)
        assert own["std"] == pytest.approx(batch.std().item(), rel=1e-5)
        assert own["near_zero"] == pytest.approx((batch.abs() <= 0.05).float().mean().item())
        assert set(own) == {"mean", "std", "near_zero", "not_finite"}
    assert len(ours.layer_stats(0, "valid")[0]) == ours.hist(0, "valid").shape[1] == 2


def test_ten_itself_is_inside(tmp_path: Path) -> None:
    theirs = hook.ActivationStats(with_hist=True, include_paramless=True)
    ours = ActivationStats(with_hist=True, include_paramless=True, folder=tmp_path / "run")
    values = torch.tensor([0.0, 0.25, 9.75, 10.0, np.nextafter(np.float32(10), np.float32(11)), -0.1, 12.0])
    net = nn.Sequential(nn.Identity(), nn.Linear(7, 2))
    learner(tmp_path, theirs, ours, net=net, x=values.repeat(28, 1)).fit(1)
    assert ours.stats[0][0]["hist"].nonzero().flatten().tolist() == [0, 1, 39]
    assert ours.stats[0][0]["hist"][[0, 1, 39]].tolist() == [6, 6, 12]
    assert torch.equal(ours.hist(0), theirs.hist(0))


# What that of fastai loses.


@pytest.mark.parametrize(
    ("more", "batches"),
    [
        (lambda learn: learn.validate(), 3),
        (lambda learn: learn.get_preds(), 3),
        (lambda learn: learn.lr_find(num_it=6, show_plot=False), 3),
        (lambda learn: learn.fit(2), 9),
        (lambda learn: learn.fine_tune(2), 12),
    ],
    ids=["validate", "get_preds", "lr_find", "fit", "fine_tune"],
)
def test_the_history_stays(tmp_path: Path, ours: ActivationStats, more: Callable[[Any], object], batches: int) -> None:
    learn = learner(tmp_path, ours)
    learn.fit(1)
    before = ours.layer_stats(-1)[0]
    more(learn)
    assert len(ours.stats) == ours.hist(0).shape[1] == batches
    assert ours.layer_stats(-1)[0][:3] == before


def test_after_a_crash_nothing_is_attached_twice(tmp_path: Path, ours: ActivationStats) -> None:
    learn = learner(tmp_path, ours)
    loss = learn.loss_func
    learn.loss_func = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        learn.fit(1)
    learn.loss_func = loss
    learn.fit(1)
    assert ours.run.moments("0")["calls"].tolist() == [1] * len(ours.stats)
    assert len(ours.stats) == 3  # the batch that failed is none
    assert not learn.model[0]._forward_hooks


@pytest.mark.parametrize(("event", "expected"), [("before_batch", 2), ("after_pred", 3)])
def test_a_cancelled_batch_is_no_copy_of_the_one_before(
    tmp_path: Path, ours: ActivationStats, event: str, expected: int
) -> None:
    class Cancel(Callback):  # type: ignore[misc]
        def _event(self) -> None:
            if self.learn.training and self.learn.iter == 1:
                raise CancelBatchException

    setattr(Cancel, event, Cancel._event)
    learn = learner(tmp_path, ours, Cancel())
    seen = Seen(learn.model[0])
    learn.fit(1, lr=0.0)
    ran = [batch.mean().item() for batch in seen.values[0][:expected]]
    assert list(ours.layer_stats(0)[0]) == pytest.approx(ran, rel=1e-5)
    assert len(set(ran)) == expected


def test_negative_values_are_counted_and_are_not_near_zero(tmp_path: Path, ours: ActivationStats) -> None:
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.weight

    x = torch.tensor([-20.0, -3.0, -0.04, 5.0]).repeat(28, 1)
    learn = learner(tmp_path, ours, net=nn.Sequential(Shift(), nn.Linear(4, 2)), x=x)
    learn.fit(1, lr=0.0)
    assert list(ours.layer_stats(0)[2]) == pytest.approx([0.25] * 3)
    assert list(ours.share_at_most(0)) == pytest.approx([0.75] * 3)
    assert list(ours.share_at_most(0, -10.0)) == pytest.approx([0.25] * 3)
    run = ours.run
    assert run.moments("0")["under"].tolist() == [6, 6, 6]
    edges = run.stream("0").axis.edges
    assert run.counts("0")[:, edges[:-1] < 0].sum(1).tolist() == [12, 12, 12]
    assert run.counts("0")[0, np.searchsorted(edges, -3.0, side="right") - 1] == 6


def test_nan_and_infinities_are_counted_and_spoil_nothing(tmp_path: Path, ours: ActivationStats) -> None:
    class Spoil(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            return torch.where(
                torch.arange(out.numel()).reshape(out.shape) < 2, torch.tensor([torch.nan, torch.inf]), out
            )

    learn = learner(
        tmp_path,
        ours,
        net=nn.Sequential(Spoil(4, 2), nn.Linear(2, 2)),
        loss_func=lambda *_: torch.zeros((), requires_grad=True),
    )
    seen = Seen(learn.model[0])
    learn.fit(1, lr=0.0)
    for own, batch in zip(ours.stats.itemgot(0), seen.values[0][:3], strict=True):
        known = batch[torch.isfinite(batch)]
        assert own["not_finite"] == 2
        assert known.numel() == 10
        assert own["mean"] == pytest.approx(known.mean().item(), rel=1e-5)
        assert own["std"] == pytest.approx(known.std().item(), rel=1e-5)


class Outputs(nn.Module):
    """A layer with parameters whose output is no tensor."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Any:
        out = self.weight * x
        return {"dict": {"a": out, "b": 2 * out}, "list": [out, 2 * out], "nested": (out, (2 * out, None))}[self.kind]


class Reads(nn.Module):
    def __init__(self, kind: str, names: list[str]) -> None:
        super().__init__()
        self.outputs, self.head, self.names = Outputs(kind), nn.Linear(4, 2), names

    def forward(self, x: Tensor) -> Any:
        out = self.outputs(x)
        return self.head(out["a"] if isinstance(out, dict) else out[0])


@pytest.mark.parametrize(
    ("kind", "names"),
    [("dict", ["outputs.a", "outputs.b"]), ("list", ["outputs[0]", "outputs[1]"]), ("nested", ["outputs[0]", "outputs[1][0]"])],
)  # fmt: skip
def test_outputs_that_are_no_tensor(tmp_path: Path, ours: ActivationStats, kind: str, names: list[str]) -> None:
    learn = learner(tmp_path, ours, net=Reads(kind, names))
    learn.fit(1, lr=0.0)
    first, second = ours.stats[0][0]
    assert second["mean"] == pytest.approx(2 * first["mean"])
    assert ours.layer_stats(0) == ours.layer_stats(names[0])
    assert ours.layer_stats(names[1])[1][0] == pytest.approx(2 * first["std"])
    assert ours.hist(0).shape == (40, 3)
    assert set(ours.stats[0][1]) >= {"mean"}


def test_outputs_that_are_not_always_there(tmp_path: Path, ours: ActivationStats) -> None:
    calls: list[int] = []

    class Sometimes(Outputs):
        def forward(self, x: Tensor) -> Any:
            calls.append(len(x))
            return super().forward(x)[: 2 if len(calls) == 2 else 1]

    net: Any = Reads("list", [])
    net.outputs = Sometimes("list")
    learner(tmp_path, ours, net=net).fit(1)
    assert [len(batch) for batch in ours.stats.itemgot(0)] == [1, 2, 1]


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU])
def test_recurrent_layers(tmp_path: Path, ours: ActivationStats, cell: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = cell(2, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.rnn(x)[0][:, -1])

    theirs = hook.ActivationStats(with_hist=True)
    learn = learner(tmp_path, theirs, ours, net=Net(), x=torch.randn(28, 5, 2))
    learn.fit(1)
    for own, their in zip(ours.stats[-1][0], theirs.stats[-1][0], strict=True):
        assert own["std"] == pytest.approx(their["std"], rel=1e-5)
        assert torch.equal(own["hist"].float(), their["hist"])
    assert ours.hist(0).shape == (40, 3)


def test_an_empty_output(tmp_path: Path) -> None:
    class Net(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.head(x[:0])  # type: ignore[operator]
            return super().forward(x)

    net: Any = Net(4, 2)
    net.head = nn.Linear(4, 2)
    ours = ActivationStats(with_hist=True, modules=[net.head], folder=tmp_path / "run")
    learner(tmp_path, ours, net=nn.Sequential(net)).fit(1)
    assert [batch["hist"].sum() for batch in ours.stats.itemgot(0)] == [0, 0, 0]
    assert np.isnan(ours.layer_stats(0)).all()


def test_all_calls_of_a_shared_module_count(tmp_path: Path, ours: ActivationStats) -> None:
    shared = nn.Linear(4, 4)
    learn = learner(tmp_path, ours, net=nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 2)))
    seen = Seen(shared)
    learn.fit(1)
    both = torch.stack(seen.values[0][:2])
    assert ours.layer_stats(0)[0][0] == pytest.approx(both.mean().item(), rel=1e-5)
    assert ours.stats[0][0]["hist"].sum() == ((both >= 0) & (both <= 10)).sum()
    assert len(ours.stats[0]) == 2


def test_half_precision_counts_and_single_values(tmp_path: Path, ours: ActivationStats) -> None:
    class Half(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return (super().forward(x) * 0).half().repeat(1, 500)

    class Single(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.float())[:1, :1] + 2

    net = nn.Sequential(Half(4, 4), Single(2000, 1))
    learner(tmp_path, ours, net=net, loss_func=lambda p, _: p.sum()).fit(1, lr=0.0)
    assert [batch["hist"][0].item() for batch in ours.stats.itemgot(0)] == [12_000] * 3
    assert ours.layer_stats(1)[1] == [0.0] * 3


def test_more_values_than_single_precision_counts(tmp_path: Path) -> None:
    class Wide(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.zeros(torch.zeros(()).expand(2**24 + 3))  # type: ignore[operator]
            return super().forward(x)

    net: Any = Wide(4, 2)
    net.zeros = nn.Identity()
    ours = ActivationStats(with_hist=True, modules=[net.zeros], folder=tmp_path / "run")
    learner(tmp_path, ours, net=nn.Sequential(net)).fit(1)
    assert ours.stats[0][0]["hist"][0] == 2**24 + 3


# Layers and their numbers.


def test_modules_are_numbered_as_they_are_given(tmp_path: Path) -> None:
    net: Any = plain()
    ours = ActivationStats(modules=[net[3], net[2], net[0]], folder=tmp_path / "run")
    theirs = hook.ActivationStats(modules=[net[3], net[2], net[0]], with_hist=True)
    learn = learner(tmp_path, theirs, ours, net=net)
    for fits in (1, 2):
        learn.fit(1)
        assert [len(ours.stats), len(ours.stats[0])] == [3 * fits, 3]
        for layer in range(3):
            assert torch.equal(ours.hist(layer)[:, -3:], theirs.hist(layer))
    other = pickle.loads(cloudpickle.dumps(learn))
    assert torch.equal(other.activation_stats.hist(0), ours.hist(0))
    other.fit(1)
    assert torch.equal(other.activation_stats.hist(0).sum(), other.activation_stats.hist("3").sum())


def test_a_block_and_a_layer_of_it(tmp_path: Path) -> None:
    block = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    ours = ActivationStats(modules=[block, block[0]], folder=tmp_path / "run")
    theirs = hook.ActivationStats(modules=[block, block[0]], with_hist=True)
    learner(tmp_path, theirs, ours, net=nn.Sequential(block, nn.Linear(6, 2))).fit(1)
    for layer in range(2):
        assert torch.equal(ours.hist(layer), theirs.hist(layer))
        assert isinstance(ours.stats[0][layer], dict)
    assert not torch.equal(ours.hist(0), ours.hist(1))


@pytest.mark.pitfall("fastai's list of layers")
def test_layers_without_a_call_or_of_nobody(tmp_path: Path, ours: ActivationStats) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))  # of no layer
            self.attention = nn.MultiheadAttention(4, 1, batch_first=True)
            self.idle, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(self.attention(x, x, x)[0][:, 0] * self.scale)

    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        learner(tmp_path, ours, net=net, x=torch.randn(28, 3, 4)).fit(1)
        assert [len(batch) for batch in ours.stats] == [3] * 3
        assert ours.stats[0][1] is None
        assert len(ours.stats[0][0]) == 2
        assert ours.hist(0).shape == ours.hist(-1).shape == (40, 3)
        with pytest.raises(StreamError, match="'idle' has not run"):
            ours.hist(1)
        with pytest.raises(StreamError, match="no number 3"):
            ours.hist(3)
        with pytest.raises(StreamError, match="nearest is 'head'"):
            ours.hist("haed")
        given = ActivationStats(modules=flatten_model(net)[:2], folder=tmp_path / "given")  # one is a lone parameter
        with pytest.raises(SelectionError, match="is no part of the model"):
            learner(tmp_path, ActivationStats(modules=[nn.Linear(1, 1)]), net=net).fit(1)
    assert len(given._given or []) == 1


def test_options_of_record(tmp_path: Path) -> None:
    ours = ActivationStats(range=SignedLogAxis(5), layers="*", kinds="all", folder=tmp_path / "run")
    theirs = hook.ActivationStats(with_hist=True, include_paramless=True)
    learner(tmp_path, theirs, ours).fit(1)
    assert torch.equal(ours.hist(0), theirs.hist(0))  # the edges of fastai's bins are edges of this axis too
    assert {stream.kind for stream in ours.run.streams} >= {"weight", "gradient", "update"}
    with pytest.raises(ArgumentError, match="modules= and layers= both"):
        ActivationStats(modules=[], layers="*")


def test_gradients_in_place_of_outputs(tmp_path: Path) -> None:
    ours = ActivationStats(is_forward=False, range=None, folder=tmp_path / "run")
    learn = learner(tmp_path, ours)
    gradients: list[Tensor] = []

    def follow(_: nn.Module, __: Any, out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(gradients.append)

    learn.model[3].register_forward_hook(follow)
    learn.fit(1)
    assert list(ours.layer_stats(-1)[1]) == pytest.approx([g.std().item() for g in gradients], rel=1e-4)
    assert len(ours.plot_stats().axes) >= 2


# Charts.


@pytest.fixture
def fitted(tmp_path: Path) -> ActivationStats:
    ours = ActivationStats(include_paramless=True, folder=tmp_path / "run")
    learner(tmp_path, ours).fit(2, lr=0.1)
    return ours


def test_color_dim_shows_negative_values(fitted: ActivationStats) -> None:
    figure: Any = fitted.color_dim(0, figsize=(6, 3), window=(-10.0, 10.0))
    assert figure.get_size_inches().tolist() == [6, 3]
    shares = np.ma.filled(figure.axes[0].images[0].get_array(), 0)
    assert shares.shape[1] == 6
    np.testing.assert_allclose(shares.sum(0), 1)
    counts, edges = fitted.run.counts("0"), fitted.run.stream("0").axis.edges
    half = len(shares) // 2
    np.testing.assert_allclose(shares[:half].sum(0), counts[:, edges[:-1] < 0].sum(1) / 36)
    assert 0 < shares[:half].sum() < 6


def test_color_dim_in_axes_of_others(fitted: ActivationStats) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    drawn: Any = fitted.color_dim(0, ax=axes[1], window=(0.0, 10.0))
    counts = fitted.run.counts("0")
    rows = np.ma.filled(drawn.image.get_array(), 0)
    below = np.ma.filled(drawn.under.get_array(), 0)
    edges = fitted.run.stream("0").axis.edges
    np.testing.assert_allclose(below[0], counts[:, edges[:-1] < 0].sum(1) / 36)
    np.testing.assert_allclose(rows.sum(0) + below[0], 1)
    assert drawn.image.axes is axes[1]
    assert axes[1].get_ylim()[0] < 0
    assert not axes[0].images
    assert "Linear" in "".join(text.get_text() for text in axes[1].texts)
    plt.close(figure)


def test_plot_layer_stats(fitted: ActivationStats) -> None:
    figure: Any = fitted.plot_layer_stats(2)
    assert len(figure.axes) == 3
    for ax, values in zip(figure.axes, fitted.layer_stats(2), strict=True):
        (line,) = [line for line in ax.lines if len(line.get_xdata()) == 6]
        np.testing.assert_allclose(line.get_ydata(), values)
        np.testing.assert_allclose(line.get_xdata(), np.arange(6) + 0.5)


def test_dead_chart(fitted: ActivationStats) -> None:
    figure: Any = fitted.dead_chart()
    assert len(figure.axes) == 4
    near = [patch for patch in figure.axes[2].patches if patch.get_alpha() == 0.5]
    np.testing.assert_allclose(near[0].get_data().values, fitted.layer_stats(2)[2])
    assert max(fitted.layer_stats(2)[2]) > 0.2
    assert fitted.dead_chart((5, 4)).get_size_inches().tolist() == [5, 4]


def test_plot_stats(fitted: ActivationStats) -> None:
    figure: Any = fitted.plot_stats()
    assert len(figure.axes) == 2
    for number, ax in enumerate(figure.axes):
        lines = [line for line in ax.lines if len(line.get_xdata()) == 6]
        assert len(lines) == 4
        scale = np.sqrt(35 / 36) if number else 1.0  # the charts' deviation is that of all values, not of a sample
        np.testing.assert_allclose(lines[0].get_ydata(), scale * np.array(fitted.layer_stats(0)[number]))
    assert fitted.plot_stats((8, 5), phase="valid").axes[-1].get_xlabel() == "batch (valid)"
