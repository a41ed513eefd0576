from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest

from colordim.axis import LinearAxis, SignedLogAxis
from colordim.column import COUNTERS, Batch, Facet, Kind, Phase, Stream, Units
from colordim.errors import ColordimWarning, StreamError
from colordim.run import Run, UnitWindows
from colordim.store.memory import MemoryStore

AXIS = LinearAxis(0, 4, 4)


def stream(number: int, name: str, order: int, kind: Kind = "activation") -> Stream:
    return Stream(number, name, kind, "ReLU", "", (8, 2), order, AXIS)


# Declared in another order than they are called.
CONV, HEAD, GRADIENT, POOL = (
    stream(0, "body.conv", 1),
    stream(1, "head", 3),
    stream(2, "body.conv", 4, "gradient"),
    stream(3, "body.pool", 2),
)


def row(number: int, stream: Stream) -> list[int]:
    """Bins (number, 1, id, 0), one underflow, everything else zero but size and calls."""
    return [number, 1, stream.id, 0, 1, 0, 0, 0, 0, number, number + 2 + stream.id, 1]


def make(
    phases: Sequence[Phase], every: int = 1, per_epoch: int = 10, skip: Sequence[int] = ()
) -> tuple[MemoryStore, Run]:
    """HEAD does not fire in the batches `skip`."""
    store = MemoryStore({"name": "lenet"})
    for declared in (CONV, HEAD, GRADIENT, POOL):
        store.declare(declared)
    index = dict.fromkeys(phases, 0)
    for number, phase in enumerate(phases):
        recorded = index[phase] % every == 0
        batch = Batch(number, index[phase], phase, number // per_epoch, number, 0.5 * number, recorded, {"loss": 1.0})
        index[phase] += 1
        fired = [s for s in (CONV, HEAD, POOL) if s is not HEAD or number not in skip] if recorded else []
        rows = np.array([value for s in fired for value in row(number, s)], np.int64)
        moments = np.array([[number, number**2, -number, number] for _ in fired], np.float64).reshape(-1, 4)
        store.append(batch, fired, rows, moments)
    return store, Run(store)


def test_streams_in_the_order_of_calls() -> None:
    _, run = make(["train"])
    assert [s.name for s in run.streams] == ["body.conv", "body.pool", "head", "body.conv"]
    assert run.name == "lenet"
    assert run.info == {"name": "lenet"}
    assert run.path == ""
    assert "4 streams, 1 train, 0 valid batches, live" in repr(run)


def test_stream_by_name_number_and_itself() -> None:
    _, run = make([])
    assert run.stream("head") is HEAD
    assert run.stream(1) is POOL
    assert run.stream(-1) is GRADIENT
    assert run.stream(POOL) is POOL
    assert run.stream("body.conv") is CONV
    assert run.stream("body.conv", "gradient") is GRADIENT
    assert run.stream(GRADIENT) is GRADIENT


def test_select() -> None:
    _, run = make([])
    assert run.select() == (CONV, POOL, HEAD)
    assert run.select(kind="gradient") == (GRADIENT,)
    assert run.select("body.*") == (CONV, POOL)
    assert run.select(["head", "body.pool", "*pool"]) == (POOL, HEAD)
    assert run.select([-1, CONV]) == (CONV, HEAD)
    assert run.select("body.conv", "gradient") == (GRADIENT,)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("body.cnov", "no stream named 'body.cnov'; the nearest is 'body.conv'"),
        ("haed", "no stream named 'haed'; the nearest is 'head'"),
        (9, "has 4 streams, so there is no number 9"),
        (-5, "has 4 streams, so there is no number -5"),
        (stream(9, "heads", 9), "no stream named 'heads'; the nearest is 'head'"),
    ],
)
def test_unknown_stream(key: Stream | str | int, message: str) -> None:
    _, run = make([])
    with pytest.raises(StreamError, match=message):
        run.stream(key)
    with pytest.raises(StreamError, match=r"matches 'tail\.\*'"):
        run.select("tail.*")
    with pytest.raises(StreamError, match="no streams at all"):
        Run(MemoryStore()).stream("head")


