"""Recording into memory, without a folder and without the public face."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from torch import nn

from colordim.axis import SignedLogAxis
from colordim.recording.recorder import Recorder
from colordim.recording.select import select
from colordim.run import Run
from colordim.store.memory import MemoryStore


class Recorded:
    """A recorder that is attached, and the run that it writes."""

    def __init__(self, recorder: Recorder, store: MemoryStore) -> None:
        self.recorder = recorder
        self.run = Run(store)
        self.begin, self.commit, self.discard = recorder.begin, recorder.commit, recorder.discard

    @contextmanager
    def batch(self, phase: Any) -> Iterator[None]:
        self.recorder.begin(phase)
        try:
            yield
        except BaseException:
            self.recorder.discard()
            raise
        self.recorder.commit()

    def phases(self) -> list[str]:
        return self.run.batches["phase"].tolist()

    def calls(self, name: str, phase: Any = "train") -> list[int]:
        return self.run.moments(name, phase)["calls"].tolist()

    def sizes(self, name: str, phase: Any = "train") -> list[int]:
        return self.run.moments(name, phase)["size"].tolist()


class Record(Protocol):
    def __call__(self, model: nn.Module, layers: Any = ..., **options: Any) -> Any: ...


@pytest.fixture
def record() -> Callable[..., Any]:
    """Return a context manager that records a model into memory; sums are checked when it ends."""

    @contextmanager
    def recording(model: nn.Module, layers: Any = None, axis: Any = None, **options: Any) -> Iterator[Recorded]:
        store = MemoryStore()
        recorder = Recorder(model, select(model, layers), store, lambda _: axis or SignedLogAxis(), **options)
        recorder.attach()
        recorded = Recorded(recorder, store)
        try:
            yield recorded
        finally:
            recorder.detach()
        for stream in recorded.run.streams:
            for phase in ("train", "valid"):
                m = recorded.run.moments(stream, phase)
                total = recorded.run.counts(stream, phase).sum(axis=1)
                outside = sum(m[name] for name in ("under", "over", "nan", "pos_inf", "neg_inf"))
                assert (total + outside == m["size"]).all(), stream

    return recording
