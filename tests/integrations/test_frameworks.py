"""The recipes of docs/frameworks.md are run as they stand there, and record exactly what their frameworks run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

import keras
import numpy as np
import pytest
import torch
from ignite.engine import create_supervised_evaluator, create_supervised_trainer
from torch import nn

import colordim
from colordim.errors import ArgumentError

# Of Keras's variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PAGE = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
X = np.random.default_rng(0).standard_normal((10, 6)).astype("float32")


def blocks(heading: str) -> list[str]:
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    return re.findall(r"^```python\n(.*?)^```", section, re.M | re.S)


def run_block(code: str, folder: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, folder, "exec"), names)
    assert names["rec"].notices == ()
    return names


def keras_model() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8), keras.layers.ReLU(), keras.layers.Dense(2, name="head")]
    )
    model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.pitfall("layers of Keras")
def test_keras_on_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("Keras 3 on PyTorch")
    model, y = keras_model(), np.arange(10) % 2
    model.predict(X, verbose=0)
    names = run_block(code, "keras", model=model, x=X, y=y)
    run = names["rec"].run
    assert [str(phase)[0] for phase in run.batches["phase"]] == list("tttvvvtttvvv")
    assert run.batches["epoch"].tolist() == [0] * 6 + [1] * 6
    assert run.moments("head")["size"].tolist() == [8, 8, 4] * 2
    assert run.moments("re_lu", "valid")["size"].tolist() == [32, 32, 16] * 2
    assert not np.isnan(run.batches["loss"][:3]).any()
    # The last batch of validation ran with the final weights.
    expected = model.layers[0](X[8:]).detach().double()
    assert run.moments("dense", "valid")["sum"][-1] == pytest.approx(expected.sum().item(), rel=1e-5)
    plain = keras_model()
    plain.predict(X, verbose=0)
    plain.fit(X, y, batch_size=4, epochs=2, validation_data=(X, y), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights(), model.get_weights(), strict=True))


def test_jax_flax_and_keras_on_jax() -> None:
    """In a process of their own: one that has imported JAX warns whenever it is forked, and Keras has one backend."""
    recipes = Path(__file__).with_name("recipes_for_jax.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(recipes)]
    source = str(Path(colordim.__file__).parents[1])
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join([source, *sys.path])}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=recipes.parents[2])
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-1000:]


def engines(model: nn.Module) -> dict[str, Any]:
    data = [(torch.from_numpy(rows), torch.zeros(len(rows), 2)) for rows in (X[:4], X[4:8], X[8:])]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return {
        "optimizer": optimizer,
        "trainer": create_supervised_trainer(model, optimizer, nn.functional.mse_loss),
        "evaluator": create_supervised_evaluator(model),
        "train": data,
        "valid": data[:2],
    }


def torch_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2))


def test_ignite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("Ignite")
    model = torch_model()
    run = run_block(code, "ignite", model=model, **engines(model))["rec"].run
    assert [str(phase)[0] for phase in run.batches["phase"]] == list("tttvvtttvv")
    assert run.batches["epoch"].tolist() == [0] * 5 + [1] * 5
    assert run.batches["step"].tolist() == [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]
    assert run.moments("3")["size"].tolist() == [8, 8, 4] * 2
    assert run.moments("3", "valid")["size"].tolist() == [8, 8] * 2
    assert np.isnan(run.batches["loss"]).tolist() == [str(phase) == "valid" for phase in run.batches["phase"]]
    plain, names = torch_model(), {}
    names = engines(plain)
    from ignite.engine import Events

    names["trainer"].add_event_handler(Events.EPOCH_COMPLETED, lambda _: names["evaluator"].run(names["valid"]))
    names["trainer"].run(names["train"], max_epochs=2)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))


@pytest.mark.pitfall("exceptions in Ignite")
def test_an_exception_in_ignite_reaches_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("Ignite")
    model = torch_model()
    names = engines(model)
    names["train"] = [*names["train"][:2], (torch.zeros(2, 6), torch.zeros(3, 7))]
    with pytest.raises(RuntimeError), pytest.warns(UserWarning, match="target size"):
        run_block(code, "ignite", model=model, **names)
    run = colordim.open(tmp_path / "runs" / "ignite")
    assert run.moments("3")["size"].tolist() == [8, 8]
    assert str(run.ended).startswith("RuntimeError")


# What these recipes need of us.


def observed(tmp_path: Path, values: Any) -> colordim.Run:
    with colordim.record(None, folder=tmp_path / "run") as rec, rec.batch("train"):
        assert colordim.observe("a", values) is values
    assert rec.notices == ()
    return rec.run


READ_ONLY = np.broadcast_to(np.array([1.5, -2.0]), (3, 2))


@pytest.mark.pitfall("arrays of other libraries")
@pytest.mark.parametrize(
    ("values", "size", "total"),
    [
        (np.full(3, 1.5), 3, 4.5),
        (READ_ONLY, 6, -1.5),
        ([1.0, 2.5], 2, 3.5),
        (7, 1, 7.0),
    ],
    ids=["numpy", "read-only", "list", "number"],
)
def test_arrays_of_other_libraries_are_observed(tmp_path: Path, values: Any, size: int, total: float) -> None:
    moments = observed(tmp_path, values).moments("a")
    assert (moments["size"].tolist(), moments["sum"].tolist()) == ([size], [total])


def test_without_batches_nothing_is_observed(tmp_path: Path) -> None:
    with (
        pytest.warns(colordim.ColordimWarning, match="within which observe"),
        colordim.record(None, folder=tmp_path / "run"),
    ):
        colordim.observe("a", np.ones(3))


def test_a_run_without_a_model_is_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with colordim.record(None) as rec:
        for value in (1.0, 2.0):
            with rec.batch("train"):
                colordim.observe("a", np.full(4, value))
            rec.log(loss=value)
    run = colordim.open(rec.path)
    assert run.moments("a")["sum"].tolist() == [4.0, 8.0]
    assert run.batches["loss"].tolist() == [1.0, 2.0]
    assert run.info["model"]["layers"] == []
    assert run.colorful().axes


@pytest.mark.parametrize(
    "options", [{"layers": "a"}, {"kinds": "all"}, {"kinds": "gradient"}, {"facets": {"a": "class"}}, {"scaler": 1}]
)
def test_without_a_model_there_are_no_layers_to_choose(options: Any) -> None:
    record: Callable[..., Any] = colordim.record
    with pytest.raises(ArgumentError, match=r"record\(None\)|without an optimizer"):
        record(None, **options)
