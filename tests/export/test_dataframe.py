from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

import colordim
from colordim.axis import LinearAxis
from colordim.column import Batch, Stream
from colordim.errors import ArgumentError, DependencyError
from colordim.store.memory import MemoryStore

NAN = float("nan")


@pytest.fixture
def run() -> colordim.Run:
    """Four batches, of which the third is of validation; the stream saw 1, 3, NaN, then 5, then NaN alone."""
    store = MemoryStore({"name": "run"})
    stream = Stream(0, "fc", "activation", "Linear", "", (4,), 0, LinearAxis(0, 4, 2))
    store.declare(stream)
    for number, (phase, row, moments) in enumerate(
        [
            ("train", [1, 1, 0, 0, 1, 0, 0, 0, 3, 1], [4.0, 10.0, 1.0, 3.0]),
            ("train", [0, 0, 0, 1, 0, 0, 0, 0, 1, 1], [5.0, 25.0, 5.0, 5.0]),
            ("valid", [0, 1, 0, 0, 0, 0, 0, 0, 1, 1], [2.0, 4.0, 2.0, 2.0]),
            ("train", [0, 0, 0, 0, 2, 0, 0, 0, 2, 1], [0.0, 0.0, np.inf, -np.inf]),
        ]
    ):
        index = (0, 1, 0, 2)[number]
        batch = Batch(number, index, phase, 0, 0, 1.5, values={"loss": number / 4})  # type: ignore[arg-type]
        store.append(batch, [stream], np.array(row, np.int64), np.array([moments]))
    return colordim.Run(store)


def test_batches_are_a_frame(run: colordim.Run) -> None:
    frame = run.to_pandas()
    assert frame.index.name == "batch"
    assert frame["loss"].to_list() == [0, 0.25, 0.5, 0.75]
    assert frame["phase"].to_list() == ["train", "train", "valid", "train"]
    assert frame["recorded"].dtype == np.bool_
    assert run.to_pandas(phase="valid").index.to_list() == [2]


def test_moments_are_a_frame_with_mean_and_std(run: colordim.Run) -> None:
    frame = run.to_pandas("fc")
    assert frame.index.to_list() == [0, 1, 2]
    assert frame.index.name == "index"
    assert frame["size"].to_list() == [3, 1, 2]
    assert frame["nan"].to_list() == [1, 0, 2]
    assert frame["over"].to_list() == [0, 1, 0]
    pd.testing.assert_frame_equal(
        frame[["mean", "std", "min", "max"]].reset_index(drop=True),
        pd.DataFrame({"mean": [2.0, 5, NAN], "std": [1.0, 0, NAN], "min": [1.0, 5, NAN], "max": [3.0, 5, NAN]}),
    )
    assert run.to_pandas("fc", "valid")["mean"].to_list() == [2]
    assert run.to_pandas(0, start=-2).index.to_list() == [1, 2]


def test_what_was_logged_can_stand_beside_them(run: colordim.Run) -> None:
    beside = run.to_pandas("fc").join(run.to_pandas(phase="train").set_index("index"))
    assert beside["loss"].to_list() == [0, 0.25, 0.75]


def test_what_cannot_be_is_a_sentence(run: colordim.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ArgumentError, match="start and stop are of a stream"):
        run.to_pandas(start=1)
    with pytest.raises(ArgumentError, match="'test' is not a phase"):
        run.to_pandas(phase="test")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DependencyError, match=r'pip install "colordim\[pandas\]"'):
        run.to_pandas()
