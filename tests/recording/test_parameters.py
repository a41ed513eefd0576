"""Weights, their gradients and updates: what the optimiser reads and what it really changes, in the batch of its step."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdRef

import colordim
from colordim.column import KINDS
from colordim.errors import ArgumentError
from colordim.recording.kinds import as_kinds

ALL = dict.fromkeys(KINDS, 1)
Optimizers = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


def network() -> Any:  # its parts are tensors and modules by number
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))


def data(number: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(6, 4, generator=generator), torch.randint(3, (6,), generator=generator)) for _ in range(number)
    ]


# What is asked for.


def test_kinds_and_how_often() -> None:
    assert as_kinds("all", True) == dict.fromkeys(KINDS, 1)
    assert as_kinds("gradient", False) == {"gradient": 1}
    assert as_kinds(["update", "activation"], True) == {"activation": 1, "update": 1}
    assert as_kinds({"activation": 1, "weight": 10.0}, False) == {"activation": 1, "weight": 10}  # type: ignore[dict-item]
    assert as_kinds({"all": 5, "activation": 1}, True) == {**dict.fromkeys(KINDS, 5), "activation": 1}


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (
            "gradients",
            "there is no kind 'gradients': take activation, gradient, weight, weight_gradient, update, or 'all'",
        ),
        (["activation", "update"], "update cannot be recorded without an optimizer.*pass optimizer="),
        ("all", "weight_gradient and update cannot be recorded without an optimizer"),
        ((), "kinds is empty"),
        ({"activation": 0}, "whole number n of at least one"),
        ({"activation": 1.5}, "whole number n of at least one"),
        ({"activation": True}, "whole number n of at least one"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_a_sentence(kinds: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        colordim.record(network(), kinds=kinds)


def test_a_scaler_that_is_none_is_refused() -> None:
    with pytest.raises(ArgumentError, match="scaler takes the GradScaler"):
        colordim.record(network(), scaler=1024.0)


def test_the_run_on_disk_says_which_kinds_it_has(tmp_path: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    kinds = {"activation": 1, "gradient": 1, "weight": 2, "weight_gradient": 1, "update": 1}
    with colordim.record(model, folder=tmp_path / "run", kinds=kinds, optimizer=optimizer) as rec:
        for x, y in data(3):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    run = colordim.open(rec.path)
    assert run.info["kinds"] == kinds
    assert {stream.kind for stream in run.streams} == set(KINDS)
    assert run.moments(run.stream("0.weight", "weight"))["calls"].tolist() == [1, 0, 1]
    assert run.batches["lr"].tolist() == [0.1] * 3
    assert rec.notices == ()


# Updates.

OPTIMIZERS: dict[str, Optimizers] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.3),
    "Adam, foreach": lambda p: torch.optim.Adam(p, 0.01, foreach=True),
    "AdamW, fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_update_is_the_difference_and_the_rest_is_what_the_step_has_read(
    record: Any, name: str, dtype: torch.dtype
) -> None:
    model = network().to(dtype)
    outside, frozen, free = model[0].bias, model[0].weight, [model[2].weight, model[2].bias]
    optimizer = OPTIMIZERS[name](free)
    optimizer.add_param_group({"params": [frozen], "lr": 0.0, "weight_decay": 0.0})
    seen: list[dict[str, dict[str, Tensor]]] = []
    with record(model, optimizers=[optimizer], kinds=ALL) as rec:
        for x, y in data(4):
            nn.functional.cross_entropy(model(x.to(dtype)), y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            before = {key: value.detach().clone() for key, value in model.named_parameters()}
            gradients = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
            optimizer.step()
            after = dict(model.named_parameters())
            seen.append(
                {
                    "weight": before,
                    "weight_gradient": gradients,
                    "update": {key: after[key].detach() - before[key] for key in before},
                }
            )
            optimizer.zero_grad()
            outside.grad = None
    for batch, expected in enumerate(seen):
        for kind, tensors in expected.items():
            assert rec.names(kind) == ["0.weight", "0.bias", "2.weight", "2.bias"]
            for key, tensor in tensors.items():
                rec.check(key, kind, batch, [tensor])
        assert expected["update"]["2.weight"].any()
        assert not expected["update"]["0.weight"].any()  # in a group of its own, with a rate of zero
    zeros = rec.moments("0.bias", "update")
    assert zeros["zeros"].tolist() == zeros["size"].tolist() == [8] * 4  # outside of the optimiser
    assert (zeros["min"].tolist(), zeros["max"].tolist()) == ([0.0] * 4, [0.0] * 4)
    assert rec.run.stream("0.bias", "update").shape == (8,)
    assert rec.run.stream("0.weight", "update").module == "Linear"


class _Memory(TorchDispatchMode):
    """The most bytes of new tensors that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._alive: dict[WeakIdRef, tuple[int, int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {each.untyped_storage().data_ptr() for each in args if isinstance(each, Tensor)}
        out = function(*args, **(kwargs or {}))
        for each in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(each, Tensor) and each.layout is torch.strided:
                storage = each.untyped_storage()
                if storage.data_ptr() not in known or storage.data_ptr() in {s for s, _ in self._now()}:
                    self._alive[WeakIdRef(each)] = storage.data_ptr(), storage.nbytes()
        self.most = max(self.most, sum(size for _, size in set(self._now())))
        return out

    def _now(self) -> list[tuple[int, int]]:
        return [what for key, what in self._alive.items() if key() is not None]


def test_update_takes_one_more_copy_of_the_parameters_and_the_other_kinds_none(record: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("colordim.recording.counters.bin_into", lambda *_: True)  # what counting takes is its own
    size = 400 * 100 + 400 + 400 * 400 + 400
    for kinds, least, most in ((ALL, 1.0, 1.02), ({**ALL, "update": 2}, 0.0, 0.02)):
        model = nn.Sequential(nn.Linear(100, 400), nn.Linear(400, 400))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)  # itself without memory
        with record(model, optimizers=[optimizer], kinds=kinds) as rec:
            for _ in range(2):
                model(torch.randn(2, 100)).sum().backward()
                with _Memory() as memory:
                    optimizer.step()
        assert least * 4 * size <= memory.most <= most * 4 * size
        assert rec.recorder._parameters._steps == {}


# Batches and steps.


@pytest.mark.pitfall("gradient accumulation")
def test_gradient_accumulation_reads_parameters_where_the_step_is(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record(model, optimizers=[optimizer], kinds={**ALL, "update": 2}) as rec:
        for number, (x, y) in enumerate(data(8)):
            nn.functional.cross_entropy(model(x), y).backward()
            if number % 2:
                optimizer.step()
                optimizer.zero_grad()
    assert rec.moments("0.weight", "weight")["calls"].tolist() == [0, 1] * 4
    assert rec.moments("0.weight", "weight_gradient")["calls"].tolist() == [0, 1] * 4
    # Every second of the batches with a step, not of all batches, of which none might have a step.
    assert rec.moments("0.weight", "update")["calls"].tolist() == [0, 1, 0, 0, 0, 1, 0, 0]
    assert rec.run.batches["lr"].tolist() == [0.1] * 8
    assert np.isnan(rec.run.batches["grad_norm"]).tolist() == [True, False] * 4


def test_steps_that_all_fall_into_batches_that_are_passed_over_are_said(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record(model, optimizers=[optimizer], kinds=ALL, every=2) as rec:
        for number, (x, y) in enumerate(data(4)):
            nn.functional.cross_entropy(model(x), y).backward()
            if number % 2:
                optimizer.step()
    assert rec.names("update") == []
    (said,) = rec.recorder.notices.said
    assert "No weight or weight_gradient or update was recorded" in said
    assert "every=" in said


def test_several_steps_in_a_batch_add_up(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    outside = nn.Linear(2, 2)
    model.append(outside)
    model.forward = lambda x: model[2](model[1](model[0](x)))
    weights, updates = [], []
    with record(model, optimizers=[optimizer], kinds=ALL) as rec, rec.batch("train"):
        for x, y in data(3):
            nn.functional.cross_entropy(model(x), y).backward()
            weights.append(model[2].weight.detach().clone())
            optimizer.step()
            updates.append(model[2].weight.detach() - weights[-1])
            optimizer.zero_grad()
    rec.check("2.weight", "weight", 0, weights)
    rec.check("2.weight", "update", 0, updates)
    assert rec.moments("3.weight", "update")["size"].tolist() == [4]  # once a batch
    assert rec.moments("3.weight", "weight")["calls"].tolist() == [1]
    assert "grad_norm" not in rec.run.batches  # of which of the three?


def test_two_optimizers_each_with_its_own_parameters(record: Any) -> None:
    model = network()
    first = torch.optim.SGD(model[0].parameters(), 0.1)
    groups: list[dict[str, Any]] = [{"params": [model[2].weight]}, {"params": [model[2].bias], "lr": 0.5}]
    second = torch.optim.Adam(groups, 0.01)
    with record(model, optimizers=[first, second], kinds=ALL) as rec:
        for number, (x, y) in enumerate(data(2)):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            first.step()
            if number == 0:
                second.step()
                both = float(norm)
    assert rec.moments("0.weight", "update")["calls"].tolist() == [1, 1]
    assert rec.moments("2.weight", "update")["calls"].tolist() == [1, 0]  # its optimiser did not step
    batches = rec.run.batches
    assert [batches[name][0] for name in ("lr", "lr_1", "lr_2")] == [0.1, 0.01, 0.5]
    assert batches["grad_norm"][0] == pytest.approx(both, rel=1e-6)
    assert batches["grad_norm"][1] < float(norm)  # of the gradients that were used


@pytest.mark.parametrize("explicit", [True, False])
def test_a_closure_is_asked_for_gradients_after_the_step(record: Any, explicit: bool) -> None:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3)
    (x, y) = data(1)[0]

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        return loss

    steps = []
    with record(model, optimizers=[optimizer], kinds=ALL) as rec:
        for _ in range(2):
            before = model[2].weight.detach().clone()
            if explicit:
                with rec.batch("train"):
                    optimizer.step(closure)
            else:
                optimizer.step(closure)
            gradient = model[2].weight.grad
            assert gradient is not None
            steps.append((before, gradient.clone(), model[2].weight.detach() - before))
    fired = np.flatnonzero(rec.moments("2.weight", "update")["calls"])
    assert len(fired) == 2  # without windows of its own, each evaluation is a batch, and the step belongs to the last
    for batch, (before, gradient, update) in zip(fired, steps, strict=True):
        rec.check("2.weight", "weight_gradient", batch, [gradient])
        rec.check("2.weight", "update", batch, [update])
        if explicit:
            rec.check("2.weight", "weight", batch, [before])


def test_a_step_outside_of_a_batch_is_said_once(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record(model, optimizers=[optimizer], kinds={"activation": 1, "update": 1}) as rec:
        for x, y in data(2):
            with rec.batch("train"):
                nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    first, second = rec.recorder.notices.said
    assert "stepped outside of a batch" in first
    assert 'put its step() into the `with rec.batch("train"):` block' in first
    assert "No update was recorded" in second


def test_a_batch_that_is_discarded_leaves_nothing(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x, y = data(1)[0]
    with record(model, optimizers=[optimizer], kinds=ALL) as rec:
        with pytest.raises(ZeroDivisionError), rec.batch("train"):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            raise ZeroDivisionError
        with rec.batch("train"):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    for kind in KINDS:
        (size,) = {int(rec.run.moments(s)["calls"].sum()) for s in rec.run.select(kind=kind)}
        assert size == 1


def test_a_step_that_fails_leaves_nothing_behind(record: Any) -> None:
    class Fails(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            raise ZeroDivisionError

    model = network()
    optimizer = Fails(model.parameters(), 0.1)
    x, y = data(1)[0]
    with record(model, optimizers=[optimizer], kinds=ALL) as rec:
        nn.functional.cross_entropy(model(x), y).backward()
        with pytest.raises(ZeroDivisionError):
            optimizer.step()
        model(x)
        assert rec.recorder._parameters._steps == {}
    assert rec.names("update") == []


def test_weights_without_an_optimizer_are_read_when_the_batch_closes(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    after = []
    with record(model, kinds={"weight": 2}) as rec:
        for x, y in data(4):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            after.append(model[0].weight.detach().clone())
        with torch.no_grad():
            model.eval()(x)
    assert rec.moments("0.weight", "weight")["calls"].tolist() == [1, 0, 1, 0]
    rec.check("0.weight", "weight", 2, [after[2]])
    assert rec.run.moments("0.weight", "valid")["calls"].tolist() == [0]
    assert "lr" not in rec.run.batches
    assert rec.recorder.notices.said == ()


# GradScaler.


@pytest.mark.pitfall("skipped steps")
def test_a_step_that_the_scaler_skips_has_no_columns_and_others_are_unscaled(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    expected = []
    with record(model, optimizers=[optimizer], kinds=ALL, scaler=scaler) as rec:
        for number, (x, y) in enumerate(data(3)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            (plain,) = torch.autograd.grad(loss, model[2].weight, retain_graph=True)
            expected.append(plain)
            scaler.scale(loss).backward()
            if number == 1:
                assert model[2].weight.grad is not None
                model[2].weight.grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
    for kind in ("weight", "weight_gradient", "update"):
        assert rec.moments("2.weight", kind)["calls"].tolist() == [1, 0, 1]
    rec.check("2.weight", "weight_gradient", 0, [expected[0]])
    rec.check("2.weight", "weight_gradient", 2, [expected[2]])


def test_an_optimizer_that_unscales_by_itself(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    expected = []
    with record(model, optimizers=[optimizer], kinds=ALL) as rec:
        for number, (x, y) in enumerate(data(3)):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            (plain,) = torch.autograd.grad(loss, model[2].weight, retain_graph=True)
            scaler.scale(loss).backward()
            before = model[2].weight.detach().clone()
            if number == 1:
                assert model[2].weight.grad is not None
                model[2].weight.grad[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
            expected.append((plain, model[2].weight.detach() - before))
    assert rec.moments("2.weight", "weight_gradient")["calls"].tolist() == [1, 0, 1]
    for batch in (0, 2):
        rec.check("2.weight", "weight_gradient", batch, [expected[batch][0]])
        rec.check("2.weight", "update", batch, [expected[batch][1]])


# Parameters of all sorts.


class Unusual(nn.Module):
    """Tied, unused, sparse, lazy, parametrised, of an attention, in a list, and an integer one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, sparse=True)
        self.lazy = nn.LazyLinear(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.tied = nn.Linear(4, 4, bias=False)
        self.tied.weight = self.normed.bias = nn.Parameter(torch.randn(4))
        self.unused = nn.Linear(3, 3)
        self.scalar = Scalar()

    def forward(self, x: Tensor) -> Tensor:
        h = self.lazy(self.embed(x))
        h = self.normed(h + self.attention(h, h, h)[0])
        out: Tensor = self.scalar(h * self.tied.weight)
        return out


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))
        self.powers = nn.ParameterList([nn.Parameter(torch.ones(2))])
        self.number = nn.Parameter(torch.tensor([3]), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor * self.powers[0].sum()


@pytest.mark.pitfall("shared parameters")
@pytest.mark.pitfall("sparse and missing gradients")
def test_parameters_of_all_sorts(record: Any) -> None:
    torch.manual_seed(0)
    model = Unusual()
    x = torch.tensor([[1, 1, 5]])
    optimizer = torch.optim.SGD([model.scalar.factor, *model.embed.parameters()], 0.1)
    targets = ["embed", "lazy", "attention", "normed", "tied", "unused", "scalar"]
    with record(model, targets, optimizers=[optimizer], kinds=ALL) as rec:
        model(x).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        optimizer.step()
    assert rec.names("weight") == rec.names("update")
    assert rec.names("weight") == [
        "embed.weight",
        "lazy.weight",
        "lazy.bias",
        "attention.in_proj_weight",
        "attention.in_proj_bias",
        "attention.out_proj.weight",
        "attention.out_proj.bias",
        "normed.bias",  # which is tied.weight as well
        "normed.parametrizations.weight.original0",
        "normed.parametrizations.weight.original1",
        "unused.weight",
        "unused.bias",
        "scalar.factor",
        "scalar.powers.0",
    ]
    assert not {"unused.weight", "unused.bias"} & set(rec.names("weight_gradient"))
    for name, tensor in gradients.items():
        rec.check(name, "weight_gradient", 0, [tensor])
    sparse = rec.moments("embed.weight", "weight_gradient")
    assert (sparse["size"][0], sparse["zeros"][0]) == (28, 20)  # rows 1 and 5 of seven were used
    assert rec.run.stream("scalar.factor", "weight").shape == ()
    assert rec.moments("scalar.powers.0", "update")["zeros"].tolist() == [2]
    assert rec.run.stream("lazy.weight", "weight").module == "Linear"
    assert rec.run.stream("attention.out_proj.weight", "weight").module == "MultiheadAttention"
    assert rec.recorder.notices.said == ()


def test_parameters_on_meta_and_scalars_outside_of_the_optimizer(record: Any) -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2), Scalar())
    model[0].extra = nn.Parameter(torch.empty(5, device="meta"))
    optimizer = torch.optim.SGD(model[0].parameters(), 0.1)
    with record(model, ["0", "1"], optimizers=[optimizer], kinds=ALL) as rec:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert "0.extra" not in rec.names("weight")
    assert rec.moments("1.factor", "update")["zeros"].tolist() == [1]
    assert rec.moments("0.weight", "update")["size"].tolist() == [4]


# Scalars.


def test_rates_and_the_norm_are_logged_unless_the_user_does(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.4)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    norms = []
    with record(model, optimizers=[optimizer], kinds=ALL) as rec:
        for number, (x, y) in enumerate(data(4)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1e9)))
            if number == 1:
                rec.recorder.log({"lr": 7.0})
            if number == 3:
                assert model[0].bias.grad is not None
                model[0].bias.grad[0] = float("nan")
            optimizer.step()
            schedule.step()
            if number == 2:
                rec.recorder.log({"grad_norm": 9.0})
    batches = rec.run.batches
    assert batches["lr"].tolist() == [0.4, 7.0, 0.1, 0.05]  # the rate of the step, not that of the next
    assert batches["grad_norm"][:3].tolist() == pytest.approx([norms[0], norms[1], 9.0], rel=1e-6)
    assert np.isnan(batches["grad_norm"][3])


def test_the_norm_of_an_infinite_gradient_is_infinite_and_of_a_part_there_is_none(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    for layers, expected in ((None, float("inf")), ("2", None)):
        with record(model, layers, optimizers=[optimizer], kinds={"weight_gradient": 1}) as rec:
            model(torch.ones(1, 4)).sum().backward()
            assert model[2].bias.grad is not None
            model[2].bias.grad[0] = -float("inf")
            optimizer.step()
        assert rec.run.batches.get("grad_norm", [None])[0] == expected


def test_rates_alone_need_no_kinds_and_no_recorded_batch(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), torch.tensor(0.5))
    with record(model, optimizers=[optimizer], every=2) as rec:
        for x, y in data(3):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        model.eval()(x)
    assert rec.run.batches["lr"].tolist()[:3] == [0.5] * 3
    assert np.isnan(rec.run.batches["lr"][3])
    assert "grad_norm" not in rec.run.batches


# Training is not disturbed.


@contextmanager
def nothing() -> Iterator[Any]:
    yield


@pytest.mark.parametrize("how", ["eager", "autocast", "accumulation", "clipping"])
@pytest.mark.parametrize("name", ["Adam", "momentum"])
def test_training_with_all_kinds_is_bit_identical(record: Any, how: str, name: str) -> None:
    def trained(recorded: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        convolutions = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Flatten(1, 2)]
        attention = nn.TransformerEncoderLayer(6, 2, 8, activation=nn.ReLU(inplace=True), batch_first=True)
        model = nn.Sequential(*convolutions, attention, nn.Flatten(), nn.Linear(288, 10))
        x, y = torch.randn(9, 4, 1, 8, 8), torch.randint(10, (9, 4))
        optimizer = OPTIMIZERS[name](list(model.parameters()))
        with record(model, optimizers=[optimizer], kinds=ALL) if recorded else nothing() as rec:
            for number, (xb, yb) in enumerate(zip(x, y, strict=True)):
                with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
                    loss = nn.functional.cross_entropy(model(xb), yb)
                loss.backward()
                if how == "clipping":
                    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                if how != "accumulation" or number % 3 == 2:
                    optimizer.step()
                    optimizer.zero_grad()
        if recorded:
            assert {stream.kind for stream in rec.run.streams} == set(KINDS)
            assert rec.recorder.notices.said == ()
        return model.state_dict()

    plain, recorded = trained(False), trained(True)
    assert all(torch.equal(plain[key], recorded[key]) for key in plain)


def test_an_error_of_ours_ends_the_recording_of_parameters_and_not_the_training(record: Any, monkeypatch: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monkeypatch.setattr("colordim.recording.parameters.own_parameters", lambda module: 1 / 0)
    with record(model, optimizers=[optimizer], kinds=ALL) as rec:
        for x, y in data(2):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    (said,) = rec.recorder.notices.said
    assert "Parameters are no longer recorded" in said
    assert rec.calls("0") == [1, 1]


def test_the_hooks_of_the_optimizer_are_gone_afterwards_and_not_in_its_copies(record: Any) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record(model, optimizers=[optimizer], kinds=ALL):
        twin = copy.deepcopy(optimizer)
    for each in (optimizer, twin):
        assert not each._optimizer_step_pre_hooks
        assert not each._optimizer_step_post_hooks


# Several processes.


def in_two_processes(folder: Path) -> list[Any]:
    script = Path(__file__).with_name("drive_ranks.py")
    outputs = [folder / f"{rank}.json" for rank in (0, 1)]
    commands = [
        [sys.executable, "-W", "ignore", str(script), str(rank), str(folder / "meeting"), str(output)]
        for rank, output in enumerate(outputs)
    ]
    processes = [subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) for command in commands]
    try:
        assert [process.wait(200) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return [json.loads(output.read_text("utf-8")) for output in outputs]


@pytest.mark.pitfall("replicated and sharded parameters")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_ranks_say_how_their_parameters_add_up_and_add_up_to_those_of_one_process(tmp_path: Path) -> None:
    ranks = in_two_processes(tmp_path)
    alone = ranks[0]["alone"]
    for how in ("ddp", "fsdp", "hsdp"):
        first, second = (rank[how] for rank in ranks)
        assert first["notices"] == second["notices"] == []
        assert first["streams"].keys() == second["streams"].keys() == alone["streams"].keys()
        for name, stream in first["streams"].items():
            other, whole = second["streams"][name], alone["streams"][name]
            kind = name.split()[0]
            of_parameter = kind not in ("activation", "gradient")
            assert stream["reduction"] == ("replicated" if of_parameter and how == "ddp" else "sum"), (how, name)
            total = np.array(stream["counts"])
            if stream["reduction"] == "sum":
                total = total + np.array(other["counts"])
            else:
                assert stream["counts"] == other["counts"]
            if of_parameter:
                assert stream["shape"] == other["shape"] == whole["shape"]
            assert total[0].sum() == np.array(whole["counts"])[0].sum()
            if kind in ("activation", "weight"):  # gradients and updates are summed in another order
                assert (total[0] == np.array(whole["counts"])[0]).all(), (how, name)
        if how == "ddp":
            assert first["norm"] == pytest.approx(alone["norm"], rel=1e-5)
        else:
            assert first["norm"] is None  # of a shard it would not be the norm
