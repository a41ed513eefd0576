"""The traps of docs/pitfalls.md that no other test is about, and a check that each of them has a test."""

import ast
import copy
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from colordim.axis import SignedLogAxis
from colordim.binning import Row
from colordim.errors import ColordimWarning

ROOT = Path(__file__).parents[2]


def marked(path: Path) -> set[str]:
    """Return the arguments of all marks called pitfall in a file."""
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    return {ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "pytest.mark.pitfall"}


def test_every_documented_trap_has_a_test_and_every_tested_one_is_documented() -> None:
    rows = re.findall(r"^\| (.+?) \| .+ \|$", (ROOT / "docs" / "pitfalls.md").read_text("utf-8"), re.MULTILINE)
    tested = set().union(*(marked(path) for path in (ROOT / "tests").rglob("test_*.py")))
    assert set(rows) - {"trap"} == tested


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.pitfall("copies and files of the model")
def test_averaged_models_record_nothing(record: Any) -> None:
    model = net()
    with record(model) as rec:
        model(X)
        averaged = torch.optim.swa_utils.AveragedModel(model)
        averaged.update_parameters(model)
        averaged(X)
        copy.deepcopy(averaged)(X)
        model(X)
    assert rec.calls("0") == [1, 1]


@pytest.mark.pitfall("DataParallel replicas")
def test_replicas_in_threads_count_into_the_layers_that_they_copy(record: Any) -> None:
    model = net()

    def replica(module: nn.Module) -> nn.Module:
        twin = module._replicate_for_data_parallel()
        for name, child in module.named_children():
            twin._modules[name] = replica(child)
        for name, parameter in module._parameters.items():
            twin._parameters[name] = parameter  # on one device a replica may use the parameters themselves
        return twin

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = model

        def forward(self, x: Tensor) -> Tensor:
            parts, outputs = x.chunk(4), [Tensor()] * 4

            def run(number: int) -> None:
                outputs[number] = replica(self.module)(parts[number])

            threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return torch.cat(outputs)

    parallel = Parallel()
    with record(parallel) as rec:
        parallel(X)
    assert rec.calls("module.0") == [4]
    assert rec.sizes("module.0") == [16 * 8]


@pytest.mark.pitfall("functorch transforms")
def test_inside_transforms_nothing_is_counted_and_nothing_breaks(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    parameters: dict[str, Tensor] = dict(model.named_parameters())

    def loss(parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(model, dict(parameters), (x,))
        return output.square().sum()

    want = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, X)
    with pytest.warns(ColordimWarning, match="values cannot be read here|No recorded layer ran"), record(model) as rec:
        got = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, X)
        torch.func.functional_call(model, parameters, (X,))
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert rec.sizes("0")[-1] == 16 * 8  # a plain functional call counts


@pytest.mark.pitfall("evaluation mode inside training")
def test_frozen_layers_and_a_model_in_evaluation_mode_are_what_the_window_says(record: Any) -> None:
    model = net()
    with record(model) as rec:
        model[1].eval()
        model(X)  # a plain loop goes by the model itself, not by its parts
        model.eval()
        with rec.batch("train"):
            model(X).sum().backward()
        model.train()
        with rec.batch("valid"), torch.no_grad():
            model(X)
    assert rec.phases() == ["train", "train", "valid"]


@pytest.mark.pitfall("lazy modules")
def test_a_lazy_module_is_named_by_the_class_that_it_becomes(record: Any) -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    with record(model) as rec:
        model(X)
    assert [stream.module for stream in rec.run.streams] == ["Linear", "BatchNorm1d"]
    assert rec.run.streams[0].arguments == "in_features=4, out_features=3, bias=True"


@pytest.mark.pitfall("forward called directly")
def test_a_forward_called_directly_runs_no_hooks_but_can_be_observed(record: Any) -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.seen: Any = None

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.a.forward(x)
            self.seen("a", hidden)
            output: Tensor = self.b(hidden)
            return output

    model = Direct()
    with record(model) as rec:
        model.seen = rec.recorder.observe
        model(X)
    assert sorted(stream.name for stream in rec.run.streams) == ["a", "b"]
    assert rec.sizes("a") == [64]


