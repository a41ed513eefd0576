"""What fastai's ActivationStats loses: both on the same trainings, scenario by scenario, and what each of them costs.

Every figure is measured when this runs. The table is that of docs/fastai_stats.md.

    python benchmarks/fastai_stats.py
"""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import colordim
from colordim.demo.data import load_digits
from colordim.demo.network import lesson_network
from colordim.errors import DependencyError

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from colordim.fastai import ActivationStats
except DependencyError as error:
    raise SystemExit(str(error)) from None

from fastai import __version__ as fastai_version
from fastai.callback import hook
from fastai.callback.core import Callback, CancelBatchException
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import Learner  # with fine_tune and lr_find
from fastai.data.core import DataLoaders
from fastai.torch_core import set_seed

Kind = Callable[..., Any]
Row = tuple[str, str, str]


class Data(TensorDataset):
    """A dataset that learners can export."""

    def new_empty(self) -> Data:
        return Data(torch.empty(0), torch.empty(0))


_HOME = tempfile.TemporaryDirectory(prefix="colordim-fastai-")
FOLDER = _HOME.name


def theirs(**options: Any) -> Any:
    """Return fastai's callback."""
    return hook.ActivationStats(with_hist=True, **options)


def ours(**options: Any) -> Any:
    """Return ours, with a run of its own."""
    return ActivationStats(with_hist=True, folder=Path(tempfile.mkdtemp(dir=FOLDER)) / "run", **options)


def _silent(_: Any) -> None:
    """In place of fastai's table."""


def learner(stats: Any, net: nn.Module | None = None, *cbs: Any, x: Tensor | None = None) -> Any:
    """Return a learner with 6 training and 2 validation batches of 8."""
    set_seed(0)
    x = torch.randn(64, 4) if x is None else x
    y = (torch.arange(64) % 2).long()
    net = net or nn.Sequential(nn.Linear(4, 16), nn.ReLU(inplace=True), nn.Linear(16, 2))
    net(x[:8])  # what is lazy gets its shape
    dls = DataLoaders.from_dsets(Data(x[:48], y[:48]), Data(x[48:], y[48:]), bs=8, device="cpu", num_workers=0)
    learn = Learner(dls, net, loss_func=nn.CrossEntropyLoss(), cbs=[stats, *cbs], path=FOLDER)
    learn.remove_cbs(ProgressCallback)
    learn.logger = _silent
    return learn


def row(name: str, what: Callable[[Kind], str]) -> Row:
    """Return what a scenario says of both, or the error that ends it."""

    def attempt(kind: Kind) -> str:
        try:
            return what(kind)
        except Exception as error:
            return f"{type(error).__name__}: {str(error).splitlines()[0]}"

    return name, attempt(theirs), attempt(ours)


# The scenarios.


def kept(kind: Kind, more: Callable[[Any], object]) -> str:
    """Count the training batches of fits that are known after a fit of six, and something else."""
    stats = kind()
    learn = learner(stats)
    true: list[float] = []

    def witness(_: nn.Module, __: Any, out: Tensor) -> None:
        if learn.model.training and "lr_finder" not in vars(learn):
            true.append(out.mean().item())

    learn.model[0].register_forward_hook(witness)
    learn.fit(1)
    more(learn)
    means = list(stats.layer_stats(0)[0]) if len(stats.stats) else []
    return f"{sum(bool(np.isclose(mean, means, rtol=1e-5).any()) for mean in true)} of {len(true)}"


def crashed(kind: Kind) -> str:
    """Count the hooks of a layer in a fit, in the next one after an exception, and behind that."""
    stats = kind()
    learn = learner(stats)
    loss = learn.loss_func
    seen: list[int] = []

    def count(*batch: Any) -> Tensor:
        seen.append(len(learn.model[0]._forward_hooks))
        found: Tensor = loss(*batch)
        return found

    learn.loss_func = count
    learn.fit(1)
    learn.loss_func = lambda *_: 1 / 0
    with contextlib.suppress(ZeroDivisionError):
        learn.fit(1)
    before, learn.loss_func = seen[-1], count
    learn.fit(1)
    return f"{before}, then {seen[-1]}, and {len(learn.model[0]._forward_hooks)} left"


