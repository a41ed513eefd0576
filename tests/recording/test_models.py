"""Real architectures and awkward outputs: the right streams, the right counts, nothing raised."""

import copy
import io
import os
import pickle
import threading
from collections import namedtuple
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

from colordim.axis import LinearAxis
from colordim.binning import bin_into, use_backend
from colordim.errors import ColordimWarning


def names(rec: Any) -> list[str]:
    return [stream.name for stream in rec.run.streams]


def test_resnet18_has_52_leaves_whose_relus_run_twice(record: Any) -> None:
    model = torchvision.models.resnet18(num_classes=10)
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda m, a, out, name=name: seen.setdefault(name, []).append(out.detach().clone())
            )
    with record(model, axis=LinearAxis(-3, 3, 60)) as rec:
        model(torch.randn(2, 3, 32, 32))
    assert len(rec.run.streams) == len(seen) == 52
    assert names(rec) == list(seen)  # in the order of the calls
    assert sum(rec.calls(name)[0] for name in seen) == 60
    for name, outputs in seen.items():
        values = torch.cat([out.flatten() for out in outputs]).double()
        expected = torch.histogram(values, bins=60, range=(-3, 3)).hist.long().tolist()
        off = (rec.run.counts(name)[0] - torch.tensor(expected).numpy()).astype(int)
        assert abs(off).sum() <= 2, name  # torch's own histogram misplaces values that lie on edges
        assert rec.run.moments(name)["zeros"][0] == int((values == 0).sum())
        assert rec.sizes(name) == [values.numel()]
    shape = rec.run.stream("layer1.0.conv1").shape
    assert shape == (2, 64, 8, 8)


@pytest.mark.pitfall("in-place change after the hook")
def test_a_convolution_before_an_inplace_relu_keeps_its_negative_values(record: Any) -> None:
    runs = []
    for inplace in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=inplace))
        with record(model) as rec:
            model(torch.randn(2, 1, 8, 8))
        runs.append(rec.run.counts("0"))
    assert runs[0][0, :512].sum() > 0
    assert (runs[0] == runs[1]).all()


def test_an_lstm_gives_its_output_and_its_states(record: Any) -> None:
    model = nn.Sequential(nn.LSTM(5, 7, num_layers=2, batch_first=True))
    with record(model) as rec:
        model(torch.randn(3, 4, 5))
    assert names(rec) == ["0[0]", "0[1][0]", "0[1][1]"]
    assert rec.sizes("0[0]") == [3 * 4 * 7]
    assert rec.sizes("0[1][1]") == [2 * 3 * 7]


def test_a_packed_sequence_counts_its_data_alone(record: Any) -> None:
    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.GRU(5, 7, batch_first=True)

        def forward(self, x: Tensor) -> Any:
            return self.rnn(pack_padded_sequence(x, torch.tensor([4, 2, 1]), batch_first=True))

    model = Packs()
    with record(model) as rec:
        model(torch.randn(3, 4, 5))
    assert names(rec) == ["rnn[0]", "rnn[1]"]
    assert rec.sizes("rnn[0]") == [(4 + 2 + 1) * 7]


def test_a_transformer_encoder_with_its_attention(record: Any) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    x = torch.randn(3, 5, 16)
    with record(model) as rec:
        model(x)
        model.eval()
        with torch.no_grad():
            model(x)  # the fast path, which calls no submodule, is not taken while hooks are attached
    assert "layers.0.self_attn[0]" in names(rec)
    assert not any("out_proj" in name for name in names(rec))
    assert rec.sizes("layers.1.linear1") == rec.sizes("layers.1.linear1", "valid") == [3 * 5 * 32]
    with record(model, layers="blocks") as rec:
        model(x)
    assert {"layers.0", "layers.1"} < set(names(rec))
    assert rec.sizes("layers.1") == []
    assert rec.sizes("layers.1", "valid") == [3 * 5 * 16]


@pytest.mark.pitfall("shared modules")
def test_tied_and_shared_modules_are_one_stream_with_all_calls(record: Any) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.mix = nn.Linear(6, 6)
            self.again = self.mix
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.again(self.mix(self.embed(x))))
            return y

    model = Tied()
    with record(model) as rec:
        model(torch.randint(11, (4, 3)))
    assert names(rec) == ["embed", "mix", "head"]
    assert rec.calls("mix") == [2]
    assert rec.sizes("mix") == [2 * 4 * 3 * 6]


Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Result:
    logits: Tensor
    cache: object = None


class Returns(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x)