@pytest.mark.pitfall("replaced modules")
def test_what_takes_the_place_of_a_recorded_module_is_recorded_in_its_stead(record: Any) -> None:
    model = net()
    with (
        pytest.warns(ColordimWarning, match="'1' was replaced .BatchNorm1d by GroupNorm.") as caught,
        record(model) as rec,
    ):
        for _ in range(3):
            model(X)
        removed, model[1] = model[1], nn.GroupNorm(2, 8)
        for _ in range(4):
            model(X)
        removed(X.new_zeros(16, 8))  # the old one is no part of the model any more
    assert len(caught) == 1
    # Batch 3 ran before the place was looked at again, at batch 4.
    assert rec.calls("1") == [1, 1, 1, 0, 1, 1, 1]
    assert rec.calls("0") == [1] * 7


@pytest.mark.pitfall("replaced modules")
def test_a_module_that_only_moved_or_left_is_no_replacement(record: Any) -> None:
    model = net()
    with record(model) as rec:
        model(X)
        model[2], model[1] = model[1], model[2]
        for _ in range(3):
            model(X)
    assert rec.recorder.notices.said == ()
    assert rec.calls("1") == [1, 1, 1, 1]


@pytest.mark.pitfall("meta tensors")
def test_a_model_on_the_meta_device_gives_one_notice_a_layer(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4)).to("meta")
    with pytest.warns(ColordimWarning) as caught, record(model) as rec:
        for _ in range(3):
            model(torch.empty(2, 4, device="meta"))
    assert rec.run.streams == ()
    said = [str(warning.message) for warning in caught]
    assert [sentence for sentence in said if "values cannot be read" in sentence] == [
        "'0' is not recorded: its values cannot be read here (Tensor of torch.float32 on meta). [colordim docs pitfalls]"
    ]


@pytest.mark.pitfall("devices without float64")
def test_rows_for_mps_lie_on_the_cpu() -> None:
    row = Row.new(SignedLogAxis(), torch.device("mps"))
    assert row.counts.device.type == row.moments.device.type == "cpu"


@pytest.mark.pitfall("deterministic algorithms")
def test_deterministic_algorithms_refuse_nothing(record: Any) -> None:
    model = net()
    torch.use_deterministic_algorithms(True)
    try:
        with record(model) as rec:
            model(X).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert rec.calls("0") == [1]


@pytest.mark.pitfall("unusual dtypes and layouts")
def test_sparse_complex_half_and_integer_outputs(record: Any) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict({name: nn.Identity() for name in ("sparse", "complex", "float16", "index")})

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                self.parts["sparse"](torch.eye(4).to_sparse())
                self.parts["complex"](torch.complex(x, x))
                self.parts["float16"](x.half())
                self.parts["index"](torch.arange(4))
            return x

    model = Odd()
    with record(model) as rec:
        model(X)
    assert [stream.name for stream in rec.run.streams] == ["parts.sparse", "parts.complex", "parts.float16"]
    assert rec.run.moments("parts.sparse")["zeros"].tolist() == [12]
    assert rec.run.moments("parts.complex")["min"][0] == pytest.approx(X.double().abs().min().item() * 2**0.5)
    assert rec.sizes("parts.float16") == [64]


@pytest.mark.pitfall("transformer fast path")
def test_the_fast_path_of_a_transformer_gives_the_same_without_it(record: Any) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        want = layer(x)
        with record(layer) as rec:
            got = layer(x)
    assert torch.allclose(got, want, atol=1e-6)
    assert rec.phases() == ["valid"]
    assert rec.calls("linear1", "valid") == [1]


@pytest.mark.pitfall("forked and spawned processes")
def test_a_spawned_process_gets_a_model_without_hooks(record: Any, tmp_path: Path) -> None:
    import pickle

    model = net()
    with record(model) as rec:
        twin = pickle.loads(pickle.dumps(model))  # what a spawned process is given
        twin(X)
    assert rec.phases() == []
    assert "recorder" not in repr([m._forward_hooks for m in twin.modules()]).lower()


def test_a_notice_points_at_the_line_that_called_the_model(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4)).to("meta")
    with pytest.warns(ColordimWarning) as caught, record(model):
        model(torch.empty(2, 4, device="meta"))
    assert {warning.filename for warning in caught} <= {__file__, str(Path(__file__).with_name("conftest.py"))}
    said = next(warning for warning in caught if "cannot be read" in str(warning.message))
    assert 'model(torch.empty(2, 4, device="meta"))' in Path(__file__).read_text("utf-8").splitlines()[said.lineno - 1]
