"""Train with a checkpoint every few batches, and go on from the last one; run by test_resume.py with its arguments."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import colordim

BATCHES = 60


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2))
        self.late = nn.ReLU()
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, late: bool = False) -> Tensor:
        y: Tensor = self.body(x)
        return self.head(self.late(y) if late else y)


def data(batch: int) -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(batch))


def train(folder: Path, how: dict[str, Any], pause: float = 0.0, batches: int = BATCHES) -> colordim.Recording:
    """Train up to a number of batches, from the checkpoint beside the folder if there is one.

    `how` are options of record(), and ``told``: whether epochs are told; ``by``: "state", or "number" of batches.
    """
    how = dict(how)
    told, by = how.pop("told", False), how.pop("by", "state")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    file = folder.with_name(f"{folder.name}.pt")
    state: dict[str, Any] = {"batch": 0, "epoch_begun": False}
    if file.exists():
        state = torch.load(file, weights_only=False)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
    go_on = {"resume": state.get("recording")} if by == "state" else {"resume": "auto", "resume_at": state["batch"]}
    with colordim.record(model, folder=folder, optimizer=optimizer, **how, **go_on) as recording:
        batch = state["batch"]
        while batch < batches:
            if told and (batch % 20 == 0 or batch == state["batch"]):
                recording.epoch()  # as a loop over epochs does that goes on within one
            model.train()
            loss = model(data(batch), late=batch >= 30).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            recording.log(loss=loss)
            batch += 1
            if batch % 20 == 0:
                model.eval()
                with torch.no_grad():
                    for number in range(3):
                        model(data(10_000 + number))
            if batch % 7 == 0 or batch % 20 == 0:
                saved = {"batch": batch, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                saved |= {"rng": torch.get_rng_state(), "recording": recording.state_dict()}
                torch.save(saved, file.with_suffix(".new"))
                file.with_suffix(".new").replace(file)
                print(batch, flush=True)  # noqa: T201
            time.sleep(pause)
    return recording


if __name__ == "__main__":
    train(Path(sys.argv[1]), json.loads(sys.argv[2]), float(sys.argv[3]))