def test_counts_and_moments_by_hand() -> None:
    _, run = make(["train", "train", "valid", "train"], skip=[1])
    np.testing.assert_array_equal(run.counts("head"), [[0, 1, 1, 0], [0, 0, 0, 0], [3, 1, 1, 0]])
    np.testing.assert_array_equal(run.counts("head", "valid"), [[2, 1, 1, 0]])
    moments = run.moments("head")
    assert list(moments) == ["first", "last", "number", *COUNTERS, "sum", "sum_sq", "min", "max"]
    assert moments["first"].tolist() == moments["last"].tolist() == [0, 1, 2], "the index within the phase"
    assert moments["calls"].tolist() == [1, 0, 1]
    assert moments["size"].tolist() == [3, 0, 6]
    assert moments["max"].tolist() == [0, -np.inf, 3]
    assert moments["min"].tolist() == [0, np.inf, -3]
    assert run.counts("head").dtype == np.int64


def test_start_and_stop() -> None:
    _, run = make(["train"] * 10, every=2)
    numbers = run.counts("body.conv")[:, 0].tolist()
    assert numbers == [0, 2, 4, 6, 8], "a row for every recorded batch"
    assert run.length() == 10
    for start, stop in ((None, 3), (3, None), (-4, None), (None, -3), (-100, 100), (2, 2), (5, 1), (9, 10)):
        expected = [n for n in range(10)[start:stop] if n % 2 == 0]
        assert run.counts("body.conv", start=start, stop=stop)[:, 0].tolist() == expected
        assert run.moments("body.conv", start=start, stop=stop)["first"].tolist() == expected


def test_levels_are_exact_sums() -> None:
    _, run = make(["train"] * 40, skip=range(8, 12))
    block = run.columns("head", start=2, stop=-1, level=1)
    # Batches 2..38 in groups of four of the whole run, so the first and the last group are cut.
    groups = [range(max(2, 4 * k), min(39, 4 * k + 4)) for k in range(10)]
    fired = [[n for n in group if not 8 <= n < 12] for group in groups]
    assert block.first.tolist() == [group[0] for group in groups]
    assert block.last.tolist() == [group[-1] for group in groups]
    assert block.number.tolist() == [len(group) for group in groups]
    assert block.counts.tolist() == [[sum(g), len(g), len(g), 0] for g in fired]
    assert block.moments[:, 0].tolist() == [sum(g) for g in fired]
    assert block.moments[:, 1].tolist() == [sum(n * n for n in g) for g in fired]
    assert block.moments[:, 2].tolist() == [-max(g) if g else np.inf for g in fired]
    assert block.moments[:, 3].tolist() == [max(g) if g else -np.inf for g in fired]
    total = run.counts("head").sum(axis=0)
    for level in range(5):
        np.testing.assert_array_equal(run.counts("head", level=level).sum(axis=0), total)
        assert len(run.counts("head", level=level)) == -(-40 // 4**level)


def test_overview_is_the_coarsest_level_with_enough_columns() -> None:
    _, run = make(["train"] * 100)
    for columns, expected in ((1000, 100), (100, 100), (26, 100), (25, 25), (8, 25), (7, 7), (2, 2), (1, 1)):
        assert len(run.overview("head", columns)) == expected, columns


def test_overview_of_a_run_recorded_now_and_then() -> None:
    """Levels group by the index of the batch, of which only every tenth is recorded here."""
    _, run = make(["train"] * 200, every=10)
    for columns in (20, 10, 5, 3):
        assert columns <= len(run.overview("head", columns)) <= 20


def test_epochs_and_phases() -> None:
    train: list[Phase] = ["train"] * 7
    valid: list[Phase] = ["valid"] * 3
    _, run = make((train + valid) * 3)
    assert run.epochs().tolist() == [0, 7, 14]
    assert run.epochs("valid").tolist() == [0, 3, 6]
    assert (run.length(), run.length("valid")) == (21, 9)
    assert run.batches["batch"].tolist() == list(range(30))
    with pytest.raises(ValueError, match="'test' is not a phase: take one of train, valid"):
        run.length("test")  # type: ignore[arg-type]


def test_an_empty_run() -> None:
    _, run = make([])
    assert run.length() == 0
    assert run.epochs().tolist() == []
    assert run.counts("head").shape == (0, 4)
    assert len(run.overview("head")) == 0
    assert run.batches["batch"].tolist() == []


def test_follow_ends_with_the_run() -> None:
    store, run = make(["train"] * 2)
    seen = []

    def later() -> None:
        store.append(Batch(2, 2, "train", 0, 0, 0.0), (), np.zeros(0, np.int64), np.zeros((0, 4)))
        store.close("stopped")

    timer = threading.Timer(0.2, later)
    timer.start()
    seen = list(run.follow(0.01))
    timer.join()
    assert seen == [2, 3]
    assert run.ended == "stopped"
    assert run.problems == ()


def test_a_damaged_part_is_told_once_when_it_is_left_out() -> None:
    class Damaged(MemoryStore):
        @property
        def problems(self) -> tuple[str, ...]:
            return ("columns/level=0/7.parquet is damaged: batches 7 to 9 are left out.",)

    store = Damaged()
    store.declare(Stream(0, "a", "activation", "ReLU", "", (1,), 0, LinearAxis(0, 1, 2)))
    run = Run(store)
    with pytest.warns(ColordimWarning, match="batches 7 to 9 are left out"):
        run.counts("a")
    run.moments("a")  # a second warning would be an error here


def test_a_warning_points_at_the_line_that_asked() -> None:
    class Damaged(MemoryStore):
        @property
        def problems(self) -> tuple[str, ...]:
            return ("a part is damaged.",)

    for ask in (lambda run: run.length(), lambda run: run.batches, lambda run: run.epochs("valid")):
        with pytest.warns(ColordimWarning) as caught:
            ask(Run(Damaged()))
        assert [warning.filename for warning in caught] == [__file__]


PARTS = [
    Stream(i + 1, f"head[{i}]", "activation", "Linear", "", (8, 3), 3, AXIS, facet=Facet("head", i, label))
    for i, label in enumerate("abc")
]


def with_facets() -> Run:
    """A layer "head" with three classes, declared before "tail", and one with an index in its own name."""
    store = MemoryStore()
    streams = [stream(0, "head", 3), *PARTS, stream(4, "tail", 9), stream(5, "lstm[0]", 1), stream(6, "lstm[1]", 1)]
    for declared in streams:
        store.declare(declared)
    return Run(store)


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        (None, ["lstm[0]", "lstm[1]", "head", "tail"]),
        ("*", ["lstm[0]", "lstm[1]", "head", "tail"]),
        ("head*", ["head"]),
        ("head[*]", ["head[0]", "head[1]", "head[2]"]),
        ("lstm[*]", ["lstm[0]", "lstm[1]"]),
        ("head[1]", ["head[1]"]),
        (["tail", PARTS[2]], ["head[2]", "tail"]),
        (-1, ["tail"]),
        ([2, -1], ["head", "tail"]),
    ],
)
def test_facets_are_selected_only_if_they_are_named(layers: list[str] | None, names: list[str]) -> None:
    assert [s.name for s in with_facets().select(layers)] == names


