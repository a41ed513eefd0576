"""Dead units: exactly those that are dead, in exactly the layer that they belong to."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import colordim
from colordim.errors import StreamError
from colordim.recording.units import Activity


def dead(run: Any, layer: str, phase: Any = "train") -> list[int]:
    return run.units(layer, phase).dead.tolist()


def killed(layer: Any, share: float, seed: int = 0) -> list[int]:
    """Put that share of a layer's biases at -100; return which."""
    bias = layer.bias
    chosen = torch.randperm(len(bias), generator=torch.Generator().manual_seed(seed))[: round(share * len(bias))]
    with torch.no_grad():
        bias[chosen] = -100
    return sorted(chosen.tolist())


class Convolutions(nn.Module):
    """Convolutions and linear layers with batch norm, pooling and dropout between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1, self.relu1 = nn.Conv2d(3, 20, 3), nn.BatchNorm2d(20), nn.ReLU(inplace=True)
        self.conv2, self.relu2, self.pool = nn.Conv2d(20, 30, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.linear, self.drop, self.gelu = nn.Linear(30, 40), nn.Dropout(0.1), nn.GELU()
        self.head = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu2(self.conv2(self.relu1(self.norm1(self.conv1(x))))))
        output: Tensor = self.head(self.gelu(self.drop(self.linear(x.flatten(1)))))
        return output


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_thirty_percent_of_one_layer_are_dead_and_no_other_unit_is(tmp_path: Path, memory_format: Any) -> None:
    torch.manual_seed(0)
    model = Convolutions().to(memory_format=memory_format)
    want = killed(model.conv2, 0.3)
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for _ in range(6):
            model(torch.randn(8, 3, 12, 12).to(memory_format=memory_format)).sum().backward()
    run = rec.run
    assert dead(run, "conv2") == dead(run, "relu2") == want
    assert run.units("conv2").judged_on == "relu2"
    assert run.units("conv2").dead_share.tolist() == [9 / 30]
    for layer in ("conv1", "linear"):
        assert run.units(layer).active.all(), layer
    assert run.units("conv1").judged_on == "relu1"  # batch norm lies between
    for layer in ("head", "pool", "norm1"):  # no activation function follows, or it belongs to another layer
        assert run.units(layer).active.shape == (0, 0), layer


def test_dead_features_of_a_linear_layer_and_of_an_attention_layout(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(16, 64), nn.SiLU(), nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 3))
    want = [killed(model[0], 0.3, 1), killed(model[2], 0.3, 2)]
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for _ in range(3):
            model(torch.randn(4, 10, 16))  # batch, tokens, features
    assert dead(rec.run, "2") == want[1]
    # SiLU(-100) is 4e-42: not zero, and nothing that could be told from it.
    assert dead(rec.run, "0") == want[0]


def test_a_wide_and_sparse_but_healthy_relu_has_no_dead_units(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(32, 2048), nn.ReLU(), nn.Linear(2048, 2))
    with torch.no_grad():
        model[0].bias.fill_(-0.8)
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for _ in range(20):
            model(torch.randn(64, 32))
    zeros, size = rec.run.moments("1")["zeros"], rec.run.moments("1")["size"]
    assert (zeros / size).min() > 0.9  # nearly always off
    assert dead(rec.run, "0") == []


def test_a_shared_activation_function_is_told_apart_by_its_calls(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=4)
    block = model.layer1[0]
    with torch.no_grad():  # the norms before the two calls of the one ReLU
        block.bn1.bias[[3, 5]] = -100
        block.bn2.bias[7] = -100
        model.maxpool = nn.Identity()
        block.downsample = nn.Sequential(nn.Conv2d(64, 64, 1, bias=False))
        block.downsample[0].weight.zero_()  # else what is added could keep unit 7 alive
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for _ in range(3):
            model(torch.randn(4, 3, 16, 16))
        with torch.no_grad():
            block.bn1.bias[3] = 0
        model(torch.randn(4, 3, 16, 16))
    assert dead(rec.run, "layer1.0.conv1") == [5]
    assert {dead(rec.run, layer) == [7] for layer in ("layer1.0.conv2", "layer1.0.downsample.0")} == {True, False}
    with pytest.raises(StreamError, match="no stream named"):
        rec.run.units("layer1.0.relu3")


def test_windows_phases_and_units_that_die_later(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 2))
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for batch in range(200):
            if batch == 64:
                killed(model[0], 0.2)
            if batch == 128:
                with torch.no_grad():
                    model[0].bias.fill_(0)
            with rec.batch("train"):
                model(torch.randn(32, 8))
            if batch % 50 == 49:
                with rec.batch("valid"), torch.no_grad():
                    model(torch.randn(32, 8))
        units = rec.run.units("0")
    assert units.first.tolist() == [0, 64, 128]
    assert units.last.tolist() == [63, 127, 199]  # eight batches are too few to judge by
    assert (~units.active).sum(axis=1).tolist() == [0, 2, 0]
    valid = rec.run.units("0", "valid")  # each pass by itself
    assert (valid.first.tolist(), valid.last.tolist()) == ([0, 1, 2, 3], [0, 1, 2, 3])
    assert (~valid.active).sum(axis=1).tolist() == [0, 2, 0, 0]


def test_a_window_that_has_only_begun_makes_no_unit_dead(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2))
    want = killed(model[0], 0.1)
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for _ in range(65):
            model(torch.randn(1, 8))  # of one sample about half the units are active
    assert dead(rec.run, "0") == want


def test_a_discarded_batch_leaves_no_mark(tmp_path: Path) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.fill_(-1)
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for batch in range(6):
            with torch.no_grad():
                model[0].bias[batch] = 1.0 if batch in (2, 4) else -1.0
            try:
                with rec.batch("train"):
                    model(torch.ones(2, 4))
                    if batch == 2:
                        raise ValueError
            except ValueError:
                with torch.no_grad():
                    model[0].bias[2] = -1.0
    assert rec.run.units("0").active[0].tolist() == [False, False, False, False, True, False]


def test_what_is_not_recorded_is_not_judged(tmp_path: Path) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2), nn.ReLU())
    with colordim.record(model, folder=tmp_path / "run", layers=["1", "2", "3"], every=2) as rec:
        for _ in range(5):
            model(torch.randn(2, 4))
    assert rec.run.units("1").active.shape == (0, 0)
    assert rec.run.units("2").active.shape == (1, 2)
    assert rec.run.units("2").last.tolist() == [4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_half_and_double_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    model: Any = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2)).to(dtype)
    want = killed(model[0], 0.3)
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for _ in range(4):
            model(torch.randn(256, 4, dtype=dtype))
    assert dead(rec.run, "0") == want


def test_masks_of_several_devices_are_kept_apart_and_changed_sizes_start_anew() -> None:
    activity = Activity(["a", "b"], lambda name: None)
    activity.learn({1: [(0, -1)]})
    activity.open("train", 0)
    activity.called(1, torch.tensor([[1.0, 0.0, 0.0]]), "train")
    activity.close("train", 0)
    activity.called(1, torch.tensor([[0.0, 1.0]]), "train")  # fewer units than before
    activity.close("train", 1)
    (active,) = activity._windows["train"].active.values()
    assert active.tolist() == [False, True]
    assert np.asarray(active).dtype == bool


def test_channels_that_are_flattened_before_their_activation_function(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(3, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.ReLU(), nn.Linear(12, 2))
    with torch.no_grad():
        model[0].bias.fill_(1)
    want = killed(model[0], 0.25)
    with colordim.record(model, folder=tmp_path / "run") as rec:
        for _ in range(3):
            model(torch.randn(5, 3, 8, 8))
    assert rec.run.units("0").active.shape == (1, 12)
    assert dead(rec.run, "0") == want


class Shard(Tensor):
    """A tensor that only stands for others, as a DTensor does."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "output", [torch.eye(3).to_sparse(), torch.ones(2, 3).as_subclass(Shard)], ids=["sparse", "shard"]
)
def test_tensors_that_do_not_hold_all_units_are_not_judged(output: Tensor) -> None:
    activity = Activity(["a", "b"], lambda name: None)
    activity.learn({1: [(0, -1)]})
    activity.open("train", 0)
    activity.called(1, output, "train")
    activity.close("train", 0)
    assert activity._windows["train"].active == {}