def cancelled(kind: Kind) -> str:
    """Cancel one batch of six before the model runs."""

    class Cancel(Callback):  # type: ignore[misc]
        def before_batch(self) -> None:
            if self.learn.training and self.learn.iter == 2:
                raise CancelBatchException

    stats = kind()
    learner(stats, None, Cancel()).fit(1)
    means = stats.layer_stats(0)[0]
    return f"{len(means)} batches, {len(means) - len(set(means))} of them a copy of the one before"


def said(kind: Kind, net: nn.Module, what: Callable[[Any], str], x: Tensor | None = None) -> str:
    """Return what is said after one epoch of a copy: an exception leaves hooks of theirs behind."""
    stats = kind()
    learner(stats, copy.deepcopy(net), x=x).fit(1)
    return what(stats)


def counted(stats: Any) -> str:
    """Say how many values of the first layer and batch are in a histogram, and what is counted besides."""
    texts = [f"{int(stats.stats[0][0]['hist'].sum()):,} in 0 to 10"]
    if isinstance(stats, ActivationStats):
        run = stats.run
        stream = run.select()[0]
        columns = {name: int(values[0]) for name, values in run.moments(stream).items() if name not in ("min", "max")}
        below = int(run.counts(stream)[0, stream.axis.edges[:-1] < 0].sum()) + columns["under"]
        infinite = columns["pos_inf"] + columns["neg_inf"]
        rest = {"below 0": below, "above 10": columns["over"], "NaN": columns["nan"], "infinite": infinite}
        texts += [f"{number:,} {where}" for where, number in rest.items() if number]
    return ", ".join(texts)


def near_zero(stats: Any) -> str:
    """Say what share of the first layer's first batch is near zero."""
    share = f"{stats.stats[0][0]['near_zero']:.2f}"
    return (
        f"{share}; `share_at_most(0)`: {stats.share_at_most(0)[0]:.2f}" if isinstance(stats, ActivationStats) else share
    )


def validated(stats: Any) -> str:
    """Count the validation batches that are known."""
    if isinstance(stats, ActivationStats):
        return f"{len(stats.layer_stats(0, 'valid')[0])} of 2"
    return f"{len(stats.stats) - 6} of 2"


class Returns(nn.Module):
    """A layer with a parameter that returns whatever it is told."""

    def __init__(self, returns: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.scale, self.returns = nn.Parameter(torch.ones(1)), returns

    def forward(self, x: Tensor) -> Any:
        return self.returns(x)


class Net(nn.Module):
    """Runs a layer, and reads its output or just its input."""

    def __init__(self, inner: nn.Module, *, calls: int = 1) -> None:
        super().__init__()
        self.inner, self.head, self.calls = inner, nn.LazyLinear(2), calls

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.calls):
            self.inner(x)
        out: Tensor = self.head(x.flatten(1))
        return out


