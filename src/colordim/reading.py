"""What charts are drawn from: the columns, epochs and sums of a run, as their functions take them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from colordim import statistics
from colordim.column import COUNTERS, Phase, Stream
from colordim.errors import ArgumentError
from colordim.run import Run

if TYPE_CHECKING:
    from colordim.charts.colorful_grid import EpochCounts
    from colordim.charts.frame import Panel
    from colordim.charts.titles import Caption

__all__ = ["add_up", "caption", "epoch_counts", "epochs", "most_changed", "not_finite", "notes", "panel", "spans"]

#: First batch of each epoch, and the epoch's number.
Epochs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

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

    output = stream.kind in ("activation", "gradient")
    return Caption(stream.name, stream.module, stream.arguments, stream.shape, output, note, mark)


def notes(run: Run) -> str:
    """Say what recording cost, where it is known, and what of the run is missing."""
    from colordim.charts.labels import percent

    parts = [f"recording took {percent(run.cost)} of the training time"] if np.isfinite(run.cost) else []
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
    width, level = column_width(stop - start, int(inches * DPI))
    block = run.columns(stream, phase, start, stop, level)
    columns = regular(
        block.first, block.number, block.counts, block.counters, block.moments, width=width, start=start, stop=stop
    )
    zeros = float(statistics.ratio(columns.total("zeros"), columns.total("size")))
    marks = not_finite(run, stream, phase, span) if columns.not_finite.any() else ""
    note = f"zeros {percent(zeros)}" if columns.total("size") else "never ran"
    return Panel(caption(stream, note, mark), phase, stream.axis, columns, start, stop, *epochs, marks)


def epochs(run: Run, phase: Phase) -> Epochs:
    """Return the first batch of each epoch of a phase, and the epoch's number."""
    table = run.batches
    mine = table["phase"] == phase
    starts = run.epochs(phase)
    return starts, np.asarray(table["epoch"][mine][np.searchsorted(table["index"][mine], starts)], np.int64)


def not_finite(run: Run, stream: Stream, phase: Phase, span: tuple[int, int]) -> str:
    """Say in how many batches there was NaN, and in how many Inf."""
    nan = inf = 0
    for begin in range(span[0], span[1], CHUNK):
        counters = run.columns(stream, phase, begin, min(begin + CHUNK, span[1])).counters
        at = {name: counters[:, i] for i, name in enumerate(COUNTERS)}
        nan += int(np.count_nonzero(at["nan"]))
        inf += int(np.count_nonzero(at["pos_inf"] + at["neg_inf"]))
    found = [f"{name} in {number}" for name, number in (("NaN", nan), ("Inf", inf)) if number]
    return f"{', '.join(found)} batch{'es' if max(nan, inf) > 1 else ''}"


def most_changed(
    run: Run, streams: Sequence[Stream], focus: int, phase: Phase, span: tuple[int, int]
) -> tuple[Stream, ...]:
    """Return the streams that changed most, in call order."""
    from colordim.charts.columns import column_width

    if not isinstance(focus, int) or focus < 1:
        raise ArgumentError(f"focus={focus} cannot be: it is the number of layers to draw, at least 1.")
    _, level = column_width(span[1] - span[0], 64)
    changes = [statistics.change(run.columns(stream, phase, *span, level).counts) for stream in streams]
    chosen = set(np.argsort(-np.array(changes), kind="stable")[:focus].tolist())
    return tuple(stream for i, stream in enumerate(streams) if i in chosen)


def epoch_counts(run: Run, stream: Stream, phase: Phase, span: tuple[int, int]) -> list[EpochCounts]:
    """Return the histogram of each epoch on show, and of its last quarter."""
    from colordim.charts.colorful_grid import EpochCounts

    starts = run.epochs(phase).tolist()
    table = run.batches
    index = table["index"][(table["phase"] == phase) & table["recorded"]]
    found = []
    for begin, end in zip(starts, [*starts[1:], run.length(phase)], strict=True):
        inside = index[(index >= max(begin, span[0])) & (index < min(end, span[1]))]
        if len(inside):
            cut = inside[3 * len(inside) // 4 :]
            whole, whole_batches, _ = add_up(run, stream, phase, inside)
            last, last_batches, _ = add_up(run, stream, phase, cut)
            found.append(EpochCounts(max(begin, span[0]), min(end, span[1]), whole, whole_batches, last, last_batches))
    return found


def add_up(
    run: Run, stream: Stream, phase: Phase, index: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], int, npt.NDArray[np.int64]]:
    """Return counts, batches in which the stream fired, and counters, added up over adjacent recorded batches."""
    counts, counters = np.zeros(stream.axis.bins, np.int64), np.zeros(len(COUNTERS), np.int64)
    fired = 0
    for piece in np.array_split(index, max(-(-len(index) // CHUNK), 1)):
        if len(piece):
            block = run.columns(stream, phase, int(piece[0]), int(piece[-1]) + 1)
            counts += block.counts.sum(axis=0)
            counters += block.counters.sum(axis=0)
            fired += int(np.count_nonzero(block.counters[:, COUNTERS.index("calls")]))
    return counts, fired, counters
