"""PyTorch Lightning: exactly the batches that train and validate are recorded, whatever else its trainer does."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import pytorch_lightning
import torch
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

import colordim
from colordim.axis import LinearAxis
from colordim.column import Phase
from colordim.errors import ArgumentError, ColordimWarning, DependencyError, RecordingError
from colordim.integrations import lightning as integration
from colordim.lightning import ColorDim

DRIVER = Path(__file__).with_name("drive_lightning.py")
_spec = spec_from_file_location("drive_lightning", DRIVER)
assert _spec is not None
drive_lightning: Any = module_from_spec(_spec)
_spec.loader.exec_module(drive_lightning)  # type: ignore[union-attr]

pytestmark = [
    pytest.mark.filterwarnings(rf"ignore:::{name}[.]")
    for name in ("lightning", "pytorch_lightning", "torchmetrics", "tensorboard", "torch[.]utils[.]tensorboard")
] + [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),  # of Lightning, at whoever calls it
]

HIDDEN = 8
TRAIN = (8, 8, 6)  # the batches of an epoch
VALID = (5,)


class Net(pl.LightningModule):  # type: ignore[misc]
    """Notes by itself which batches it is given, and how long they are."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Linear(4, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(HIDDEN, 2)
        )
        self.lr = 0.01
        self.seen: dict[str, list[int]] = {"train": [], "valid": []}
        self.losses: list[float] = []
        self.fails_at = -1

    def step(self, batch: list[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        loss = self.step(batch)
        if len(self.seen["train"]) == self.fails_at:
            raise ArithmeticError("a bad batch\nand more")
        self.seen["train"].append(len(batch[0]))
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> Any:
        if not self.trainer.sanity_checking:
            self.seen["valid"].append(len(batch[0]))
        return {"loss": self.step(batch)}

    def test_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return self.step(batch)

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return self.net(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), self.lr)


def loader(sizes: tuple[int, ...]) -> DataLoader[Any]:
    rows, generator = sum(sizes), torch.Generator().manual_seed(1)
    data = TensorDataset(torch.randn(rows, 4, generator=generator), torch.arange(rows) % 2)
    return DataLoader(data, batch_size=sizes[0])


@pytest.fixture
def trainer(tmp_path: Path) -> Callable[..., pl.Trainer]:
    """Return a function that makes a quiet trainer of two epochs."""
    torch.set_num_threads(1)

    def make(callbacks: Any = None, **options: Any) -> pl.Trainer:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        quiet |= {"enable_checkpointing": False, "default_root_dir": tmp_path, "max_epochs": 2}
        return pl.Trainer(callbacks=callbacks, **(quiet | options))

    return make


@pytest.fixture
def callback(tmp_path: Path) -> ColorDim:
    return ColorDim(folder=tmp_path / "run")


def lengths(callback: ColorDim) -> tuple[int, int]:
    return callback.run.length("train"), callback.run.length("valid")


def sizes(callback: ColorDim, layer: str = "net.0", features: int = HIDDEN) -> dict[str, list[float]]:
    """Return how long the recorded batches are, by the number of values of a layer."""
    run = callback.run
    stream = run.stream(layer, "activation")
    return {phase: (run.moments(stream, phase=phase)["size"] / features).tolist() for phase in ("train", "valid")}


# What is a batch.


def test_two_lines_record_training_and_validation(
    trainer: Callable[..., pl.Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    net = Net()
    callback = ColorDim()
    trainer(callback).fit(net, loader(TRAIN), loader(VALID))
    run = callback.run
    assert sizes(callback) == net.seen == {"train": [8, 8, 6] * 2, "valid": [5] * 2}
    assert run.batches["epoch"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert run.batches["step"].tolist() == [1, 2, 3, 3, 4, 5, 6, 6]
    train = run.batches["phase"] == "train"
    np.testing.assert_allclose(run.batches["loss"][train], net.losses, rtol=1e-6)
    assert not np.isnan(run.batches["loss"][~train]).any()
    assert run.batches["lr"][train].tolist() == [0.01] * 6
    assert [stream.name for stream in run.streams] == [f"net.{i}" for i in range(5)]
    assert run.ended == "stopped"
    assert Path(run.path).parent.name == "runs"
    assert run.name.startswith("Net-")
    assert callback.recording.notices == ()


@pytest.mark.pitfall("trials of a trainer")
def test_sanity_check_validate_test_and_predict_are_not_recorded(
    trainer: Callable[..., pl.Trainer], callback: ColorDim
) -> None:
    net, fitted = Net(), trainer(callback, num_sanity_val_steps=1)
    fitted.fit(net, loader(TRAIN), loader(VALID))
    assert lengths(callback) == (6, 2)
    fitted.validate(net, loader(VALID), verbose=False)
    fitted.test(net, loader(VALID), verbose=False)
    fitted.predict(net, loader(VALID))
    assert lengths(callback) == (6, 2)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.pitfall("trials of a trainer")
def test_tuners_are_not_recorded(trainer: Callable[..., pl.Trainer], callback: ColorDim) -> None:
    net, tuned = Net(), trainer(callback)
    Tuner(tuned).lr_find(net, loader(TRAIN), loader(VALID), num_training=5, update_attr=False)
    with pytest.raises(RecordingError, match="train first"):
        callback.run  # noqa: B018
    net.seen = {"train": [], "valid": []}
    tuned.fit(net, loader(TRAIN), loader(VALID))
    assert sizes(callback) == net.seen
    assert lengths(callback) == (6, 2)


class EachEpoch(LearningRateFinder):  # type: ignore[misc]
    """As Lightning's documentation has it."""

    def on_fit_start(self, *_: Any) -> None: ...

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.lr_find(trainer, pl_module)


@pytest.mark.parametrize("kind", [LearningRateFinder, EachEpoch])
@pytest.mark.pitfall("trials of a trainer")
def test_a_finder_among_the_callbacks_is_not_recorded(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, kind: type[LearningRateFinder]
) -> None:
    finder = kind(num_training_steps=4, update_attr=False)
    trainer([callback, finder]).fit(Net(), loader(TRAIN), loader(VALID))
    assert lengths(callback) == (6, 2)
    assert callback.run.batches["step"].tolist() == [1, 2, 3, 3, 4, 5, 6, 6]


class Lean(pl.LightningModule):  # type: ignore[misc]
    """Has little for a compiler to trace."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, HIDDEN), nn.ReLU())

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.net(batch[0]).mean()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.net(batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo asks for it
@pytest.mark.pitfall("compiled before the first batch")
def test_compiled_models(trainer: Callable[..., pl.Trainer], callback: ColorDim, whole: bool) -> None:
    torch._dynamo.reset()
    model: Any = Lean()
    if whole:
        model = torch.compile(model, backend="eager")
    else:
        model.net.compile(backend="eager")
    trainer(callback, num_sanity_val_steps=1).fit(model, loader((8, 8, 8)), loader((8,)))
    assert sizes(callback) == {"train": [8] * 6, "valid": [8] * 2}
    torch._dynamo.reset()


@pytest.mark.pitfall("losses of micro-batches")
def test_accumulation_in_mixed_precision(trainer: Callable[..., pl.Trainer], callback: ColorDim) -> None:
    net = Net()
    trainer(callback, accumulate_grad_batches=2, precision="bf16-mixed").fit(net, loader(TRAIN), loader(VALID))
    assert sizes(callback) == net.seen
    run = callback.run
    train = run.batches["phase"] == "train"
    # Of three batches, the second completes a step, and so does the last one of an epoch.
    assert run.batches["step"][train].tolist() == [0, 1, 2, 2, 3, 4]
    np.testing.assert_allclose(run.batches["loss"][train], net.losses, rtol=1e-2)
    assert run.length("valid") == 2


class Adversarial(Net):
    """Calls the same layers three times a batch, with an optimizer for each of two sets of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        self.seen["train"].append(3 * len(batch[0]))
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            loss = self.step(batch)
            self.manual_backward(loss)
            optimizer.step()
        with torch.no_grad():
            self.losses.append(self.step(batch).item())
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.net[0].parameters(), 0.1), torch.optim.SGD(self.net[4].parameters(), 0.2)]


def test_several_optimizers_and_calls(trainer: Callable[..., pl.Trainer], tmp_path: Path) -> None:
    net, callback = Adversarial(), ColorDim(folder=tmp_path / "run", kinds=("activation", "update"))
    trainer(callback).fit(net, loader(TRAIN), loader(VALID))
    run = callback.run
    assert sizes(callback) == net.seen
    train = run.batches["phase"] == "train"
    assert run.batches["step"][train].tolist() == [2, 4, 6, 8, 10, 12]
    assert run.batches["lr_1"][train].tolist() == [0.2] * 6
    for name in ("net.0.weight", "net.4.weight"):
        assert run.moments(run.stream(name, "update"))["max"].min() > 0
    assert run.moments(run.stream("net.1.weight", "update"))["max"].tolist() == [0] * 6, "of no optimizer"


def test_several_validation_loaders(trainer: Callable[..., pl.Trainer], callback: ColorDim) -> None:
    net = Net()
    trainer(callback).fit(net, loader(TRAIN), [loader((5,)), loader((4, 3))])
    assert sizes(callback)["valid"] == net.seen["valid"] == [5, 4, 3] * 2
    valid = callback.run.batches["phase"] == "valid"
    assert callback.run.batches["dataloader"][valid].tolist() == [0, 1, 1] * 2


def test_validation_within_an_epoch_ends_none(trainer: Callable[..., pl.Trainer], callback: ColorDim) -> None:
    trainer(callback, val_check_interval=1).fit(Net(), loader(TRAIN), loader(VALID))
    assert callback.run.batches["epoch"].tolist() == [0] * 6 + [1] * 6


class Skips(Net):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 1 else None


def test_a_skipped_epoch_leaves_nothing_behind(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path
) -> None:
    net, saved = Skips(), ModelCheckpoint(tmp_path, save_top_k=-1, filename="{epoch}")
    trainer([callback, saved], enable_checkpointing=True).fit(net, loader(TRAIN))
    assert sizes(callback)["train"] == net.seen["train"] == [8, 8]
    for epoch in range(2):
        checkpoint = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        assert checkpoint["callbacks"]["ColorDim"]["train"] == epoch + 1


class Looks(pl.Callback):  # type: ignore[misc]
    """Runs the model at the end of each batch, as those do that draw samples."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        pl_module.net(torch.zeros(7, 4))

    on_validation_batch_end = on_train_batch_end


@pytest.mark.pitfall("callbacks that run the model")
def test_what_other_callbacks_run_is_not_counted(trainer: Callable[..., pl.Trainer], callback: ColorDim) -> None:
    net = Net()
    trainer([Looks(), callback]).fit(net, loader(TRAIN), loader(VALID))
    assert sizes(callback) == net.seen


class Late(Net):
    """Has its layers, a loss and a metric made by Lightning's own event."""

    def configure_model(self) -> None:
        if not hasattr(self, "accuracy"):
            self.net = nn.Sequential(nn.Linear(4, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2))
            self.accuracy = MulticlassAccuracy(2)
            self.loss = nn.CrossEntropyLoss()

    def step(self, batch: list[Tensor]) -> Tensor:
        output = self.net(batch[0])
        self.accuracy(output, batch[1])
        return self.loss(output, batch[1])


@pytest.mark.pitfall("losses and metrics inside the model")
def test_losses_and_metrics_are_no_layers(trainer: Callable[..., pl.Trainer], tmp_path: Path) -> None:
    callback, every = ColorDim(folder=tmp_path / "run"), ColorDim(folder=tmp_path / "all", name="all", layers=["*"])
    trainer([callback, every]).fit(Late(), loader(TRAIN), loader(VALID))
    assert [stream.name for stream in callback.run.streams] == ["net.0", "net.1", "net.2"]
    assert sizes(callback)["train"] == [8, 8, 6] * 2
    assert {stream.name for stream in every.run.streams} >= {"net.0", "accuracy", "loss"}


# Nothing is disturbed.


def test_training_is_bit_for_bit_the_same(trainer: Callable[..., pl.Trainer], tmp_path: Path) -> None:
    weights = []
    for callbacks in ([], [ColorDim(folder=tmp_path / "run", kinds="all")]):
        pl.seed_everything(3, verbose=False)
        net = Net()
        trainer(callbacks).fit(net, loader(TRAIN), loader(VALID))
        weights.append(net.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_options_pass_through(trainer: Callable[..., pl.Trainer], tmp_path: Path) -> None:
    callback = ColorDim(
        folder=tmp_path / "other", layers="net.0", range=(-2, 2), bins=10, every=2, name="mine", kinds="all"
    )
    trainer(callback).fit(Net(), loader(TRAIN), loader(VALID))
    run = callback.run
    assert run.name == "mine"
    assert run.path == str(tmp_path / "other")
    stream = run.stream("net.0", "activation")
    assert stream.axis == LinearAxis(-2, 2, 10)
    assert run.moments(stream)["size"].tolist() == [8 * HIDDEN, 6 * HIDDEN, 8 * HIDDEN]
    assert {s.kind for s in run.streams} == {"activation", "gradient", "weight", "weight_gradient", "update"}


def test_wrong_options_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="evry"):
        ColorDim(evry=2)
    with pytest.raises(ArgumentError, match="optimizers of the trainer"):
        ColorDim(optimizer=None)


def test_gradients_have_no_scale(trainer: Callable[..., pl.Trainer], tmp_path: Path) -> None:
    found = []
    for scaled in (False, True):
        callback = ColorDim(folder=tmp_path / str(scaled), kinds="gradient")
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        pl.seed_everything(3, verbose=False)
        trainer(callback, plugins=plugin).fit(Net(), loader(TRAIN))
        found.append(callback.run.moments(callback.run.stream("net.4", "gradient"))["sum_sq"])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-2)


def test_switched_off_it_does_nothing(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORDIM", "off")
    trainer(callback, logger=TensorBoardLogger(tmp_path / "log")).fit(Net(), loader(TRAIN), loader(VALID))
    assert not (tmp_path / "run").exists()
    assert callback.state_dict() == {}


# One run.


def test_further_fits_go_on(trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path) -> None:
    net, first = Net(), trainer(callback)
    first.fit(net, loader(TRAIN), loader(VALID))
    first.fit_loop.max_epochs = 3
    first.fit(net, loader(TRAIN), loader(VALID))
    assert lengths(callback) == (9, 3)
    trainer(callback, max_epochs=1).fit(net, loader(TRAIN), loader(VALID))
    assert lengths(callback) == (12, 4)
    assert sizes(callback) == net.seen
    assert callback.run.epochs().tolist() == [0, 3, 6, 9]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]


def test_a_crash_keeps_what_was_there(trainer: Callable[..., pl.Trainer], callback: ColorDim) -> None:
    net = Net()
    net.fails_at = 3
    with pytest.raises(ArithmeticError):
        trainer(callback).fit(net, loader(TRAIN), loader(VALID))
    assert lengths(callback) == (3, 1)
    assert callback.run.ended == "ArithmeticError: a bad batch"
    assert not any(module._forward_hooks for module in net.modules())
    net.fails_at = -1
    trainer(callback).fit(net, loader(TRAIN), loader(VALID))
    assert sizes(callback) == net.seen
    assert lengths(callback) == (9, 3)


class Interrupted(pl.Callback):  # type: ignore[misc]
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            raise KeyboardInterrupt


def test_a_keyboard_interrupt_ends_the_run(trainer: Callable[..., pl.Trainer], callback: ColorDim) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit):
        trainer([callback, Interrupted()]).fit(Net(), loader(TRAIN), loader(VALID))
    signal.signal(signal.SIGINT, before)  # Lightning has it ignored
    assert lengths(callback) == (2, 0)
    assert callback.run.ended == "KeyboardInterrupt"


