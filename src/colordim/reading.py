"""What charts are drawn from: the columns, epochs and sums of a run, as their functions take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from colordim import statistics
from colordim.column import COUNTERS, PHASES, Phase, Stream
from colordim.errors import ArgumentError
from colordim.run import Run
from colordim.store.base import BATCH_COLUMNS, Block

if TYPE_CHECKING:
    from colordim.charts.classes import ClassCounts
    from colordim.charts.colorful_grid import EpochCounts
    from colordim.charts.dead import DeadUnits
    from colordim.charts.frame import Panel
    from colordim.charts.scalars import Series
    from colordim.charts.titles import Caption
    from colordim.charts.updates import UpdateRow

__all__ = [
    "add_up",
    "as_taken",
    "caption",
    "class_counts",
    "dead_units",
    "epoch_counts",
    "epochs",
    "logged",
    "most_changed",
    "not_finite",
    "notes",
    "panel",
    "pass_means",
    "series",
    "spans",
    "twin_sides",
    "update_rows",
]

#: First batch of each epoch, and the epoch's number.
Epochs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

_NO_EPOCHS: Epochs = (np.zeros(0, np.int64), np.zeros(0, np.int64))

#: Batches that are read at once where every single one has to be looked at.
CHUNK = 1024


def spans(run: Run, phases: Sequence[Phase], start: int | None, stop: int | None) -> dict[Phase, tuple[int, int]]:
    """Return the batches to show of each phase; of the later phases those that ran while the first did."""
    first = phases[0]
    begin, end, _ = slice(start, stop).indices(run.length(first))
    found: dict[Phase, tuple[int, int]] = {first: (begin, max(begin, end))}
    table = run.batches
    for phase in phases[1:]:
        index, batch = (table[name][table["phase"] == phase] for name in ("index", "batch"))
        mine = table["batch"][(table["phase"] == first) & (table["index"] >= begin)]
        beyond = table["batch"][(table["phase"] == first) & (table["index"] >= end)]
        low = mine[0] if start is not None and len(mine) else -1
        inside = index[(batch >= low) & (batch < (beyond[0] if stop is not None and len(beyond) else np.inf))]
        found[phase] = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, 0)
    return found


def caption(stream: Stream, note: str = "", mark: str = "") -> Caption:
    """Return what is printed above a panel of a stream."""
    from colordim.charts.titles import Caption

    if stream.facet is not None and stream.facet.label != str(stream.facet.index):
        mark = f"{stream.facet.label} · {mark}" if mark else stream.facet.label
    output = stream.kind in ("activation", "gradient")
    return Caption(stream.name, stream.module, stream.arguments, stream.shape, output, note, mark)


def notes(run: Run) -> str:
    """Say what recording cost, where it is known, what is approximate, and what of the run is missing."""
    from colordim.charts.labels import percent

    cost = run.cost
    took = percent(cost) + " of" if cost < 1 else f"{cost:.1f} times"
    parts = [f"recording took {took} the training time"] if np.isfinite(cost) else []
    if run.info.get("imported", {}).get("approximate"):
        parts.append(f"imported from {run.info['imported']['from']}: spread over buckets, approximate")
    for phase in PHASES:
        if (level := run.finest(phase)) and len(run.epochs(phase)):
            span = f"before {run.kept(phase)}" if run.kept(phase) < run.length(phase) else "of the run"
            parts.append(f"{phase} batches {span} are kept in sums of up to {4**level}, as max_bytes was reached")
    return "  ·  ".join([*parts, *(f"INCOMPLETE: {problem}" for problem in run.problems[:2])])


def panel(
    run: Run, stream: Stream, phase: Phase, span: tuple[int, int], epochs: Epochs, inches: float, mark: str = ""
) -> Panel:
    """Return the columns of a stream for a panel that is `inches` wide: no more than it has pixels."""
    from colordim.charts.columns import column_width, regular
    from colordim.charts.frame import Panel
    from colordim.charts.labels import percent
    from colordim.charts.style import DPI

    start, stop = span
    width, level = column_width(stop - start, int(inches * DPI), run.finest(phase, start))
    block = run.columns(stream, phase, start, stop, level)
    if stream.kind in ("weight", "weight_gradient", "update"):
        block = as_taken(block)
    columns = regular(
        block.first, block.number, block.counts, block.counters, block.moments, width=width, start=start, stop=stop
    )
    zeros = float(statistics.ratio(columns.total("zeros"), columns.total("size")))
    marks = not_finite(run, stream, phase, span) if columns.not_finite.any() else ""
    note = f"zeros {percent(zeros)}" if columns.total("size") else "never ran"
    return Panel(caption(stream, note, mark), phase, stream.axis, columns, start, stop, *epochs, marks)


def as_taken(block: Block) -> Block:
    """Leave out the batches between two in which a parameter was looked at, so that the first is shown until the next.

    Parameters are taken every n steps. What is missing for longer than they usually lie apart remains a gap.
    """
    calls = block.counters[:, COUNTERS.index("calls")]
    fired = np.flatnonzero(calls)
    if fired.size < 2:
        return block
    apart = np.median(np.diff(block.first[fired]))
    last = np.searchsorted(fired, np.arange(len(block)), side="right") - 1
    since = block.first - block.first[fired[np.maximum(last, 0)]]
    keep = (calls > 0) | (last < 0) | (since >= apart)
    return Block(*(getattr(block, field.name)[keep] for field in fields(block)))


def epochs(run: Run, phase: Phase) -> Epochs:
    """Return the first batch of each epoch of a phase, and the epoch's number."""
    table = run.batches
    mine = table["phase"] == phase
    starts = run.epochs(phase)
    return starts, np.asarray(table["epoch"][mine][np.searchsorted(table["index"][mine], starts)], np.int64)


