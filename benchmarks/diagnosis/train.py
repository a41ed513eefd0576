"""One training, recorded by colordim, watched by the oracle and by rival rule sets, all at the same time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from benchmarks.diagnosis.data import CLASSES, load
from benchmarks.diagnosis.initial import initialise
from benchmarks.diagnosis.monitor import Monitor, Task, Verdict
from benchmarks.diagnosis.oracle import Oracle
from benchmarks.diagnosis.spec import Recipe, Spec
from benchmarks.diagnosis.zoo import Chain, Unguarded, build
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

import colordim

__all__ = ["Truth", "read_truth", "train"]

AFTER_NAN = 5  # batches that a training goes on when its loss is no number any more
VALID_BATCH = 250
PASSES = 4  # of the oracle through all training data, and one at the end
HALF_SCALE = 2.0**16  # of loss scaling, as GradScaler begins
RUN, TRUTH, VERDICTS = "run", "truth.json", "verdicts.json"


@dataclass(frozen=True)
class Truth:
    """What is known of a training without looking at colordim's record.

    Attributes
    ----------
    spec : dict
        :meth:`Spec.to_json`: the construction.
    oracle : dict
        :meth:`Oracle.end`: symptoms, on raw tensors.
    scores, losses : list of (train, valid)
        Of each epoch: accuracy or R^2, and loss.
    nan : bool
        The loss, or a weight, was not finite at the end.
    batches, batches_per_epoch : int
    seconds : float
        Wall time of the loop, all that watched included.
    """

    spec: dict[str, Any]
    oracle: dict[str, Any]
    scores: list[tuple[float, float]]
    losses: list[tuple[float, float]]
    nan: bool
    batches: int
    batches_per_epoch: int
    first_loss: float
    seconds: float


def read_truth(folder: Path) -> Truth:
    """Return the truth that `train` wrote into a folder."""
    return Truth(**json.loads((folder / TRUTH).read_text()))


def train(
    spec: Spec, folder: Path | None, monitors: Sequence[Monitor] = (), *, record: bool = True, watch: bool = True
) -> Truth:
    """Train once.

    Parameters
    ----------
    spec : Spec
    folder : Path or None
        Where `run` (colordim's), `truth.json` and, if there are monitors, `verdicts.json` go. None keeps nothing.
    monitors : sequence of Monitor
    record : bool
        False leaves colordim out, where its outcome is all that is wanted of a training.
    watch : bool
        False leaves the oracle out, for timing.
    """
    torch.set_num_threads(1)
    torch.manual_seed(spec.seed)
    recipe = spec.recipe
    parts = load(recipe, spec.seed)
    model, twin = build(spec.arch, recipe), build(spec.arch, recipe)
    initialise(model, recipe)
    for name in recipe.frozen:
        model.get_submodule(name).requires_grad_(False)
    optimizer = _optimizer(model, recipe)
    per_epoch = -(-len(parts.x) // recipe.batch_size)
    task = Task(
        "classification" if CLASSES[recipe.data] else "regression", CLASSES[recipe.data], recipe.epochs, per_epoch
    )
    oracle = Oracle(model, twin, parts.x, per_epoch) if watch else None
    for monitor in monitors:
        monitor.begin(model, optimizer, task)
    guards = [each for each in model.modules() if isinstance(each, Unguarded)]
    order = torch.Generator().manual_seed(spec.seed)
    scores, losses, batch, since_nan = [], [], 0, 0
    first_loss = math.nan
    begun = time.perf_counter()
    recording = (
        None if folder is None else colordim.record(model, folder=folder / RUN, kinds="all", optimizer=optimizer)
    )
    with recording or nullcontext():
        for epoch in range(recipe.epochs):
            model.train(recipe.train_mode == "train" or epoch == 0)
            hits: list[tuple[int, float, float]] = []
            for rows in torch.split(torch.randperm(len(parts.x), generator=order), recipe.batch_size):
                if model.training and recipe.norm == "batch" and len(rows) == 1:
                    continue
                x, y = parts.x[rows], parts.y[rows]
                _before_batch(model, optimizer, recipe, batch, per_epoch, guards)
                with recording.batch("train") if recording else nullcontext():
                    if oracle:
                        oracle.begin_batch(batch)
                    out = model(x)
                    loss = _loss(out, y, recipe, smoothing=recipe.smoothing)
                    if recipe.zero_grad:
                        optimizer.zero_grad()
                    _backward(model, loss, recipe)
                    if recipe.clip:
                        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
                    value = float(loss.detach())
                    if oracle:
                        oracle.before_step()
                    for monitor in monitors:
                        monitor.before_step(batch, x, out.detach(), value)
                    optimizer.step()
                    if recording:
                        recording.log(loss=value)
                if oracle:
                    oracle.after_step(batch)
                for monitor in monitors:
                    monitor.after_step(batch)
                first_loss = value if batch == 0 else first_loss
                hits.append((len(rows), value, _quality(out.detach(), y)))
                batch += 1
                since_nan += not math.isfinite(value)
                if since_nan > AFTER_NAN:
                    break
            for guard in guards:
                guard.batch = -1
            model.train(recipe.valid_mode == "train")
            valid_loss, valid_score = _validate(model, parts.valid_x, parts.valid_y, recipe, recording)
            rows_seen = sum(size for size, _, _ in hits)
            train_loss = sum(size * loss for size, loss, _ in hits) / rows_seen
            train_score = sum(size * score for size, _, score in hits) / rows_seen
            losses.append((train_loss, valid_loss))
            scores.append((train_score, valid_score))
            for monitor in monitors:
                monitor.epoch(epoch, batch - 1, train_loss, valid_loss, train_score, valid_score)
            if oracle and (epoch % -(-recipe.epochs // PASSES) == 0 or epoch == recipe.epochs - 1 or since_nan):
                oracle.end_epoch(batch - 1)
            if since_nan > AFTER_NAN:
                break
    seconds = time.perf_counter() - begun
    verdicts = {monitor.name: monitor.end() for monitor in monitors}
    finite = all(bool(torch.isfinite(each).all()) for each in model.parameters())
    truth = Truth(
        spec.to_json(), oracle.end() if oracle else {}, scores, losses,
        not finite or not math.isfinite(losses[-1][0]), batch, per_epoch, first_loss, seconds,
    )  # fmt: skip
    if folder is not None:
        _write(folder, truth, verdicts)
    return truth


def _optimizer(model: Chain, recipe: Recipe) -> Optimizer:
    def inside(name: str, modules: tuple[str, ...]) -> bool:
        return any(name.startswith(f"{each}.") for each in modules)

    chosen = [(name, each) for name, each in model.named_parameters() if not inside(name, recipe.left_out)]
    groups: list[dict[str, Any]] = [
        {"params": [each for name, each in chosen if not inside(name, recipe.slow)], "factor": 1.0}
    ]
    if recipe.slow:
        groups.append(
            {"params": [each for name, each in chosen if inside(name, recipe.slow)], "factor": recipe.slow_factor}
        )
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    made: Any = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}[recipe.optimizer]
    optimizer: Optimizer = made(groups, lr=recipe.lr, weight_decay=recipe.weight_decay)
    return optimizer


def _rate(recipe: Recipe, batch: int, total: int, per_epoch: int) -> float:
    """Return the factor on the learning rate."""
    done, factor = batch / total, 1.0
    if recipe.schedule == "one-cycle":  # a quarter up, the rest down to nearly zero (fastai's shape)
        up = 0.25
        factor = 0.04 + 0.96 * (1 - math.cos(math.pi * done / up)) / 2 if done < up else 0.0
        factor = factor or (1 + math.cos(math.pi * (done - up) / (1 - up))) / 2 + 1e-5
    elif recipe.schedule == "cosine":
        factor = (1 + math.cos(math.pi * done)) / 2
    elif recipe.schedule == "warm-up":
        factor = min(1.0, (batch + 1) / per_epoch)
    if recipe.spike and recipe.spike[0] <= batch < recipe.spike[0] + recipe.spike[1]:
        factor *= recipe.spike[2]
    return factor


@torch.no_grad()
def _before_batch(
    model: Chain, optimizer: Optimizer, recipe: Recipe, batch: int, per_epoch: int, guards: list[Unguarded]
) -> None:
    rate = recipe.lr * _rate(recipe, batch, per_epoch * recipe.epochs, per_epoch)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    for guard in guards:
        guard.batch = batch
    if recipe.jump and recipe.jump[0] == batch:
        model.get_parameter(f"{recipe.jump[1]}.weight").mul_(recipe.jump[2])


def _loss(out: Tensor, y: Tensor, recipe: Recipe, smoothing: float = 0.0) -> Tensor:
    if CLASSES[recipe.data]:
        return functional.cross_entropy(out, y, label_smoothing=smoothing)
    return functional.mse_loss(out, y)


def _backward(model: Chain, loss: Tensor, recipe: Recipe) -> None:
    (loss * recipe.loss_factor).backward()  # type: ignore[no-untyped-call]
    if recipe.half:
        scale = HALF_SCALE if recipe.loss_scaling else 1.0
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.grad.copy_((parameter.grad * scale).half().float() / scale)


def _quality(out: Tensor, y: Tensor) -> float:
    """Return the accuracy, or R^2 (against the standardised target's mean, 0)."""
    if y.dtype == torch.int64:
        return float((out.argmax(1) == y).float().mean())
    return 1.0 - float(((out - y) ** 2).mean())


@torch.no_grad()
def _validate(
    model: Chain, x: Tensor, y: Tensor, recipe: Recipe, recording: colordim.Recording | None
) -> tuple[float, float]:
    outs = []
    for part, targets in zip(torch.split(x, VALID_BATCH), torch.split(y, VALID_BATCH), strict=True):
        with recording.batch("valid") if recording else nullcontext():
            outs.append(model(part))
            if recording:
                recording.log(loss=float(_loss(outs[-1], targets, recipe)))
    out = torch.cat(outs)
    if not bool(torch.isfinite(out).all()):
        return math.nan, math.nan
    if y.dtype == torch.int64:
        return float(_loss(out, y, recipe)), _quality(out, y)
    return float(_loss(out, y, recipe)), 1.0 - float(((out - y) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def _write(folder: Path, truth: Truth, verdicts: dict[str, list[Verdict]]) -> None:
    for name, content in (
        (VERDICTS, {key: [asdict(each) for each in said] for key, said in verdicts.items()}),
        (TRUTH, asdict(truth)),
    ):
        if content:
            partial = folder / (name + ".part")
            partial.write_text(json.dumps(content))
            partial.replace(folder / name)  # the truth comes last: with it the run is complete
