"""Rows of a device reach the sink in order and complete, late as they may arrive; CPU tensors stand in for a device's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from colordim.errors import ColordimWarning
from colordim.recording import calls, transport
from colordim.recording.transport import DeviceTransport, _Copies
from colordim.recording.window import as_number

X = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


class FakeTransfer:
    def __init__(self, device: "FakeDevice", tensors: Sequence[Tensor]) -> None:
        self.device = device
        self.sources = list(tensors)
        self.as_sent = [tensor.clone() for tensor in tensors]
        self.arrived = False

    def done(self) -> bool:
        self.device.asked += 1
        if self.device.broken:
            raise RuntimeError("device-side assert")
        return self.arrived

    def wait(self) -> list[npt.NDArray[Any]]:
        if self.device.broken:
            raise RuntimeError("device-side assert")
        self.device.waited += not self.arrived
        if self.device.interrupt:
            self.device.interrupt = False
            raise KeyboardInterrupt
        # What was sent must not have been changed since.
        for source, sent in zip(self.sources, self.as_sent, strict=True):
            assert torch.equal(source, sent)
        return [tensor.numpy().copy() for tensor in self.sources]


class FakeDevice:
    """A transport for which every tensor is on a device; copies arrive when the test says so."""

    def __init__(self, is_device: Callable[[Tensor], bool] = lambda _: True) -> None:
        self.is_device = is_device
        self.transfers: list[FakeTransfer] = []
        self.asked = self.waited = 0
        self.broken = self.refuses = self.interrupt = False

    def enter(self, device: torch.device) -> None:
        pass

    def begin(self, tensors: Sequence[Tensor]) -> FakeTransfer:
        if self.refuses:
            raise RuntimeError("out of memory")
        self.transfers.append(FakeTransfer(self, tensors))
        return self.transfers[-1]

    def arrive(self, number: int) -> None:
        for transfer in self.transfers[:number]:
            transfer.arrived = True


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def train(rec: Any, model: nn.Module, batches: int, first: int = 0) -> None:
    for i in range(first, first + batches):
        model(X * (i + 1))
        rec.recorder.log({"loss": torch.tensor(float(i)), "lr": 0.1})


def stop_the_clock(rec: Any) -> None:
    """Let batches be sent for their number only, however slow this machine is."""
    rec.recorder._batches._delivery._clock = lambda: 0.0


@pytest.fixture
def wanted(record: Any) -> Callable[[int], Any]:
    """Records the same training without a device."""

    def run(batches: int) -> Any:
        model = net()
        with record(model) as rec:
            train(rec, model, batches)
        return rec.run

    return run


def same(got: Any, want: Any, batches: int | None = None) -> None:
    batches = want.length() if batches is None else batches
    assert got.length() == batches
    if not batches:
        return
    for name in ("batch", "index", "step", "loss", "lr", "phase"):
        assert got.batches[name].tolist() == want.batches[name].tolist()[:batches], name
    for stream in want.streams:
        assert (got.counts(stream.name) == want.counts(stream.name)[:batches]).all()
        for name, values in want.moments(stream.name).items():
            assert got.moments(stream.name)[name].tolist() == values.tolist()[:batches], name


def test_everything_arrives_in_order_at_the_end_although_nothing_ever_arrives_by_itself(
    record: Any, wanted: Callable[[int], Any]
) -> None:
    device, model = FakeDevice(), net()
    with record(model, transport=device) as rec:
        train(rec, model, 30)
    same(rec.run, wanted(30))


def test_the_training_does_not_wait_while_copies_arrive_late(record: Any, wanted: Callable[[int], Any]) -> None:
    device, model, want = FakeDevice(), net(), wanted(60)
    with record(model, transport=device) as rec:
        stop_the_clock(rec)
        for i in range(60):
            train(rec, model, 1, first=i)
            device.arrive(len(device.transfers) - 1)  # the last one never
            same(rec.run, want, rec.run.length())
        assert 0 < 60 - rec.run.length() <= 2 * 8 + 1
        assert device.waited == 0
    assert len(device.transfers) == 8
    same(rec.run, want)


def test_what_waits_is_bounded_when_the_device_falls_behind(record: Any) -> None:
    device, model = FakeDevice(), net()
    with record(model, transport=device) as rec:
        stop_the_clock(rec)
        for i in range(100):
            train(rec, model, 1, first=i)
            assert i - rec.run.length() <= 3 * 8
        assert device.waited == 100 // 8 - 2


def test_batches_do_not_wait_longer_than_half_a_second(record: Any) -> None:
    now = 0.0
    device, model = FakeDevice(), net()
    with record(model, transport=device) as rec:
        rec.recorder._batches._delivery._clock = lambda: now
        train(rec, model, 3)
        assert device.transfers == []
        now = 1.0
        train(rec, model, 1)
        assert len(device.transfers) == 1


def test_a_reader_gets_everything_up_to_now(record: Any, wanted: Callable[[int], Any]) -> None:
    device, model, want = FakeDevice(), net(), wanted(5)
    with record(model, transport=device) as rec:
        for i in range(5):
            with rec.batch("train"):
                train(rec, model, 1, first=i)
            rec.recorder.flush()
            same(rec.run, want, i + 1)


def test_discarded_batches_are_never_sent_and_the_next_starts_from_nothing(record: Any) -> None:
    device, model = FakeDevice(), net()
    with record(model, transport=device) as rec:
        for i in range(20):
            try:
                with rec.batch("train"):
                    model(X)
                    if i % 2:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
    assert rec.sizes("0") == [16 * 8] * 10
    assert rec.calls("0") == [1] * 10


def test_phases_and_batches_without_columns_keep_their_place(record: Any) -> None:
    device, model = FakeDevice(), net()
    with record(model, transport=device, every=3) as rec:
        for _ in range(7):
            model.train()(X)
            with torch.no_grad():
                model.eval()(X)
    assert rec.phases() == ["train", "valid"] * 7
    assert rec.run.moments("0")["first"].tolist() == rec.run.moments("0", "valid")["first"].tolist() == [0, 3, 6]


def test_columns_of_the_cpu_and_of_a_device_make_one_batch(record: Any, wanted: Callable[[int], Any]) -> None:
    turn = iter(range(10_000))
    # Every third row is on the device, of another layer in every other batch.
    device = FakeDevice(lambda tensor: tensor.numel() == 1033 and next(turn) % 7 % 3 == 1)
    model, want = net(), wanted(20)

    with record(model, transport=device) as rec:
        train(rec, model, 20)
    assert device.transfers
    same(rec.run, want)


def test_a_stream_on_two_devices_is_added_up(record: Any) -> None:
    device, model = FakeDevice(), net()
    with record(model, transport=device) as rec:
        model(X)
        slot = rec.recorder._counters._slots["0"]
        other = type(slot.host).new(slot.stream.axis, X.device)
        slot.devices[torch.device("cuda:1")] = other
        other.counts[513], other.counts[1025 + 6] = 5, 5
        other.moments[3] = 1e3
    assert rec.sizes("0") == [16 * 8 + 5]
    assert rec.run.moments("0")["max"][0] == 1e3


@pytest.mark.parametrize("when", ["sending", "arriving"])
def test_a_device_that_fails_costs_its_columns_but_neither_the_training_nor_the_order(record: Any, when: str) -> None:
    device, model = FakeDevice(), net()
    with pytest.warns(ColordimWarning, match="Columns were lost.*RuntimeError"), record(model, transport=device) as rec:
        train(rec, model, 9)
        device.refuses, device.broken = when == "sending", when == "arriving"
        train(rec, model, 9, first=9)
        device.refuses = device.broken = False
        train(rec, model, 9, first=18)
    assert rec.run.batches["batch"].tolist() == list(range(27))
    assert rec.run.batches["lr"].tolist() == [0.1] * 27
    lost = np.isnan(rec.run.batches["loss"])
    assert 0 < lost.sum() <= 16
    assert ((rec.run.moments("0")["size"] == 0) == lost).all()


def test_an_interrupt_while_waiting_loses_nothing(record: Any, wanted: Callable[[int], Any]) -> None:
    device, model, want = FakeDevice(), net(), wanted(10)
    with record(model, transport=device) as rec:
        train(rec, model, 10)
        device.interrupt = True
        with pytest.raises(KeyboardInterrupt):
            rec.recorder.flush()
    same(rec.run, want)


def test_a_batch_of_the_cpu_is_handed_on_at_once(record: Any) -> None:
    model = net()
    with record(model) as rec:
        for i in range(3):
            train(rec, model, 1, first=i)
            assert rec.run.length() == i


@pytest.mark.pitfall("values on their own")
def test_a_running_sum_is_logged_as_it_was(record: Any) -> None:
    device, model = FakeDevice(), net()
    total = torch.zeros(1, dtype=torch.float64)
    with record(model, transport=device) as rec:
        for _ in range(4):
            model(X)
            total += 1
            rec.recorder.log({"total": total})
    assert rec.run.batches["total"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_numbers_on_a_device_are_not_read_when_they_are_logged() -> None:
    logged = as_number("loss", torch.tensor([2.5], requires_grad=True), lambda _: True)
    assert isinstance(logged, Tensor)
    assert (logged.dtype, logged.shape, logged.requires_grad) == (torch.float64, (), False)
    assert as_number("loss", torch.tensor(2.5), lambda _: False) == 2.5
    with pytest.raises(ValueError, match="not a number"):
        as_number("loss", torch.tensor(1j), lambda _: True)


def test_many_tensors_travel_together_and_come_back_apart() -> None:
    tensors = [torch.arange(6).reshape(2, 3), torch.tensor(1.5, dtype=torch.float64), torch.arange(4), torch.zeros(0)]
    transfer = DeviceTransport().begin(tensors)
    assert transfer.done()
    for array, tensor in zip(transfer.wait(), tensors, strict=True):
        assert array.shape == tuple(tensor.shape)
        assert array.tolist() == tensor.tolist()
    assert DeviceTransport().begin([]).wait() == []


class FakeStream:
    def __init__(self) -> None:
        self.waited_for: list[FakeStream] = []

    def wait_stream(self, other: "FakeStream") -> None:
        self.waited_for.append(other)


class FakeEvent:
    over = False

    def record(self, stream: FakeStream) -> None:
        self.stream = stream

    def query(self) -> bool:
        return self.over

    def synchronize(self) -> None:
        self.over = True


def test_copies_from_cuda_go_to_pinned_memory_behind_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, pinned, empty = FakeStream(), [], torch.empty

    def pinning(*arguments: Any, pin_memory: bool = False, **options: Any) -> Tensor:
        pinned.append(pin_memory)
        return empty(*arguments, **options)

    monkeypatch.setattr(torch, "empty", pinning)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    copies = _Copies(3)
    copies.add([2, 0], [torch.ones(2, 2), torch.zeros(3)], torch.device("cuda", 0))
    copies.add([1], [torch.tensor(7)], torch.device("cuda", 0))
    assert pinned == [True, True]
    assert not copies.done()
    assert [array.tolist() for array in copies.wait()] == [[0, 0, 0], 7, [[1, 1], [1, 1]]]
    assert copies.done()
    assert all(event.stream is stream for event in copies._events)  # type: ignore[attr-defined]


def test_while_a_graph_is_captured_no_event_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    copies = _Copies(0)
    copies._events.append(FakeEvent())  # type: ignore[arg-type]
    monkeypatch.setattr(transport, "is_capturing", lambda: True)
    monkeypatch.setattr(FakeEvent, "query", lambda _: pytest.fail("asked"))
    assert not copies.done()


def test_a_stream_that_counts_waits_for_the_one_that_counted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, device = FakeStream(), FakeStream(), torch.device("cuda", 0)
    order = iter([first, first, second, second, first])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: next(order))
    entering = DeviceTransport()
    for _ in range(5):
        entering.enter(device)
    assert second.waited_for == [first]
    assert first.waited_for == [second]


@pytest.mark.pitfall("CUDA graphs")
def test_calls_during_the_capture_of_a_graph_are_left_alone(record: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    with record(model) as rec:
        model(X)
        monkeypatch.setattr(calls, "is_capturing", lambda: True)
        model(X)
        monkeypatch.setattr(calls, "is_capturing", lambda: False)
        model(X)
    assert rec.calls("0") == [1, 1]


def test_the_recorder_itself_asks_for_nothing_per_batch_but_whether_it_is_done(record: Any) -> None:
    device, model = FakeDevice(), net()
    with record(model, transport=device) as rec:
        stop_the_clock(rec)
        train(rec, model, 20)
        assert device.asked <= 20
        assert device.waited == 0


def test_batches_that_are_passed_over_are_handed_on_together_in_their_order(record: Any) -> None:
    model = net()
    with record(model, every=100) as rec:
        rec.recorder._batches._delivery._clock = lambda: 0.0
        known = []
        for i in range(250):
            model(X)
            rec.recorder.log({"loss": float(i)})
            known.append(len(rec.run.batches["batch"]))
        # The open batch is not there yet; batch 100 brings along those before it, and 64 do not wait any longer.
        seen = {batches: known[batches] for batches in (64, 65, 100, 101, 201, 249)}
        assert seen == {64: 1, 65: 65, 100: 65, 101: 101, 201: 201, 249: 201}

        rec.recorder._batches._delivery._clock = lambda: 0.5
        model(X)  # half a second is enough
        table = rec.run.batches
        assert table["batch"].tolist() == list(range(250))
        assert table["loss"].tolist() == [float(i) for i in range(250)]
        assert np.flatnonzero(table["recorded"]).tolist() == [0, 100, 200]
