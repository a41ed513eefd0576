"""Train in two processes, started in each of the ways of Lightning, under its old name; run by test_lightning.py.

All numbers are sums of few powers of two, so that they are exact, and the same however a batch is divided.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from colordim.lightning import ColorDim


class Exact(pl.LightningModule):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        with torch.no_grad():
            for number, parameter in enumerate(self.net.parameters()):
                parameter.copy_((torch.arange(parameter.numel()).reshape(parameter.shape) * 5 + number) % 7 / 4 - 0.75)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.net(batch[0]).mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        self.net(batch[0])

    def loader(self, rows: int) -> DataLoader[tuple[torch.Tensor, ...]]:
        """Return every other row, where there are two processes, in batches of eight in all."""
        number = self.trainer.world_size
        rows_of_all = torch.arange(rows * 4).reshape(rows, 4) * 3 % 5 - 2.0
        return DataLoader(TensorDataset(rows_of_all[self.global_rank :: number]), batch_size=8 // number)

    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return self.loader(16)

    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return self.loader(8)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.net.parameters(), 1.0)


def fit(model: Exact, callback: ColorDim, strategy: str, root: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=callback,
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        use_distributed_sampler=False,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
    )
    trainer.fit(model)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    root, found = Path(sys.argv[1]), dict[str, object]()
    os.chdir(root)
    if "LOCAL_RANK" not in os.environ:  # the launcher runs this script once more for the second process
        model, callback = Exact(), ColorDim(folder=root / "spawned", kinds=("activation", "weight"))
        for strategy in ("ddp_fork", "ddp_spawn"):
            fit(model, callback, strategy, root)
            found[strategy] = callback.run.length("train"), callback.state_dict()["train"]
        found["bases"] = [base.__module__ for base in type(callback).__mro__]
    fit(Exact(), ColorDim(kinds=("activation", "weight")), "ddp", root)
    if os.environ["LOCAL_RANK"] == "0":
        (root / "found.json").write_text(json.dumps(found), encoding="utf-8")
