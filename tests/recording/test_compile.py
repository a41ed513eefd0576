"""torch.compile: one graph as before, and the counts of eager mode, in every batch."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from colordim.errors import ColordimWarning

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.relu = nn.ReLU(inplace=True)
        self.split = Split()
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.split(self.relu(self.first(x)))
        out: Tensor = self.head(parts["a"] + parts["b"][0])
        return out


class Split(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return {"a": x, "b": (x * 2, None), "index": x.argmax()}


NAMES = ["first", "relu", "split.a", "split.b[0]", "head"]


class Graphs:
    """A backend that runs graphs as they are, and counts them."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.number += 1
        return graph.forward


def compiled(net: nn.Module, how: str, backend: Any) -> nn.Module:
    torch._dynamo.reset()
    if how == "wrapped":
        return torch.compile(net, backend=backend, fullgraph=True)  # type: ignore[return-value]
    net.compile(backend=backend, fullgraph=True)
    return net


def batches(n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(16, 4, generator=generator) for _ in range(n)]


def train(model: nn.Module, xs: list[Tensor]) -> None:
    model.train()
    for x in xs:
        model(x).square().mean().backward()
    model.eval()
    with torch.no_grad():
        model(xs[0])


@pytest.mark.pitfall("compiled models")
@pytest.mark.parametrize("how", ["wrapped", "in place"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_counts_equal_those_of_eager_mode(record: Any, how: str, backend: str) -> None:
    torch.manual_seed(0)
    net, xs = Net(), batches(3)
    with record(net) as eager:
        train(net, xs)
    model = compiled(net, how, backend)
    with record(model) as rec:
        train(model, xs)
    assert [stream.name for stream in rec.run.streams] == NAMES
    assert rec.phases() == eager.phases() == ["train"] * 3 + ["valid"]
    for name in NAMES:
        for phase in ("train", "valid"):
            assert rec.calls(name, phase) == eager.calls(name, phase)
            assert (rec.run.counts(name, phase) == eager.run.counts(name, phase)).all(), (name, phase)
    assert rec.run.counts("first")[:, :512].sum() > 0  # counted before the in-place ReLU


@pytest.mark.parametrize(("how", "backend"), [("wrapped", "eager"), ("in place", "aot_eager"), ("wrapped", "inductor")])
@pytest.mark.parametrize("shape", [(16, 4), (3, 5, 4)], ids=["matrix", "three dimensions"])
def test_gradients_equal_those_of_eager_mode(record: Any, how: str, backend: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    net, xs = Net().double(), [torch.randn(shape, dtype=torch.float64) for _ in range(3)]
    kinds = {"activation": 1, "gradient": 1}
    with record(net, kinds=kinds) as eager:
        train(net, xs)
    model = compiled(net, how, backend)
    with record(model, kinds=kinds) as rec:
        train(model, xs)
    assert rec.phases() == eager.phases()
    assert {(s.name, s.kind) for s in rec.run.streams} == {(s.name, s.kind) for s in eager.run.streams}
    for name in NAMES:  # also of the view that the in-place ReLU modifies
        ours, theirs = rec.run.stream(name, "gradient"), eager.run.stream(name, "gradient")
        assert rec.run.moments(ours)["calls"].tolist() == [1, 1, 1], name
        assert np.allclose(rec.run.moments(ours)["sum_sq"], eager.run.moments(theirs)["sum_sq"], rtol=1e-12, atol=0)
        assert (rec.run.counts(ours) == eager.run.counts(theirs)).all(), name


def test_gradients_keep_one_graph_and_come_only_in_batches_that_want_them(record: Any) -> None:
    graphs = Graphs()
    model = compiled(Net(), "wrapped", graphs)
    with record(model, kinds={"activation": 1, "gradient": 2}, every=2) as rec:
        for x in batches(9):
            model(x).sum().backward()
    moments = rec.run.moments(rec.run.stream("first", "gradient"))
    assert moments["first"][moments["calls"] > 0].tolist() == [0, 4, 8]
    assert graphs.number == 1
    model(batches(1)[0]).sum().backward()  # the graph outlives the recording
    assert rec.recorder.notices.said == ()


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_one_graph_and_no_recompilation_over_fifty_batches(record: Any, how: str) -> None:
    plain, counted = Graphs(), Graphs()
    model = compiled(Net(), how, plain)
    for x in batches(50):
        model(x).sum().backward()
    model = compiled(Net(), how, counted)
    with record(model) as rec:
        for x in batches(50):
            model(x).sum().backward()
    assert counted.number == plain.number == 1
    assert rec.calls("head") == [1] * 50


def test_windows_and_skipped_batches_need_no_other_graph_and_a_second_recording_at_most_one(record: Any) -> None:
    graphs = Graphs()
    model = compiled(Net(), "wrapped", graphs)
    xs = batches(6)
    with record(model, every=2) as rec:
        for x in xs:
            model(x)
    assert rec.run.moments("head")["first"].tolist() == [0, 2, 4]
    assert graphs.number == 1
    with record(model) as explicit:
        for _ in range(2):
            with explicit.batch("train"):
                model(xs[0])
                model(xs[1])
    assert explicit.calls("head") == [2, 2]
    assert graphs.number <= 2


@pytest.mark.pitfall("compiled models")
def test_a_model_that_ran_before_says_that_its_hooks_are_ignored(record: Any) -> None:
    for how in ("wrapped", "in place"):
        model = compiled(Net(), how, "eager")
        model(batches(1)[0])
        message = r"hooks that are added after that.*torch\._dynamo\.reset\(\)"
        with pytest.warns(ColordimWarning, match=message), record(model):
            model(batches(1)[0])
        with record(model) as rec:
            torch._dynamo.reset()
            model(batches(1)[0])
        assert rec.calls("head") == [1]


def test_compiled_parts_of_an_eager_model_are_counted(record: Any) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    model[1] = torch.compile(model[1], backend="eager", fullgraph=True)  # type: ignore[assignment]
    with record(model) as rec:
        for x in batches(2):
            model(x).sum().backward()
    assert [stream.name for stream in rec.run.streams] == ["0", "1.0", "1.1"]
    assert rec.calls("1.1") == [1, 1]


@pytest.mark.pitfall("tracing and exporting")
def test_an_exported_program_is_free_of_our_operators(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with record(model):
        exported = torch.export.export(model.eval(), (torch.randn(2, 4),))
        model(torch.randn(2, 4))
    assert not any("colordim" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_a_model_that_is_one_of_torchs_own_classes(record: Any, how: str) -> None:
    def net() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))

    xs, graphs = batches(6), Graphs()
    with record(net()) as eager:
        train(eager.recorder._model, xs)
    with record(compiled(net(), how, graphs)) as rec:
        train(rec.recorder._model, xs)
    assert graphs.number == 2  # training and evaluation
    assert rec.phases() == eager.phases() == ["train"] * 6 + ["valid"]
    for stream in eager.run.streams:
        for phase in ("train", "valid"):
            assert np.array_equal(rec.run.counts(stream.name, phase), eager.run.counts(stream.name, phase))
