"""A stream that holds NaN or infinities for the first time rings."""

from __future__ import annotations

import numpy as np

from colordim.axis import LinearAxis
from colordim.column import COUNTERS, Stream
from colordim.recording.alarm import Alarm
from colordim.recording.counters import Columns

STREAMS = [Stream(i, f"s{i}", "activation", "", "", (), i, LinearAxis(0, 1, 3 + i)) for i in range(3)]


def columns(ids: list[int], **bad: int) -> Columns:
    """Columns of full bins; `bad` is counted in the last of these streams."""
    rows = []
    for i in ids:
        row = np.full(STREAMS[i].width, 9, np.int64)
        row[-len(COUNTERS) :] = [9, 9, 0, 0, 0, 9, 9, 9]
        rows.append(row)
    for name, value in bad.items():
        rows[-1][COUNTERS.index(name) - len(COUNTERS)] = value
    return Columns([STREAMS[i] for i in ids], np.concatenate(rows), np.zeros((len(ids), 4)))


def test_each_stream_rings_once() -> None:
    rung: list[int] = []
    alarm = Alarm(rung.append)
    for batch, each in enumerate(
        [
            columns([0, 1, 2]),
            columns([0, 1], nan=1),
            columns([0, 1], nan=5),
            columns([0, 1, 2], pos_inf=1),
            columns([1]),
            columns([0], neg_inf=1),
            columns([0], nan=1),
        ]
    ):
        alarm(batch, each)
    assert rung == [1, 3, 5]


def test_a_batch_without_columns_does_not() -> None:
    rung: list[int] = []
    Alarm(rung.append)(0, Columns([], np.zeros(0, np.int64), np.zeros((0, 4))))
    assert rung == []
