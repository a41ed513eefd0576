# %% tags=["install"]
# %pip install -q "colordim[demo]"

# %% [markdown]
# # First steps
#
# A small network, real digits that come with a package, and a learning rate that is too high on purpose. What goes wrong, where,
# and since when? Then set `lr=0.1` and run the cell again.

# %%
import torch
from torch import nn

import colordim
from colordim.demo.data import load_digits

torch.manual_seed(0)
digits = load_digits()
x, y = digits.train_images, digits.train_labels
model = nn.Sequential(nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(400, 10))
opt = torch.optim.SGD(model.parameters(), lr=1.0)
with colordim.record(model, folder="runs/first") as rec:
    for rows in torch.randperm(4000).repeat(3).split(64):
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        loss.backward(); opt.step(); opt.zero_grad()
        rec.log(loss=loss)
print(rec.run.diagnose())
rec.run.colorful()
