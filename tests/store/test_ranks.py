"""Several ranks in one folder: who may write which part of it, and what is read of them together."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colordim.axis import LinearAxis
from colordim.column import COUNTERS, PHASES, Batch, Phase, Stream, Units
from colordim.errors import ColordimWarning, FormatError, StoreError
from colordim.run import Run
from colordim.store import files, ranks
from colordim.store.base import Block, Reader
from colordim.store.memory import MemoryStore
from colordim.store.ranks import AddedRanks, RunReader
from colordim.store.writer import FolderWriter

AXIS = LinearAxis(0, 2, 2)
A = Stream(0, "a", "activation", "ReLU", "", (4,), 0, AXIS)
B = Stream(1, "b", "activation", "ReLU", "", (4,), 1, AXIS)
SIZE, CALLS = COUNTERS.index("size"), COUNTERS.index("calls")


def row(low: int, high: int) -> list[int]:
    """`low` values in the first bin and `high` in the second."""
    return [low, high, 0, 0, 0, 0, 0, 0, low + high, 1]


def rank(
    steps: Sequence[Phase],
    *streams: Stream,
    counts: int = 1,
    ended: str | None = "stopped",
    every: int = 1,
    per_epoch: int = 10**6,
    began: float = 0.0,
    **logged: Sequence[float],
) -> MemoryStore:
    """A rank whose stream i has `counts` values below 1 and the index of the batch above, in its i-th row."""
    streams = streams or (A,)
    store = MemoryStore({"name": "run"})
    for stream in streams:
        store.declare(stream)
    index = dict.fromkeys(PHASES, 0)
    for number, phase in enumerate(steps):
        at = index[phase]
        index[phase] += 1
        recorded = at % every == 0
        values = {name: each[number] for name, each in logged.items() if not np.isnan(each[number])}
        batch = Batch(number, at, phase, at // per_epoch, at, began + number, recorded, values)
        fired = streams if recorded else ()
        rows = np.array([value for stream in fired for value in row(counts, at + stream.order)], np.int64)
        moments = np.array([[counts, at, -counts, at] for _ in fired], np.float64).reshape(-1, 4)
        store.append(batch, fired, rows, moments)
    if ended is not None:
        store.close(ended)
    return store


def added(*stores: Reader, world: int | None = None) -> AddedRanks:
    return AddedRanks(dict(enumerate(stores)), world or len(stores))


def read(reader: Reader, stream: Stream, phase: Phase = "train") -> Block:
    return Block.concatenate(list(reader.blocks(stream, phase, 0, 10**9)), stream.axis.bins)


def train(number: int) -> list[Phase]:
    return ["train"] * number


# What is read of several ranks.


def test_columns_are_the_sums_over_the_ranks_whatever_their_ids() -> None:
    # On rank 1 the streams appeared in the other order.
    reader = added(rank(train(3), A, B), rank(train(3), replace(B, id=0), replace(A, id=1), counts=10))
    assert [(s.id, s.name, s.order) for s in reader.streams] == [(0, "a", 0), (1, "b", 1)]
    run = Run(reader)
    assert run.counts("a").tolist() == [[11, 0], [11, 2], [11, 4]]
    assert run.counts("b").tolist() == [[11, 2], [11, 4], [11, 6]]
    moments = run.moments("b")
    assert moments["size"].tolist() == [13, 15, 17]
    assert moments["calls"].tolist() == [2, 2, 2]
    assert moments["sum"].tolist() == [11, 11, 11]
    assert moments["sum_sq"].tolist() == [0, 2, 4]
    assert moments["min"].tolist() == [-10, -10, -10]
    assert moments["max"].tolist() == [0, 1, 2]
    assert run.counts("a", level=1).tolist() == [[33, 6]]
    assert run.batches["ranks"].tolist() == [2, 2, 2]
    assert not run.partial().any()
    assert (run.ended, run.problems, run.name) == ("stopped", (), "run")


@pytest.mark.parametrize(("seed", "world"), [(0, 2), (1, 2), (2, 4)])
def test_a_training_that_is_split_between_ranks_is_read_as_the_whole(
    kit: Any, tmp_path: Path, seed: int, world: int
) -> None:
    rng = np.random.default_rng(seed)
    whole = MemoryStore()
    writers = [
        FolderWriter(
            tmp_path / f"rank={r}", {"rank": {"world_size": world}}, flush_batches=3 + r, seal_bytes=60_000 * (r + 1)
        )
        for r in range(world)
    ]
    for step in kit.training(seed, 150):
        moments = np.round(step.moments * 100)  # sums of whole numbers do not round
        replace(step, moments=moments).into(whole)
        shares = rng.multinomial(1, np.full(world, 1 / world), len(step.rows)).T * step.rows
        for r, writer in enumerate(writers):
            mine = moments.copy()
            mine[:, :2] = moments[:, :2] if r == 0 else 0
            replace(step, rows=shares[r], moments=mine).into(writer)
    for writer in writers:
        writer.close("stopped")
    reader = RunReader(tmp_path)
    assert reader.streams == whole.streams
    assert reader.problems == ()
    got, expected = reader.batches(), whole.batches()
    assert list(got) == [*list(expected)[:7], "ranks", "partial", *list(expected)[7:]]
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
    for stream in whole.streams:
        for phase in PHASES:
            for start, stop in ((0, 10**9), (17, 18), (31, 77), (5, 5)):
                ours, theirs = (
                    Block.concatenate(list(r.blocks(stream, phase, start, stop)), stream.axis.bins)
                    for r in (reader, whole)
                )
                for name in ("first", "last", "number", "counts", "counters", "moments"):
                    np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=stream.name)


def test_more_columns_than_a_block_holds() -> None:
    reader = added(rank(train(2500)), rank(train(2500), counts=5))
    blocks = list(reader.blocks(A, "train", 10, 2400))
    assert [len(block) for block in blocks] == [1024, 1024, 342]
    whole = Block.concatenate(blocks, 2)
    assert whole.first.tolist() == list(range(10, 2400))
    assert whole.counts.tolist() == [[6, 2 * i] for i in range(10, 2400)]


def test_columns_are_where_all_ranks_recorded() -> None:
    run = Run(added(rank(train(9)), rank(train(9), every=4), rank(train(9), every=2)))
    assert run.moments("a")["first"].tolist() == [0, 4, 8]
    assert run.moments("a")["calls"].tolist() == [3, 3, 3]
    assert run.batches["recorded"].tolist() == [True, False, False, False] * 2 + [True]
    assert not run.partial().any()

    class Damaged(MemoryStore):
        def blocks(self, stream: Stream, phase: Phase, start: int, stop: int, level: int = 0) -> Iterator[Block]:
            yield from super().blocks(stream, phase, start, 4, level)
            yield from super().blocks(stream, phase, 5, stop, level)

    damaged = Damaged()
    damaged.__dict__.update(rank(train(9)).__dict__)
    assert read(added(damaged, rank(train(9), every=4)), A).first.tolist() == [0, 8], "batch 3 does not stand in for 4"


def test_batches_that_some_ranks_lack_are_there_and_marked() -> None:
    run = Run(added(rank(train(5)), rank(train(3), counts=10, ended="KeyboardInterrupt")))
    with pytest.warns(ColordimWarning, match="rank 1 holds 3 of 5 batches: it ended with 'KeyboardInterrupt'"):
        assert run.batches["ranks"].tolist() == [2, 2, 2, 1, 1]
    assert run.partial().tolist() == [False, False, False, True, True]
    assert run.counts("a").tolist() == [[11, 0], [11, 2], [11, 4], [1, 3], [1, 4]]
    assert run.ended == "rank 1: KeyboardInterrupt"
    assert len(run.problems) == 1


def test_a_run_of_one_process_has_no_partial_batches() -> None:
    run = Run(rank(train(3)))
    assert run.partial().tolist() == [False] * 3
    assert "ranks" not in run.batches


def test_ranks_a_flush_apart_are_no_problem_and_a_minute_is_one() -> None:
    now = time.time()
    for lag, told in ((5.0, False), (70.0, True)):
        # Batch 3, the first that rank 1 lacks, ended `lag` seconds ago.
        ahead = rank(train(5), ended=None, began=now - lag - 3)
        reader = added(ahead, rank(train(3), ended=None, began=now - lag - 3))
        assert bool(reader.problems) == told
        assert reader.ended is None
    assert reader.problems == (
        "rank 1 holds 3 batches and others more: it was cut off, or is more than a minute behind.",
    )
    ahead.close("stopped")
    reader = added(ahead, rank(train(3), ended=None))
    assert "rank 1 holds 3 of 5 batches: it was cut off" in reader.problems[0]
    assert reader.ended is None


def test_ranks_that_never_wrote() -> None:
    assert added(rank(train(2)), world=4).problems == ("3 of 4 ranks have written nothing: only rank=0 is there.",)
    assert added(rank(train(2)), world=4).ended is None
    reader = added(rank(train(2), ended=None, began=time.time()), world=4)
    assert reader.problems == (), "they may be starting"
    assert reader.batches()["partial"].tolist() == [True, True]
    assert reader.ended is None
    nothing = added(rank(train(2)), rank([], ended="MemoryError"))
    assert nothing.problems == ("rank 1 holds 0 of 2 batches: it ended with 'MemoryError'.",)
    assert added(rank([]), rank([])).problems == ()


def test_validation_by_rank_0_alone_is_no_problem() -> None:
    steps: list[Phase] = ["train", "train", "valid", "train"]
    run = Run(added(rank(train(3), counts=10), rank(steps)))
    assert run.problems == ()
    assert run.batches["phase"].tolist() == steps, "in the order of the rank that ran all of them"
    assert run.batches["batch"].tolist() == [0, 1, 2, 3]
    assert run.counts("a").tolist() == [[11, 0], [11, 2], [11, 4]], "the third of each, though its number differs"
    assert run.counts("a", "valid").tolist() == [[1, 0]]
    assert run.partial("valid").tolist() == [True]


def test_where_no_rank_holds_all_the_order_is_that_of_time() -> None:
    a: list[Phase] = ["train", "train", "train"]
    b: list[Phase] = ["train", "valid"]
    run = Run(added(rank(a), rank(b, began=0.5)))  # train at 0 and 0.5, 1, 2; valid at 1.5
    with pytest.warns(ColordimWarning, match="rank 1 holds 2 of 4 batches"):
        assert run.batches["phase"].tolist() == ["train", "train", "valid", "train"]
    assert run.batches["index"].tolist() == [0, 1, 0, 2]
    assert run.batches["batch"].tolist() == [0, 1, 2, 3]
    slow = added(rank(a), rank(b, began=5.0))  # the first batch, of both, is over after the second, of one
    assert slow.batches()["index"].tolist() == [0, 1, 2, 0], "batches of a phase stay in their order"


def test_epochs_of_different_length_are_said() -> None:
    reader = added(rank(train(6), per_epoch=3), rank(train(6), per_epoch=2))
    assert reader.problems == (
        "the ranks are out of step: train batch 2 is of epoch 0 on rank 0 and of epoch 1 on rank 1, so columns add "
        "batches of different epochs.",
    )
    assert added(rank(train(6), per_epoch=3), rank(train(6))).problems == (), "one that was told of no epochs"


def test_replicated_columns_are_never_added(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = replace(A, reduction="replicated")
    reader = added(rank(train(3), weight), rank(train(4), weight, counts=10))
    assert read(reader, reader.streams[0]).counts.tolist() == [[1, 0], [1, 1], [1, 2], [10, 3]]
    only = added(rank(train(3)), rank(train(3), replace(weight, name="w"), counts=10))
    assert read(only, only.streams[1]).counts.tolist() == [[10, 0], [10, 1], [10, 2]], "written by one rank"

    same = [rank(train(3), weight), rank(train(3), weight)]
    monkeypatch.setattr(same[1], "blocks", None)
    assert len(read(added(*same), weight)) == 3, "what is not needed is not read"


def test_one_stream_is_read_without_the_others() -> None:
    asked: list[tuple[str, int, int]] = []

    class Watched(MemoryStore):
        def blocks(self, stream: Stream, phase: Phase, start: int, stop: int, level: int = 0) -> Iterator[Block]:
            asked.append((stream.name, start, stop))
            return super().blocks(stream, phase, start, stop, level)

    stores = [Watched(), Watched()]
    for store in stores:
        source = rank(train(5), A, B)
        for stream in source.streams:
            store.declare(stream)
        store._batches, store._rows = source._batches, source._rows
    list(added(*stores).blocks(B, "train", 1, 4))
    assert asked == [("b", 1, 4), ("b", 1, 4)]


def test_axes_that_differ_are_named_and_not_added() -> None:
    other = replace(A, axis=LinearAxis(0, 4, 2))
    reader = added(rank(train(2)), rank(train(2), other))
    assert read(reader, A).counts.tolist() == [[1, 0], [1, 1]]
    (problem,) = reader.problems
    for part in ("'a'", "LinearAxis(0, 2, 2)", "rank 0", "LinearAxis(0, 4, 2)", "rank 1 is left out"):
        assert part in problem


def test_what_was_logged_is_the_mean_and_the_time_the_latest() -> None:
    nan = float("nan")
    first = rank(train(3), loss=[1.0, nan, nan], lr=[0.1, 0.1, 0.1], began=0.25)
    second = rank(train(3), loss=[2.0, 4.0, nan])
    table = added(first, second).batches()
    np.testing.assert_array_equal(table["loss"], [1.5, 4.0, nan])
    np.testing.assert_array_equal(table["lr"], [0.1, 0.1, 0.1])
    assert table["time"].tolist() == [0.25, 1.25, 2.25]


def test_active_units_of_all_ranks_add_up() -> None:
    def active(stream: Stream, bits: int) -> MemoryStore:
        store = MemoryStore()
        for number in range(stream.id + 1):
            store.declare(stream if number == stream.id else replace(B, id=number))
        units = Units(stream.id, "b", "train", 0, 3, 8, bytes([bits]))
        store.append(Batch(0, 0, "train", 0, 0, 0.0), (), np.zeros(0, np.int64), np.zeros((0, 4)), [units])
        return store

    reader = added(active(A, 0b10000000), active(replace(A, id=1), 0b00000001))
    run = Run(reader)
    assert [units.stream for units in reader.units(A, "train")] == [0, 0]
    assert np.flatnonzero(run.units("a").active[0]).tolist() == [0, 7]


# In a folder.


def writer(
    folder: Path, number: int, world: int = 2, batches: int = 3, close: bool = True, **info: Any
) -> FolderWriter:
    made = FolderWriter(folder / f"rank={number}", {"name": "x", "rank": {"world_size": world}, **info}, seal_bytes=1)
    made.declare(A)
    for i in range(batches):
        batch = Batch(i, i, "train", 0, i, time.time())
        made.append(batch, (A,), np.array(row(10**number, i)), np.array([[0.0, 0.0, 0.0, 0.0]]))
        made.flush()
    if close:
        made.close("stopped")
    return made


def test_ranks_share_one_folder_and_come_in_any_order(tmp_path: Path) -> None:
    run = tmp_path / "run"
    late = writer(run, 1, close=False, created="second")
    reader = RunReader(run)
    assert reader.batches()["partial"].tolist() == [True] * 3
    assert reader.problems == ()
    written = (run / "run.json").read_text()
    writer(run, 0, created="first")
    assert (run / "run.json").read_text() == written, "written once"
    late.close("stopped")
    assert len(reader.batches()["batch"]) == 3
    reader.refresh()
    assert reader.ended == "stopped"
    assert read(reader, A).counts.tolist() == [[11, 0], [11, 2], [11, 4]]
    assert reader.info == {"schema": 1, "name": "x", "created": "second"}
    assert sorted(path.name for path in run.iterdir()) == ["rank=0", "rank=1", "run.json"]
    described = json.loads((run / "rank=1" / "rank.json").read_text())
    assert {name: described[name] for name in ("rank", "world_size", "pid")} == {
        "rank": 1,
        "world_size": 2,
        "pid": os.getpid(),
    }
    assert described["begun"] == pytest.approx(time.time(), abs=60)


def test_a_single_process_writes_its_rank_too(kit: Any, tmp_path: Path) -> None:
    memory = kit.record(tmp_path / "run", batches=20)
    assert json.loads((tmp_path / "run/rank=0/rank.json").read_text())["world_size"] == 1
    kit.same(RunReader(tmp_path / "run"), memory)
    (tmp_path / "run/rank=0/rank.json").unlink()
    kit.same(RunReader(tmp_path / "run"), memory)  # as runs were before there were several ranks


@pytest.mark.parametrize(
    ("number", "world", "info", "sentence"),
    [
        (0, 2, {"job": "j"}, r"rank=0 was written by another run \(process \d+ on .*\): give this one another folder"),
        (1, 2, {"job": "k"}, r"the run of another training \(j; this one is k\)"),
        (1, 2, {}, r"the run of another training \(j; this one is unnamed\)"),
        (1, 3, {"job": "j"}, r"a run of 2 ranks, and this one has 3"),
    ],
)
def test_the_folder_of_another_run_is_refused(
    tmp_path: Path, number: int, world: int, info: dict[str, Any], sentence: str
) -> None:
    writer(tmp_path / "run", 0, job="j")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match=sentence):
        writer(tmp_path / "run", number, world, **info)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(StoreError, match="already holds a run"):
        FolderWriter(tmp_path / "run", {})


def test_a_rank_that_failed_to_start_leaves_the_folder_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(files, "write_new", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(StoreError, match="No space left"):
            writer(tmp_path / "run", 0)
    writer(tmp_path / "run", 0)
    assert len(RunReader(tmp_path / "run").batches()["batch"]) == 3


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_write_a_file_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Threads stand for processes, each with a name of its own for what is not whole yet."""
    numbers = threading.local()
    monkeypatch.setattr(os, "getpid", lambda: numbers.own)
    if not links:

        def refused(*_: object) -> None:
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr(os, "link", refused)
    done: list[str] = []
    go = threading.Barrier(8)

    def write(number: int) -> None:
        numbers.own = number
        go.wait()
        if files.write_new(tmp_path / "a.json", text := f"{number}" * 1000):
            done.append(text)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(tmp_path / "a.json").read_text()] == done
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_damage_of_one_rank_leaves_columns_out_instead_of_halving_them(tmp_path: Path) -> None:
    for number in (0, 1):
        writer(tmp_path, number)
    file = tmp_path / "rank=1/columns/level=0/0000000001.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    reader = RunReader(tmp_path)
    assert read(reader, A).first.tolist() == [0, 2]
    assert reader.problems[0].startswith("rank 1: columns/level=0/0000000001.parquet: ")