def not_finite(run: Run, stream: Stream, phase: Phase, span: tuple[int, int]) -> str:
    """Say in how many batches there was NaN, and in how many Inf."""
    nan = inf = 0
    for counters in (block.counters for block in _pieces(run, stream, phase, span)):
        at = {name: counters[:, i] for i, name in enumerate(COUNTERS)}
        nan += int(np.count_nonzero(at["nan"]))
        inf += int(np.count_nonzero(at["pos_inf"] + at["neg_inf"]))
    # Where only sums of batches are left, each of them holds at least one.
    least = "at least " if run.finest(phase, span[0]) else ""
    found = [f"{name} in {least}{number}" for name, number in (("NaN", nan), ("Inf", inf)) if number]
    return f"{', '.join(found)} batch{'es' if max(nan, inf) > 1 else ''}"


def _pieces(run: Run, stream: Stream, phase: Phase, span: tuple[int, int]) -> Iterator[Block]:
    """Yield the columns of adjacent batches, as fine as they can be had, some at a time."""
    level = run.finest(phase, span[0])
    step: int = CHUNK * 4**level
    index = run.batches["index"][run.batches["phase"] == phase]
    # Not by counting: a damaged run may number its batches as it likes.
    for begin in (np.unique(index[(index >= span[0]) & (index < span[1])] // step) * step).tolist():
        yield run.columns(stream, phase, max(begin, span[0]), min(begin + step, span[1]), level)


def most_changed(
    run: Run, streams: Sequence[Stream], focus: int, phase: Phase, span: tuple[int, int]
) -> tuple[Stream, ...]:
    """Return the streams that changed most, in call order."""
    from colordim.charts.columns import column_width

    if not isinstance(focus, int) or focus < 1:
        raise ArgumentError(f"focus={focus} cannot be: it is the number of layers to draw, at least 1.")
    _, level = column_width(span[1] - span[0], 64, run.finest(phase, span[0]))
    changes = [statistics.change(run.columns(stream, phase, *span, level).counts) for stream in streams]
    chosen = set(np.argsort(-np.array(changes), kind="stable")[:focus].tolist())
    return tuple(stream for i, stream in enumerate(streams) if i in chosen)


def epoch_counts(run: Run, stream: Stream, phase: Phase, span: tuple[int, int]) -> list[EpochCounts]:
    """Return the histogram of each epoch on show, and of its last quarter."""
    from colordim.charts.colorful_grid import EpochCounts

    found = []
    for _, begin, end, inside in _epochs_on_show(run, phase, span):
        whole, whole_batches, _ = add_up(run, stream, phase, inside)
        last, last_batches, _ = add_up(run, stream, phase, _last_quarter(inside))
        found.append(EpochCounts(begin, end, whole, whole_batches, last, last_batches))
    return found


def class_counts(
    run: Run, stream: Stream, parts: Sequence[Stream], phase: Phase, span: tuple[int, int], most: int
) -> list[ClassCounts]:
    """Return what the last quarters of the last `most` epochs on show hold of a layer and of each of its classes."""
    from colordim.charts.classes import ClassCounts

    labels = [part.facet.label if part.facet else part.name for part in parts]
    found = []
    for number, begin, end, inside in _epochs_on_show(run, phase, span)[-most:]:
        sums = [add_up(run, one, phase, _last_quarter(inside)) for one in (stream, *parts)]
        counts = np.stack([counts for counts, _, _ in sums])
        sizes = np.array([counters[COUNTERS.index("size")] for _, _, counters in sums], np.int64)
        found.append(ClassCounts(begin, end, number, labels, counts, sizes))
    return found


def _epochs_on_show(run: Run, phase: Phase, span: tuple[int, int]) -> list[tuple[int, int, int, npt.NDArray[np.int64]]]:
    """Return number, first batch, end and recorded batches of each epoch that has any on show."""
    starts, numbers = epochs(run, phase)
    table = run.batches
    index = table["index"][(table["phase"] == phase) & table["recorded"]]
    found = []
    for number, begin, end in zip(
        numbers.tolist(), starts.tolist(), [*starts[1:].tolist(), run.length(phase)], strict=True
    ):
        begin, end = max(begin, span[0]), min(end, span[1])
        inside = index[(index >= begin) & (index < end)]
        if len(inside):
            found.append((number, begin, end, inside))
    return found


def _last_quarter(index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return index[3 * len(index) // 4 :]


def update_rows(
    run: Run, updates: Sequence[Stream], phase: Phase, span: tuple[int, int], inches: float
) -> list[UpdateRow]:
    """Return the updates of parameters relative to their weights, those without recorded weights left out."""
    from colordim.charts.updates import ratios

    weights = {stream.name: stream for stream in run.streams if stream.kind == "weight" and stream.facet is None}
    rows = []
    for stream in updates:
        if (weight := weights.get(stream.name)) is not None:
            steps, own = (panel(run, one, phase, span, _NO_EPOCHS, inches).columns for one in (stream, weight))
            rows.append(ratios(stream.name, steps, own, _last_seen(run, weight, phase, span[0])))
    return rows


def _last_seen(run: Run, stream: Stream, phase: Phase, stop: int) -> tuple[float, bool]:
    """Return the standard deviation of a stream in its last column before `stop`, and whether it had NaN or Inf."""
    for end in range(stop, 0, -CHUNK):
        start = max(end - CHUNK, 0)
        moments = run.moments(stream, phase, start, end, run.finest(phase, start))
        fired = np.flatnonzero(moments["calls"])
        if fired.size:
            last = {name: values[fired[-1]] for name, values in moments.items()}
            infinite = [last[name] for name in ("nan", "pos_inf", "neg_inf")]
            number = statistics.finite(last["size"], *infinite)
            return float(statistics.std(last["sum"], last["sum_sq"], number)), bool(np.any(infinite))
    return float("nan"), False


def dead_units(run: Run, stream: Stream, phase: Phase, span: tuple[int, int]) -> DeadUnits | None:
    """Return the share of a layer's units that are dead in each window on show; None if nothing is known of them."""
    from colordim.charts.dead import DeadUnits

    windows = run.units(stream, phase)
    inside = (windows.last >= span[0]) & (windows.first < span[1])
    if not inside.any():
        return None
    first, last = np.maximum(windows.first[inside], span[0]), np.minimum(windows.last[inside], span[1] - 1)
    return DeadUnits(first, last, windows.dead_share[inside], windows.judged_on)


def series(run: Run, names: Sequence[str], span: tuple[int, int]) -> list[Series]:
    """Return logged names on the axis of the training batches: each batch's value, and the mean of each validation pass."""
    from colordim.charts.labels import tick_text
    from colordim.charts.scalars import Series

    table = run.batches
    train, valid = table["phase"] == "train", table["phase"] == "valid"
    index = table["index"].astype(np.float64)
    # a validation batch stands where the training had got to; without training it stands for itself
    place = np.where(train, index, np.cumsum(train)) if train.any() else index
    inside = (place >= span[0]) & np.where(train, place < span[1], place <= span[1])
    found = []
    for name in names:
        values = table[name]
        known = inside & ~np.isnan(values)
        points, said = {}, []
        if (own := known & train).any():
            points["train"] = (place[own], values[own])
            after = span[1] - 1 - int(place[own][-1])
            if (
                after > 2 * np.diff(place[own], prepend=place[own][0]).max()
            ):  # NaN and nothing look the same in the table
                said.append(f"nothing after batch {int(place[own][-1])}")
        if (own := known & valid).any():
            points["valid"] = pass_means(place[own], values[own])
        said += [f"{key} {tick_text(float(f'{y[-1]:.3g}'))}" for key, (_, y) in points.items()]
        found.append(Series(name, points, "  ".join(said) or "no values"))
    return found


def pass_means(
    place: npt.NDArray[Any], values: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Return where each validation pass stands, and the mean of its values; `place` ascends, and is equal within a pass."""
    passes, starts, number = np.unique(place, return_index=True, return_counts=True)
    return passes, np.add.reduceat(values, starts) / number


def logged(run: Run) -> list[str]:
    """Return the names that were logged, but for what recording cost."""
    return [name for name in run.batches if name not in (*BATCH_COLUMNS, "recording_s", "step_s")]


def twin_sides(
    run: Run, stream: Stream, epoch: int
) -> dict[str, tuple[npt.NDArray[np.int64], int, npt.NDArray[np.int64]]]:
    """Return what :func:`add_up` does of the last quarter of an epoch's training and of its whole validation."""
    table = run.batches
    counted = (table["epoch"] == epoch) & table["recorded"]
    train, valid = (table["index"][counted & (table["phase"] == phase)] for phase in PHASES)
    return {"train": add_up(run, stream, "train", _last_quarter(train)), "valid": add_up(run, stream, "valid", valid)}


def add_up(
    run: Run, stream: Stream, phase: Phase, index: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], int, npt.NDArray[np.int64]]:
    """Return counts, batches in which the stream fired, and counters, added up over adjacent recorded batches."""
    counts, counters = np.zeros(stream.axis.bins, np.int64), np.zeros(len(COUNTERS), np.int64)
    fired = 0
    for block in _pieces(run, stream, phase, (int(index[0]), int(index[-1]) + 1)) if len(index) else ():
        counts += block.counts.sum(axis=0)
        counters += block.counters.sum(axis=0)
        fired += int(block.number[block.counters[:, COUNTERS.index("calls")] > 0].sum())
    return counts, fired, counters