@pytest.mark.pitfall("outputs that are no tensor")
@pytest.mark.parametrize(
    ("make", "suffixes"),
    [
        (lambda x: {"a": x, "b": {"c": x, 3: x}}, [".a", ".b.c", ".b[3]"]),
        (lambda x: (x, None, [x, 5]), ["[0]", "[2][0]"]),
        (lambda x: Pair(x, x), [".left", ".right"]),
        (lambda x: Result(x, object()), [".logits"]),
        (lambda x: (x.argmax(), x > 0, x), ["[2]"]),
        (lambda x: None, []),
        (lambda x: x.to(torch.complex64), [""]),
    ],
    ids=["dict", "tuple", "namedtuple", "dataclass", "integers", "none", "complex"],
)
def test_outputs_of_all_forms(record: Any, make: Any, suffixes: list[str]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Returns(make))
    with record(model) as rec:
        model(torch.randn(2, 4))
    assert names(rec) == ["0", *("1" + suffix for suffix in suffixes)]
    assert all(rec.sizes(name) == [8] for name in names(rec))


def test_an_output_that_contains_itself_ends(record: Any) -> None:
    def looped(x: Tensor) -> list[Any]:
        items: list[Any] = [x]
        items.append(items)
        return items

    model = nn.Sequential(Returns(looped))
    with record(model) as rec:
        model(torch.randn(2, 4))
    assert names(rec)[0] == "0[0]"


@pytest.mark.pitfall("modules that are never called")
def test_modules_that_are_never_called_have_no_stream(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.register_module("unused", None)
    model.append(nn.ModuleList([nn.Linear(4, 4)]))
    model.forward = lambda x: model[0](x)  # type: ignore[method-assign]
    with record(model) as rec:
        model(torch.randn(2, 4))
    assert names(rec) == ["0"]


@pytest.mark.pitfall("activation checkpointing")
@pytest.mark.parametrize("use_reentrant", [True, False])
def test_checkpointed_layers_count_once(record: Any, use_reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            return checkpoint(lambda x: self.b(torch.relu(self.a(x))), x, use_reentrant=use_reentrant)

    model = Checkpointed()
    x = torch.randn(2, 4, requires_grad=True)
    with record(model) as rec:
        for _ in range(2):
            model(x).sum().backward()
    with record(model) as explicit, explicit.batch("train"):
        model(x).sum().backward()  # the window is open during the backward pass as well
    assert rec.calls("a") == rec.calls("b") == [1, 1]
    assert explicit.calls("a") == explicit.calls("b") == [1]
    assert rec.recorder.notices.said == ()


@pytest.mark.pitfall("parametrisations")
def test_parametrised_weights_are_not_activations(record: Any) -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), nn.ReLU())
    with record(model) as rec:
        model(torch.randn(2, 4))
    assert names(rec) == ["0", "1"]


@pytest.mark.pitfall("lazy modules")
def test_lazy_modules_are_recorded_from_their_first_call(record: Any) -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    with record(model) as rec:
        model(torch.randn(2, 5))
    assert rec.sizes("0") == [6]


@pytest.mark.pitfall("inference mode")
@pytest.mark.parametrize("backend", [None, "reference"])
def test_inference_mode_then_training(record: Any, request: Any, backend: str | None) -> None:
    use_backend(backend)
    request.addfinalizer(use_backend)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with record(model) as rec:
        model.eval()
        with torch.inference_mode():
            model(torch.randn(2, 4))
        model.train()
        model(torch.randn(2, 4)).sum().backward()
        with torch.inference_mode():
            model.eval()(torch.randn(2, 4))
    assert rec.sizes("0") == [8]
    assert rec.sizes("0", "valid") == [8, 8]
    with record(model) as rec, rec.batch("valid"):
        with torch.inference_mode():
            model(torch.randn(2, 4))
        model(torch.randn(2, 4))  # into the same row
    assert rec.sizes("0", "valid") == [16]


def test_autocast_bfloat16_counts_what_the_layer_returned(record: Any) -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    with record(model) as rec, torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.randn(512, 64))
    assert out.dtype is torch.bfloat16
    assert rec.sizes("0") == [512 * 64]
    assert rec.run.moments("0")["sum"][0] == pytest.approx(out.double().sum().item(), rel=1e-9)


def test_hooks_are_gone_afterwards_and_after_an_exception(record: Any) -> None:
    model = torchvision.models.resnet18()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def hooks() -> int:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_always_called", "_backward_hooks")
        return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds) + len(
            optimizer._optimizer_step_post_hooks
        )

    with record(model, optimizers=[optimizer]):
        assert hooks() > 52
    assert hooks() == 0
    with pytest.raises(ZeroDivisionError), record(model):
        raise ZeroDivisionError
    assert hooks() == 0