def test_a_rank_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    for number in (0, 1):
        writer(tmp_path, number)
    streams = (tmp_path / "rank=1/streams.json").read_text()
    (tmp_path / "rank=1/streams.json").write_text("{")
    reader = RunReader(tmp_path)
    assert read(reader, A).counts.tolist() == [[1, 0], [1, 1], [1, 2]]
    assert any("rank=1/streams.json is damaged" in problem for problem in reader.problems)
    (tmp_path / "rank=1/streams.json").write_text(streams)
    reader.refresh()
    assert read(reader, A).counts.tolist() == [[11, 0], [11, 2], [11, 4]]
    assert reader.problems == ()
    for number in (0, 1):
        (tmp_path / f"rank={number}/streams.json").unlink()
    with pytest.raises(FormatError, match=r"streams\.json is missing"):
        reader.refresh()


def test_the_sentence_of_a_dead_rank_does_not_change_while_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "_BEHIND_SECONDS", 0.0)
    writer(tmp_path, 1, batches=2, close=False)
    alive = writer(tmp_path, 0, batches=3, close=False)
    run = Run(RunReader(tmp_path))
    with pytest.warns(ColordimWarning, match="rank 1 holds 2 batches and others more"):
        assert len(run.batches["batch"]) == 3
    for number in range(3, 6):
        alive.append(Batch(number, number, "train", 0, 0, time.time()), (), np.zeros(0, np.int64), np.zeros((0, 4)))
        alive.flush()
        assert len(run.refresh().batches["batch"]) == number + 1  # a second warning would be an error here
