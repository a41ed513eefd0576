# %% [markdown]
# # An alert in CI
#
# A short training in every pull request, and a job that fails when a layer dies, gradients vanish or the learning rate is too high,
# long before anybody looks at a curve. The workflow for GitHub is in docs/examples.md.
#
#     python alerts_in_ci.py           # healthy: exit status 0
#     python alerts_in_ci.py --lr 1    # a problem: exit status 4

# %%
import argparse
import subprocess
import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import colordim
from colordim.demo.data import load_digits

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
lr = parser.parse_args().lr

# %%
torch.manual_seed(0)
digits = load_digits()
model = nn.Sequential(
    nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10)
)
opt = torch.optim.SGD(model.parameters(), lr=lr)

with colordim.record(model, folder="runs/ci", optimizer=opt, kinds="all") as rec:  # all kinds: more can be judged
    for epoch in range(2):
        for rows in torch.randperm(len(digits.train_images)).split(64):
            loss = cross_entropy(model(digits.train_images[rows]), digits.train_labels[rows])
            loss.backward()
            opt.step()
            opt.zero_grad()
            rec.log(loss=loss)

# %%
# The command rather than run.diagnose(): its exit status is what a job goes by. `--json` is for programs, `--mute` for what is meant.
command = [sys.executable, "-m", "colordim", "diagnose", str(rec.path), "--fail-on", "problem"]
sys.exit(subprocess.run(command, check=False).returncode)