class Scaled(nn.Module):
    """Has a parameter that belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.scale = nn.Linear(4, 2), nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.scale * self.head(x)
        return out


def spoilt(x: Tensor) -> Tensor:
    """Put NaN and Inf into a batch."""
    out = x.clone()
    out[0, :2] = torch.tensor([torch.nan, torch.inf])
    return out


def rows() -> Iterator[Row]:
    """Yield the scenarios: what is asked, what fastai's says, and what ours says."""
    after: dict[str, Callable[[Any], object]] = {
        "`validate()`": lambda learn: learn.validate(),
        "`get_preds()`": lambda learn: learn.get_preds(),
        "`lr_find()`": lambda learn: learn.lr_find(num_it=5, show_plot=False),
        "`fit(1)`": lambda learn: learn.fit(1),
        "`fine_tune(1)`": lambda learn: learn.fine_tune(1),
    }
    for name, more in after.items():
        yield row(f"training batches known after `fit(1)` and {name}", lambda kind, more=more: kept(kind, more))  # type: ignore[misc]
    yield row("hooks on a layer in a fit, in one after a crash, and behind it", crashed)
    yield row("six batches, one cancelled before the model ran", cancelled)
    yield row("validation batches known", lambda kind: said(kind, Scaled(), validated))

    torch.manual_seed(1)
    normal = 4 * torch.randn(64, 4)
    same, broken = Net(Returns(lambda x: x)), Net(Returns(spoilt))
    yield row("32 normal values of standard deviation 4", lambda kind: said(kind, same, counted, normal))
    yield row("share of them near zero", lambda kind: said(kind, same, near_zero, normal))
    yield row("NaN and Inf among them", lambda kind: said(kind, broken, counted, normal))
    yield row("their mean", lambda kind: said(kind, broken, lambda s: f"{s.stats[0][0]['mean']:.3f}", normal))
    zeros = Net(Returns(lambda _: torch.zeros(4096, dtype=torch.half)))
    yield row("4,096 zeros in half precision", lambda kind: said(kind, zeros, counted))
    many = Net(Returns(lambda x: torch.zeros(2**24 + 3 if len(x) == 8 else 1)))
    yield row(f"{2**24 + 3:,} zeros", lambda kind: said(kind, many, counted))
    twice = Net(Returns(torch.abs), calls=2)
    yield row("a layer called twice, each time with 32 values", lambda kind: said(kind, twice, counted))

    outputs: dict[str, nn.Module] = {
        "a layer that returns a dict": Net(Returns(lambda x: {"a": x})),
        "a layer that returns a list": Net(Returns(lambda x: [x])),
        "a layer that returns an empty tensor": Net(Returns(lambda x: x[:0])),
        "`hist(0)` of an LSTM": Net(nn.LSTM(4, 3)),
        "`hist(-1)` where a parameter belongs to no layer": Scaled(),
    }
    for name, net in outputs.items():
        at = -1 if "-1" in name else 0
        yield row(name, lambda kind, net=net, at=at: said(kind, net, lambda s: f"{s.hist(at).shape[1]} batches"))  # type: ignore[misc]


def compared() -> str:
    """Train on digits with both at once, and compare all histograms, means and deviations."""
    a, b = theirs(include_paramless=True), ours(include_paramless=True)
    learn = digits([a, b])
    learn.fit(1, 0.06)
    layers = range(len(a.stats[0]))
    equal = sum(int((a.hist(i) == b.hist(i)).all(0).sum()) for i in layers)
    apart = max(
        np.abs(np.subtract(x, y)).max() / np.abs(x).max()
        for i in layers
        for x, y in zip(list(a.layer_stats(i))[:2], b.layer_stats(i), strict=False)
    )
    return (
        f"Both on one training of {len(a.stats)} batches and {len(layers)} layers: {equal:,} of {len(a.stats) * len(layers):,} "
        f"histograms are equal, means and deviations within {apart:.0e} of their largest."
    )


def digits(cbs: list[Any]) -> Any:
    """Return a learner of the lesson's network on 4,000 digits, in batches of 64."""
    data = load_digits()
    set_seed(0)
    dls = DataLoaders.from_dsets(
        TensorDataset(data.train_images, data.train_labels), TensorDataset(data.valid_images, data.valid_labels),
        bs=64, device="cpu", num_workers=0,
    )  # fmt: skip
    learn = Learner(dls, lesson_network(), loss_func=nn.CrossEntropyLoss(), cbs=cbs, path=FOLDER)
    learn.remove_cbs(ProgressCallback)
    learn.logger = _silent
    return learn


def cost(rounds: int) -> Row:
    """Time fits of one epoch in turn, on three learners; a ratio is that of neighbours, its median is told."""
    learners = [digits([]), digits([theirs()]), digits([ours()])]
    spent = np.zeros((rounds + 1, 3, 2))
    for number in range(rounds + 1):
        for i in np.roll(np.arange(3), number):
            begun = time.perf_counter(), time.process_time()
            learners[i].fit(1)
            spent[number, i] = time.perf_counter() - begun[0], time.process_time() - begun[1]
    ratios = np.median(spent[1:, 1:] / spent[1:, :1], axis=0)  # the first round warms up
    own, other = (f"{wall:.2f} times ({cpu:.2f} of processor time)" for wall, cpu in reversed(ratios))
    return "time of a fit, against none", other, own


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # theirs, of shadowed attributes and of single values
    logging.disable(logging.WARNING)
    print(f"fastai {fastai_version}, torch {torch.__version__.split('+')[0]}, colordim {colordim.__version__}\n")
    print(compared(), "\n\n| | fastai's | ours |\n|---|---|---|")
    for texts in chain(rows(), map(cost, [11])):
        print("| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |", flush=True)


if __name__ == "__main__":
    main()
