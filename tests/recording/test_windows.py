"""What is counted as a batch: the plain loop, explicit windows, and the loops that go wrong without them."""

import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from colordim.errors import ArgumentError, ColordimWarning, RecordingError


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor = X) -> Tensor:
    loss: Tensor = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def test_a_plain_loop_with_validation_and_inferred_epochs(record: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record(model) as rec:
        for _ in range(2):
            model.train()
            for _ in range(3):
                train_step(model, optimizer)
            model.eval()
            with torch.no_grad():
                for _ in range(2):
                    model(X)
    assert rec.phases() == (["train"] * 3 + ["valid"] * 2) * 2
    assert rec.run.batches["epoch"].tolist() == [0] * 5 + [1] * 5
    assert rec.run.batches["index"].tolist() == [0, 1, 2, 0, 1, 3, 4, 5, 2, 3]
    assert rec.run.epochs("train").tolist() == [0, 3]
    assert [stream.name for stream in rec.run.streams] == ["0", "1", "2"]
    assert rec.sizes("0") == [16 * 8] * 6
    assert rec.sizes("2", "valid") == [16 * 2] * 4


def test_counts_are_those_of_the_tensors(record: Any) -> None:
    model = net()
    with record(model) as rec:
        model(X)
        model.eval()(2 * X)
    for phase, x in (("train", X), ("valid", 2 * X)):
        for i, stream in enumerate(rec.run.streams):
            values = model[: i + 1](x).detach().double().flatten()
            edges = torch.from_numpy(stream.axis.edges.copy())
            moments = rec.run.moments(stream, phase)
            # Counted apart from zero, the buckets are half-open outwards: searchsorted on magnitudes.
            upper = torch.searchsorted(edges[513:], values.abs(), right=True)
            expected = torch.zeros(1025, dtype=torch.int64)
            for sign, position in zip(values.sign().int().tolist(), upper.tolist(), strict=True):
                expected[512 + sign * position] += 1
            assert rec.run.counts(stream, phase)[0].tolist() == expected.tolist()
            assert moments["sum"][0] == pytest.approx(values.sum().item(), rel=1e-12)
            assert moments["max"][0] == values.max().item()


def test_training_mode_without_gradients_is_no_batch(record: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record(model) as rec:
        for _ in range(4):  # like PPO: rollouts without gradients, in training mode, then one update
            with torch.no_grad():
                for _ in range(32):
                    model(X)
            train_step(model, optimizer)
    assert rec.phases() == ["train"] * 4
    assert rec.calls("0") == [1, 1, 1, 1]
    assert rec.recorder.notices.said == ()


def test_a_discriminator_called_three_times_a_step_is_one_batch_in_an_explicit_window(record: Any) -> None:
    critic, generator = net(), nn.Linear(3, 4)
    d_optimizer = torch.optim.SGD(critic.parameters(), 0.1)
    g_optimizer = torch.optim.SGD(generator.parameters(), 0.1)

    def step() -> None:
        fake = generator(torch.randn(16, 3))
        (critic(X).mean() - critic(fake.detach()).mean()).backward()
        d_optimizer.step()
        critic(fake).mean().backward()
        g_optimizer.step()

    with record(critic) as implicit:
        step()
    assert implicit.phases() == ["train"] * 3  # each outermost call is a batch of its own
    with record(critic) as explicit:
        for _ in range(2):
            with explicit.batch("train"):
                step()
    assert explicit.phases() == ["train"] * 2
    assert explicit.calls("0") == [3, 3]
    assert explicit.sizes("0") == [3 * 16 * 8] * 2


def test_a_container_whose_root_is_never_called_says_what_to_write(record: Any) -> None:
    parts = nn.ModuleDict({"encoder": nn.Linear(4, 3), "head": nn.Linear(3, 2)})
    with pytest.warns(ColordimWarning) as caught, record(parts) as rec:
        for _ in range(3):
            parts["head"](parts["encoder"](X))
    sentences = [str(warning.message) for warning in caught]
    assert len(sentences) == 2
    assert "'encoder' ran outside of a batch" in sentences[0]
    assert 'rec.batch("train")' in sentences[0]
    assert sentences[1].startswith("Nothing was recorded")
    assert rec.phases() == []

    with record(parts) as rec, rec.batch("train"):
        parts["head"](parts["encoder"](X))
    assert rec.calls("encoder") == rec.calls("head") == [1]


def test_after_an_explicit_window_calls_outside_of_one_are_not_counted(record: Any) -> None:
    model = net()
    with pytest.warns(ColordimWarning, match="ran outside of a batch"), record(model) as rec:
        with rec.batch("train"):
            model(X)
        model.eval()(X)
        model.eval()(X)
    assert rec.phases() == ["train"]


def test_a_part_called_by_itself_is_not_counted_into_the_last_batch(record: Any) -> None:
    model = net()
    with pytest.warns(ColordimWarning, match="'0' ran outside of a batch"), record(model) as rec:
        model(X)
        model[0](X)
        model(X)
    assert rec.calls("0") == [1, 1]


def test_gradient_accumulation_counts_every_micro_batch_and_the_true_steps(record: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with record(model, optimizers=[optimizer]) as rec:
        for i in range(6):
            model(X).sum().backward()
            if i % 3 == 2:
                optimizer.step()
                optimizer.zero_grad()
    assert rec.phases() == ["train"] * 6
    assert rec.run.batches["step"].tolist() == [0, 0, 1, 1, 1, 2]


def test_without_an_optimiser_each_training_batch_is_a_step(record: Any) -> None:
    model = net()
    with record(model) as rec:
        model(X)
        model.eval()(X)
        model.train()(X)
    assert rec.run.batches["step"].tolist() == [1, 1, 2]


def test_every_nth_batch_of_each_phase(record: Any) -> None:
    model = net()
    with record(model, every=4) as rec:
        for i in range(10):
            model(X)
            rec.recorder.log({"loss": float(i)})
        for _ in range(3):
            model.eval()(X)
    assert rec.run.moments("0")["first"].tolist() == [0, 4, 8]
    assert rec.run.moments("0", "valid")["first"].tolist() == [0]
    assert rec.run.batches["loss"][:10].tolist() == list(range(10))
    assert rec.run.batches["recorded"].tolist() == [True, False, False, False] * 2 + [True, False] + [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("at_start", [True, False])
def test_epochs_are_told_at_the_start_or_at_the_end_of_each(record: Any, at_start: bool) -> None:
    model = net()
    with record(model) as rec:
        for _ in range(3):
            if at_start:
                rec.recorder.epoch()
            model.train()(X)
            model.train()(X)
            model.eval()(X)
            if not at_start:
                rec.recorder.epoch()
    assert rec.run.batches["epoch"].tolist() == [0] * 3 + [1] * 3 + [2] * 3


def test_once_epochs_are_told_none_is_inferred(record: Any) -> None:
    model = net()
    with record(model) as rec:
        rec.recorder.epoch()
        for _ in range(3):  # validation every other batch, in one long epoch
            model.train()(X)
            model.eval()(X)
    assert rec.run.batches["epoch"].tolist() == [0] * 6


@pytest.mark.pitfall("exceptions in the forward pass")
def test_an_exception_in_the_forward_pass_voids_its_batch(record: Any) -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.error: BaseException | None = None

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            if self.error is not None:
                raise self.error
            return x

    model = Fails()
    with record(model) as rec:
        for error in (None, RuntimeError("out of memory"), None, KeyboardInterrupt(), None):
            model.error = error
            try:
                model(X)
            except (RuntimeError, KeyboardInterrupt) as caught:
                assert caught is error  # noqa: PT017
    assert rec.calls("first") == [1, 1, 1]
    assert rec.run.length() == 3


def test_a_call_inside_an_exception_handler_counts(record: Any) -> None:
    model = net()
    with record(model) as rec:
        try:
            raise ValueError
        except ValueError:
            model(X)
    assert rec.calls("0") == [1]


def test_a_window_left_by_an_exception_is_void(record: Any) -> None:
    model = net()
    with record(model) as rec:
        with pytest.raises(ZeroDivisionError), rec.batch("train"):
            model(X)
            raise ZeroDivisionError
        with rec.batch("train"):
            model(X)
    assert rec.calls("0") == [1]


def test_a_model_that_calls_itself_is_one_batch(record: Any) -> None:
    class Recursive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor, depth: int = 2) -> Tensor:
            x = self.layer(x)
            return self(x, depth - 1) if depth else x

    model = Recursive()
    with record(model) as rec:
        model(X)
        model(X)
    assert rec.calls("layer") == [3, 3]


def test_windows_that_are_opened_wrongly(record: Any) -> None:
    model = net()
    with record(model) as rec:
        with pytest.raises(ArgumentError, match="'test' is not a phase: take one of 'train', 'valid'"):
            rec.begin("test")
        rec.begin("valid")
        with pytest.raises(RecordingError, match="do not nest"):
            rec.begin("valid")
        model(X)
        rec.commit()
    assert rec.phases() == ["valid"]
    with pytest.raises(RecordingError, match="used up"):
        rec.recorder.attach()


def test_logging_belongs_to_the_batch_before_it(record: Any) -> None:
    model = net()
    with record(model) as rec:
        rec.recorder.log({"lr": 0.1})  # before any batch: kept for the first
        for i in range(2):
            loss = model(X).mean() * 0 + i
            rec.recorder.log({"loss": loss})
        with rec.batch("valid"):
            model(X)
        rec.recorder.log({"accuracy": torch.tensor([0.5])})  # after the window: still its batch
    batches = rec.run.batches
    assert batches["loss"][:2].tolist() == [0.0, 1.0]
    assert batches["lr"][0] == 0.1
    assert batches["accuracy"][2] == 0.5
    assert batches["accuracy"][:2].tolist() != batches["accuracy"][:2].tolist()  # NaN where not logged


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epoch": 1}, "'epoch' is a column of every batch"),
        ({"loss": torch.ones(64)}, "'loss' has 64 values where one is logged per batch: log its mean"),
        ({"note": "late"}, "'note' is a str, not a number"),
    ],
)
def test_what_cannot_be_logged_is_said_and_left_out(record: Any, values: dict[str, Any], sentence: str) -> None:
    model = net()
    with pytest.warns(ColordimWarning, match=sentence), record(model) as rec:
        for _ in range(2):
            model(X)
            rec.recorder.log({**values, "fine": 1})
    assert rec.run.batches["fine"].tolist() == [1.0, 1.0]


def test_the_model_is_not_kept_alive_by_a_recording_that_has_stopped(record: Any) -> None:
    import weakref

    model = net()
    with record(model) as rec:
        model(X)
    watch = weakref.ref(model)
    del model
    gc.collect()
    assert watch() is None
    assert rec.run.length() == 1
