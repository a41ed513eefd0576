"""What the pages of the manual presume: the names that their Python blocks use and do not define.

`defaults` suits most pages. A page that needs more has a function in `PAGES`, which returns its own names; a name is made when a
block asks for it first. `ELSEWHERE` says which pages other tests run, `NOT_RUN` which blocks nothing can run here, and why.
"""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import colordim

__all__ = ["ELSEWHERE", "NOT_RUN", "PAGES", "REPLACED", "Names", "make_run", "names_of"]

Makers = Mapping[str, Callable[[], Any]]

ELSEWHERE = {
    "docs/frameworks.md": "tests/integrations/test_frameworks.py",
    "docs/probes.md": "tests/test_probes.py",
    "docs/queries.md": "tests/test_engines.py",
}

#: By page and a piece of the block: why it cannot be run here.
NOT_RUN: dict[tuple[str, str], str] = {}

#: By page: what stands on it, and what the tests take for it.
REPLACED = {
    "docs/clusters.md": {"/shared/": "shared/", "/local/ssd": "ssd"},
    "docs/remote.md": {"s3://bucket": "memory://bucket"},
}


class Names(dict[str, Any]):
    """Names of which each is made when it is asked for first."""

    def __init__(self, makers: Makers) -> None:
        super().__init__(__name__="__main__")
        self.makers = makers

    def __missing__(self, name: str) -> Any:
        self[name] = self.makers[name]()  # a KeyError lets Python look among its builtins
        return self[name]


class Block(nn.Module):
    """A residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.act = nn.Linear(16, 16), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.act(self.linear(x))


class Net(nn.Sequential):
    """A network with the names of layers that the pages use."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(
            OrderedDict(
                {
                    "0": nn.Conv2d(1, 4, 3, padding=1), "1": nn.ReLU(), "conv1": nn.Conv2d(4, 8, 3, 2), "relu1": nn.ReLU(),
                    "flatten": nn.Flatten(), "fc0": nn.Linear(72, 16), "encoder": nn.Sequential(Block(), Block()),
                    "fc": nn.Linear(16, 16), "relu2": nn.ReLU(), "head": nn.Linear(16, 10),
                }
            )
        )  # fmt: skip


def batches(size: int = 64) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return real digits, 8 x 8."""
    x, y = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    images = (x.float().view(-1, 1, 8, 8) - 8) / 6
    return list(zip(images[:320].split(size), y[:320].split(size), strict=True))


def make_run(folder: Path) -> None:
    """Record a short training of all kinds, with validation, classes and losses: 64 batches, a window of units."""
    model, data = Net(), batches(10)
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with colordim.record(model, folder=folder, kinds="all", optimizer=opt, facets={"head": "class"}) as rec:
        for _ in range(2):
            model.train()
            for x, y in data:
                loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                opt.step()
                opt.zero_grad()
                rec.log(loss=loss)
            model.eval()
            with torch.no_grad():
                rec.log(loss=nn.functional.cross_entropy(model(data[0][0]), data[0][1]))


def defaults() -> Makers:
    """Return what most pages presume: a model, its batches, its optimiser, a recording, and the run `runs/lenet`."""
    names: dict[str, Callable[[], Any]] = {
        "colordim": lambda: colordim, "torch": lambda: torch, "nn": lambda: nn, "np": lambda: np, "os": lambda: os,
        "Path": lambda: Path, "model": Net, "batches": batches, "loader": batches, "valid": lambda: batches()[:1],
        "valid_batches": lambda: batches()[:1], "loss_func": lambda: nn.functional.cross_entropy,
        "run": lambda: colordim.open("runs/lenet"), "scaler": lambda: torch.amp.GradScaler("cpu"), "step": lambda: 5,
        "q": lambda: torch.ones(2, 3), "k": lambda: torch.ones(2, 3), "tell": lambda: print, "xb": lambda: batches()[0][0],
        "yb": lambda: batches()[0][1], "loss": lambda: torch.tensor(0.5), "checkpoint": dict,
    }  # fmt: skip
    return names


def optimizer(names: Names) -> Any:
    return torch.optim.SGD(names["model"].parameters(), lr=0.1)


def recording(names: Names) -> Any:
    """Return a recording that goes on; the test stops it."""
    return colordim.record(names["model"], folder="runs/going-on").start()


def images(folder: Path) -> Path:
    """Write threes and sevens as `ImageDataLoaders.from_folder` expects them."""
    from PIL import Image

    x, y = load_digits(return_X_y=True)
    for digit in (3, 7):
        for number, pixels in enumerate(x[y == digit][:20]):
            place = folder / ("valid" if number % 5 == 0 else "train") / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15).astype(np.uint8).reshape(8, 8)).resize((32, 32)).save(place / f"{number}.png")
    return folder


def small(weights: object = None, **_: object) -> nn.Module:
    """Return a network in the place of resnet18."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


