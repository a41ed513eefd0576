"""What recording costs: four trainings with a recorder, against the same trainings without one.

Each figure is a ratio of the time with to the time without; below it stands the same ratio of processor time, over all
threads. A machine that does other things as well is noisy, so both are measured in short blocks of steps in turn, on two
copies of one model; a row is the median of the ratios of neighbouring blocks, with its quartiles. Between two blocks a
recorder's own threads finish what waits, at the recorder's expense, so that nothing of it is taken for plain training;
colordim pays for closing its run as well, spread over its steps.

Torch runs on one thread, on both sides: with several, each of its operations waits for the slowest, and on a machine
that is shared such a wait is longer than the operation. On an idle machine, try --threads 2.

    python benchmarks/overhead.py [--quick] [--only colordim] [--only resnet18] [--threads 2]
"""

from __future__ import annotations

import argparse
import functools
import gc
import importlib
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import colordim
from colordim.binning import backend, use_backend
from colordim.demo.network import lesson_network

BLOCK = 0.35  # seconds of plain training in a block, where the recorder is fast
LONGEST = 1.0  # seconds that a block with a slow recorder may take
BINS, LOW, HIGH = 200, -10.0, 10.0

# The trainings.


class Block(nn.Module):
    """A transformer's block, whose eight parts are leaves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.project, self.merge = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.gelu, self.narrow = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.merge(mixed.transpose(1, 2).flatten(2))
        changed: Tensor = self.dropout(self.narrow(self.gelu(self.widen(self.norm2(x)))))
        return x + changed


def cnn(size: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the small network of the lesson, and a batch of it."""
    return lesson_network(), torch.randn(size, 1, 28, 28), torch.randint(10, (size,))


def resnet18() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a resnet18, and a batch of 64 images of 64 x 64."""
    models = importlib.import_module("torchvision.models")
    return models.resnet18(num_classes=10), torch.randn(64, 3, 64, 64), torch.randint(10, (64,))


def transformer() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a transformer of four blocks, and a batch of 16 sequences of 128 tokens."""
    width, tokens = 256, 1024
    blocks = [Block(width, heads=4) for _ in range(4)]
    model = nn.Sequential(nn.Embedding(tokens, width), *blocks, nn.LayerNorm(width), nn.Linear(width, tokens))
    return model, torch.randint(tokens, (16, 128)), torch.randint(tokens, (16, 128))


TRAININGS: dict[str, Callable[[], tuple[nn.Module, Tensor, Tensor]]] = {
    "CNN, batch 64": functools.partial(cnn, 64),
    "CNN, batch 512": functools.partial(cnn, 512),
    "resnet18": resnet18,
    "transformer": transformer,
}


