# %% [markdown]
# # JAX
#
# There are no hooks in JAX: the step returns what is to be recorded, beside the loss, and `colordim.observe` counts it outside of
# `jit`. `record(None)` is a recording without a model. (Recordings of this kind need PyTorch to be installed, too.)

# %%
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import colordim


def loss_of(params, x, y):
    hidden = jax.nn.relu(x @ params["hidden"])
    logits = hidden @ params["head"]
    loss = -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()
    return loss, {"hidden": hidden, "logits": logits}


@jax.jit
def step(params, x, y):
    (loss, seen), gradients = jax.value_and_grad(loss_of, has_aux=True)(params, x, y)
    return jax.tree.map(lambda p, g: p - 0.5 * g, params, gradients), loss, seen, gradients


# %%
x, y = load_digits(return_X_y=True)
x = (x.astype("float32") - 8) / 6
keys = jax.random.split(jax.random.key(0), 2)
params = {"hidden": 0.1 * jax.random.normal(keys[0], (64, 32)), "head": 0.1 * jax.random.normal(keys[1], (32, 10))}
rows = np.random.default_rng(0).permutation(1792).reshape(-1, 64)  # of equal length: each other one would be compiled anew

with colordim.record(None, folder="runs/jax") as rec:
    for _ in range(2):
        rec.epoch()
        for batch in rows:
            with rec.batch("train"):
                params, loss, seen, gradients = step(params, x[batch], y[batch])
                for name, values in seen.items():
                    colordim.observe(name, values)
                for name, values in gradients.items():
                    colordim.observe(f"gradient of {name}", values)
                rec.log(loss=loss)

# %%
run = rec.run
print(", ".join(stream.name for stream in run.streams))
print(f"the loss went from {run.batches['loss'][0]:.2f} to {run.batches['loss'][-1]:.2f}")
run.colorful(window="own").savefig("jax.png")