@pytest.mark.pitfall("checkpoints of plain data")
def test_a_checkpoint_goes_on_where_it_was_saved(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path
) -> None:
    saved = ModelCheckpoint(tmp_path / "ckpt", save_top_k=-1, filename="{epoch}")
    trainer([callback, saved], enable_checkpointing=True).fit(Net(), loader(TRAIN), loader(VALID))
    assert lengths(callback) == (6, 2)
    # From its end, in a new process as it were.
    other, net = ColorDim(folder=tmp_path / "run"), Net()
    options: Any = {"weights_only": True, "ckpt_path": tmp_path / "ckpt" / "epoch=1.ckpt"}
    trainer(other, max_epochs=4).fit(net, loader(TRAIN), loader(VALID), **options)
    assert lengths(other) == (12, 4)
    assert net.seen == {"train": [8, 8, 6] * 2, "valid": [5] * 2}
    assert other.run.epochs().tolist() == [0, 3, 6, 9]
    # From the end of the first epoch: what came later is cut off.
    other, net = ColorDim(folder=tmp_path / "run"), Net()
    options["ckpt_path"] = tmp_path / "ckpt" / "epoch=0.ckpt"
    trainer(other, max_epochs=2).fit(net, loader(TRAIN), loader(VALID), **options)
    assert lengths(other) == (6, 2)
    assert sizes(other)["train"][3:] == net.seen["train"]
    assert other.run.epochs().tolist() == [0, 3]
    assert colordim.open(tmp_path / "run" / "cut-0001").length("train") >= 9


