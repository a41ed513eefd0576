"""Record one rank of trainings in two processes; run by test_parameters.py with rank, meeting point and output."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from colordim.axis import SignedLogAxis
from colordim.column import KINDS
from colordim.recording.recorder import Recorder
from colordim.recording.select import select
from colordim.run import Run
from colordim.store.memory import MemoryStore


def train(rank: int, how: str) -> dict[str, Any]:
    """Train in one of the ways, and return what was recorded."""
    torch.manual_seed(0)
    model: nn.Module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    if how == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    elif how == "fsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    elif how == "hsdp":
        fully_shard(model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("copies", "shards")))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    store = MemoryStore()
    recorder = Recorder(
        model, select(model), store, lambda _: SignedLogAxis(), optimizers=[optimizer], kinds=dict.fromkeys(KINDS, 1)
    )
    recorder.attach()
    x = torch.randn(2, 6, 4)[slice(None) if how == "alone" else slice(rank, rank + 1)]
    for _ in range(2):
        optimizer.zero_grad()
        model(x.reshape(-1, 4)).square().mean().backward()
        optimizer.step()
    recorder.detach()
    run = Run(store)
    streams = {
        f"{stream.kind} {stream.name}": {
            "reduction": stream.reduction,
            "shape": stream.shape,
            "counts": run.counts(stream).tolist(),
        }
        for stream in run.streams
    }
    norm = run.batches.get("grad_norm")
    return {"streams": streams, "norm": None if norm is None else norm.tolist(), "notices": recorder.notices.said}


if __name__ == "__main__":
    rank = int(sys.argv[1])
    distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
    found = {how: train(rank, how) for how in ("alone", "ddp", "fsdp", "hsdp")}
    Path(sys.argv[3]).write_text(json.dumps(found), encoding="utf-8")
    distributed.destroy_process_group()
