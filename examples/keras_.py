# %% [markdown]
# # Keras 3 on PyTorch
#
# Keras has no hook for colordim to attach to by itself: a callback of a few lines opens and closes the batches (docs/frameworks.md
# has it for the JAX backend as well).

# %%
import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

import keras
import torch
from sklearn.datasets import load_digits

import colordim


class Record(keras.callbacks.Callback):
    def __init__(self, rec):
        super().__init__()
        self.rec = rec.manage()  # only what is opened below is a batch: Keras also calls the model to build it

    def on_epoch_begin(self, epoch, logs=None):
        self.rec.epoch()

    def on_train_batch_begin(self, batch, logs=None):
        self.rec.begin("train")

    def on_train_batch_end(self, batch, logs=None):
        self.rec.log(**logs)
        self.rec.commit()

    def on_test_batch_begin(self, batch, logs=None):
        self.rec.begin("valid")

    def on_test_batch_end(self, batch, logs=None):
        self.rec.commit()


# %%
keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x.astype("float32") - 8) / 6
model = keras.Sequential(
    [keras.Input((64,)), keras.layers.Dense(32, activation="tanh", name="hidden"), keras.layers.Dense(10, name="head")]
)
model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])

layers = torch.nn.ModuleDict({layer.name: layer for layer in model.layers})  # on this backend layers are modules
with colordim.record(layers, layers=keras.layers.Layer, folder="runs/keras") as rec:
    model.fit(x, y, batch_size=64, epochs=2, validation_split=0.2, callbacks=[Record(rec)], verbose=0)

# %%
run = rec.run
print(f"{run.length('train')} batches of training, {run.length('valid')} of validation")
run.twin_peaks("head").savefig("keras.png")