def with_fastai(patch: pytest.MonkeyPatch) -> Makers:
    """fastai without its downloads: a folder of digits, a small network without weights, and small batches."""
    import fastai.vision.all as fastai

    learner = fastai.vision_learner
    loaders = fastai.ImageDataLoaders.from_folder
    patch.setattr(fastai, "untar_data", lambda _: images(Path("digits")))
    patch.setattr(fastai, "resnet18", small)
    patch.setattr(
        fastai,
        "vision_learner",
        lambda *given, **options: learner(*given, **options | {"pretrained": False, "cut": -1}),
    )
    patch.setattr(
        fastai.ImageDataLoaders, "from_folder", lambda path, **_: loaders(path, bs=8, num_workers=0)
    )  # fmt: skip

    def dls() -> Any:
        data = [(x[0], y) for xs, ys in batches(16) for x, y in zip(xs, ys, strict=True)]
        parts = [
            fastai.DataLoader(data[:128], bs=16, num_workers=0),
            fastai.DataLoader(data[128:160], bs=16, num_workers=0),
        ]
        return fastai.DataLoaders(*parts)

    return {
        "Learner": lambda: partial(fastai.Learner, loss_func=nn.functional.cross_entropy),
        "dls": dls,
        "model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
        "vision_learner": lambda: fastai.vision_learner,
        "resnet18": lambda: small,
        "accuracy": lambda: fastai.accuracy,
        "ImageDataLoaders": lambda: fastai.ImageDataLoaders,
    }


def with_lightning(patch: pytest.MonkeyPatch) -> Makers:
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader

    class Lit(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any, _: int) -> Any:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, _: int) -> None:
            self.net(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    quiet = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False,
    }  # fmt: skip
    pairs: Any = [pair for x, y in batches() for pair in zip(x, y, strict=True)]
    return {
        "Trainer": lambda: lambda **options: pl.Trainer(**quiet, **options),
        "model": Lit,
        "train_loader": lambda: DataLoader(pairs, batch_size=64),
        "valid_loader": lambda: DataLoader(pairs, batch_size=160),
    }


def with_huggingface(patch: pytest.MonkeyPatch) -> Makers:
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    def bert() -> Any:
        return BertForSequenceClassification(
            BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                max_position_embeddings=8)
        )  # fmt: skip

    texts = [{"input_ids": torch.full((6,), 2 + i % 2), "labels": i % 2} for i in range(16)]
    return {
        "Trainer": lambda: Trainer,
        "model": bert,
        "args": lambda: TrainingArguments("out", num_train_epochs=1, report_to="none", use_cpu=True, save_strategy="no", disable_tqdm=True),
        "data": lambda: texts,
        "more": lambda: texts[:8],
    }  # fmt: skip


def readme(patch: pytest.MonkeyPatch) -> Makers:
    """The block of the frameworks has a Trainer of Lightning, and then one of Hugging Face."""
    fastai, lightning, hugging = with_fastai(patch), with_lightning(patch), with_huggingface(patch)

    def trainer(*given: Any, **options: Any) -> Any:
        if not given:
            return lightning["Trainer"]()(**options)
        return hugging["Trainer"]()(hugging["model"](), *given[1:], **options)

    return {
        **{name: fastai[name] for name in ("vision_learner", "resnet18", "accuracy")},
        **{name: hugging[name] for name in ("args", "data")},
        "dls": lambda: fastai["ImageDataLoaders"]().from_folder(images(Path("digits"))),
        "Trainer": lambda: trainer,
    }


def huggingface(patch: pytest.MonkeyPatch) -> Makers:
    """The Trainer, and then a loop of Accelerate, whose model is another one."""
    from accelerate import Accelerator
    from torch.utils.data import DataLoader, TensorDataset

    names = with_huggingface(patch)

    class Mine(Accelerator):  # type: ignore[misc]
        """Prepares the model of the second block in the place of the first one's."""

        def prepare(self, *_: Any) -> Any:
            model = Net()
            data = DataLoader(TensorDataset(*(torch.cat(part) for part in zip(*batches(), strict=True))), batch_size=64)
            return super().prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), data)

    return {
        **names,
        "accelerator": lambda: Mine(cpu=True),
        "optimizer": lambda: None,
        "loader": lambda: None,
        "resuming": lambda: False,
    }


def exports(patch: pytest.MonkeyPatch) -> Makers:
    from torch.utils.tensorboard import SummaryWriter

    return {"writer": lambda: SummaryWriter("tb")}


def clusters(patch: pytest.MonkeyPatch) -> Makers:
    Path("ssd").mkdir()
    return {}


def remote(patch: pytest.MonkeyPatch) -> Makers:
    """The run of the page, in a store that fsspec keeps in memory; the configuration is put back after the page."""
    import fsspec

    patch.setattr(fsspec.config, "conf", {})
    fsspec.filesystem("memory").put("runs/lenet", "/bucket/runs/lenet", recursive=True)
    return {}


def resume(patch: pytest.MonkeyPatch) -> Makers:
    """A run of which something was cut off when it was resumed."""
    shutil.copytree("runs/lenet", "runs/lenet/cut-0001", ignore=lambda *_: ["cut-0001"])
    return {}


#: By page: a function that is called in the folder of the test, with `runs/lenet` in it, and returns names of the page's own.
PAGES: dict[str, Callable[[pytest.MonkeyPatch], Makers]] = {
    "README.md": readme,
    "docs/clusters.md": clusters,
    "docs/exports.md": exports,
    "docs/fastai.md": with_fastai,
    "docs/fastai_stats.md": with_fastai,
    "docs/huggingface.md": huggingface,
    "docs/lightning.md": with_lightning,
    "docs/remote.md": remote,
    "docs/resume.md": resume,
}


def names_of(page: str, patch: pytest.MonkeyPatch) -> Names:
    """Return the names that the blocks of a page may use."""
    makers = {**defaults(), **(PAGES[page](patch) if page in PAGES else {})}
    names = Names(makers)
    for name in ("opt", "optimizer"):
        makers.setdefault(name, lambda: optimizer(names))
    makers.setdefault("rec", lambda: recording(names))
    return names
