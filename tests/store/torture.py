"""A run in which every number follows from its stream, batch and place, so that a reader can check any of them.

As a script it writes one, and prints how many batches are flushed:

    python torture.py FOLDER BATCHES SECONDS_A_BATCH BATCHES_A_SEGMENT MAX_BYTES
"""

from __future__ import annotations

import os
import sys
import time
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.axis import LinearAxis
from colordim.column import PHASES, Batch, Phase, Stream, Units
from colordim.run import Run
from colordim.store.writer import FolderWriter

BINS = 40
#: First batch of each stream: two come late.
BEGIN = (0, 30, 170)
STREAMS = [Stream(i, f"layer{i}", "activation", "ReLU", "", (4,), i, LinearAxis(0, 1, BINS)) for i in range(len(BEGIN))]
LEVELS = range(6)
_PLACE = np.arange(BINS + 5)


def of_batches(number: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """Two phases; every seventh batch is not recorded, and at times a whole segment."""
    valid = number % 50 >= 40
    return {
        "index": np.where(valid, number // 50 * 10 + number % 50 - 40, number // 50 * 40 + number % 50),
        "phase": np.where(valid, "valid", "train"),
        "recorded": (number % 7 != 3) & (number % 260 < 240),
        "time": number + 0.25,
        "loss": number / 4,
        "late": np.where(number >= 100, 1.0, np.nan),
    }


def columns_of(stream: int, number: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Bins and counters, which keep the books; a cluster that wanders."""
    n = number[:, None]
    counts = (n * 7 + stream * 3 + _PLACE) % 5 * ((n // 3 + 5 * stream + _PLACE) % 11 < 4)
    counts[:, 0] += np.where(number % 97 == 5, 3_000_000_000_000, 0)
    rest = [counts[:, 1], counts.sum(axis=1), np.ones(len(number), np.int64)]
    return np.column_stack([counts, *rest])


def moments_of(stream: int, number: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Whole numbers, so that their sums are exact in any order."""
    return np.column_stack([number, number * (stream + 1), -number, number + stream]).astype(np.float64)


def units_of(number: int) -> list[Units]:
    """Every tenth batch ends a window of one stream."""
    if number % 10 != 9:
        return []
    batch = {name: values[0] for name, values in of_batches(np.array([number])).items()}
    return [Units(0, "layer0", str(batch["phase"]), number - 9, number, 16, number.to_bytes(2, "big"))]  # type: ignore[arg-type]


def write(writer: FolderWriter, begin: int, end: int, flush_every: int = 0, pause: float = 0.0) -> None:
    """Append these batches; with a `flush_every`, print after each flush how many there are."""
    numbers = np.arange(begin, min(end, begin + 5000))
    known = of_batches(numbers)
    rows = np.stack([columns_of(i, numbers) for i in range(len(STREAMS))], axis=1)
    moments = np.stack([moments_of(i, numbers) for i in range(len(STREAMS))], axis=1)
    for i, number in enumerate(numbers.tolist()):
        for stream in STREAMS:
            if number == BEGIN[stream.id]:
                writer.declare(stream)
        recorded = bool(known["recorded"][i])
        chosen = [stream for stream in STREAMS if recorded and number >= BEGIN[stream.id]]
        values = {"loss": float(known["loss"][i]), **({"late": 1.0} if number >= 100 else {})}
        index, phase = int(known["index"][i]), str(known["phase"][i])
        batch = Batch(number, index, phase, number // 50, number, number + 0.25, recorded, values)  # type: ignore[arg-type]
        writer.append(batch, chosen, rows[i, : len(chosen)].ravel(), moments[i, : len(chosen)], units_of(number))
        if flush_every and number % flush_every == flush_every - 1:
            writer.flush()
            print(number + 1, flush=True)  # noqa: T201
        if pause:
            time.sleep(pause)
    if end > begin + len(numbers):
        write(writer, begin + len(numbers), end, flush_every, pause)


class Truth:
    """What a run of so many batches holds."""

    def __init__(self, batches: int) -> None:
        self.number = np.arange(batches)
        self.table = of_batches(self.number)

    @cache  # noqa: B019
    def of(self, stream: int, phase: Phase) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Any]:
        """Return the indices of the recorded batches of a phase, the columns added up to each, and the moments."""
        mine = self.table["recorded"] & (self.table["phase"] == phase)
        number = self.number[mine]
        fired = number >= BEGIN[stream]
        sums = np.cumsum(columns_of(stream, number) * fired[:, None], axis=0)
        moments = np.where(fired[:, None], moments_of(stream, number), [0.0, 0.0, np.inf, -np.inf])
        return self.table["index"][mine], np.vstack([np.zeros_like(sums[:1]), sums]), moments


def check_batches(reader: Any, truth: Truth) -> npt.NDArray[np.int64]:
    """Compare every row of the table of batches; return the numbers of those that are there."""
    table = reader.batches()
    number = table["batch"]
    assert (np.diff(number) > 0).all()
    for name in table:
        if name in truth.table:
            np.testing.assert_array_equal(table[name], truth.table[name][number], err_msg=name)
    np.testing.assert_array_equal(table["step"], number)
    assert set(table) <= {"batch", "epoch", "step", *truth.table}
    return number


def check_units(reader: Any, batches: int, whole: bool = True) -> int:
    """Compare what is known of units."""
    found = [each for phase in PHASES for each in reader.units(STREAMS[0], phase)]
    for each in found:
        assert [each] == units_of(each.last)
    assert len({each.first for each in found}) == len(found)
    assert len(found) == batches // 10 or not whole
    return len(found)


def check_columns(reader: Any, truth: Truth, stream: Stream, phase: Phase, level: int, start: int = 0) -> int:
    """Compare every sum of a level that is returned; return how many recorded batches from `start` on are not in any."""
    index, sums, moments = truth.of(stream.id, phase)
    length = reader.extent(phase)[0]
    block = Run(reader).columns(stream, phase, start, length, level)
    there = int(np.searchsorted(index, length))
    low, high = np.searchsorted(index, block.first), np.searchsorted(index, block.last, side="right")
    what = f"{stream.name} {phase} level {level}"
    assert (np.diff(block.first >> 2 * level) > 0).all(), what
    assert (block.first[1:] > block.last[:-1]).all(), what
    number = high - low
    if (block.number == number).all():
        np.testing.assert_array_equal(np.hstack([block.counts, block.counters]), sums[high] - sums[low], err_msg=what)
        if len(low):
            for i, add in enumerate((np.add, np.add, np.minimum, np.maximum)):
                expected = [add.reduce(moments[a:b, i]) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
                np.testing.assert_array_equal(block.moments[:, i], expected, err_msg=what)
    else:  # a sum with a hole, of a damaged run: it cannot be more than that of all
        assert (block.number <= number).all(), what
        both = np.hstack([block.counts, block.counters])
        whole = block.number == number
        np.testing.assert_array_equal(both[whole], (sums[high] - sums[low])[whole], err_msg=what)
        assert (both <= sums[high] - sums[low]).all(), what
    # Where a sum begins and ends, at the batches that it has all of.
    edges = np.zeros(len(index) + 1, np.int64)
    np.add.at(edges, low[block.number == number], 1)
    np.add.at(edges, high[block.number == number], -1)
    start = max(start, reader.kept(phase, level))  # the writer may have dropped some meanwhile
    return int(np.count_nonzero(np.cumsum(edges)[int(np.searchsorted(index, start)) : there] == 0))


def check_all(reader: Any, truth: Truth, streams: int = 9) -> tuple[int, int]:
    """Compare everything; return how many columns were compared, and how many batches are in no sum that should be."""
    compared = missing = 0
    for stream in reader.streams[:streams]:
        assert stream == STREAMS[stream.id]
        for phase in PHASES:
            for level in LEVELS:
                missing += check_columns(reader, truth, stream, phase, level, reader.kept(phase, level))
                compared += reader.extent(phase)[1]
            assert reader.kept(phase, LEVELS[-1]) == 0
    return compared, missing


if __name__ == "__main__":
    os.fsync = lambda fd: None  # a killed process leaves the system, and what it has been given, alive
    _path, _batches, _pause, _segment, _max_bytes = sys.argv[1:]
    _writer = FolderWriter(
        _path,
        {"name": "torture"},
        flush_batches=4,
        flush_seconds=0.01,
        seal_batches=int(_segment),
        max_bytes=int(_max_bytes) or None,
    )
    write(_writer, 0, int(_batches), 20, float(_pause))
    _writer.close("stopped")
    print("closed", flush=True)  # noqa: T201
