"""From a run to the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from colordim import statistics
from colordim.column import COUNTERS, Kind, Phase, Stream
from colordim.diagnosis.evidence import Evidence, Passes, Series
from colordim.run import Run, UnitWindows
from colordim.store.base import BATCH_COLUMNS, Block
from colordim.store.pyramid import coarsest_level

__all__ = ["EARLY", "gather"]

#: Training batches that are looked at one by one, whatever the length of the run: what goes wrong in training mostly begins early.
EARLY = 256
#: Columns of the rest of the run, at least; the level is the coarsest that has so many.
COLUMNS = 128
#: Kinds whose histograms are needed, not their moments alone.
_WITH_COUNTS: tuple[Kind, ...] = ("activation", "gradient", "weight_gradient")
#: Shortest part of an epoch that stands for its end.
_QUARTER = 4


def gather(run: Run) -> Evidence:
    """Take from a run what the rules look at.

    Parameters
    ----------
    run : Run

    Returns
    -------
    Evidence
        A copy: it does not change when the run grows.
    """
    table = run.batches
    train = table["phase"] == "train"
    length = run.length("train")
    epochs = run.epochs("train")
    series: dict[tuple[Kind, str], Series] = {}
    passes: dict[str, Passes] = {}
    units: dict[str, UnitWindows] = {}
    ends = _passes(table)
    for stream in run.streams:
        if stream.facet is not None:
            continue
        mine = _series(run, stream, length)
        series[stream.kind, stream.name] = mine
        if stream.kind == "activation":
            windows = run.units(stream)
            if (
                len(windows) and windows.judged_on != stream.name
            ):  # the layer's, not again those of its activation function
                units[stream.name] = windows
            if ends:
                passes[stream.name] = _both(run, stream, mine, epochs, length, ends)
    return Evidence(
        name=run.name,
        length=length,
        epochs=epochs,
        series=series,
        passes=passes,
        units=units,
        logged={name: _by_index(table, name, train, length) for name in table if name not in BATCH_COLUMNS},
        valid_loss=_valid_loss(table, ends),
        facts=run.facts,
    )


def _series(run: Run, stream: Stream, length: int) -> Series:
    level = max(coarsest_level(length, COLUMNS), run.finest("train")) if length > 4 * EARLY else run.finest("train")
    blocks = []
    if level:
        width = 4**level
        early = -(-EARLY // width) * width
        if not run.kept("train"):
            blocks.append(run.columns(stream, "train", 0, early))
            blocks.append(run.columns(stream, "train", early, length, level))
        else:
            blocks.append(run.columns(stream, "train", 0, length, level))
    else:
        blocks.append(run.columns(stream, "train"))
    return _as_series(run, stream, Block.concatenate(blocks, stream.axis.bins))


def _as_series(run: Run, stream: Stream, block: Block) -> Series:
    at = {name: block.counters[:, i] for i, name in enumerate(COUNTERS)}
    inf = at["pos_inf"] + at["neg_inf"]
    number = at["size"] - at["nan"] - inf
    total, total_sq, least, most = block.moments.T
    with np.errstate(over="ignore", invalid="ignore"):
        rms = np.sqrt(statistics.ratio(total_sq, number))
    nothing = number <= 0
    low, high = _occupied(block.counts) if stream.kind in _WITH_COUNTS else (0, 0)
    return Series(
        stream=stream,
        first=block.first,
        last=block.last,
        calls=at["calls"],
        size=at["size"],
        zeros=at["zeros"],
        nan=at["nan"],
        inf=inf,
        mean=statistics.mean(total, number),
        std=statistics.std(total, total_sq, number),
        rms=rms,
        min=np.where(nothing, np.nan, least),
        max=np.where(nothing, np.nan, most),
        counts=block.counts[:, low:high].astype(np.float32),
        edges=stream.axis.edges[low : high + 1],
        offset=low,
        not_finite=_first_not_finite(run, stream, block, at["nan"] + inf),
    )


def _occupied(counts: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Return the first occupied bin, and the one after the last."""
    occupied = np.flatnonzero(counts.any(axis=0))
    return (int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else (0, 0)


def _first_not_finite(run: Run, stream: Stream, block: Block, number: npt.NDArray[np.int64]) -> int:
    bad = np.flatnonzero(number)
    if not bad.size:
        return -1
    first, last = int(block.first[bad[0]]), int(block.last[bad[0]])
    if first == last or run.kept("train") > first:
        return first
    single = run.moments(stream, "train", first, last + 1)
    found = np.flatnonzero(single["nan"] + single["pos_inf"] + single["neg_inf"])
    return int(single["first"][found[0]]) if found.size else first


def _by_index(
    table: Mapping[str, npt.NDArray[Any]], name: str, train: npt.NDArray[np.bool_], length: int
) -> npt.NDArray[np.float64]:
    values = np.full(length, np.nan)
    values[table["index"][train]] = table[name][train]
    return values


#: A validation pass: epoch, training batches before its end, its first and last batch.
_Pass = tuple[int, int, int, int]


def _passes(table: Mapping[str, npt.NDArray[Any]]) -> list[_Pass]:
    """Return the validation pass of each epoch that has one."""
    valid = table["phase"] == "valid"
    if not valid.any():
        return []
    before = np.cumsum(~valid)
    found = []
    for epoch in np.unique(table["epoch"][valid]).tolist():
        mine = valid & (table["epoch"] == epoch)
        index = table["index"][mine]
        found.append((epoch, int(before[mine][-1]), int(index[0]), int(index[-1])))
    return found


def _valid_loss(
    table: Mapping[str, npt.NDArray[Any]], ends: list[_Pass]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    name = next((each for each in ("loss", "valid_loss", "val_loss", "eval_loss") if each in table), None)
    places, means = [], []
    for epoch, end, _, _ in ends:
        values = table[name][(table["phase"] == "valid") & (table["epoch"] == epoch)] if name else np.zeros(0)
        places.append(end)
        means.append(float(values.mean()) if values.size else np.nan)
    return np.array(places, np.int64), np.array(means, np.float64)


def _both(
    run: Run, stream: Stream, train: Series, epochs: npt.NDArray[np.int64], length: int, ends: list[_Pass]
) -> Passes:
    """Add up both sides of each epoch, from columns that lie within them."""
    phase: Phase = "valid"
    level = max(coarsest_level(run.length(phase), 4 * COLUMNS), run.finest(phase)) if len(ends) < COLUMNS else 0
    chosen = ends if len(ends) <= COLUMNS else ends[-COLUMNS:]
    block = run.columns(stream, phase, chosen[0][2], chosen[-1][3] + 1, level)
    own, width = train.offset, train.counts.shape[1]
    occupied = np.append(np.flatnonzero(block.counts.any(axis=0)), np.arange(own, own + width))
    low, high = (int(occupied.min()), int(occupied.max()) + 1) if occupied.size else (0, 0)
    axis = stream.axis.edges
    sides: dict[str, list[Any]] = {
        name: [] for name in ("epoch", "end", "train", "valid", "tz", "vz", "ts", "vs", "tb", "vb")
    }
    zeros, size = COUNTERS.index("zeros"), COUNTERS.index("size")
    bad = [COUNTERS.index(name) for name in ("nan", "pos_inf", "neg_inf")]
    stops = np.append(epochs[1:], length)
    for epoch, end, first, last in chosen:
        began = int(np.searchsorted(epochs, end, side="left")) - 1
        if began < 0:
            continue
        start, stop = int(epochs[began]), min(int(stops[began]), end)
        quarter = stop - max((stop - start) // _QUARTER, 1)
        mine = (train.first >= quarter) & (train.last < stop)
        theirs = (block.first >= first) & (block.last <= last)
        if not mine.any() or not theirs.any():
            continue
        counts = np.zeros(high - low)
        counts[own - low : own - low + width] = train.counts[mine].sum(axis=0, dtype=np.float64)
        for name, value in (
            ("epoch", epoch), ("end", end), ("train", counts), ("valid", block.counts[theirs, low:high].sum(axis=0)),
            ("tz", train.zeros[mine].sum()), ("vz", block.counters[theirs, zeros].sum()),
            ("ts", train.size[mine].sum()), ("vs", block.counters[theirs, size].sum()),
            ("tb", (train.nan + train.inf)[mine].sum()), ("vb", block.counters[theirs][:, bad].sum()),
        ):  # fmt: skip
            sides[name].append(value)
    number = len(sides["epoch"])

    def table(name: str) -> npt.NDArray[np.float64]:
        return cast(npt.NDArray[np.float64], np.array(sides[name], np.float64).reshape(number, high - low))

    def column(name: str) -> npt.NDArray[np.float64]:
        return np.array(sides[name], np.float64)

    return Passes(
        epoch=np.array(sides["epoch"], np.int64), end=np.array(sides["end"], np.int64), train=table("train"), valid=table("valid"),
        train_zeros=column("tz"), valid_zeros=column("vz"), train_size=column("ts"), valid_size=column("vs"), train_bad=column("tb"), valid_bad=column("vb"),
        edges=axis[low : high + 1],
    )  # fmt: skip
