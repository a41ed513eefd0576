"""Gradients of outputs: exactly those that autograd computes, each once, and none that cannot be seen."""

import copy
import gc
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import colordim
from colordim.axis import LinearAxis
from colordim.binning import bin_into

BOTH = {"activation": 1, "gradient": 1}


def gradient(rec: Any, name: str) -> Any:
    return rec.run.stream(name, "gradient")


def calls(rec: Any, name: str, phase: Any = "train") -> list[int]:
    return rec.run.moments(gradient(rec, name), phase)["calls"].tolist()


def true_gradients(model: nn.Module, loss_of: Callable[[nn.Module], Tensor]) -> dict[str, list[Tensor]]:
    """Return what autograd.grad gives for each output of each leaf, in a copy in which nothing touches them in place."""
    twin = copy.deepcopy(model)
    outputs: dict[str, list[Tensor]] = {}

    def keep(name: str, output: Any) -> Any:
        if isinstance(output, tuple):
            return tuple(keep(f"{name}[{i}]", each) for i, each in enumerate(output))
        if output is not None and output.requires_grad:
            outputs.setdefault(name, []).append(output)
            return output.clone()
        return output

    for name, module in twin.named_modules():
        if not list(module.children()) or isinstance(module, nn.MultiheadAttention):
            module.register_forward_hook(lambda m, a, out, name=name: keep(name, out))
    loss = loss_of(twin)
    names = [(name, tensor) for name, found in outputs.items() for tensor in found]
    found = torch.autograd.grad(loss, [tensor for _, tensor in names], allow_unused=True)
    result: dict[str, list[Tensor]] = {}
    for (name, _), value in zip(names, found, strict=True):
        if value is not None:
            result.setdefault(name, []).append(value)
    return result


def assert_equal_to(expected: dict[str, list[Tensor]], rec: Any) -> None:
    assert sorted(rec.names("gradient")) == sorted(expected)
    for name, tensors in expected.items():
        rec.check(name, "gradient", 0, tensors)


@pytest.mark.pitfall("gradients before an in-place change")
def test_resnet18_with_its_inplace_activations_and_additions(record: Any) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).double()
    x, y = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([1, 2])

    def loss_of(net: nn.Module) -> Tensor:
        return nn.functional.cross_entropy(net(x), y)

    expected = true_gradients(model, loss_of)
    with record(model, kinds=BOTH) as rec:
        loss_of(model).backward()
    assert len(expected) == 52
    assert_equal_to(expected, rec)
    assert rec.names("gradient") == rec.names("activation")  # in the order of the calls, not of backward
    assert gradient(rec, "layer1.0.conv1").shape == (2, 64, 8, 8)
    assert rec.recorder.notices.said == ()


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_transformer_with_inplace_activations(record: Any, batch_first: bool) -> None:
    # Its linear layers return views of matrices, which the activations then modify: no hook on them would fire.
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, nn.ReLU(inplace=True), batch_first=batch_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    x = torch.randn(3, 5, 16, dtype=torch.float64)

    def loss_of(net: nn.Module) -> Tensor:
        value: Tensor = net(x).square().mean()
        return value

    expected = true_gradients(model, loss_of)
    with record(model, kinds=BOTH) as rec:
        loss_of(model).backward()
    assert {"layers.0.linear1", "layers.0.activation", "layers.1.self_attn[0]"} < set(expected)
    assert_equal_to(expected, rec)
    assert gradient(rec, "layers.0.linear1").shape == (3, 5, 32)
    assert rec.recorder.notices.said == ()