def test_facets_of_a_layer_and_numbers_that_are_none() -> None:
    run = with_facets()
    assert run.facets("head") == tuple(PARTS)
    assert run.facets("tail") == ()
    with pytest.raises(StreamError, match="has 4 streams of the kind activation, so there is no number 4"):
        run.select(4)


def units_run(*units: Units) -> Run:
    """CONV, POOL, HEAD and a gradient, and what is known of units."""
    store, run = make(["train"])
    store.append(Batch(1, 1, "train", 0, 0, 0.0), (), np.zeros(0, np.int64), np.zeros((0, 4)), units)
    return run


def units(
    owner: Stream,
    first: int,
    last: int,
    active: bytes,
    number: int = 10,
    judged_on: str = "body.pool",
    phase: Phase = "train",
) -> Units:
    return Units(owner.id, judged_on, phase, first, last, number, active)


def test_units_of_overlapping_windows_and_calls_add_up_by_or() -> None:
    run = units_run(
        units(CONV, 16, 31, bytes([0b00000001, 0b01000000])),  # units 7 and 9; six bits of padding
        units(CONV, 0, 15, bytes([0b10000000, 0])),  # unit 0, in a first call
        units(CONV, 0, 15, bytes([0b01000000, 0])),  # unit 1, in a second
        units(CONV, 8, 15, bytes([0b00000000, 0b10000000])),  # unit 8, of another rank, whose window begins later
        units(CONV, 0, 15, bytes([255, 255]), phase="valid"),
        units(HEAD, 0, 15, bytes([255, 255])),
    )
    found = run.units("body.conv")
    assert (found.first.tolist(), found.last.tolist()) == ([0, 16], [15, 31])
    assert [np.flatnonzero(row).tolist() for row in found.active] == [[0, 1, 8], [7, 9]]
    assert found.dead_share.tolist() == pytest.approx([0.7, 0.8])
    assert found.dead.tolist() == [0, 1, 2, 3, 4, 5, 6, 8]
    assert found.judged_on == "body.pool"
    assert run.units("body.conv", "valid").dead_share.tolist() == [0.0]


