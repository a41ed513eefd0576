# %% [markdown]
# # PyTorch Ignite
#
# The events of two engines open and close batches. Attach before other handlers: one that evaluates after an iteration must find
# its batch closed.

# %%
import torch
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

import colordim


def attach(rec, engine, phase):
    engine.add_event_handler(Events.ITERATION_STARTED, lambda _: rec.begin(phase))
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: rec.commit())


# %%
torch.manual_seed(0)
images, labels = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
data = TensorDataset((images.float() - 8) / 6, labels)
train, valid = (DataLoader(part, batch_size=64, shuffle=True) for part in random_split(data, [1500, 297]))
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
trainer = create_supervised_trainer(model, optimizer, nn.functional.cross_entropy)
evaluator = create_supervised_evaluator(model, metrics={"accuracy": Accuracy()})

# %%
with colordim.record(model, optimizer=optimizer, folder="runs/ignite") as rec:
    rec.manage()  # only what is opened above is a batch
    attach(rec, trainer, "train")
    attach(rec, evaluator, "valid")
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda _: rec.epoch())
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: rec.log(loss=engine.state.output))
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: evaluator.run(valid))
    trainer.run(train, max_epochs=2)

# %%
run = rec.run
print(f"{run.length('train')} batches of training, {run.length('valid')} of validation")
print(f"{evaluator.state.metrics['accuracy']:.1%} of the validation images are right")
run.colorful().savefig("ignite.png")
