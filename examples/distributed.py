# %% [markdown]
# # Two processes, one run
#
# `DistributedDataParallel` with gloo, on this machine alone. Every process records its own part, without asking another anything;
# whoever opens the run sees the sums (docs/ranks.md). Start it with
#
#     torchrun --nproc-per-node 2 distributed.py
#
# or as it is, and it starts its two processes itself.

# %%
import os
import sys
import tempfile

import torch
from sklearn.datasets import load_digits
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import colordim

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "runs/distributed"  # a new one for each training


def train(rank, world_size, meeting="env://"):
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    torch.set_num_threads(1)
    torch.manual_seed(0)  # every rank begins with the same weights, and draws the same order
    images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    images = (images.float() - 8) / 6
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    with colordim.record(model, folder=FOLDER, optimizer=opt) as rec:  # the same line on every rank
        for rows in torch.randperm(1792).split(128):
            mine = rows[rank::world_size]
            loss = cross_entropy(model(images[mine]), labels[mine])
            loss.backward()
            opt.step()
            opt.zero_grad()
            rec.log(loss=loss)
    distributed.barrier()  # until every part is written
    distributed.destroy_process_group()
    if rank == 0:
        tell()


# %%
def tell():
    run = colordim.open(FOLDER)
    name = "2"  # the last layer, as it is called without DistributedDataParallel
    print(f"{run.length('train')} batches of {run.batches['ranks'].max()} ranks")
    print(f"values of the last layer in a batch: {run.moments(name)['size'][0]} = 128 images x 10, of both ranks together")
    run.colorful().savefig("distributed.png")


if __name__ == "__main__":
    if "RANK" in os.environ:  # torchrun has started this process
        train(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.spawn(train, (2, f"file://{folder}/meeting"), nprocs=2)
