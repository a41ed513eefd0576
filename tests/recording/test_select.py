"""Which layers a selection names, and what it says when it names none."""

import pytest
import torch
import torchvision
from torch import nn

from colordim.errors import SelectionError
from colordim.recording.select import select


def names(model: nn.Module, layers: object = None) -> list[str]:
    return [target.name for target in select(model, layers)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    model: nn.Module = torchvision.models.resnet18()
    return model


def test_a_pattern_names_leaves_and_an_exact_name_any_module(resnet: nn.Module) -> None:
    assert names(resnet, "layer1.*.conv?") == ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"]
    assert names(resnet, "layer1.0") == ["layer1.0"]
    assert names(resnet, "layer?") == ["layer1", "layer2", "layer3", "layer4"]
    assert names(resnet, ["fc", "conv1"]) == ["conv1", "fc"]


def test_classes_and_functions(resnet: nn.Module) -> None:
    assert len(names(resnet, nn.Conv2d)) == 20
    assert names(resnet, [nn.Linear, lambda name, module: name == "bn1"]) == ["bn1", "fc"]
    assert names(resnet, lambda name, module: isinstance(module, nn.Linear)) == ["fc"]


def test_blocks_come_beside_the_leaves(resnet: nn.Module) -> None:
    chosen = names(resnet, "blocks")
    assert set(names(resnet)) < set(chosen)
    assert [name for name in chosen if name.count(".") == 1 and name.startswith("layer")] == [
        f"layer{i}.{j}" for i in range(1, 5) for j in range(2)
    ]


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ("layer1.0.conv9", "no layer matches 'layer1.0.conv9'; the nearest is 'layer1.0.conv"),
        ("head*", "no layer matches 'head*'; the nearest is "),
        (nn.LSTM, "no layer is a LSTM; the nearest is "),
        (lambda name, module: False, "it was false for all"),
        ([], "layers is empty"),
        ([3], "layers takes names, classes, modules and functions, not 3"),
        (42, "layers takes names, classes, modules and functions, not 42"),
    ],
)
def test_a_selection_of_nothing_is_one_sentence(resnet: nn.Module, layers: object, sentence: str) -> None:
    with pytest.raises(SelectionError) as caught:
        names(resnet, layers)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_without_anything_to_record() -> None:
    with pytest.raises(SelectionError, match="ModuleList has no module that could be recorded"):
        names(nn.ModuleList())
    with pytest.raises(SelectionError, match=r"must be a torch\.nn\.Module, not builtin_function"):
        select(torch.relu)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="Sequential has no repeated blocks"):
        names(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "blocks")


def test_a_model_that_is_a_leaf_is_named_by_its_class() -> None:
    assert names(nn.Linear(2, 2)) == ["Linear"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_script_modules_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 2), torch.jit.script(nn.ReLU()))
    assert names(model) == ["0"]


def test_compiled_submodules_keep_their_names() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model[0] = torch.compile(model[0])  # type: ignore[assignment]
    assert names(model) == ["0", "1"]
    assert names(torch.compile(nn.Sequential(nn.Linear(2, 2)))) == ["0"]  # type: ignore[arg-type]


def test_a_module_of_the_model_names_itself() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert names(model, model[1]) == ["1"]
    assert names(model, [model[0], "1"]) == ["0", "1"]
    with pytest.raises(SelectionError, match="the ReLU in layers= is no part of the model"):
        names(model, nn.ReLU())
