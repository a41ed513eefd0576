"""The answers to the page's questions, against the run itself and against sums by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import colordim
from colordim.axis import LinearAxis
from colordim.column import COUNTERS, Batch, Stream
from colordim.errors import ArgumentError, StreamError
from colordim.store.memory import MemoryStore
from colordim.store.writer import FolderWriter
from colordim.views import Run
from colordim.web.answers import answer
from colordim.web.codes import EXACT, decode, encode
from colordim.web.head import TILE
from colordim.web.tile import ARRAYS

RUNS = Path(__file__).parents[1] / "fixtures" / "runs" / "v1"
AXIS = LinearAxis(0, 4, 4)
Tiles = Callable[[bytes], list[dict[str, Any]]]


@given(st.lists(st.integers(0, 2**43), min_size=1))
def test_codes_are_within_six_per_cent_and_keep_the_order(counts: list[int]) -> None:
    values = np.array(sorted(counts), np.int64)
    codes = encode(values)
    assert ((codes == 0) == (values == 0)).all()
    assert (np.diff(codes.astype(int)) >= 0).all()
    assert (decode(codes)[values <= EXACT] == values[values <= EXACT]).all()
    assert np.allclose(decode(codes), values, rtol=2 ** (1 / 12) - 1 + 1e-9)


def test_every_code_stands_for_itself() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert (encode(decode(codes).round().astype(np.int64)) == codes).all()


def ask(run: colordim.Run | Run, route: str, **parameters: Any) -> Any:
    found = answer(run, route, {name: str(value) for name, value in parameters.items()})
    return found if route == "tiles" else json.loads(found)


def dense(tile: dict[str, Any], bins: int) -> npt.NDArray[np.float64]:
    """Return the exact counts of a tile, ``[columns, bins]``."""
    out = np.zeros((tile["columns"], bins))
    out[:, tile["occupied"]] = tile["counts"].T
    return out


@pytest.mark.parametrize("name", ["ended", "killed", "ranks", "resumed"])
def test_a_tile_is_the_columns_of_the_run(tiles: Tiles, name: str) -> None:
    run = colordim.open(RUNS / name)
    for stream in run.streams:
        for width in (1, 4):
            block = run.columns(stream, level=0 if width == 1 else 1)
            (tile,) = tiles(ask(run, "tiles", streams=stream.id, phase="train", width=width, index=0, exact=1))
            fired = np.flatnonzero(tile["arrays"][ARRAYS.index("held")] == 0)
            assert (dense(tile, stream.axis.bins)[fired] == block.counts[np.isin(block.first // width, fired)]).all()
            for counter in COUNTERS:
                values = tile["arrays"][ARRAYS.index(counter)][fired]
                assert (values == block.counters[:, COUNTERS.index(counter)]).all()
            outside = sum(tile["arrays"][ARRAYS.index(each)] for each in ("under", "over", "nan", "pos_inf", "neg_inf"))
            whole = dense(tile, stream.axis.bins).sum(axis=1) + outside
            assert (whole == tile["arrays"][ARRAYS.index("size")]).all(), "no value vanishes"


def written(every: int, batches: int, ended: bool = True) -> Run:
    """Return a run of which every n-th batch was recorded: batch b has b + 1 values in bin b % 4, and is logged as b."""
    store = MemoryStore({"name": "made"})
    stream = Stream(0, "fc", "activation", "Linear", "", (1, 1), 0, AXIS)
    store.declare(stream)
    for b in range(batches):
        recorded = b % every == 0
        counts = np.zeros(4, np.int64)
        counts[b % 4] = b + 1
        row = np.concatenate([counts, [0, 0, 0, 0, 0, 0, b + 1, 1]])
        streams, rows, moments = (
            ([stream], row, np.array([[b + 1.0, b + 1.0, 1.0, 1.0]])) if recorded else ([], row[:0], np.zeros((0, 4)))
        )
        store.append(Batch(b, b, "train", b // 10, b, float(b), recorded, {"loss": float(b)}), streams, rows, moments)
    if ended:
        store.close("stopped")
    return Run(store)


def test_what_was_not_recorded_is_held_across_the_border_of_tiles(tiles: Tiles) -> None:
    run = written(every=5, batches=TILE + 20)
    (tile,) = tiles(ask(run, "tiles", streams=0, phase="train", width=1, index=1, exact=1))
    assert tile["start"] == TILE
    held = tile["arrays"][ARRAYS.index("held")]
    last = np.arange(TILE, TILE + 20) // 5 * 5  # the last recorded batch at each
    assert (held == (last != np.arange(TILE, TILE + 20))).all()
    expected = np.zeros((20, 4))
    expected[np.arange(20), last % 4] = last + 1
    assert (dense(tile, 4) == expected).all()


def test_what_is_skipped_and_what_may_change(tiles: Tiles) -> None:
    run = written(every=1, batches=10, ended=False)
    (whole,) = tiles(ask(run, "tiles", streams=0, phase="train", width=1, index=0))
    assert (whole["columns"], whole["settled"]) == (10, 9)
    (rest,) = tiles(ask(run, "tiles", streams=0, phase="train", width=1, index=0, skip=9))
    assert (rest["start"], rest["columns"], rest["settled"]) == (9, 1, 9)
    (wide,) = tiles(ask(run, "tiles", streams=0, phase="train", width=4, index=0))
    assert (wide["columns"], wide["settled"]) == (3, 2)
    (ended,) = tiles(ask(written(1, 10), "tiles", streams=0, phase="train", width=1, index=0))
    assert ended["settled"] == 10


def test_a_batch_that_a_rank_still_lacks_may_change(tiles: Tiles, tmp_path: Path) -> None:
    stream = Stream(0, "fc", "activation", "Linear", "", (1, 1), 0, AXIS)
    row = np.array([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1], np.int64)

    def rank(number: int) -> FolderWriter:
        made = FolderWriter(tmp_path / "run" / f"rank={number}", {"name": "x", "rank": {"world_size": 2}})
        made.declare(stream)
        return made

    def add(writer: FolderWriter, number: int) -> None:
        batch = Batch(number, number, "train", 0, number, time.time(), True, {"loss": 1.0})
        writer.append(batch, [stream], row, np.array([[0.0, 0.0, 0.0, 0.0]]))
        writer.flush()

    writers = [rank(0), rank(1)]
    for number in range(4):
        add(writers[0], number)
    for number in range(2):
        add(writers[1], number)
    run = colordim.open(tmp_path / "run")
    assert run.ranks == 2
    (tile,) = tiles(ask(run, "tiles", streams=0, phase="train", width=1, index=0))
    assert tile["settled"] == 2
    for writer in writers:
        writer.close("stopped")


def test_scalars_are_means_least_and_most_of_equal_spans() -> None:
    run = written(every=1, batches=10)
    found = ask(run, "scalars", phase="train", points=4)
    assert (found["start"], found["width"]) == (0, 3)
    assert found["names"]["loss"] == {"mean": [1, 4, 7, 9], "min": [0, 3, 6, 9], "max": [2, 5, 8, 9]}
    part = ask(run, "scalars", phase="train", start=4, stop=8, points=4)
    assert part["names"]["loss"]["mean"] == [4, 5, 6, 7]
    # spans lie where they always do, so that zooming regroups nothing
    part = ask(run, "scalars", phase="train", start=5, stop=10, points=2)
    assert (part["start"], part["width"], part["names"]["loss"]["mean"]) == (3, 3, [4, 7, 9])


def test_the_last_quarter_of_an_epoch_is_summed() -> None:
    run = written(every=1, batches=20)
    found = ask(run, "twin", stream=0, epoch=1)
    # batches 10 to 19: the last quarter begins at 7 of 10
    assert found["train"]["batches"] == 3
    assert dict(zip(found["train"]["bins"], found["train"]["counts"], strict=True)) == {1: 18, 2: 19, 3: 20}
    assert found["valid"] == {"batches": 0, "bins": [], "counts": [], "counters": dict.fromkeys(COUNTERS, 0)}


def test_what_is_known_of_few_batches_is_in_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colordim.web.head._SOON", 20)
    for every, batches, there in ((1, 20, True), (1, 21, False), (5, 100, True)):
        run = written(every, batches)
        found, marks = ask(run, "head")["marks"], ask(run, "marks")
        if there:
            assert found.pop("seconds") == pytest.approx(marks.pop("seconds"), abs=60)
        assert found == (marks if there else None)


def test_what_is_known_of_batches_far_away_is_not_in_the_head(tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path / "run", {"name": "far"})
    stream = Stream(0, "fc", "activation", "Linear", "", (1, 1), 0, AXIS)
    writer.declare(stream)
    row = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1])
    writer.append(Batch(0, 0, "train", 0, 0, 0.0, True, {}), [stream], row, np.array([[1.0, 1.0, 1.0, 1.0]]))
    writer.close("stopped")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "run"), "/far", recursive=True)
    try:
        assert ask(colordim.open("memory://far"), "head")["marks"] is None
    finally:
        memory.rm("/far", recursive=True)


def test_one_column_is_exact() -> None:
    run = written(every=1, batches=20)
    found = ask(run, "column", stream=0, phase="train", start=4, batches=4, width=4)
    assert dict(zip(found["bins"], found["counts"], strict=True)) == {0: 5, 1: 6, 2: 7, 3: 8}
    assert found["counters"]["size"] == 26
    assert found["moments"]["sum"] == 26


@pytest.mark.parametrize(
    ("route", "parameters", "error", "says"),
    [
        ("nothing", {}, ArgumentError, "there is no route 'nothing'"),
        ("head", {"x": 1}, ArgumentError, "head takes no 'x'"),
        ("tiles", {"streams": "0", "width": 3, "index": 0}, ArgumentError, "width=3 cannot be"),
        ("tiles", {"streams": "0", "width": 1, "index": 99}, ArgumentError, "index=99 cannot be"),
        ("tiles", {"streams": "0", "width": 1, "index": "-1"}, ArgumentError, "index='-1' cannot be"),
        ("tiles", {"streams": "7", "width": 1, "index": 0}, StreamError, "no stream of the id 7"),
        ("tiles", {"streams": ",".join("0" * 65), "width": 1, "index": 0}, ArgumentError, "more than 64"),
        ("tiles", {"streams": "0", "phase": "night", "width": 1, "index": 0}, ArgumentError, "is not a phase"),
        ("column", {"stream": "0", "start": "٣", "batches": 1, "width": 1}, ArgumentError, "is a whole number"),
        ("scalars", {"points": 10**9}, ArgumentError, "points=1000000000 cannot be"),
        ("twin", {"stream": "0", "epoch": 99}, ArgumentError, "no epoch 99"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    route: str, parameters: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        ask(written(1, 8), route, **parameters)
