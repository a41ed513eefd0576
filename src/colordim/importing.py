"""Histograms that TensorBoard holds, as a run: of each tag a stream, of each step a batch.

What is taken over is approximate. TensorBoard's buckets are not ours, so that the values of a bucket are spread evenly
over those that it overlaps; its totals stay, to the last value. Buckets that ours are made of, as in what
``colordim export`` wrote, come back as they were.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from colordim.api import open
from colordim.axis import Axis, SignedLogAxis
from colordim.column import COUNTERS, KINDS, NO_MOMENTS, PHASES, Batch, Kind, Phase, Stream
from colordim.errors import ArgumentError, DependencyError, StoreError
from colordim.export.uhi import value_edges
from colordim.store.writer import FolderWriter
from colordim.views import Run

__all__ = ["import_tensorboard", "spread"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: Names of folders beside each other that hold one training: Keras writes train and validation.
_PHASES: Mapping[str, Phase] = {
    "train": "train", "training": "train",
    "valid": "valid", "validation": "valid", "val": "valid", "eval": "valid", "test": "valid",
}  # fmt: skip


_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class _Histogram:
    """A histogram as TensorBoard holds it: n adjacent buckets, and moments if they are known."""

    step: int
    time: float
    lefts: FloatArray
    rights: FloatArray
    counts: FloatArray
    sum: float
    sum_sq: float


def import_tensorboard(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    axis: Axis | None = None,
    kind: Kind = "activation",
    name: str | None = None,
) -> Run:
    """Make a run of the histograms in TensorBoard's event files.

    A batch of the run is a step at which there is any histogram; ``run.batches["step"]`` holds the step. Tags that
    ``colordim export`` wrote give back kind, phase and layer. There is nothing about epochs, NaN and Inf in
    TensorBoard, and nothing about exact zeros unless a bucket holds zero alone.

    Parameters
    ----------
    folder : path-like
        With event files in it, or in folders named ``train`` and ``validation``, whose steps are then batches of the
        two phases.
    out : path-like
        Folder of the run, to be created.
    axis : Axis, optional
        By default :class:`~colordim.SignedLogAxis`, which takes every magnitude.
    kind : str
        What the histograms are of, which TensorBoard does not know.
    name : str, optional
        Name of the run; by default that of `folder`.

    Returns
    -------
    Run
        Its ``info["imported"]`` says where it is from, and that it is approximate.

    Raises
    ------
    ArgumentError
        If there are no histograms, or the folder holds several trainings; or if there is no such kind.
    DependencyError
        If tensorboard is not installed.
    StoreError
        If `out` cannot be written, or holds something already.
    """
    if kind not in KINDS:
        raise ArgumentError(f"{kind!r} is no kind: take one of {', '.join(KINDS)}.", page="exports#import")
    folder, axis = Path(folder), axis or SignedLogAxis()
    found: dict[tuple[Phase, str, Kind], list[_Histogram]] = {}
    for phase, path in _folders(folder):
        for tag, histograms in _read(path):
            found.setdefault(_named(tag, phase, kind), []).extend(histograms)
    if not any(found.values()):
        raise ArgumentError(
            f"{folder} holds no histograms of TensorBoard: name a folder with event files that do.",
            page="exports#import",
        )
    info = {
        "name": name or folder.resolve().name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "imported": {"from": "tensorboard", "folder": str(folder.absolute()), "approximate": True},
    }
    _write(FolderWriter(Path(out), info), found, axis)
    return open(out)


def spread(lefts: FloatArray, rights: FloatArray, counts: FloatArray, edges: FloatArray) -> IntArray:
    """Distribute the counts of buckets over bins, each bucket in proportion to its overlaps.

    Whole numbers come of it because the cumulative counts at the edges are rounded: no bin is more than one value
    off, the total is that of the buckets, and where an edge of a bin is one of a bucket nothing is rounded.

    Parameters
    ----------
    lefts, rights : ndarray of float64, shape ``[n]``
        Of the buckets, ascending and without overlaps; one without width is a point.
    counts : ndarray of float64, shape ``[n]``
    edges : ndarray of float64, shape ``[bins + 1]``
        Strictly ascending.

    Returns
    -------
    ndarray of int64, shape ``[bins + 2]``
        What lies below, the bins, and what lies above. A value at an edge belongs to the bin above it, but at the
        last edge to the last bin.
    """
    upper = edges.copy()
    upper[-1] = np.nextafter(edges[-1], np.inf)
    total = np.concatenate([[0.0], np.cumsum(counts)])
    after = np.searchsorted(rights, upper, side="left")  # buckets that end below an edge, and points below it
    at = np.minimum(after, len(counts) - 1)
    width = rights[at] - lefts[at]
    with np.errstate(over="ignore"):  # far beyond a narrow bucket
        part = np.clip((upper - lefts[at]) / np.where(width > 0, width, 1.0), 0.0, 1.0)
    part = np.where((after < len(counts)) & (width > 0), part, 0.0)
    cumulative = np.rint(total[after] + part * counts[at])
    return np.diff(np.concatenate([[0.0], cumulative, np.rint(total[-1:])])).astype(np.int64)


def _folders(folder: Path) -> list[tuple[Phase, Path]]:
    """Return the folders with event files of one training, and their phases."""
    if not folder.is_dir():
        raise ArgumentError(
            f"there is no folder {folder}: name one with event files of TensorBoard.", page="exports#import"
        )
    if any(folder.glob("*tfevents*")):
        return [("train", folder)]
    below = sorted({path.parent for path in folder.rglob("*tfevents*")})
    phases = [_PHASES.get(path.name) for path in below]
    if len(below) == 1:
        return [(phases[0] or "train", below[0])]
    known = [(phase, path) for phase, path in zip(phases, below, strict=True) if phase]
    if len(known) < len(below) or len({phase for phase, _ in known}) < len(known):
        names = ", ".join(str(path.relative_to(folder)) for path in below[:4])
        raise ArgumentError(f"{folder} holds several trainings ({names}): name one of them.", page="exports#import")
    return known


def _read(folder: Path) -> Iterator[tuple[str, list[_Histogram]]]:
    """Yield each tag with all of its histograms: none is sampled."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util.tensor_util import make_ndarray
    except ImportError:
        raise DependencyError(
            'importing from TensorBoard needs tensorboard, which is not installed: pip install "colordim[tensorboard]".',
            page="exports#import",
        ) from None
    everything = {"histograms": 0, "tensors": 0, "compressedHistograms": 1, "images": 1, "audio": 1, "scalars": 1}
    events = EventAccumulator(str(folder), size_guidance=everything).Reload()
    tags = events.Tags()
    for tag in tags["histograms"]:
        yield tag, [_of_proto(event.step, event.wall_time, event.histogram_value) for event in events.Histograms(tag)]
    for tag in tags["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "histograms":
            yield (
                tag,
                [_of_tensor(e.step, e.wall_time, make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)],
            )


def _of_proto(step: int, time: float, histogram: Any) -> _Histogram:
    """Take a histogram that knows the right edges of its buckets; least and largest value bound the outermost."""
    counts = np.array(histogram.bucket, np.float64)
    rights = np.array(histogram.bucket_limit, np.float64)
    lefts = np.concatenate([[-_LARGEST], rights[:-1]])
    low, high = (x if np.isfinite(x) else s * _LARGEST for x, s in ((histogram.min, -1), (histogram.max, 1)))
    lefts = np.minimum(np.maximum(lefts, low), rights)
    rights = np.maximum(np.minimum(rights, high), lefts)
    filled = counts > 0
    return _Histogram(step, time, lefts[filled], rights[filled], counts[filled], histogram.sum, histogram.sum_squares)


def _of_tensor(step: int, time: float, table: npt.NDArray[Any]) -> _Histogram:
    """Take rows of left edge, right edge and count; moments are those of values spread evenly."""
    rows = np.asarray(table, np.float64).reshape(-1, 3)
    left, right, counts = rows[rows[:, 2] > 0].T
    total = float(counts @ (left + right)) / 2
    return _Histogram(step, time, left, right, counts, total, float(counts @ (left**2 + left * right + right**2)) / 3)


def _named(tag: str, phase: Phase, kind: Kind) -> tuple[Phase, str, Kind]:
    """Return phase, name of the stream and kind that a tag stands for."""
    first, *parts = tag.split("/", 3)
    if first == "colordim" and len(parts) == 3 and parts[0] in KINDS and parts[1] in PHASES:
        return PHASES[PHASES.index(parts[1])], parts[2], KINDS[KINDS.index(parts[0])]
    return phase, tag, kind


def _write(writer: FolderWriter, found: Mapping[tuple[Phase, str, Kind], list[_Histogram]], axis: Axis) -> None:
    edges, streams = value_edges(axis), dict[tuple[str, Kind], Stream]()
    columns: dict[tuple[int, Phase], list[tuple[Stream, _Histogram]]] = {}
    for (phase, name, kind), histograms in found.items():
        if (name, kind) not in streams:
            stream = Stream(len(streams), name, kind, "", "", (), len(streams), axis)
            streams[name, kind] = stream
            writer.declare(stream)
        for histogram in {each.step: each for each in histograms}.values():  # of two at one step the later
            columns.setdefault((histogram.step, phase), []).append((streams[name, kind], histogram))
    index: dict[Phase, int] = dict.fromkeys(PHASES, 0)
    try:
        for number, (step, phase) in enumerate(sorted(columns, key=lambda key: (key[0], PHASES.index(key[1])))):
            parts = sorted(columns[step, phase], key=lambda part: part[0].id)
            batch = Batch(number, index[phase], phase, 0, step, max(each.time for _, each in parts))
            index[phase] += 1
            rows = [_row(each, edges) for _, each in parts]
            writer.append(
                batch,
                [stream for stream, _ in parts],
                np.concatenate([row for row, _ in rows]),
                np.array([moment for _, moment in rows]),
            )
            if number % 64 == 63:
                writer.flush()  # or what is read faster than it is written would be left out
        writer.flush()
    finally:
        writer.close("stopped")
    if writer.dropped:
        raise StoreError(
            f"{writer.path} could not be written: {writer.dropped} steps are missing.", page="exports#import"
        )


def _row(histogram: _Histogram, edges: FloatArray) -> tuple[IntArray, tuple[float, ...]]:
    """Return a column: bins and counters, and moments."""
    left, right, counts = histogram.lefts, histogram.rights, histogram.counts
    if not len(counts):
        return np.array([0] * (len(edges) - 1 + len(COUNTERS) - 1) + [1], np.int64), NO_MOMENTS
    bins = spread(left, right, counts, edges)
    zeros = round(counts[(left == 0) & (right <= np.finfo(np.float64).tiny)].sum())
    row = np.array([*bins[1:-1], bins[0], bins[-1], 0, 0, 0, zeros, bins.sum(), 1], np.int64)
    return row, (histogram.sum, histogram.sum_sq, float(left[0]), float(right[-1]))
