"""The recipes of docs/frameworks.md for JAX, Flax and Keras on JAX, and the example; test_frameworks.py runs these tests."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import flax.linen
import flax.nnx
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from tests.test_examples import ROOT, check_output, check_runs

import colordim

PAGE = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
X = np.random.default_rng(0).standard_normal((10, 6)).astype("float32")


def blocks(heading: str) -> list[str]:
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    return re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)


def run_block(code: str, folder: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, folder, "exec"), names)
    assert names["rec"].notices == ()
    return names


def test_keras_on_jax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("Keras 3 on JAX")
    assert keras.backend.backend() == "jax"
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8), keras.layers.ReLU(), keras.layers.Dense(2, name="head")]
    )
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    names = run_block(code, "keras", model=model, x=X, y=np.arange(10) % 2)
    run = names["rec"].run
    assert run.moments("head", "valid")["size"].tolist() == [8, 8]
    assert run.moments("re_lu", "valid")["size"].tolist() == [32, 32]
    last = np.asarray(model(X[:4])).astype("float64").sum()
    assert run.moments("head", "valid")["sum"][-1] == pytest.approx(last, rel=1e-5)


def test_jax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks("JAX and Flax")[0]
    keys = jax.random.split(jax.random.key(0), 2)
    params = {"hidden": jax.random.normal(keys[0], (6, 8)), "head": jax.random.normal(keys[1], (8, 2))}
    batches = [(jnp.asarray(rows), jnp.zeros((len(rows), 2))) for rows in (X[:4], X[4:8], X[8:])]
    run = run_block(code, "jax", params=params, batches=batches)["rec"].run
    assert run.moments("hidden")["size"].tolist() == [32, 32, 16]
    assert run.moments("gradient of head")["size"].tolist() == [16] * 3
    hidden = np.maximum(X[:4].astype("float64") @ np.asarray(params["hidden"], "float64"), 0)
    logits = hidden @ np.asarray(params["head"], "float64")
    assert run.moments("logits")["sum_sq"][0] == pytest.approx((logits**2).sum(), rel=1e-4)
    assert run.batches["loss"][0] == pytest.approx((logits**2).mean(), rel=1e-4)


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "jax_.py"), run_name="__main__")
    check_output("jax_.py", capsys.readouterr().out)
    check_runs(tmp_path)


def test_flax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, linen, nnx = blocks("JAX and Flax")

    class Net(flax.linen.Module):  # type: ignore[misc]
        @flax.linen.compact  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return flax.linen.Dense(2, name="head")(flax.linen.relu(flax.linen.Dense(8, name="hidden")(x)))

    module = Net()
    params = module.init(jax.random.key(0), X)
    names = run_block(linen, "flax", module=module, params=params, x=X, jax=jax, colordim=colordim)
    run = names["rec"].run
    weight = np.asarray(params["params"]["hidden"]["kernel"], "float64")
    assert run.moments("hidden", "valid")["sum_sq"][0] == pytest.approx(((X @ weight) ** 2).sum(), rel=1e-4)
    assert {stream.name for stream in run.streams} >= {"hidden", "head"}
    assert run.moments("head", "valid")["size"].tolist() == [20]

    class Other(flax.nnx.Module):  # type: ignore[misc]
        def __init__(self, rngs: Any) -> None:
            self.hidden = flax.nnx.Linear(6, 8, rngs=rngs)
            self.head = flax.nnx.Linear(8, 2, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.head(flax.nnx.relu(self.hidden(x)))

    other = Other(flax.nnx.Rngs(0))
    run = run_block(nnx, "nnx", module=other, x=X, colordim=colordim)["rec"].run
    weight = np.asarray(other.hidden.kernel[...], "float64")
    assert run.moments("hidden", "valid")["sum_sq"][0] == pytest.approx(((X @ weight) ** 2).sum(), rel=1e-4)
    assert run.moments("head", "valid")["size"].tolist() == [20]


@pytest.mark.parametrize(
    ("values", "size", "total"),
    [
        (jnp.full((3, 4), 1.5), 12, 18.0),
        (jnp.full((3, 4), 1.5, jnp.bfloat16), 12, 18.0),
        (jnp.arange(5) > 2, 5, 2.0),
    ],
    ids=["float32", "bfloat16", "bool"],
)
def test_arrays_of_jax_are_observed(tmp_path: Path, values: Any, size: int, total: float) -> None:
    with colordim.record(None, folder=tmp_path / "run") as rec, rec.batch("train"):
        assert colordim.observe("a", values) is values
    assert rec.notices == ()
    moments = rec.run.moments("a")
    assert (moments["size"].tolist(), moments["sum"].tolist()) == ([size], [total])


def test_what_has_no_values_stops_nothing(tmp_path: Path) -> None:
    with (
        pytest.warns(colordim.ColordimWarning, match="'traced' is no longer recorded"),
        colordim.record(None, folder=tmp_path / "run") as rec,
        rec.batch("train"),
    ):
        doubled = jax.jit(lambda x: colordim.observe("traced", x) * 2)(jnp.ones(3))
        colordim.observe("a", doubled)
    assert [stream.name for stream in rec.run.streams] == ["a"]
