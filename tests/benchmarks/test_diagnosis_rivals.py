from __future__ import annotations

import math
import sys
from enum import IntEnum
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from benchmarks.diagnosis import rivals
from benchmarks.diagnosis.monitor import Monitor, Task, Verdict
from benchmarks.diagnosis.rivals import autotrainer, deepchecker, deepdiagnosis, postmortem
from benchmarks.diagnosis.rivals.autotrainer import AutoTrainer
from benchmarks.diagnosis.rivals.deepchecker import DeepChecker
from benchmarks.diagnosis.rivals.deepdiagnosis import DeepDiagnosis
from benchmarks.diagnosis.rivals.postmortem import Torchmortem
from benchmarks.diagnosis.rivals.sagemaker import SageMakerDebugger
from benchmarks.diagnosis.rivals.watch import Said, Watch, units
from torch import Tensor, nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self, act: type[nn.Module] = nn.ReLU, width: int = 16) -> None:
        super().__init__()
        self.first, self.act, self.drop, self.second = nn.Linear(8, width), act(), nn.Dropout(0.2), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.drop(self.act(self.first(x))))
        return out


def train(
    monitors: list[Monitor], net: Net, epochs: int = 3, batches: int = 12, lr: float = 0.05, scale: float = 1.0
) -> dict[str, list[Verdict]]:
    torch.manual_seed(1)
    x = torch.randn(batches, 32, 8)
    y = (x[..., 0] > 0).long() + (x[..., 1] > 0.5).long()
    optimizer = torch.optim.SGD([each for each in net.parameters() if each.requires_grad], lr=lr)
    task = Task("classification", 3, epochs, batches)
    for monitor in monitors:
        monitor.begin(net, optimizer, task)
    batch = 0
    for number in range(epochs):
        net.train()
        for inputs, labels in zip(x, y, strict=True):
            outputs = net(inputs)
            loss = functional.cross_entropy(outputs, labels) * scale
            optimizer.zero_grad()
            loss.backward()
            for monitor in monitors:
                monitor.before_step(batch, inputs, outputs.detach(), loss.item())
            optimizer.step()
            for monitor in monitors:
                monitor.after_step(batch)
            batch += 1
        net.eval()
        with torch.no_grad():
            net(x.flatten(0, 1) * 1e6)  # a validation, of which no rule may see anything
        for monitor in monitors:
            monitor.epoch(number, batch - 1, loss.item(), loss.item(), 0.9, 0.9)
    return {monitor.name: monitor.end() for monitor in monitors}


def restated() -> list[Monitor]:
    watch = Watch()
    return [AutoTrainer(watch), DeepDiagnosis(watch), SageMakerDebugger(watch), DeepChecker(watch)]


def net_of(act: type[nn.Module] = nn.ReLU) -> Net:
    torch.manual_seed(0)
    net = Net(act)
    nn.init.kaiming_normal_(net.first.weight)
    nn.init.normal_(net.second.weight, std=0.1)
    nn.init.zeros_(net.first.bias)
    nn.init.zeros_(net.second.bias)
    return net


def natives(said: list[Verdict]) -> set[tuple[str, str | None]]:
    return {(each.native, each.layer) for each in said}


# -- watching --------------------------------------------------------------------------------------------------------------


def test_training_is_bit_for_bit_the_same() -> None:
    plain, watched = net_of(), net_of()
    train([], plain)
    train(restated(), watched)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name]), name


def test_nothing_is_left_on_the_model() -> None:
    net = net_of()
    train(restated(), net)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_observations_are_made_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    whole = Watch.before_step

    def before_step(watch: Watch, batch: int) -> None:
        seen.append((batch, watch._seen))
        whole(watch, batch)

    monkeypatch.setattr(Watch, "before_step", before_step)
    train(restated(), net_of(), epochs=1, batches=2)
    assert [batch for batch, known in seen if known != batch] == [0, 1]
    assert len(seen) == 2 * 4