class Views(nn.Module):
    """Its first layer returns a view that is modified in place; its second is used by nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.flat, self.relu = nn.Conv2d(1, 2, 3), nn.Flatten(), nn.ReLU(inplace=True)
        self.unused, self.head = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.flat(self.conv(x)))
        self.unused(hidden)
        out: Tensor = self.head(hidden)
        return out


@pytest.mark.pitfall("views modified in place")
@pytest.mark.parametrize("batches", [1, 5])
def test_a_view_that_is_modified_in_place_is_called_not_observable_and_never_zero(record: Any, batches: int) -> None:
    model = Views()
    with record(model, kinds=BOTH) as rec:
        for _ in range(batches):
            model(torch.randn(2, 1, 4, 4)).sum().backward()
    (said,) = rec.recorder.notices.said
    assert "'flat'" in said
    assert "cannot be observed" in said
    assert "'conv'" not in said
    assert rec.names("gradient") == ["conv", "flat", "relu", "head"]
    # The run knows it by a column without a single value; what nothing uses has no column at all.
    assert rec.run.moments(gradient(rec, "flat"))["size"][rec.run.moments(gradient(rec, "flat"))["calls"] > 0] == [0]
    assert rec.run.counts(gradient(rec, "flat")).sum() == 0
    assert calls(rec, "conv") == calls(rec, "head") == [1] * batches


@pytest.mark.pitfall("several backward passes")
def test_backward_twice_counts_twice_and_a_graph_of_the_gradient_changes_nothing(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    with record(model, kinds=BOTH) as rec:
        loss = model(torch.randn(2, 4)).square().sum()
        loss.backward(retain_graph=True)
        loss.backward(create_graph=False)
        loss = model(torch.randn(2, 4)).square().sum()
        torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    assert calls(rec, "1") == [2, 1]
    assert rec.run.moments(gradient(rec, "0"))["size"].tolist() == [12, 6]
    assert rec.recorder.notices.said == ()


@pytest.mark.pitfall("gradients of checkpoints")
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_checkpointed_layers_count_their_gradients_once(record: Any, use_reentrant: bool, explicit: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            return checkpoint(lambda x: self.b(torch.relu(self.a(x))), x, use_reentrant=use_reentrant)

    model = Checkpointed()
    x = torch.randn(2, 4, requires_grad=True)
    with record(model, kinds=BOTH) as rec:
        for _ in range(2):
            if explicit:
                with rec.batch("train"):
                    model(x).sum().backward()
            else:
                model(x).sum().backward()
    for name in ("a", "b"):
        assert calls(rec, name) == rec.calls(name) == [1, 1]
    assert rec.run.counts(gradient(rec, "b"))[0].sum() == 8
    assert rec.run.moments(gradient(rec, "b"))["sum"].tolist() == [8, 8]  # ones, of the sum
    assert rec.recorder.notices.said == ()


@pytest.mark.pitfall("gradients after their batch")
def test_a_gradient_that_comes_after_its_batch_was_closed_is_said_once(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with record(model, kinds=BOTH) as rec:
        for _ in range(2):
            with rec.batch("train"):
                loss = model(torch.randn(2, 4)).sum()
            loss.backward()
    assert rec.names("gradient") == []
    first, second = rec.recorder.notices.said
    assert "'0' came after its batch was closed" in first
    assert 'let backward() run inside of `with rec.batch("train"):`' in first
    assert "No gradient was recorded" in second


def test_every_n_th_recorded_batch(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with record(model, kinds={"activation": 3, "gradient": 2}, every=2) as rec:
        for _ in range(13):  # recorded: 0, 2, 4, ..., 12
            model(torch.randn(2, 4)).sum().backward()
    fired = {
        kind: rec.run.moments(stream)["first"][rec.run.moments(stream)["calls"] > 0].tolist()
        for kind in ("activation", "gradient")
        for stream in [rec.run.stream("0", kind)]
    }
    assert fired == {"activation": [0, 6, 12], "gradient": [0, 4, 8, 12]}
    assert rec.recorder.notices.said == ()


def test_gradients_alone_without_activations(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with record(model, kinds={"gradient": 1}) as rec:
        for _ in range(2):
            model(torch.randn(2, 4)).sum().backward()
        with torch.no_grad():
            model.eval()(torch.randn(2, 4))
    assert [(stream.kind, stream.name) for stream in rec.run.streams] == [("gradient", "0"), ("gradient", "1")]
    assert calls(rec, "0") == [1, 1]
    assert rec.phases() == ["train", "train", "valid"]
    assert rec.recorder.notices.said == ()


def test_an_output_that_is_an_input_or_a_parameter_is_counted_once_a_batch(record: Any) -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Parameter(torch.ones(3))

        def forward(self) -> Tensor:
            return self.rows

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same, self.table = nn.Identity(), Table()

        def forward(self, x: Tensor) -> Tensor:
            return self.same(x) * self.table()

    model, x = Net(), torch.ones(3, requires_grad=True)  # x lives on from batch to batch
    with record(model, kinds=BOTH) as rec:
        for _ in range(4):
            model(x).sum().backward()
    assert calls(rec, "same") == calls(rec, "table") == [1] * 4
    assert not x._backward_hooks


def test_infinite_gradients_are_counted_as_such(record: Any) -> None:
    model = nn.Sequential(nn.Identity(), nn.Linear(2, 2))
    x = torch.tensor([[0.0, 1.0]], requires_grad=True)
    with record(model, kinds=BOTH) as rec:
        model(x.sqrt()).backward(torch.tensor([[float("inf"), float("nan")]]))
    m = rec.run.moments(gradient(rec, "1"))
    assert (m["pos_inf"][0], m["nan"][0], m["size"][0]) == (1, 1, 2)


def test_ranges_are_those_of_activations(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with record(model, kinds=BOTH, axis=LinearAxis(-5, 5, 10)) as rec:
        (model(torch.ones(2, 4)).sum() * 1e-9).backward()
    assert rec.run.stream("0").axis == LinearAxis(-5, 5, 10)
    rec.check("0", "gradient", 0, [torch.full((6,), 1e-9)])


# GradScaler.


@pytest.mark.pitfall("scaled losses")
def test_the_scale_is_divided_out_where_the_scaler_is_known(record: Any) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True)), torch.randn(2, 4)
    recorded: dict[str, Any] = {}
    for how in ("unscaled", "known", "unknown"):
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=how != "unscaled")
        options = {"scaler": scaler} if how != "unknown" else {}
        with record(model, kinds=BOTH, **options) as rec:
            for _ in range(2):
                scaler.scale(model(x).square().sum()).backward()
                if how == "known":
                    scaler.update(512.0)  # the second batch has another scale
        recorded[how] = rec.run.counts(gradient(rec, "0")), rec.run.moments(gradient(rec, "0"))["sum"]
    assert (recorded["known"][0] == recorded["unscaled"][0]).all()
    assert (recorded["known"][1] == recorded["unscaled"][1]).all()
    assert (recorded["unknown"][1] == 1024 * recorded["unscaled"][1]).all()


def test_gradients_of_half_precision_survive_the_division(record: Any) -> None:
    model, scaler = nn.Sequential(nn.Identity()), torch.amp.GradScaler("cpu", init_scale=2.0**16)
    x = torch.ones(5, dtype=torch.float16, requires_grad=True)
    with record(model, kinds=BOTH, scaler=scaler) as rec:
        scaler.scale(torch.zeros(()))
        model(x).backward(torch.full((5,), 2.0**-10, dtype=torch.float16))
    rec.check("0", "gradient", 0, [torch.full((5,), 2.0**-26)])  # float16 ends at 2**-24


# Nothing stays behind, and nothing breaks.


def test_a_graph_that_lives_on_neither_records_nor_keeps_the_recorder(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    with record(model, kinds=BOTH) as rec:
        loss = model(torch.randn(2, 4)).sum()
        loss.backward(retain_graph=True)
    run, recorder, gradients = rec.run, weakref.ref(rec.recorder), weakref.ref(rec.recorder._gradients)
    loss.backward(retain_graph=True)
    assert run.moments(run.stream("0", "gradient"))["calls"].tolist() == [1]
    del rec
    gc.collect()
    assert recorder() is None
    assert gradients() is None
    loss.backward()


def test_copies_record_nothing_and_hold_nothing_of_ours(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with record(model, kinds=BOTH) as rec:
        model(torch.randn(2, 4)).sum().backward()
        pickled = pickle.dumps(model)
        for twin in (copy.deepcopy(model), pickle.loads(pickled)):
            twin(torch.randn(2, 4)).sum().backward()
    assert b"colordim" not in pickled
    assert calls(rec, "0") == [1]
    assert not model[0]._forward_hooks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_worker_records_no_gradients(tmp_path: Path) -> None:
    # in a process of its own: autograd refuses to work in a child if its threads were started before, by any other test
    script = """