def test_a_checkpoint_within_an_epoch(trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path / "ckpt", save_top_k=-1, every_n_train_steps=2, filename="{step}")
    trainer([callback, saved], enable_checkpointing=True).fit(Net(), loader(TRAIN), loader(VALID))
    other, net = ColorDim(folder=tmp_path / "run"), Net()
    ckpt = tmp_path / "ckpt" / "step=2.ckpt"
    trainer(other).fit(net, loader(TRAIN), loader(VALID), ckpt_path=ckpt, weights_only=True)
    assert lengths(other)[0] == 2 + len(net.seen["train"])
    assert other.run.batches["epoch"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.pitfall("checkpoints that are only tested")
def test_testing_a_checkpoint_cuts_nothing_off(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path
) -> None:
    saved = ModelCheckpoint(tmp_path / "ckpt", save_top_k=-1, filename="{epoch}")
    net, fitted = Net(), trainer([callback, saved], enable_checkpointing=True)
    fitted.fit(net, loader(TRAIN), loader(VALID))
    fitted.test(net, loader(VALID), ckpt_path=tmp_path / "ckpt" / "epoch=0.ckpt", verbose=False)
    fitted.fit_loop.max_epochs = 3
    fitted.fit(net, loader(TRAIN), loader(VALID))
    assert lengths(callback) == (9, 3)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda callback: pickle.loads(pickle.dumps(callback))])