def test_sizes_are_mean_absolute_values() -> None:
    watch, net = Watch(), net_of()
    watch.begin(net)
    x = torch.randn(4, 8)
    net(x).sum().backward()
    total = watch.outputs["first"].sum().item()
    watch.before_step(0)
    before = net.first.weight.detach().clone()
    with torch.no_grad():
        net.first.weight += 0.25
    watch.after_step(0)
    assert watch.gradient_size["first.weight"] == pytest.approx(float(net.first.weight.grad.abs().mean()))  # type: ignore[union-attr]
    assert watch.weight_size["first.weight"] == pytest.approx(float(before.abs().mean()))
    assert watch.update_size["first.weight"] == pytest.approx(0.25)
    assert list(watch.modules) == ["first", "act", "drop", "second"]
    assert total == pytest.approx(functional.linear(x, before, net.first.bias).sum().item(), rel=1e-4)
    assert watch.output_sums()["first"] == pytest.approx(total)
    watch.end()


def test_units_are_channels_or_the_last_axis() -> None:
    image = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    assert units(image).shape == (40, 3)
    assert torch.equal(units(image)[:, 1].sort().values, image[:, 1].flatten().sort().values)
    assert units(torch.zeros(2, 6, 7)).shape == (12, 7)


def test_a_thing_is_said_once_of_a_module() -> None:
    said = Said()
    said.say("a", "A", "block.first.weight", 3)
    said.say("a", "A", "block.first.bias", 4)
    said.say("a", "A", "block", 5)
    assert [(each.layer, each.batch) for each in said.verdicts] == [("block.first", 3), ("block", 5)]


# -- rules of the restated tools -------------------------------------------------------------------------------------------


def test_a_healthy_training_is_healthy() -> None:
    said = rivals.read(train(restated(), net_of()))
    for row in ("AutoTrainer", "DeepDiagnosis", "SageMaker Debugger"):
        assert said[row] == []
    named = {each.native for each in said["TheDeepChecker without fluctuation and activation std"] or ()}
    assert named <= {"need_init"}  # few weights: their variance may be far from He's by chance


def test_dead_units() -> None:
    net = net_of()
    nn.init.constant_(net.first.bias, -50.0)
    said = train(restated(), net)
    assert ("DeadRelu", "act") in natives(said["SageMaker Debugger"])
    assert ("act_dead", "act") in natives(said["TheDeepChecker"])
    assert min(each.batch for each in said["TheDeepChecker"] if each.native == "act_dead") == 10
    assert natives(said["DeepDiagnosis"]) == {("Numerical Problem Forward", "act")}  # its mean is exactly zero


def test_saturation() -> None:
    net = net_of(nn.Tanh)
    nn.init.constant_(net.first.weight, 0.0)
    nn.init.constant_(net.first.bias, 9.6)
    said = train(restated(), net, epochs=5, lr=1e-9)
    assert ("SaturatedActivation", "act") in natives(said["SageMaker Debugger"])
    assert ("act_sat", "act") in natives(said["TheDeepChecker"])
    nn.init.constant_(net.first.bias, 6.0)
    said = train(restated(), net, epochs=5, lr=1e-9)
    assert ("SaturatedActivation", "act") not in natives(said["SageMaker Debugger"])
    assert natives(said["DeepDiagnosis"]) == {("Saturated Activation Problem", "first")}


def test_not_finite_names_the_layer_and_the_batch() -> None:
    net = net_of()
    with torch.no_grad():
        net.second.weight[0, 0] = math.nan
    said = train(restated(), net, epochs=1)
    first = next(each for each in said["SageMaker Debugger"] if each.symptom == "not-finite")
    assert (first.native, first.layer, first.batch) == ("ExplodingTensor", "second", 0)
    assert ("nan_loss", None) in natives(said["TheDeepChecker"])
    assert natives(said["AutoTrainer"]) == {("explode", None)}
    assert natives(said["DeepDiagnosis"]) == {
        ("Numerical Problem Forward", "first")
    }  # by the epoch's end it is everywhere


