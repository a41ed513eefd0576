"""What a run says about its model: modules, parameters, and which activation follows which layer."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import colordim
from colordim.recording import facts
from colordim.recording.facts import describe, fans, moments_of
from colordim.recording.first_batch import FirstBatch
from colordim.recording.followers import Followers, is_activation, is_normalisation
from colordim.recording.outputs import tensors
from colordim.recording.select import select
from colordim.store.folder import FolderReader


def by_path(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in rows}


class Tied(nn.Module):
    """An embedding and a head with one weight, and a convolution with frozen biases."""

    body: Any

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.body = nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.ReLU(inplace=True))
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight
        self.body[0].bias.requires_grad_(False)


def test_modules_are_described_with_what_they_own_and_contain() -> None:
    model = Tied()
    model.body.eval()
    rows = by_path(describe(model)["named_modules"])
    assert list(rows) == ["Tied", "embedding", "body", "body.0", "body.1", "head"]
    assert rows["Tied"]["children"] == ["embedding", "body", "head"]
    assert rows["body"]["children"] == ["body.0", "body.1"]
    # The convolution has 4 * 6 * 3 weights and 6 frozen biases; the 40 shared values count once.
    assert rows["body.0"] == {
        "path": "body.0",
        "class": "Conv1d",
        "arguments": "4, 6, kernel_size=(3,), stride=(1,), padding=(1,)",
        "training": False,
        "children": [],
        "parameters": 78,
        "trainable": 72,
        "parameters_total": 78,
        "trainable_total": 72,
    }
    total = {key: rows["Tied"][key] for key in ("parameters", "trainable", "parameters_total", "trainable_total")}
    assert total == {"parameters": 0, "trainable": 0, "parameters_total": 118, "trainable_total": 112}
    assert rows["body.1"]["arguments"] == "inplace=True"
    assert rows["Tied"]["training"] is True


def test_parameters_are_described() -> None:
    model = Tied()
    optimizers = [
        torch.optim.SGD([{"params": [model.embedding.weight], "lr": 0.5}], lr=0.1, weight_decay=0.01),
        torch.optim.AdamW([model.body[0].weight], lr=torch.tensor(0.25), weight_decay=0.0),
    ]
    rows = by_path(describe(model, optimizers)["named_parameters"])
    assert list(rows) == ["embedding.weight", "body.0.weight", "body.0.bias", "head.weight"]
    values = model.body[0].weight.detach().double().numpy()
    weight = rows["body.0.weight"]
    assert weight.pop("mean") == pytest.approx(np.mean(values), rel=1e-12)
    assert weight.pop("std") == pytest.approx(np.std(values), rel=1e-12)
    assert weight == {
        "path": "body.0.weight", "module": "body.0", "shape": [6, 4, 3], "dtype": "float32", "requires_grad": True,
        "shared_with": [], "in_optimizer": True, "optimizer": 1, "group": 0, "lr": 0.25, "weight_decay": 0.0,
        "counted": 72, "fan_in": 12, "fan_out": 18,
    }  # fmt: skip
    bias = rows["body.0.bias"]
    assert (bias["in_optimizer"], bias["optimizer"], bias["lr"], bias["requires_grad"]) == (False, None, None, False)
    assert (bias["fan_in"], bias["fan_out"]) == (None, None)
    assert rows["head.weight"]["shared_with"] == ["embedding.weight"]
    assert rows["embedding.weight"]["shared_with"] == ["head.weight"]
    assert [rows["head.weight"][key] for key in ("optimizer", "group", "lr", "weight_decay")] == [0, 0, 0.5, 0.01]
    assert describe(model)["named_parameters"][0]["in_optimizer"] is None


def test_wrappers_and_parametrisations_are_looked_through() -> None:
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    nn.utils.parametrizations.weight_norm(model[0])
    model[1] = torch.compile(nn.Sequential(nn.Linear(4, 2)))
    compiled: Any = torch.compile(model)
    found = describe(compiled)
    assert [row["path"] for row in found["named_parameters"]] == [
        "0.bias",
        "0.parametrizations.weight.original0",
        "0.parametrizations.weight.original1",
        "1.0.weight",
        "1.0.bias",
    ]
    modules = by_path(found["named_modules"])
    assert modules["Sequential"]["children"] == ["0", "1"]
    assert modules["1"]["children"] == ["1.0"]
    assert modules["1"]["class"] == "Sequential"


@pytest.mark.parametrize("shape", [(7,), (7, 5), (7, 5, 3), (7, 5, 3, 2)])
def test_fans_are_those_of_torch(shape: tuple[int, ...]) -> None:
    if len(shape) < 2:
        assert fans(shape) == (None, None)
    else:
        assert fans(shape) == nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))


def test_moments_are_exact_up_to_a_size_and_sampled_above() -> None:
    rng = np.random.default_rng(0)
    exact = rng.normal(1e4, 1e-2, facts.SAMPLED_ABOVE)
    found: Any = moments_of(torch.from_numpy(exact))
    assert found == (
        pytest.approx(exact.mean(), rel=1e-14),
        pytest.approx(exact.std(), rel=1e-6),
        facts.SAMPLED_ABOVE,
    )
    # Rows that differ a hundredfold: a sample that took every n-th row, or only the first, would be far off.
    values = rng.normal(0, np.repeat([1, 100], 300)[:, None], (600, 1000)).astype(np.float32)
    for tensor in (torch.from_numpy(values), torch.from_numpy(values).t()):
        mean, std, counted = moments_of(tensor) or (0.0, 0.0, 0)
        assert mean == pytest.approx(values.mean(dtype=np.float64), abs=3 * float(values.std()) / counted**0.5)
        assert std == pytest.approx(values.std(dtype=np.float64), rel=0.02)
        assert facts.SAMPLED_ABOVE * 0.9 < counted < facts.SAMPLED_ABOVE * 1.1


@pytest.mark.parametrize("size", [1, 255, 1 << 15, (1 << 15) + 1, (1 << 15) + 12345, 1 << 17])
def test_a_sample_never_counts_a_value_twice(size: int) -> None:
    values = torch.zeros(size, dtype=torch.float64)
    values[size // 2] = 1.0
    mean, _, counted = moments_of(values) or (0.0, 0.0, 0)
    assert counted <= size
    assert mean * counted == pytest.approx(1.0) or (size > facts.SAMPLED_ABOVE and mean == 0.0)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(3, device="meta"),
        nn.UninitializedParameter(),
        torch.empty(0),
        torch.tensor([1, 2]),
        torch.tensor([1j]),
        torch.eye(3).to_sparse(),
        torch.tensor([1.0, float("nan")]),
    ],
)
def test_what_has_no_moments(tensor: Tensor) -> None:
    assert moments_of(tensor) is None


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore:.*quanti:DeprecationWarning")
def test_a_quantised_tensor_has_no_moments() -> None:
    tensor = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    assert moments_of(tensor) is None


def test_what_a_model_refuses_to_say_is_left_out() -> None:
    class Silent(nn.Linear):
        def extra_repr(self) -> str:
            raise RuntimeError("no")

    class Hostile(nn.Linear):
        def children(self) -> Any:
            raise RuntimeError("no")

    assert describe(Silent(2, 2))["named_modules"][0]["arguments"] is None
    assert describe(Hostile(2, 2)) == {}


# Followers.


def follow(model: nn.Module, *inputs: Tensor) -> tuple[list[tuple[str, str | None]], dict[str, str | None]]:
    """Return for each call of an activation function whom it belongs to, and for each layer its follower."""
    layers = select(model)
    followers = Followers([layer.module for layer in layers])
    calls: list[tuple[str, str | None]] = []

    def hook(number: int) -> Any:
        def called(module: nn.Module, args: Any, output: Any) -> None:
            belongs = followers.called(number, module, next(iter(tensors(output)))[1])
            if is_activation(module):
                calls.append((layers[number].name, None if belongs is None else layers[belongs].name))

        return called

    for number, layer in enumerate(layers):
        layer.module.register_forward_hook(hook(number))
    model(*inputs)
    found = followers.found
    return calls, {layers[ran].name: layers[found[ran]].name if ran in found else None for ran in sorted(followers.ran)}


def test_the_relus_of_resnet18_that_are_called_twice() -> None:
    calls, followers = follow(torchvision.models.resnet18(weights=None), torch.randn(2, 3, 64, 64))
    expected = [("relu", "conv1")]
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            # The convolution on the shortcut runs last, where there is one.
            second = f"{name}.downsample.0" if stage > 1 and block == 0 else f"{name}.conv2"
            expected += [(f"{name}.relu", f"{name}.conv1"), (f"{name}.relu", second)]
    assert calls == expected
    assert followers["bn1"] == "relu"
    assert followers["layer1.0.conv1"] == followers["layer1.0.bn2"] == "layer1.0.relu"
    assert followers["layer2.0.conv2"] is None  # another layer ran before the activation
    assert followers["fc"] is None


def test_dense_blocks_normalise_more_than_the_last_convolution() -> None:
    calls, followers = follow(torchvision.models.densenet121(weights=None), torch.randn(2, 3, 32, 32))
    first = "features.denseblock1.denselayer2"
    assert (f"{first}.relu1", None) in calls
    assert (f"{first}.relu2", f"{first}.conv1") in calls
    assert followers[f"{first}.norm1"] == f"{first}.relu1"
    assert followers["features.denseblock1.denselayer1.conv2"] is None


def test_transformers() -> None:
    _, vision = follow(torchvision.models.vit_b_16(weights=None), torch.randn(1, 3, 224, 224))
    layer = "encoder.layers.encoder_layer_0"
    assert vision[f"{layer}.mlp.0"] == f"{layer}.mlp.1"
    assert vision[f"{layer}.mlp.3"] is None
    assert vision[f"{layer}.ln_1"] is None  # followed by the attention
    assert vision[f"{layer}.self_attention"] is None

    class Gated(nn.Module):
        """The feed-forward part of a Llama, which uses the activation on one of two branches."""

        def __init__(self) -> None:
            super().__init__()
            self.gate, self.act, self.up, self.down = nn.Linear(4, 8), nn.SiLU(), nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.act(self.gate(x)) * self.up(x))

    assert follow(Gated(), torch.randn(2, 3, 4))[1] == {"gate": "act", "up": None, "down": None}
    functional = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert follow(functional, torch.randn(2, 3, 8))[1]["linear1"] is None


def test_what_lies_between_is_passed_through() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d(), nn.MaxPool2d(2), nn.Identity(), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Linear(36, 5), nn.LayerNorm(5), nn.Linear(5, 3), nn.Dropout(), nn.PReLU(), nn.Softmax(-1),
    )  # fmt: skip
    calls, followers = follow(model, torch.randn(2, 1, 8, 8))
    assert calls == [("5", "0"), ("11", "9"), ("12", None)]
    assert followers == {"0": "5", "1": "5", "7": None, "8": None, "9": "11"}


def test_another_number_of_channels_is_another_layer() -> None:
    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.side, self.act = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 2, 1), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            y, z = self.main(x), self.side(x)
            return self.act(y) * z.mean()

    calls, followers = follow(Side(), torch.randn(2, 3, 4, 4))
    assert calls == [("act", "main")]
    assert followers == {"main": None, "side": None}  # only what is certain is written down


def test_a_shared_layer_and_calls_in_threads() -> None:
    layer, relu = nn.Linear(4, 4), nn.ReLU()
    assert follow(nn.Sequential(layer, relu, layer, relu), torch.randn(2, 4))[0] == [("1", "0"), ("1", "0")]
    other = nn.Linear(4, 4)
    followers, x = Followers([layer, other, relu]), torch.randn(2, 4)
    followers.called(0, layer, x, thread=1)
    followers.called(1, other, x, thread=2)
    assert followers.called(2, relu, x, thread=1) == 0
    assert followers.called(2, relu, x, thread=2) == 1
    followers.called(0, layer, x)
    followers.clear()
    assert followers.called(2, relu, x) is None


def test_activations_and_normalisations_of_other_libraries() -> None:
    def named(name: str, base: type[nn.Module] = nn.Module) -> nn.Module:
        return type(name, (base,), {})()

    assert is_activation(named("NewGELUActivation"))
    assert is_activation(nn.Hardswish())
    assert not is_activation(nn.MultiheadAttention(4, 2))
    assert not is_activation(nn.Dropout())
    norm = named("LlamaRMSNorm")
    norm.weight = nn.Parameter(torch.ones(4))
    assert is_normalisation(norm)
    norm.weight = nn.Parameter(torch.ones(4, 4))
    assert not is_normalisation(norm)


# In a run.


def net() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.1), nn.Linear(8, 2))


X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))
LEAKY = {"name": "1", "module": "LeakyReLU", "arguments": "negative_slope=0.1"}


def test_the_facts_are_in_the_folder(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "r", optimizer=torch.optim.SGD(model.parameters(), 0.1)) as rec:
        described = json.loads((tmp_path / "r" / "run.json").read_text())["model"]
        assert described["named_parameters"][0]["lr"] == 0.1
        assert described["named_modules"][1]["class"] == "Linear"
        assert "followers" not in rec.run.facts
        model(X)
        model(X)
        hooks = [len(module._forward_hooks) for module in model.modules()]
        assert rec.run.facts["followers"] == {"0": LEAKY, "2": None}
    assert hooks == [1, 1, 1, 1]  # the additional ones are gone after the first batch
    facts = colordim.open(rec.path).facts
    assert facts["followers"] == {"0": LEAKY, "2": None}
    assert facts["class"] == "Sequential"
    assert facts["named_parameters"] == described["named_parameters"]
    next(iter(Path(rec.path).glob("rank=*/facts.json"))).write_text("{")
    assert FolderReader(rec.path).facts == {}


def test_one_batch_is_enough(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "r") as rec, rec.batch():
        model(X)
    assert colordim.open(rec.path).facts["followers"] == {"0": LEAKY, "2": None}


def test_a_batch_that_is_not_kept_teaches_nothing(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "r") as rec:
        with rec.batch():
            pass
        with pytest.raises(KeyError), rec.batch():
            model[0](X)
            raise KeyError
        with rec.batch():
            model[1](X.repeat(1, 2))  # behind the layer that ran in the batch before
            model[2](model[1](model[0](X)))
    assert rec.run.facts["followers"] == {"0": LEAKY, "2": None}


def test_leaves_that_are_not_recorded_still_end_the_search(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Identity(), nn.Linear(4, 4), nn.ReLU())
    with colordim.record(model, folder=tmp_path / "r", layers=["0", "3"]) as rec:
        model(X)
    assert rec.run.facts["followers"]["0"] is None
    assert rec.run.facts["followers"]["2"]["name"] == "3"
    assert [stream.name for stream in rec.run.streams] == ["0", "3"]


def test_what_is_changed_before_the_first_batch_is_described_again(tmp_path: Path) -> None:
    model = net()
    with colordim.record(model, folder=tmp_path / "r") as rec:
        with torch.no_grad():
            model[0].weight.fill_(0.5)
        model[0].bias.requires_grad_(False)
        model(X)
        with torch.no_grad():
            model[0].weight.fill_(7.0)
    rows = by_path(rec.run.facts["named_parameters"])
    assert (rows["0.weight"]["mean"], rows["0.weight"]["std"]) == (0.5, 0.0)
    assert rows["0.bias"]["requires_grad"] is False
    assert by_path(rec.run.info["model"]["named_parameters"])["0.weight"]["std"] > 0


def test_lazy_layers_are_described_as_they_were_before_the_first_step(tmp_path: Path) -> None:
    model: Any = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 2))
    with colordim.record(model, folder=tmp_path / "r") as rec:
        row = rec.run.facts["named_parameters"][0]
        assert [row[key] for key in ("shape", "mean", "fan_in")] == [None, None, None]
        whole = rec.run.facts["named_modules"][0]
        assert whole["parameters_total"] is None
        model(X)
        expected = model[0].weight.detach().double().numpy().std()
        with torch.no_grad():
            model[0].weight.fill_(7.0)
    rows = by_path(rec.run.facts["named_parameters"])
    assert rows["0.weight"]["shape"] == [8, 4]
    assert (rows["0.weight"]["fan_in"], rows["0.weight"]["fan_out"]) == (4, 8)
    assert rows["0.weight"]["std"] == pytest.approx(expected, rel=1e-12)
    assert rec.run.facts["named_modules"][0]["parameters_total"] == 8 * 4 + 8 + 8 * 2 + 2
    assert rec.run.facts["named_modules"][1]["class"] == "Linear"
    assert rec.run.facts["followers"]["0"]["name"] == "1"


@pytest.mark.parametrize(("layers", "expected"), [(None, {"0": LEAKY, "2": None}), (["0", "1"], {})])
def test_a_compiled_model(tmp_path: Path, layers: Any, expected: dict[str, Any]) -> None:
    torch._dynamo.reset()
    model: Any = torch.compile(net(), backend="aot_eager")
    with colordim.record(model, folder=tmp_path / "r", layers=layers) as rec:
        model(X)
        model(X)
    assert rec.run.facts["followers"] == expected
    assert rec.run.moments("0")["calls"].tolist() == [1, 1]


def test_calls_in_the_backward_pass_and_in_copies_are_none(tmp_path: Path) -> None:
    import copy

    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act, self.b = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.act(self.b(checkpoint(lambda x: F.relu(self.a(x)), x, use_reentrant=False)))
            return y

    model = Checkpointed()
    with colordim.record(model, folder=tmp_path / "r") as rec, rec.batch():
        model(X).sum().backward()  # runs a again
        model.act(X)
        model.a(X)
        copy.deepcopy(model).act(X)
        thread = threading.Thread(target=model.act, args=(X,))
        thread.start()
        thread.join()
    followers = rec.run.facts["followers"]
    assert followers["a"] is None
    assert followers["b"]["name"] == "act"


def test_an_error_in_learning_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr(FirstBatch, "called", broken)
    model = net()
    expected = model(X)
    with colordim.record(model, folder=tmp_path / "r") as rec:
        assert torch.equal(model(X), expected)
    assert rec.run.moments("0")["size"].tolist() == [128]
    assert "followers" not in rec.run.facts