def test_a_copy_is_a_callback_that_records_a_run_of_its_own(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, copied: Callable[[ColorDim], ColorDim], tmp_path: Path
) -> None:
    trainer(callback).fit(Net(), loader(TRAIN), loader(VALID))
    other = copied(callback)
    assert isinstance(other, pl.Callback)
    assert other.run.path == callback.run.path
    with pytest.warns(ColordimWarning, match="holds a run already"):
        trainer(other, max_epochs=1).fit(Net(), loader(TRAIN), loader(VALID))
    assert lengths(other) == (3, 1)
    assert lengths(callback) == (6, 2)


def test_two_of_them_need_names(trainer: Callable[..., pl.Trainer], tmp_path: Path) -> None:
    first, second = ColorDim(folder=tmp_path / "a", name="a"), ColorDim(folder=tmp_path / "b", name="b", every=2)
    trainer([first, second]).fit(Net(), loader(TRAIN), loader(VALID))
    assert sizes(first)["train"] == [8, 8, 6] * 2
    assert sizes(second)["train"] == [8, 6, 8]


# Loggers.


def test_epochs_go_to_tensorboard(trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    loggers = [CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path, "log", "")]
    trainer(callback, logger=loggers).fit(Net(), loader(TRAIN), loader(VALID))
    events = EventAccumulator(str(tmp_path / "log"), {"histograms": 0})
    events.Reload()
    (name,) = events.Tags()["images"]
    newest = events.Images(name)[-1]
    assert newest.step == 5, "the last training batch of the second epoch"
    assert newest.encoded_image_string.startswith(b"\x89PNG")
    assert newest.width > 100
    histograms = [name for name in events.Tags()["histograms"] if "/train/" in name]
    assert len(histograms) == len(callback.run.streams)
    for name in histograms:
        stream = callback.run.stream(name.rpartition("/")[2])
        values = [event.histogram_value.num for event in events.Histograms(name)]
        assert values == callback.run.moments(stream)["size"].reshape(2, 3).sum(1).tolist()


