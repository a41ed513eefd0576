# %% [markdown]
# # Accelerate
#
# A loop of your own with Accelerate needs no callback: begin recording after `prepare`, with the model that it returns. The
# checkpoint holds the position in the run, so that a training that is resumed goes on in the same run (docs/resume.md).

# %%
import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import colordim

torch.manual_seed(0)
images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
data = TensorDataset((images.float() - 8) / 6, labels)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(data, batch_size=64, shuffle=True))

# %%
rec = colordim.record(model, optimizer=optimizer, kinds="all", folder="runs/accelerate")
accelerator.register_for_checkpointing(rec)
with rec:
    for x, y in loader:
        with accelerator.accumulate(model):
            loss = cross_entropy(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        rec.log(loss=loss)
    accelerator.save_state("checkpoint")

# %%
# Every batch has activations and gradients; every second one has a step, and so weights and updates.
run = rec.run
for kind in ("activation", "gradient", "weight", "update"):
    sizes = run.moments(run.select(kind=kind)[-1])["size"]
    print(f"{kind}: in {(sizes > 0).sum()} of {len(sizes)} batches")
run.colorful().savefig("accelerate.png")