import os, sys, torch, colordim
model = torch.nn.Sequential(torch.nn.Linear(4, 3))
with colordim.record(model, folder=sys.argv[1], kinds=("activation", "gradient")) as rec:
    loss = model(torch.randn(2, 4)).sum()
    child = os.fork()
    if child == 0:
        try:
            torch.autograd.grad(loss, list(model.parameters()))
            found = len(rec._recorder._counters.rows("gradient"))
        except BaseException:
            found = 99
        os._exit(found)
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    loss.backward()
print("calls", rec.run.moments(rec.run.stream("0", kind="gradient"))["calls"].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore:.*fork.*", "-c", script, str(tmp_path / "run")], capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("child 0\ncalls [1]\n", "")


def test_an_error_of_ours_switches_the_gradients_of_that_layer_off(record: Any, monkeypatch: Any) -> None:
    def fails(tensor: Tensor, axis: Any, row: Any) -> bool:
        if tensor.shape[-1] == 5 and torch._C._current_graph_task_id() != -1:
            raise MemoryError("no room")
        return bin_into(tensor, axis, row)

    monkeypatch.setattr("colordim.recording.counters.bin_into", fails)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    with record(model, kinds=BOTH) as rec:
        for _ in range(3):
            model(torch.randn(2, 4)).sum().backward()
    (said,) = rec.recorder.notices.said
    assert "gradient of '0' is no longer recorded" in said
    assert rec.names("gradient") == ["1"]
    assert rec.calls("0") == [1, 1, 1]


def test_functional_transforms_are_left_alone(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    parameters = dict(model.named_parameters())
    x = torch.randn(2, 4)

    def loss(parameters: Any, x: Tensor) -> Tensor:
        return torch.func.functional_call(model, parameters, (x,)).sum()

    plain = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    with record(model, kinds=BOTH):
        found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    assert all(torch.equal(found[name], plain[name]) for name in plain)


def test_frozen_layers_and_evaluation_have_no_gradients(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.ReLU(), nn.Linear(4, 3))
    with record(model, kinds=BOTH) as rec:
        model(torch.randn(2, 4)).sum().backward()
        with torch.no_grad():
            model.eval()(torch.randn(2, 4))
    assert rec.names("gradient") == ["2"]
    assert calls(rec, "2") == [1]
    assert calls(rec, "2", "valid") == [0]


def test_facts_are_learnt_without_activations(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    with colordim.record(model, folder=tmp_path / "run", kinds="gradient") as rec:
        for _ in range(3):
            model(torch.randn(2, 4)).sum().backward()
            hooks = len(model[0]._forward_hooks)
    assert hooks == 1  # those of the first batch are gone
    assert rec.run.info["kinds"] == {"gradient": 1}


def test_a_scaler_of_another_make_is_asked(record: Any) -> None:
    class Scaler:
        def get_scale(self) -> float:
            return 4.0

    model = nn.Sequential(nn.Linear(4, 3))
    with record(model, kinds=BOTH, scaler=Scaler()) as rec:
        (4 * model(torch.ones(2, 4)).sum()).backward()
    rec.check("0", "gradient", 0, [torch.ones(6)])


def test_a_layer_that_runs_by_itself_belongs_to_no_batch(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    with record(model, kinds={"gradient": 1}) as rec:
        model(torch.ones(2, 4)).sum().backward()
        model[0](torch.ones(2, 4)).sum().backward()
    assert calls(rec, "0") == [1]
