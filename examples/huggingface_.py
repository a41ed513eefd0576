# %% tags=["install"]
# %pip install -q "colordim[huggingface]"

# %% [markdown]
# # Inside a transformer while it learns to read
#
# A loss is one number a batch. Behind it, every layer of a transformer puts out a distribution of values in every batch.
# **colordim** counts all of them into histograms, and draws these side by side, one thin column a batch: *the colorful
# dimension*.
#
# Here a small BERT learns from scratch, with the Hugging Face `Trainer`, to tell prose from code. Nothing is downloaded:
# the text is that of Python's own library, which is on every machine that runs this notebook.

# %%
import ast
import random
import sysconfig
import tempfile
import warnings
from pathlib import Path

warnings.filterwarnings("ignore", message="IProgress not found")

import matplotlib as mpl
import torch
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from colordim.huggingface import ColorDimCallback

logging.set_verbosity_error()
torch.set_num_threads(1)
mpl.rcParams["savefig.dpi"] = 65  # small pictures
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## The text
#
# Lines of docstrings are prose, all other lines are code. Each is read character by character: a token is a byte.

# %%
LENGTH = 48


def lines_of(path):
    """Return the lines of a file's docstrings, and its other lines."""
    source = path.read_text(encoding="utf-8")
    prose = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            prose.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    kinds = {True: [], False: []}
    for number, line in enumerate(source.splitlines(), start=1):
        if len(line.strip()) >= 24 and line.isascii() and not line.strip().startswith("#"):
            kinds[number in prose].append(line.strip())
    return kinds[True], kinds[False]


def example(line, label):
    tokens = [1, *line.encode()[: LENGTH - 1]]
    return {
        "input_ids": torch.tensor(tokens + [0] * (LENGTH - len(tokens))),
        "attention_mask": torch.tensor([1] * len(tokens) + [0] * (LENGTH - len(tokens))),
        "labels": label,
    }


library = Path(sysconfig.get_paths()["stdlib"])
files = ["argparse", "statistics", "pathlib", "threading", "subprocess", "tarfile", "zipfile", "inspect", "textwrap"]
prose, code = [], []
for path in (library / f"{name}.py" for name in files):
    if path.exists():  # pathlib has become a folder since
        for lines, found in zip((prose, code), lines_of(path), strict=True):
            lines += found
draw = random.Random(0)
number = min(900, len(prose), len(code))
data = [example(line, label) for label, lines in enumerate((code, prose)) for line in draw.sample(lines, number)]
draw.shuffle(data)
train, valid = data[:-300], data[-300:]
print(f"{len(train)} lines to train on, {len(valid)} to validate on, such as\n  {prose[40]!r} (prose)\n  {code[40]!r} (code)")

# %% [markdown]
# ## The training
#
# A callback, and nothing else. The first batches are recorded as well as the last, training as well as evaluation.

# %%
torch.manual_seed(0)
model = BertForSequenceClassification(
    BertConfig(
        vocab_size=128, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        max_position_embeddings=LENGTH, num_labels=2,
    )
)  # fmt: skip
args = TrainingArguments(
    str(folder / "out"), num_train_epochs=3, per_device_train_batch_size=32, per_device_eval_batch_size=100,
    learning_rate=2e-3, eval_strategy="epoch", logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
    use_cpu=True,
)  # fmt: skip


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


cd = ColorDimCallback(folder=folder / "run", layers=["blocks", "classifier"])
trainer = Trainer(model, args, train_dataset=train, eval_dataset=valid, compute_metrics=accuracy, callbacks=[cd])
trainer.remove_callback(PrinterCallback)
trainer.train()
cd.run

# %%
cd.run.scalars(["loss", "eval_accuracy"], figsize=(9, 3))

# %% [markdown]
# ## The colorful dimension
#
# Time runs to the right, one column a batch; the value of an output is its height, and the colour says how many outputs had
# that value. Thin bright lines are where most values are; vertical lines are the borders of epochs.

# %%
cd.run.colorful(["bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler.activation", "classifier"], cols=2, figsize=(11, 6))

# %% [markdown]
# The two blocks end in a layer norm: their outputs keep their width. The pooler's tanh, which sees the first token of a line,
# is driven to its two ends -1 and 1 as the network decides. The classifier begins with one narrow peak at zero, undecided,
# and **splits into two**: its answers, no and yes. How far the two are apart, and how much lies between them, is how sure it is.
# The same at the end of the last epoch, for the batches it has learnt from and for those it has never seen:

# %%
cd.run.twin_peaks("classifier", figsize=(8, 4))

# %% [markdown]
# ## Attention
#
# Everything above is what *modules* return. Of an attention block these are its projections, and the block's sum:

# %%
[stream.name for stream in cd.run.streams if "layer.0.attention" in stream.name]

# %% [markdown]
# Attention *scores* are computed by a function, and by a fused one they are never even written to memory, so no hook sees them.
# Those who watch for exploding attention logits compute them beside the model, with `colordim.observe`: the recipe is in
# [docs/probes.md](../docs/probes.md). What a hook does see, and what often tells as much, are the projections of queries
# and keys: logits are products of the two, so when these two widen, logits explode.

# %%
cd.run.colorful(["*layer.1*query", "*layer.1*key"], cols=2, figsize=(11, 3.4))
