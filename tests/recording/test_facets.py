"""Histograms by class or channel: each part is the histogram of its slice, and together they are the whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import colordim
from colordim.column import COUNTERS, Facet
from colordim.errors import ArgumentError, ColordimWarning, SelectionError
from colordim.recording.facets import MOST, Rule, as_rules
from colordim.recording.select import select
from colordim.run import Run

NAN, INF = float("nan"), float("inf")


class Returns(nn.Module):
    """A leaf that returns what it is given."""

    def forward(self, x: Any) -> Any:
        return x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Identity(), Returns()

    def forward(self, x: Any) -> Any:
        return self.head(x)


def recorded(tmp_path: Path, *outputs: Any, facets: Any = "class", **options: Any) -> Run:
    """Return the run of a head that returned these outputs, one a batch."""
    model = Net()
    with colordim.record(model, folder=tmp_path / "r", layers="head", facets={"head": facets}, **options) as rec:
        for output in outputs:
            model(output)
    return rec.run


def assert_adds_up(run: Run, name: str, number: int, kind: Any = "activation") -> None:
    whole = run.stream(name, kind)
    parts = [run.stream(f"{name}[{i}]", kind) for i in range(number)]
    assert [part.facet.of for part in parts if part.facet] == [name] * number
    np.testing.assert_array_equal(sum(run.counts(part) for part in parts), run.counts(whole))
    expected = run.moments(whole)
    for counter in COUNTERS:
        columns = [run.moments(part)[counter] for part in parts]
        if counter == "calls":  # each part is of every call
            for column in columns:
                np.testing.assert_array_equal(column, expected[counter])
        else:
            np.testing.assert_array_equal(sum(columns), expected[counter], err_msg=counter)
    for moment in ("sum", "sum_sq"):
        np.testing.assert_allclose(sum(run.moments(part)[moment] for part in parts), expected[moment], rtol=1e-12)
    np.testing.assert_array_equal(np.min([run.moments(part)["min"] for part in parts], axis=0), expected["min"])
    np.testing.assert_array_equal(np.max([run.moments(part)["max"] for part in parts], axis=0), expected["max"])


SHAPES: list[tuple[tuple[int, ...], Any, int]] = [
    ((7, 5), "class", 1),
    ((3, 4, 5), "class", 2),
    ((2, 5, 3, 4), "class", 1),
    ((2, 5, 2, 3, 4), "class", 1),
    ((3, 4, 5), {"dim": 1}, 1),
    ((3, 4, 5), {"dim": -3}, 0),
    ((6, 5), ["a", "b", "c", "d", "e"], 1),
    ((2, 3, 40, 40), "class", 1),
]


@pytest.mark.parametrize(("shape", "facets", "dim"), SHAPES)
def test_each_part_is_the_histogram_of_its_slice(tmp_path: Path, shape: tuple[int, ...], facets: Any, dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(shape, generator=generator) for _ in range(3)]
    batches[1].view(-1)[:4] = torch.tensor([NAN, INF, -INF, 100.0])
    run = recorded(tmp_path, *batches, facets=facets, range=(-2, 2), bins=40)
    for index in range(shape[dim]):
        stream = run.stream(f"head[{index}]")
        for batch, values in enumerate(batches):
            part = np.take(values.numpy(), index, axis=dim).astype(np.float64)
            finite = part[np.isfinite(part)]
            assert run.counts(stream)[batch].tolist() == np.histogram(finite, 40, (-2, 2))[0].tolist()
            assert run.moments(stream)["nan"][batch] == np.isnan(part).sum()
            assert run.moments(stream)["pos_inf"][batch] == np.isposinf(part).sum()
            assert run.moments(stream)["size"][batch] == part.size
            assert run.moments(stream)["sum"][batch] == pytest.approx(finite.sum(), rel=1e-12)
        label = facets[index] if isinstance(facets, list) else str(index)
        assert stream.facet == Facet("head", index, label)
        assert stream.kind == "activation"
        assert stream.shape == shape[:dim] + shape[dim + 1 :]
    assert_adds_up(run, "head", shape[dim])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_dtypes_layouts_and_several_calls(tmp_path: Path, dtype: torch.dtype) -> None:
    class Twice(Net):
        def forward(self, x: Any) -> Any:
            return self.head(self.head(x).transpose(0, 1))

    model = Twice()
    x = torch.randn(6, 6, 4, 5).to(dtype=dtype)
    with colordim.record(model, folder=tmp_path / "r", layers="head", facets={"h*": "class"}) as rec:
        model(x)
        model(x.to(memory_format=torch.channels_last))
        model(x[:0])
    assert rec.run.moments("head")["calls"].tolist() == [2, 2, 2]
    assert_adds_up(rec.run, "head", 6)


def test_the_streams_are_in_the_order_whole_then_parts(tmp_path: Path) -> None:
    run = recorded(tmp_path, torch.randn(4, 3))
    assert [stream.name for stream in run.streams] == ["head", "head[0]", "head[1]", "head[2]"]
    assert run.stream("head").facet is None
    assert len({stream.id for stream in run.streams}) == 4


def test_parts_have_the_range_of_the_whole(tmp_path: Path) -> None:
    run = recorded(tmp_path, torch.randn(4, 3), range={"head": (-1, 1)})
    assert {str(stream.axis) for stream in run.streams} == {"LinearAxis(-1, 1, 200)"}
    assert_adds_up(run, "head", 3)


def test_channels() -> None:
    def dim(module: nn.Module, dims: int) -> int | None:
        return Rule("channel", (), module).dim(dims)

    assert [dim(nn.Conv2d(1, 1, 1), dims) for dims in (3, 4)] == [0, 1]
    assert [dim(nn.Conv1d(1, 1, 1), dims) for dims in (2, 3)] == [0, 1]
    assert [dim(nn.BatchNorm1d(1), dims) for dims in (2, 3)] == [1, 1]
    assert dim(nn.GroupNorm(1, 1), 4) == 1
    assert [dim(nn.Linear(1, 1), dims) for dims in (2, 3, 4)] == [1, 2, 3]
    assert dim(nn.LayerNorm(1), 4) == 3
    assert [dim(nn.ReLU(), dims) for dims in (2, 3, 4, 5)] == [1, 2, 1, 1]
    assert dim(nn.Linear(1, 1), 1) is None


def test_channels_of_a_convolution_in_a_run(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6), nn.ReLU(inplace=True))
    with colordim.record(model, folder=tmp_path / "r", facets={"[01]": "channel"}) as rec:
        model(torch.randn(4, 2, 9))
    for layer in ("0", "1"):
        assert_adds_up(rec.run, layer, 6)
    assert len(rec.run.streams) == 2 * 7 + 1


def test_more_than_the_most_are_refused_with_the_number(tmp_path: Path) -> None:
    with pytest.warns(ColordimWarning, match=f"'head' is recorded whole, without facets: it has {MOST + 1} of them"):
        run = recorded(tmp_path, torch.randn(2, MOST + 1), torch.randn(2, MOST + 1))
    assert [stream.name for stream in run.streams] == ["head"]
    assert run.moments("head")["size"].tolist() == [2 * (MOST + 1)] * 2
    assert len(recorded(tmp_path / "most", torch.randn(2, MOST)).streams) == MOST + 1


def test_a_number_of_parts_that_changes(tmp_path: Path) -> None:
    class Both(Net):
        def forward(self, x: Any) -> Any:
            return [self.head(each) for each in x]

    model = Both()
    two, three = torch.randn(5, 2), torch.randn(5, 3)
    with (
        pytest.warns(ColordimWarning, match="recorded whole, without facets: it has 3 of them, and had 2 before"),
        colordim.record(model, folder=tmp_path / "r", layers="head", facets={"head": "class"}) as rec,
    ):
        model([two, two[:0], two])
        model([two, three])  # what the first call had counted is taken back
        model([two])
    for index in range(2):
        assert rec.run.moments(f"head[{index}]")["size"].tolist() == [10, 0, 0]
        assert rec.run.moments(f"head[{index}]")["calls"].tolist() == [3, 0, 0]
    assert rec.run.moments("head")["size"].tolist() == [20, 25, 10]


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"]])
def test_names_whose_number_is_not_that_of_the_classes(tmp_path: Path, names: list[str]) -> None:
    with pytest.warns(ColordimWarning, match=f"'head' has 3 classes and facets= names {len(names)}") as caught:
        run = recorded(tmp_path, torch.randn(4, 3), torch.randn(4, 3), facets=names)
    assert len(caught) == 1
    assert [run.stream(f"head[{i}]").facet for i in range(3)] == [Facet("head", i, str(i)) for i in range(3)]


def test_facets_of_the_elements_of_a_tuple(tmp_path: Path) -> None:
    run = recorded(tmp_path, (torch.randn(4, 3), {"aux": torch.randn(4, 2)}))
    assert [stream.name for stream in run.streams] == [
        "head[0]", "head[0][0]", "head[0][1]", "head[0][2]", "head[1].aux", "head[1].aux[0]", "head[1].aux[1]",
    ]  # fmt: skip
    assert_adds_up(run, "head[0]", 3)
    assert_adds_up(run, "head[1].aux", 2)


def test_a_layer_that_returns_now_a_tuple_and_now_a_tensor(tmp_path: Path) -> None:
    outputs = [(torch.randn(4, 3), torch.randn(4, 2)), torch.randn(4, 3)]
    with pytest.warns(ColordimWarning, match=r"'head' is recorded whole, .* head\[0\] is the name of another stream"):
        run = recorded(tmp_path, *outputs)
    assert run.moments("head")["size"].tolist() == [0, 12]
    assert_adds_up(run, "head[0]", 3)
    with pytest.warns(ColordimWarning, match=r"is a facet already, so the element of a tuple .* as \"head\[[01]\]'\""):
        run = recorded(tmp_path / "reversed", *reversed(outputs))
    assert_adds_up(run, "head", 3)
    assert_adds_up(run, "head[0]'", 3)
    assert run.moments("head[1]'")["size"].tolist() == [0, 8]


@pytest.mark.parametrize(
    ("output", "facets", "reason"),
    [
        (torch.randn(5), "class", "with 1 dimensions, it has no class dimension"),
        (torch.tensor(1.0), "channel", "with 0 dimensions, it has no channel dimension"),
        (torch.randn(5, 3), {"dim": 2}, "with 2 dimensions, it has no dimension 2"),
        (torch.eye(3).to_sparse(), "class", "it is no dense tensor"),
    ],
)
def test_what_cannot_be_cut_is_recorded_whole(tmp_path: Path, output: Tensor, facets: Any, reason: str) -> None:
    with pytest.warns(ColordimWarning, match=f"'head' is recorded whole, without facets: {reason}"):
        run = recorded(tmp_path, output, output, facets=facets)
    assert [stream.name for stream in run.streams] == ["head"]
    assert run.moments("head")["size"].tolist() == [output.numel()] * 2


@pytest.mark.parametrize(
    ("facets", "error", "sentence"),
    [
        ({"tail": "class"}, SelectionError, "no recorded layer matches 'tail' of facets=; the nearest is"),
        ({"body": "class"}, SelectionError, "no recorded layer matches 'body'"),
        ({"head": "row"}, ArgumentError, "the facets of 'head' cannot be 'row'"),
        ({"head": {}}, ArgumentError, "cannot be {}"),
        ({"head": {"dim": "1"}}, ArgumentError, "cannot be"),
        ({"head": {"dim": 1, "labels": []}}, ArgumentError, "cannot be"),
        ({"head": {"names": "cat"}}, ArgumentError, "cannot be"),
        ({"head": []}, ArgumentError, "cannot be []"),
        ({"head": 3}, ArgumentError, "cannot be 3"),
        ("head", ArgumentError, "facets='head' cannot be"),
    ],
)
def test_wrong_arguments_are_one_sentence(tmp_path: Path, facets: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        colordim.record(Net(), folder=tmp_path / "r", layers="head", facets=facets)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_first_pattern_counts_and_names_may_come_with_a_dimension() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    rules = as_rules({"1": {"dim": 0, "names": ("x", "y")}, "*": "channel"}, select(model))
    assert (rules["1"].by, rules["1"].names) == (0, ("x", "y"))
    assert (rules["0"].by, rules["0"].names) == ("channel", ())
    assert as_rules({"0": {"names": [1, 2]}}, select(model))["0"].names == ("1", "2")


@pytest.mark.parametrize("shape", [(6, 4), (6, 3, 4)])
def test_facets_of_gradients(tmp_path: Path, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU())
    x = torch.randn(shape)
    with colordim.record(model, folder=tmp_path / "r", kinds=["activation", "gradient"], facets={"0": "class"}) as rec:
        with rec.batch():
            model(x).square().sum().backward()
        y = model[0](x).detach().requires_grad_()
        y.relu().square().sum().backward()
    assert y.grad is not None
    for index in range(5):
        stream = rec.run.stream(f"0[{index}]", "gradient")
        assert stream.facet == Facet("0", index, str(index))
        expected = y.grad[..., index].double()
        assert rec.run.moments(stream)["sum"][0] == pytest.approx(expected.sum().item(), rel=1e-6)
        assert rec.run.moments(stream)["size"][0] == expected.numel()
    assert_adds_up(rec.run, "0", 5)
    assert_adds_up(rec.run, "0", 5, "gradient")


def test_an_error_in_counting_takes_the_parts_back_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from colordim.binning import bin_into as count

    failing = False

    def sometimes(tensor: Tensor, *rest: Any) -> bool:
        if failing and tensor.dim() == 2:
            raise RuntimeError("no")
        return count(tensor, *rest)

    monkeypatch.setattr("colordim.recording.counters.bin_into", sometimes)
    model = Net()
    with (
        pytest.warns(ColordimWarning, match="'head' is no longer recorded"),
        colordim.record(model, folder=tmp_path / "r", facets={"head": "class"}) as rec,
    ):
        model(torch.randn(4, 3))
        with rec.batch():
            model.head(torch.randn(4, 3))
            model.body(torch.randn(4))
            failing = True
            model.head(torch.randn(4, 3))
    assert rec.run.moments("head")["size"].tolist() == [12, 0]
    assert_adds_up(rec.run, "head", 3)


def test_a_compiled_model(tmp_path: Path) -> None:
    torch._dynamo.reset()
    model: Any = torch.compile(nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1)), backend="aot_eager")
    with colordim.record(model, folder=tmp_path / "r", facets={"0": ["cat", "dog", "owl"]}) as rec:
        model(torch.randn(5, 4))
        model(torch.randn(5, 4))
    assert_adds_up(rec.run, "0", 3)
    assert rec.run.stream("0[2]").facet == Facet("0", 2, "owl")