def test_nothing_changes() -> None:
    said = train(restated(), net_of(), lr=0.0, epochs=5)
    sagemaker = {(each.native, each.batch) for each in said["SageMaker Debugger"] if each.layer == "first"}
    assert {("UnchangedTensor", 1), ("WeightUpdateRatio small", 0)} <= sagemaker
    assert ("w_untrained", "first") in natives(said["TheDeepChecker"])
    assert natives(said["DeepDiagnosis"])  # five epochs with the same loss, weights or gradients


def test_steps_too_large_and_too_small() -> None:
    large = train(restated(), net_of(), lr=1e4, epochs=1)
    assert ("WeightUpdateRatio large", "first") in natives(large["SageMaker Debugger"])
    assert ("w_fast", "first") in natives(large["TheDeepChecker"])
    small = train(restated(), net_of(), lr=1e-5, epochs=1)
    assert ("w_slow", "first") in natives(small["TheDeepChecker"])


def test_gradients_too_small_and_too_large() -> None:
    small = train(restated(), net_of(), epochs=1, scale=1e-9)
    assert ("VanishingGradient", "first") in natives(small["SageMaker Debugger"])
    assert ("gw_van", "first") in natives(small["TheDeepChecker"])
    assert natives(small["DeepDiagnosis"]) == {("Vanishing Gradient Problem in delta Weights", "second")}
    large = train(restated(), net_of(), epochs=1, scale=1e9, lr=1e-12)
    assert ("gw_exp", "first") in natives(large["TheDeepChecker"])


def test_weights_that_are_all_the_same_at_the_start() -> None:
    net = net_of()
    nn.init.constant_(net.first.weight, 0.05)
    said = train(restated(), net, epochs=1)
    assert ("poor_init", "first") in natives(said["TheDeepChecker"])
    assert ("poor_init", "second") not in natives(said["TheDeepChecker"])


def test_initial_loss_twice_that_of_guessing() -> None:
    net = net_of()
    nn.init.zeros_(net.second.weight)
    with torch.no_grad():
        net.second.bias[2] = 30.0
    assert ("poor_init_loss", None) in natives(train(restated(), net, epochs=1)["TheDeepChecker"])


def test_dead_output() -> None:
    net = net_of()
    nn.init.zeros_(net.second.weight)
    said = train([DeepChecker(Watch())], net, epochs=5, lr=0.0)["TheDeepChecker"]
    assert [each.batch for each in said if each.native == "out_cons"] == [40]  # the fifth check, of 0, 10, ...


# -- AutoTrainer -----------------------------------------------------------------------------------------------------------


def autotrainer_on(
    gradients: dict[str, Tensor], scores: list[float], losses: list[float] | None = None
) -> list[tuple[str, int]]:
    watch = Watch()
    monitor = AutoTrainer(watch)
    monitor.begin(nn.Identity(), torch.optim.SGD([torch.zeros(1)], 0.1), Task("classification", 10, 10, 5))
    watch.gradients = gradients
    watch.gradient_size = {name: float(each.abs().mean()) for name, each in gradients.items()}
    for number, value in enumerate(scores):
        monitor.epoch(number, 5 * number + 4, (losses or [1.0] * 99)[number], 1.0, value, value)
    return [(each.native, each.batch) for each in monitor.end()]


def test_autotrainer_needs_a_training_that_does_not_converge() -> None:
    gradients = {"a": torch.full((2, 2), 1e-6), "b": torch.ones(2, 2)}
    assert autotrainer_on(gradients, [0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.96]) == []
    assert autotrainer_on(gradients, [0.1] * 7) == [("vanish", 14)]  # the third of ten epochs


@pytest.mark.parametrize(
    ("first", "last", "issue"),
    [
        (1e-6, 1.0, "vanish"),
        (1e-3, 10.0, "not_converge"),  # the rate is small, the norm is not
        (100.0, 1.0, "explode"),
        (60.0, 1.0, "not_converge"),
    ],
)
def test_autotrainer_compares_first_and_last_kernel(first: float, last: float, issue: str) -> None:
    gradients = {"a": torch.full((1, 1), first), "bias": torch.zeros(1), "b": torch.full((1, 1), last)}
    assert autotrainer_on(gradients, [0.1] * 3)[0][0] == issue