@pytest.mark.pitfall("copies and files of the model")
def test_copies_and_pickles_of_a_recorded_model_record_nothing(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    plain = len(pickle.dumps(model))
    x = torch.randn(2, 4)
    with record(model) as rec:
        model(x)
        buffer = io.BytesIO()
        torch.save(model, buffer)
        pickled = pickle.dumps(model)
        copies = [
            copy.deepcopy(model),
            pickle.loads(pickled),
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=False),
        ]
        for twin in copies:
            assert torch.equal(twin(x), model(x))
    assert rec.calls("0") == [1, 1, 1, 1]  # the model's own calls
    assert b"colordim" not in pickled
    assert len(pickled) < plain + 2_000
    assert model.state_dict().keys() == nn.Sequential(nn.Linear(4, 4), nn.ReLU()).state_dict().keys()


@pytest.mark.pitfall("forked and spawned processes")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_worker_records_nothing(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with record(model) as rec:
        model(torch.randn(2, 4))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                model(torch.randn(2, 4))
                rec.recorder.log({"loss": 1.0})
                rec.recorder.detach()
                os.write(writing, b"%d" % len(rec.run.batches["batch"]))
            finally:
                os._exit(0)  # whatever happens: else it would go on with the tests that follow
        os.waitpid(child, 0)
        assert os.read(reading, 10) == b"0"
        model(torch.randn(2, 4))
    assert rec.calls("0") == [1, 1]
    assert "loss" not in rec.run.batches


@pytest.mark.pitfall("an error of our own")
def test_an_error_of_ours_switches_that_layer_off_and_training_goes_on(record: Any, monkeypatch: Any) -> None:
    real = bin_into

    def fails(tensor: Tensor, axis: Any, row: Any) -> bool:
        if tensor.shape[-1] == 5:
            raise MemoryError("no room")
        return real(tensor, axis, row)

    monkeypatch.setattr("colordim.recording.counters.bin_into", fails)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    message = "'0' is no longer recorded.*MemoryError: no room"
    with pytest.warns(ColordimWarning, match=message) as caught, record(model) as rec:
        for _ in range(3):
            model(torch.randn(2, 4))
    assert len(caught) == 1
    assert names(rec) == ["1"]
    assert rec.calls("1") == [1, 1, 1]


def test_warnings_turned_into_errors_do_not_reach_the_training(record: Any) -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4)})
    with record(model):  # pytest turns warnings into errors, and nothing is caught here
        model["a"](torch.randn(2, 4))


@pytest.mark.pitfall("tracing and exporting")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_traced_and_exported_models_are_left_alone(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    x = torch.randn(2, 4)
    with record(model) as rec, torch.no_grad():
        torch.jit.trace(model, x, check_trace=False)
    assert rec.phases() == []


@pytest.mark.pitfall("threads")
def test_calls_from_several_threads_all_count(record: Any) -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer)
    with record(model) as rec, rec.batch("train"):
        threads = [threading.Thread(target=lambda: [layer(torch.ones(2, 4)) for _ in range(50)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert rec.calls("0") == [200]
    assert rec.sizes("0") == [1600]


def test_data_parallel_wrappers_do_not_show_in_names(record: Any) -> None:
    inner = nn.Sequential(nn.Linear(4, 4))
    model = nn.DataParallel(inner)
    with record(model) as rec:
        model(torch.randn(2, 4))
        inner.eval()(torch.randn(2, 4))  # the wrapped module is called by itself, as is usual in validation
    assert names(rec) == ["0"]
    assert rec.phases() == ["train", "valid"]


def test_observed_tensors_are_streams_of_their_own(record: Any) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q = nn.Linear(4, 4)
            self.recorder: Any = None

        def forward(self, x: Tensor) -> Tensor:
            scores = self.q(x) @ x.T
            self.recorder.observe("scores", scores)
            scores.zero_()
            self.recorder.observe("ids", torch.arange(3))
            return scores

    model = Attention()
    with record(model) as rec:
        model.recorder = rec.recorder
        model(torch.randn(2, 4))
        model.recorder = None
    assert names(rec) == ["q", "scores", "ids"]
    assert rec.run.moments("scores")["zeros"].tolist() == [0]
    assert rec.sizes("ids") == [3]


@pytest.mark.pitfall("training is not disturbed")
def test_training_is_bit_identical_with_and_without_recording(record: Any) -> None:
    def trained(recorded: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.LazyLinear(10),
        )
        x, y = torch.randn(50, 16, 1, 8, 8), torch.randint(10, (50, 16))
        model(x[0])
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)

        def steps() -> None:
            for xb, yb in zip(x, y, strict=True):
                loss = nn.functional.cross_entropy(model(xb), yb)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

        if recorded:
            with record(model, optimizers=[optimizer]) as rec:
                steps()
            assert rec.run.length() == 50
        else:
            steps()
        return model.state_dict()

    plain, recorded = trained(False), trained(True)
    assert plain.keys() == recorded.keys()
    assert all(torch.equal(plain[name], recorded[name]) for name in plain)
