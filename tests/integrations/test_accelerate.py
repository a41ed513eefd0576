"""A loop of Accelerate is recorded by ``record``, as docs/huggingface.md says; its checkpoints hold the position."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, cpu_offload
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import colordim
from colordim.errors import RecordingError


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    """Accelerate keeps its settings for the whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def prepared(**options: Any) -> tuple[Any, Any, Any, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    data = TensorDataset(torch.randn(10, 6), torch.randn(10, 2))
    accelerator = Accelerator(cpu=True, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return accelerator, *accelerator.prepare(model, optimizer, DataLoader(data, batch_size=2))


def train(accelerator: Any, model: Any, optimizer: Any, loader: Any, rec: Any = None, stop: int = 99) -> None:
    for number, (x, y) in enumerate(loader):
        if number == stop:
            return
        with accelerator.accumulate(model):
            loss = nn.functional.mse_loss(model(x), y)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        if rec is not None:
            rec.log(loss=loss)


@pytest.mark.pitfall("optimisers of Accelerate")
@pytest.mark.parametrize("options", [{"gradient_accumulation_steps": 2}, {"mixed_precision": "bf16"}])
def test_a_loop_is_recorded_and_trains_as_without(tmp_path: Path, options: dict[str, Any]) -> None:
    parts = prepared(**options)
    with colordim.record(parts[1], optimizer=parts[2], kinds="all", folder=tmp_path / "run") as rec:
        train(*parts, rec)
    run = rec.run
    assert run.moments("0")["size"].tolist() == [16] * 5
    steps = [0, 1, 0, 1, 1] if "gradient_accumulation_steps" in options else [1] * 5
    assert run.batches["step"].tolist() == np.cumsum(steps).tolist()
    for kind in ("weight", "weight_gradient", "update"):
        assert run.moments(run.stream("2.weight", kind))["size"].tolist() == [16 * step for step in steps]
    assert not np.isnan(run.batches["loss"]).any()
    assert rec.notices == ()
    plain = prepared(**options)
    train(*plain)
    for a, b in zip(plain[1].parameters(), parts[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_layers_are_counted_in_their_precision_and_the_model_in_that_of_its_outputs(tmp_path: Path) -> None:
    accelerator, model, _, loader = prepared(mixed_precision="bf16")
    del accelerator
    x, _ = next(iter(loader))
    seen: dict[str, Any] = {}
    model[2].register_forward_hook(lambda _, __, output: seen.update(layer=output.detach()))
    with colordim.record(model, layers=["2", "Sequential"], folder=tmp_path / "run") as rec:
        seen["model"] = model(x).detach()
    assert (seen["layer"].dtype, seen["model"].dtype) == (torch.bfloat16, torch.float32)
    for name, key in (("2", "layer"), ("Sequential", "model")):
        assert rec.run.moments(name)["sum"].tolist() == [pytest.approx(seen[key].double().sum().item())]


@pytest.mark.parametrize("batches", [5, 2])
def test_a_checkpoint_holds_the_position(tmp_path: Path, batches: int) -> None:
    accelerator, model, optimizer, loader = prepared()
    rec = colordim.record(model, optimizer=optimizer, folder=tmp_path / "run")
    accelerator.register_for_checkpointing(rec)
    with rec:
        train(accelerator, model, optimizer, loader, rec, stop=batches)
        accelerator.save_state(str(tmp_path / "checkpoint"))
        train(accelerator, model, optimizer, loader, rec, stop=2)  # which the checkpoint has not seen
    AcceleratorState._reset_state(reset_partial_state=True)

    accelerator, model, optimizer, loader = prepared()
    rec = colordim.record(model, optimizer=optimizer, folder=tmp_path / "elsewhere")
    accelerator.register_for_checkpointing(rec)
    accelerator.load_state(str(tmp_path / "checkpoint"))
    with rec:
        train(accelerator, model, optimizer, loader, rec)
    assert rec.path == str(tmp_path / "run")
    assert rec.run.moments("0")["size"].tolist() == [16] * (batches + 5)
    assert rec.run.batches["step"].tolist() == list(range(1, batches + 6))
    with pytest.raises(RecordingError, match="as it starts"):
        accelerator.load_state(str(tmp_path / "checkpoint"))


def test_a_position_goes_with_a_run_that_was_moved_and_begins_one_where_there_is_none(tmp_path: Path) -> None:
    _, model, _, loader = prepared()
    x, _ = next(iter(loader))

    def batch(rec: colordim.Recording) -> None:
        model(x)
        rec.log(loss=1)

    with colordim.record(model, folder=tmp_path / "run") as rec:
        batch(rec)
        state = rec.state_dict()
        batch(rec)
    (tmp_path / "run").rename(tmp_path / "moved")
    again = colordim.record(model, folder=tmp_path / "moved")
    again.load_state_dict(state)
    with again:
        batch(again)
    assert again.path == str(tmp_path / "moved")
    assert again.run.length() == 2
    fresh = colordim.record(model, folder=tmp_path / "fresh")
    fresh.load_state_dict({})
    with fresh:
        batch(fresh)
    assert fresh.run.length() == 1


@pytest.mark.pitfall("parameters that are elsewhere")
def test_offloaded_parameters_have_no_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x = torch.randn(3, 6)
    expected = model(x).detach()
    cpu_offload(model, execution_device=torch.device("cpu"))
    assert model[0].weight.is_meta
    with colordim.record(model, kinds=("activation", "weight"), folder=tmp_path / "run") as rec:
        with rec.batch("train"):
            found = model(x)
        assert torch.equal(found, expected)
    assert rec.run.moments("2")["sum"].tolist() == [pytest.approx(expected.double().sum().item())]
    assert [stream.kind for stream in rec.run.streams] == ["activation"] * 3


def test_names_are_those_of_the_model(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU())
    accelerator = Accelerator(cpu=True, dynamo_backend="eager")
    compiled = accelerator.prepare(model)
    assert hasattr(compiled, "_orig_mod")
    with colordim.record(compiled, folder=tmp_path / "run") as rec:
        compiled(torch.randn(3, 6)).sum().backward()
    assert [stream.name for stream in rec.run.streams] == ["0", "1"]
    assert rec.run.moments("1")["size"].tolist() == [24]