def test_autotrainer_counts_zeros_of_all_gradients() -> None:
    gradients = {"a": torch.tensor([[0.0] * 7 + [1.0] * 3]), "b": torch.ones(1, 1)}
    assert autotrainer_on(gradients, [0.1] * 3)[0][0] == "not_converge"  # 7 of 11
    gradients["a"] = torch.tensor([[0.0] * 8 + [1.0] * 3])
    gradients["b"] = torch.zeros(1, 1)
    assert autotrainer_on(gradients, [0.1] * 3)[0][0] == "relu"  # 9 of 12


def test_autotrainer_calls_nan_an_explosion() -> None:
    gradients = {"a": torch.full((2, 2), math.nan)}
    assert autotrainer_on(gradients, [0.1], [math.nan]) == [("explode", 4)]


def test_autotrainer_says_no_more_than_one_thing_and_sees_swings() -> None:
    swinging = [0.7, 0.9, 0.6, 0.9, 0.6, 0.9, 0.6]
    assert autotrainer._swings(swinging) == 2  # peaks at 1, 3, 5, troughs at 2 and 4
    assert autotrainer_on({"a": torch.ones(2, 2)}, swinging) == [("unstable", 29)]
    assert autotrainer._gain([0.5, 0.4, 0.6, 0.5]) == pytest.approx(0.2)


# -- DeepDiagnosis and TheDeepChecker ----------------------------------------------------------------------------------------


def test_constant_windows_begin_anew() -> None:
    monitor = DeepDiagnosis(Watch())
    values = [1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 3.0, 3.0, 3.0]
    assert [monitor._constant("loss", "", value, number) for number, value in enumerate(values)] == [False] * 9 + [True]
    assert deepdiagnosis._numerical(0.0)
    assert deepdiagnosis._numerical(math.inf)
    assert not deepdiagnosis._numerical(1e-30)


def test_deepdiagnosis_asks_for_zeros_in_the_last_epoch_alone() -> None:
    net = net_of()
    with torch.no_grad():
        net.first.bias[:12] = -50.0  # 12 of 16 units
    said = train([DeepDiagnosis(Watch())], net, epochs=3)["DeepDiagnosis"]
    assert [(each.native, each.layer, each.batch) for each in said] == [("Dead Node Problem", "act", 35)]


def test_rho_is_the_published_sum() -> None:
    torch.manual_seed(0)
    rows = torch.cat([torch.rand(200, 1), torch.rand(200, 1) * 0.02 + 0.98, torch.full((200, 1), 0.5)], 1)
    wanted = []
    for column in rows.double().numpy().T:
        bins = np.digitize(column, np.arange(0, 1, 1 / 50))
        groups = [column[bins == each] for each in np.unique(bins)]
        wanted.append(sum(len(group) * abs(2 * group.mean() - 1) for group in groups) / len(column))
    assert deepchecker._rho(rows, 0.0, 1.0).tolist() == pytest.approx(wanted, abs=2e-3)
    assert deepchecker._rho(2 * rows - 1, -1.0, 1.0).tolist() == pytest.approx(wanted, abs=2e-3)


def test_smoothness_and_rates() -> None:
    assert deepchecker._smoothness([5, 4, 3, 2]) == 1
    assert deepchecker._smoothness([5, 4, 5, 4, 5]) == pytest.approx(2 / 5)  # three turns
    assert deepchecker._rates([1, 2, 4, 8]) == []
    assert deepchecker._rates([9, 1, 2, 4, 8, 16]) == [2, 2, 2, 2]


def loss_verdicts(losses: list[float]) -> dict[str, int]:
    monitor = DeepChecker(Watch())
    monitor._task = Task("classification", 3, 1, 100)
    for number, loss in enumerate(losses):
        monitor._loss(number, loss)
    return {each.native: each.batch for each in monitor._said.verdicts}


