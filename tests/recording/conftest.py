"""Recording into memory, without a folder and without the public face."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from colordim.axis import SignedLogAxis
from colordim.recording.recorder import Recorder
from colordim.recording.select import select
from colordim.run import Run
from colordim.store.memory import MemoryStore


def binned(values: Any) -> Any:
    """Count float64 values into the buckets of the signed-log axis, by its edges."""
    axis = SignedLogAxis()
    bucket = np.searchsorted(axis.edges[axis.per_sign + 1 :], np.abs(values), side="right") - 1
    above, below = axis.per_sign + 1 + bucket, axis.per_sign - 1 - bucket
    index = np.where(values == 0, axis.per_sign, np.where(values > 0, above, below))
    return np.bincount(index, minlength=axis.bins)


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

    def names(self, kind: Any) -> list[str]:
        return [stream.name for stream in self.run.select(kind=kind)]

    def moments(self, name: str, kind: Any, phase: Any = "train") -> Any:
        return self.run.moments(self.run.stream(name, kind), phase)

    def check(self, name: str, kind: Any, batch: Any, tensors: list[Tensor]) -> None:
        """Check a column against the values that it should hold: one tensor for each call."""
        values = torch.cat([tensor.detach().to_dense().flatten() for tensor in tensors]).double().numpy()
        m = {key: column[batch] for key, column in self.moments(name, kind).items()}
        assert (self.run.counts(self.run.stream(name, kind))[batch] == binned(values)).all(), (name, kind, batch)
        assert (m["calls"], m["size"], m["zeros"]) == (len(tensors), values.size, (values == 0).sum())
        assert (m["min"], m["max"]) == (values.min(), values.max())
        assert m["sum_sq"] == pytest.approx(np.square(values).sum(), rel=1e-12)

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