class Training:
    """A model that is trained on one batch, again and again."""

    def __init__(self, make: Callable[[], tuple[nn.Module, Tensor, Tensor]]) -> None:
        torch.manual_seed(0)
        self.model, self._x, self._y = make()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)

    def step(self) -> None:
        output = self.model(self._x)
        loss = nn.functional.cross_entropy(output.flatten(0, -2), self._y.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()


# The recorders: each attaches itself to a model, and yields what is to be called after a step and after a block.

After = Callable[[], object]
Attached = Iterator[tuple[After, After]]


def nothing() -> None:
    """Do nothing."""


def leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules without children, and their names."""
    return [(name, module) for name, module in model.named_modules() if not any(module.children())]


@contextmanager
def no_recording(model: nn.Module, folder: Path) -> Attached:
    """Record nothing: the ratio shows the noise."""
    yield nothing, nothing


@contextmanager
def with_colordim(model: nn.Module, folder: Path, budget: float | None = None) -> Attached:
    """Record every leaf, every batch, every value and all moments into a run on the disk."""
    with colordim.record(model, folder=folder / "run", budget=budget) as recording:
        recorder = recording._recorder
        assert recorder is not None
        yield nothing, recorder.flush


@contextmanager
def with_all_kinds(model: nn.Module, folder: Path, optimizer: torch.optim.Optimizer) -> Attached:
    """Record outputs, their gradients, weights, their gradients and updates: all of them, every batch."""
    with colordim.record(model, folder=folder / "run", kinds="all", optimizer=optimizer) as recording:
        recorder = recording._recorder
        assert recorder is not None
        yield nothing, recorder.flush


@contextmanager
def with_reference(model: nn.Module, folder: Path) -> Attached:
    """Record the same without the compiled kernel."""
    use_backend("reference")
    try:
        with with_colordim(model, folder) as attached:
            yield attached
    finally:
        use_backend()


@contextmanager
def with_fastai(model: nn.Module, folder: Path) -> Attached:
    """Let fastai's callback hook the modules that it chooses, and collect after each batch; its Learner is left out."""
    hook = importlib.import_module("fastai.callback.hook")
    stats = hook.ActivationStats(with_hist=True)
    stats.modules = [module for module in hook.flatten_model(model) if hook.has_params(module)]
    stats.stats = []
    stats._register()  # as its before_fit and its after_batch do within a Learner
    yield lambda: stats.stats.append(stats.hooks.stored), nothing
    stats._remove()


@contextmanager
def with_cat(model: nn.Module, folder: Path) -> Attached:
    """Do as the first version of the chart did in 2019; concatenating makes each batch slower than the last."""
    histograms: dict[str, Tensor] = {name: torch.empty(BINS, 0) for name, _ in leaves(model)}

    def hook(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        values = output.detach().clone().cpu()
        histogram = torch.histc(values, BINS, LOW, HIGH)[:, None]
        histograms[name] = torch.cat([histograms[name], histogram], dim=1)

    handles = [module.register_forward_hook(functools.partial(hook, name)) for name, module in leaves(model)]
    yield nothing, nothing
    for handle in handles:
        handle.remove()


@contextmanager
def with_wandb(model: nn.Module, folder: Path) -> Attached:
    """Watch all, every batch, offline: histograms of parameters and gradients, not of activations."""
    for kind in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        os.environ[f"WANDB_{kind}"] = str(folder)
    wandb = importlib.import_module("wandb")
    run = wandb.init(mode="offline", dir=str(folder), settings=wandb.Settings(silent=True))
    run.watch(model, log="all", log_freq=1)
    yield lambda: run.log({"loss": 0.0}), nothing
    run.unwatch(model)
    run.finish()


@contextmanager
def with_tensorboard(model: nn.Module, folder: Path) -> Attached:
    """Add a histogram of every leaf in every batch."""
    writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
    steps = iter(range(1 << 30))

    def hook(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        writer.add_histogram(name, output.detach(), next(steps))

    handles = [module.register_forward_hook(functools.partial(hook, name)) for name, module in leaves(model)]
    yield nothing, writer.flush
    for handle in handles:
        handle.remove()
    writer.close()


@dataclass(frozen=True)
class Recorder:
    """A row of the table."""

    name: str
    attach: Callable[..., AbstractContextManager[tuple[After, After]]]
    seconds: float
    """How long one training is measured."""
    ours: bool = False
    optimizer: bool = False
    """Whether it is to be given the optimiser besides the model and a folder."""


RECORDERS = (
    Recorder("none (A/A)", no_recording, 6),
    Recorder("colordim", with_colordim, 12, ours=True),
    Recorder("colordim, all kinds", with_all_kinds, 8, ours=True, optimizer=True),
    Recorder("colordim, budget=0.02", functools.partial(with_colordim, budget=0.02), 10, ours=True),
    Recorder("colordim, reference backend", with_reference, 4, ours=True),
    Recorder("fastai ActivationStats(with_hist)", with_fastai, 5),
    Recorder("2019: clone, cpu, histc, cat", with_cat, 4),
    Recorder("wandb.watch(log='all', log_freq=1)", with_wandb, 5),
    Recorder("TensorBoard add_histogram", with_tensorboard, 4),
)

# Measuring.


@dataclass(frozen=True)
class Times:
    """Seconds that a block took: on the clock, and of all processors."""

    wall: float
    cpu: float


def timed(act: Callable[[], object]) -> Times:
    """Return how long `act` takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    act()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def block(training: Training, steps: int, after_step: After, after_block: After) -> Times:
    """Return how long some steps take, each and all with what is called after them."""

    def run() -> None:
        for _ in range(steps):
            training.step()
            after_step()
        after_block()

    return timed(run)


def pace(training: Training, after_step: After) -> float:
    """Return how long a step takes, roughly."""
    steps, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < 0.1:
        training.step()
        after_step()
        steps += 1
    return elapsed / steps


def measure(
    make: Callable[[], tuple[nn.Module, Tensor, Tensor]], recorder: Recorder, seconds: float
) -> Sequence[Times]:
    """Return the ratios with to without the recorder, a pair for each two neighbouring blocks."""
    plain, recorded = Training(make), Training(make)
    pairs: list[tuple[Times, Times]] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        given = (recorded.model, Path(folder), *([recorded.optimizer] if recorder.optimizer else []))
        after = stack.enter_context(recorder.attach(*given))
        for training, called in ((plain, (nothing, nothing)), (recorded, after)):
            block(training, 1, *called)  # what is done once is not counted
        steps = max(1, min(round(BLOCK / pace(plain, nothing)), int(LONGEST / pace(recorded, after[0]))))
        gc.collect()
        until = time.perf_counter() + seconds
        while len(pairs) < 3 or time.perf_counter() < until:
            if len(pairs) % 2:  # A B B A: a machine that gets slower favours neither
                after_times = block(recorded, steps, *after)
                pairs.append((block(plain, steps, nothing, nothing), after_times))
            else:
                plain_times = block(plain, steps, nothing, nothing)
                pairs.append((plain_times, block(recorded, steps, *after)))
        end = timed(stack.close)
    share = 1 / len(pairs) if recorder.ours else 0.0
    return [
        Times((b.wall + end.wall * share) / a.wall, (b.cpu + end.cpu * share) / a.cpu if a.cpu else float("nan"))
        for a, b in pairs
    ]


def quartiles(ratios: Sequence[float]) -> str:
    """Return median and quartiles as text."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    digits = 2 if middle < 10 else 0
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def chosen(names: Sequence[str], only: Sequence[str]) -> list[str]:
    """Return the names that contain one of `only`; all of them if none does."""
    return [name for name in names if any(part.lower() in name.lower() for part in only)] or list(names)


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a fifth of the time, and noisier")
    parser.add_argument("--only", action="append", default=[], help="a part of a recorder's or a training's name")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on both sides; by default 1")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # those of other packages
    console = Console()
    trainings = chosen(list(TRAININGS), options.only)
    recorders = chosen([recorder.name for recorder in RECORDERS], options.only)
    table = Table(
        title=f"Time with / without recording: median (quartiles), processor time below; {backend()[0]}, "
        f"torch on {options.threads} thread{'s'[: options.threads > 1]}",
        caption='What is not installed comes with pip install "colordim\\[bench]".',
    )
    table.add_column("recorder")
    for name in trainings:
        table.add_column(name, justify="right")
    for recorder in RECORDERS:
        if recorder.name not in recorders:
            continue
        cells = []
        for name in trainings:
            with console.status(f"{recorder.name}: {name}"):
                try:
                    ratios = measure(TRAININGS[name], recorder, recorder.seconds * (0.2 if options.quick else 1))
                except ImportError as error:
                    cells.append(f"not installed: {error.name}")
                    continue
            cells.append(f"{quartiles([r.wall for r in ratios])}\n[dim]{quartiles([r.cpu for r in ratios])}[/dim]")
        table.add_row(recorder.name, *cells, end_section=True)
    console.print(table)


if __name__ == "__main__":
    main()
