# %% [markdown]
# # A run in DuckDB
#
# A run is a folder of Parquet files, which DuckDB reads without colordim (Polars and Spark as well: docs/queries.md). To ask many
# runs at once, `colordim ls runs --query "SELECT ..."` has the same tables.
#
#     python duckdb_.py runs/plain_pytorch
#
# Without a run it makes a small one.

# %%
import sys

import duckdb


def record():
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    import colordim

    torch.manual_seed(0)
    x, y = (torch.from_numpy(array) for array in load_digits(return_X_y=True))
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    opt = torch.optim.Adam(model.parameters(), lr=3e-3)
    with colordim.record(model, folder="runs/duckdb") as rec:
        for rows in torch.randperm(len(x)).repeat(2).split(64):
            loss = nn.functional.cross_entropy(model(x[rows].float() / 16), y[rows])
            loss.backward()
            opt.step()
            opt.zero_grad()
            rec.log(loss=loss)
    return rec.path


run = sys.argv[1] if len(sys.argv) > 1 else record()

# %% [markdown]
# `batches` has a row for each batch with what was logged, `moments` one for each layer and batch, `streams.json` the layers' names.

# %%
batches = duckdb.read_parquet(f"{run}/rank=0/batches/*.parquet")
moments = duckdb.read_parquet(f"{run}/rank=0/moments/level=0/*.parquet")
layers = duckdb.sql(f"SELECT unnest(streams, recursive := true) FROM read_json('{run}/rank=0/streams.json')")
columns = duckdb.read_parquet(f"{run}/rank=0/columns/level=0/*.parquet")

# %%
print("What each layer returned: values, share of exact zeros, least and greatest.")
duckdb.sql("""
    SELECT name, sum(size)::BIGINT AS values, round(sum(zeros) / sum(size), 3) AS zeros,
        round(min(min), 2) AS least, round(max(max), 2) AS greatest
    FROM moments JOIN layers ON stream = id GROUP BY name, id ORDER BY id
""").show()

# %%
# No value has vanished: the bins and the counters beside them add up to the size, in the whole run.
((binned,),) = duckdb.sql("SELECT sum(list_sum(counts))::BIGINT FROM columns").fetchall()
((beside, size),) = duckdb.sql("""
    SELECT sum(under + "over" + nan + pos_inf + neg_inf)::BIGINT, sum(size)::BIGINT FROM moments
""").fetchall()
print(f"{binned:,} in bins + {beside:,} beside them = {size:,} values in {len(batches):,} batches")