class Client:
    """What is used of a run of W&B."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[Any] = []
        self.error = error

    def define_metric(self, *names: str, **options: str) -> None:
        self.calls.append((names, options))

    step = 0

    def log(self, values: dict[str, Any], commit: bool = True) -> None:
        if self.error:
            raise self.error
        self.step += commit
        self.calls.append({name: type(value).__name__ for name, value in values.items()})


class Logger(CSVLogger):  # type: ignore[misc]
    client: Client

    @property
    def experiment(self) -> Any:
        return self.client


def logger(tmp_path: Path, client: Client) -> Logger:
    made = Logger(tmp_path / "csv")
    made.client = client
    made.save = made.finalize = made.log_hyperparams = lambda *_, **__: None
    return made


def test_epochs_go_to_wandb_on_a_step_of_their_own(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path
) -> None:
    client = Client()
    trainer(callback, logger=logger(tmp_path, client), max_epochs=1).fit(Net(), loader(TRAIN), loader(VALID))
    assert client.calls[:2] == [(("colordim/batch",), {}), (("colordim/*",), {"step_metric": "colordim/batch"})]
    row = client.calls[2]
    assert row["colordim/batch"] == "int"
    assert set(row.values()) >= {"Image", "Histogram", "float"}


def test_a_logger_that_fails_is_left_alone(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, tmp_path: Path
) -> None:
    broken = logger(tmp_path, Client(OSError("no network")))
    with pytest.warns(ColordimWarning, match="OSError: no network") as said:
        trainer(callback, logger=broken, log_every_n_steps=1).fit(Net(), loader(TRAIN), loader(VALID))
    assert len([one for one in said if issubclass(one.category, ColordimWarning)]) == 1
    assert lengths(callback) == (6, 2)


def test_loggers_can_be_left_out(trainer: Callable[..., pl.Trainer], tmp_path: Path) -> None:
    client, callback = Client(), ColorDim(folder=tmp_path / "run", log_to=None)
    trainer(callback, logger=logger(tmp_path, client)).fit(Net(), loader(TRAIN), loader(VALID))
    assert client.calls == []


# Two names, and two processes.


def old_trainer(callback: ColorDim) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pytorch_lightning.Trainer(callbacks=callback, max_epochs=1, enable_checkpointing=False, **quiet)


@pytest.mark.pitfall("two names of Lightning")
def test_it_is_a_callback_of_whichever_lightning_is_loaded(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(callback, pl.Callback)
    assert isinstance(callback, pytorch_lightning.Callback)
    trainer(callback).fit(Net(), loader(TRAIN), loader(VALID))
    old_trainer(callback).fit(drive_lightning.Exact())
    assert lengths(callback) == (8, 3)
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    assert not isinstance(ColorDim(), pytorch_lightning.Callback)
    assert isinstance(ColorDim(), pl.Callback)


def test_without_lightning_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "_FAMILIES", {"no_such_package": "no_such_package.callbacks"})
    with pytest.raises(DependencyError, match=r'pip install "colordim\[lightning\]"'):
        ColorDim()


def alone(folder: Path, fits: int) -> colordim.Run:
    """Return what one process records of the same data, in batches twice as long."""
    model, callback = drive_lightning.Exact(), ColorDim(folder=folder, kinds=("activation", "weight"))
    for _ in range(fits):
        old_trainer(callback).fit(model)
    return callback.run


def test_a_note_of_another_process_is_for_one_callback_and_goes_with_it(
    trainer: Callable[..., pl.Trainer], callback: ColorDim, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer(callback).fit(Net(), loader(TRAIN), loader(VALID))
    main = ColorDim()
    other = copy.deepcopy(main)
    with monkeypatch.context() as launched:
        launched.setattr(os, "getpid", lambda: -1)
        main._note.leave(callback.state_dict())
    note = main._note._path
    with pytest.raises(RecordingError, match="train first"):
        other.run  # noqa: B018
    assert main.state_dict() == callback.state_dict()
    assert lengths(main) == (6, 2)
    with monkeypatch.context() as launched:
        launched.setattr(os, "getpid", lambda: -1)
        main._note.leave({})
    assert note.exists()
    del main
    assert not note.exists()


@pytest.mark.pitfall("processes that a trainer launches")
@pytest.mark.timeout(600)  # both processes of both import Lightning
def test_two_processes_are_one_run_that_adds_up(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, DRIVER, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    launched = list((tmp_path / "runs").iterdir())
    assert len(launched) == 1, "rank 0 names it for both"
    for folder, fits in ((launched[0], 1), (tmp_path / "spawned", 2)):
        run, expected = colordim.open(folder), alone(tmp_path / f"alone-{fits}", fits)
        assert sorted(path.name for path in folder.glob("rank=*")) == ["rank=0", "rank=1"]
        assert run.problems == ()
        assert set(run.batches["ranks"]) == {2}
        phases: dict[Phase, int] = {"train": 2 * fits, "valid": fits}
        for phase, batches in phases.items():
            assert run.length(phase) == expected.length(phase) == batches
            for layer, features in (("net.0", 8), ("net.1", 8), ("net.2", 2)):
                stream, same = run.stream(layer, "activation"), expected.stream(layer, "activation")
                here, there = run.moments(stream, phase=phase), expected.moments(same, phase=phase)
                assert here["size"].tolist() == [8 * features] * batches
                assert here["sum"].tolist() == there["sum"].tolist()
                np.testing.assert_array_equal(run.counts(stream, phase=phase), expected.counts(same, phase=phase))
        stream, same = run.stream("net.0.weight", "weight"), expected.stream("net.0.weight", "weight")
        np.testing.assert_array_equal(run.counts(stream), expected.counts(same))
    # What the process that launched the others knows; the second fit has gone on in the run of the first.
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert found["ddp_fork"] == [2, 2]
    assert found["ddp_spawn"] == [4, 4]
    assert "pytorch_lightning.callbacks.callback" in found["bases"]
    assert "lightning.pytorch.callbacks.callback" not in found["bases"]


def test_a_finding_stops_the_fit_if_it_may(
    trainer: Callable[..., pl.Trainer], tmp_path: Path, stops_after: Callable[[int], None]
) -> None:
    stops_after(5)  # three training batches, a validation, and the first training batch of the second epoch
    for on_finding, batches in ((["log", "stop"], 4), ("log", 6)):
        callback = ColorDim(folder=tmp_path / str(batches), on_finding=on_finding)
        fit = trainer(callback)
        fit.fit(Net(), loader(TRAIN), loader(VALID))
        assert callback.run.length("train") == batches
        assert callback.run.ended == "stopped"