def test_loss_is_judged_by_means_of_ten_batches() -> None:
    assert loss_verdicts([1.0] * 41) == {"stagnated_loss": 40}
    assert loss_verdicts([0.9 ** (number // 10) for number in range(100)]) == {}
    assert loss_verdicts([2.0 ** ((number + 9) // 10) for number in range(60)]) == {
        "div_loss": 40,
        "stagnated_loss": 40,
    }
    assert loss_verdicts([1.0, math.inf]) == {"nan_loss": 1}
    assert "fluctuated_loss" in loss_verdicts([1.0 + ((number + 9) // 10) % 2 for number in range(80)])


def test_activations_outside_the_band_by_the_f_test() -> None:
    for std, unstable in ((0.31, False), (0.29, True), (3.2, False), (3.4, True)):  # 0.5 / 1.645 and 2 * 1.645
        monitor = DeepChecker(Watch())
        values = torch.tensor([std, -std]).repeat(50)[:, None].expand(-1, 3)
        monitor._watch.outputs, monitor._watch._sums = {"act": values}, {"act": 0.0}
        for batch in range(11):
            monitor._activation("act", nn.GELU(), batch)
        assert bool(monitor._said.verdicts) == unstable, std


# -- readings, and torchmortem ---------------------------------------------------------------------------------------------


def test_readings_leave_out_what_their_names_say() -> None:
    loss, std, dead = (Verdict("", name, None, 0) for name in ("fluctuated_loss", "act_unstable", "act_dead"))
    said = rivals.read({"TheDeepChecker": [loss, std, dead], "torchmortem": [Verdict("a", "A", None, 9, severe=False)]})
    assert said["TheDeepChecker, all rules"] == [loss, std, dead]
    assert said["TheDeepChecker without loss fluctuation"] == [std, dead]
    assert said["TheDeepChecker without fluctuation and activation std"] == [dead]
    assert said["torchmortem, warning or worse"] == [Verdict("a", "A", None, 9, severe=True)]
    assert said["torchmortem, critical only"] == []
    assert said["AutoTrainer"] is None


class Severity(IntEnum):
    INFO = 0
    WARNING = 1
    CRITICAL = 2


class Autopsy:
    """Stands in for torchmortem's: what it is called with, and findings of its form."""

    calls: list[object]

    def __init__(self, model: nn.Module, optimizer: object = None) -> None:
        type(self).calls = ["made"]

    def attach(self) -> None:
        self.calls.append("attach")

    def step(self, *, loss: float) -> None:
        self.calls.append(loss)

    def detach(self) -> None:
        self.calls.append("detach")
        np.log(np.zeros(1))  # a warning must not become an error in there

    def _atexit_handler(self) -> None: ...

    def get_report(self) -> SimpleNamespace:
        rows = [
            (Severity.CRITICAL, "Dead units in block.act", ["block.act"]),
            (Severity.WARNING, "Rank collapse in first", ["first", "second"]),
            (Severity.WARNING, "Loss plateau detected", []),
            (Severity.INFO, "Catapult phase detected", []),
        ]
        return SimpleNamespace(
            findings=[SimpleNamespace(severity=how, title=title, affected_layers=layers) for how, title, layers in rows]
        )


@pytest.fixture
def torchmortem(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchmortem")
    module.Autopsy = Autopsy  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchmortem", module)
    monkeypatch.setattr(postmortem, "find_spec", lambda name: object())


def test_torchmortem_is_called_as_documented(torchmortem: None) -> None:
    said = train([Torchmortem()], net_of(), epochs=1, batches=2)["torchmortem"]
    assert [type(call) for call in Autopsy.calls] == [str, str, float, float, str]
    assert said == [
        Verdict("dead-units", "Dead units", "block.act", 1, severe=True),
        Verdict("", "Rank collapse", "first", 1, severe=False),
        Verdict("plateau", "Loss plateau detected", None, 1, severe=False),
    ]


def test_torchmortem_watches_where_it_is_installed(torchmortem: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each.name for each in rivals.monitors()][-1] == "torchmortem"
    monkeypatch.setattr(postmortem, "find_spec", lambda name: None)
    assert [each.name for each in rivals.monitors()] == [
        "AutoTrainer",
        "DeepDiagnosis",
        "SageMaker Debugger",
        "TheDeepChecker",
    ]