def test_windows_that_are_cut_differently_become_one() -> None:
    """Units 0 and 3 of four: nothing tells whether unit 3 was active in batches 8 to 15 alone."""
    found = units_run(
        units(CONV, 0, 7, bytes([0b10000000]), 4), units(CONV, 8, 15, bytes([0]), 4), units(CONV, 4, 11, bytes([16]), 4)
    ).units("body.conv")
    assert (found.first.tolist(), found.last.tolist()) == ([0], [15])
    assert found.dead.tolist() == [1, 2]


def test_padding_bits_are_no_units() -> None:
    found = units_run(units(CONV, 0, 3, bytes([0b11111111, 0b11000000]), 10)).units("body.conv")
    assert found.active.shape == (1, 10)
    assert found.dead_share.tolist() == [0.0]
    assert units_run(units(CONV, 0, 3, bytes([0, 0b00111111]), 10)).units("body.conv").dead_share.tolist() == [1.0]


def test_an_activation_function_stands_for_its_layer_if_there_is_only_one() -> None:
    one = units(CONV, 0, 3, bytes([0b10100000]), 3)
    run = units_run(one, units(CONV, 4, 7, bytes([0b01000000]), 3))
    assert run.units("body.pool").active.tolist() == [[True, False, True], [False, True, False]]
    assert run.dead_units("body.pool").tolist() == [0, 2]
    assert run.dead_units("body.conv", window=0).tolist() == [1]
    assert run.dead_units("body.conv").dtype == np.int64
    assert len(units_run(one, units(HEAD, 0, 3, bytes([0]), 3)).units("body.pool")) == 0, "whose units are they?"


def test_units_that_are_not_there() -> None:
    run = units_run(units(CONV, 0, 3, bytes([0]), 3))
    empty = run.units("head")
    assert (len(empty), empty.active.shape, empty.dead_share.tolist(), empty.dead.tolist()) == (0, (0, 0), [], [])
    with pytest.raises(StreamError, match="nothing about the units of 'head'"):
        run.dead_units("head")
    with pytest.raises(ValueError, match="window=1 cannot be: there are 1, from 0 to 0"):
        run.dead_units("body.conv", window=1)
    with pytest.raises(ValueError, match="'test' is not a phase"):
        run.units("head", "test")  # type: ignore[arg-type]


def test_the_name_of_a_layer_stands_for_its_parameters() -> None:
    store = MemoryStore()
    for number, (kind, name) in enumerate(
        [("activation", "fc"), ("weight", "fc.weight"), ("weight", "fc.bias"), ("weight", "fc2.weight")]
    ):
        store.declare(Stream(number, name, kind, "Linear", "", (2,), number, SignedLogAxis()))  # type: ignore[arg-type]
    run = Run(store)
    assert [stream.name for stream in run.select("fc", "weight")] == ["fc.weight", "fc.bias"]
    assert [stream.name for stream in run.select("fc")] == ["fc"]


def test_a_last_window_of_units_that_is_shorter_is_joined_to_the_one_before() -> None:
    def windows(*rows: tuple[int, int, list[int]]) -> UnitWindows:
        return UnitWindows.of(
            [Units(0, "relu", "train", first, last, 3, np.packbits(bits).tobytes()) for first, last, bits in rows]
        ).settled()

    full = windows((0, 63, [1, 1, 0]), (64, 127, [1, 0, 0]))
    assert full.dead.tolist() == [1, 2]
    begun = windows((0, 63, [1, 1, 0]), (64, 127, [1, 0, 0]), (128, 130, [0, 0, 1]))
    assert (begun.first.tolist(), begun.last.tolist()) == ([0, 64], [63, 130])
    assert begun.dead.tolist() == [1]
    assert windows((0, 5, [0, 1, 1])).dead.tolist() == [0]  # there is nothing to join it to
