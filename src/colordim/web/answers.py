"""The questions of the page and their answers: the same for the server, the report and the notebook.

A question is a route and its parameters, all of them text. Every answer is bounded, whatever is asked.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from colordim import asking, reading
from colordim.column import COUNTERS, PHASES, Phase, Stream
from colordim.errors import ArgumentError, StreamError
from colordim.run import Run
from colordim.store.parquet import kept_open
from colordim.web.findings import findings
from colordim.web.head import TILE, growth, head, marks
from colordim.web.tile import arrays_of, pack, tile_columns

__all__ = ["BINARY", "ROUTES", "answer", "to_json"]

#: Streams that one question for tiles may name, and points that one for scalars may ask for.
MOST_STREAMS = 64
MOST_POINTS = 4096
#: Windows of batches in which units were judged that the page is told of at most.
MOST_WINDOWS = 2048
#: Columns that one question for moments may read.
MOST_COLUMNS = 4096

#: Routes whose answer is no JSON.
BINARY = frozenset({"tiles"})

Parameters = Mapping[str, str]


def answer(run: Run, route: str, parameters: Parameters) -> bytes:
    """Return the answer to a question: JSON in UTF-8, or of :data:`BINARY` routes a frame for each stream.

    Parameters
    ----------
    run : Run
    route : str
        One of :data:`ROUTES`.
    parameters : mapping of str to str

    Raises
    ------
    ArgumentError
        If the route is none, or a parameter is missing, unknown or outside of its domain.
    StreamError
        If there is no such stream.
    """
    if route not in ROUTES:
        raise ArgumentError(f"there is no route {route!r}: take one of {', '.join(ROUTES)}.")
    function, names = ROUTES[route]
    if unknown := [name for name in parameters if name not in names]:
        raise ArgumentError(f"{route} takes no {unknown[0]!r}: it takes {', '.join(names) or 'no parameters'}.")
    result = function(run, parameters)
    return result if isinstance(result, bytes) else to_json(result)


def to_json(value: Any) -> bytes:
    """Return a value of JSON types in UTF-8; numbers that are not finite become null."""
    return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode(
        "utf-8", "replace"
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def tiles(run: Run, parameters: Parameters) -> bytes:
    """Return a tile of each stream: its length in bytes (uint32) and :func:`colordim.web.tile.pack`.

    Parameters: ``streams`` (ids, with commas between), ``phase``, ``width`` (one of the head's levels), ``index`` (of
    the tile: it begins with batch ``index * width * 512``), ``skip`` (columns that are known already, 0 by default),
    ``exact`` (1 for the counts themselves). The header has ``id, phase, index, settled``: so many columns of the tile,
    those skipped included, never change.
    """
    streams = _streams(run, parameters)
    phase = _phase(parameters)
    level = _level(run, phase, _whole(parameters, "width", 1))
    width: int = 4**level
    index = _whole(parameters, "index", 0, run.length(phase) // (TILE * width))
    skip = _whole(parameters, "skip", 0, TILE, default=0)
    exact = _whole(parameters, "exact", 0, 1, default=0) == 1
    begin = index * TILE * width
    stop = min(begin + TILE * width, run.length(phase))
    settled = _settled(run, phase, begin, stop, width)
    frames = []
    with kept_open():
        for stream in streams:
            columns = tile_columns(run, stream, phase, min(begin + skip * width, stop), stop, width, level)
            packed = pack(columns, {"id": stream.id, "phase": phase, "index": index, "settled": settled}, exact)
            frames += [struct.pack("<I", len(packed)), packed]
    return b"".join(frames)


def _settled(run: Run, phase: Phase, begin: int, stop: int, width: int) -> int:
    """Return how many columns of a tile never change."""
    if run.ended is None and run.ranks > 1:  # batches that some ranks do not hold yet are still to be added to
        missing = np.flatnonzero(run.partial(phase)[begin:stop])
        if len(missing):
            return int(missing[0]) // width
    if stop == begin + TILE * width:
        return TILE
    # of a run that goes on the last column may be added to, even where it is one batch: as what is held until the next
    return max(stop - begin - (0 if run.ended and width == 1 else 1), 0) // width


def column(run: Run, parameters: Parameters) -> dict[str, Any]:
    """Return one column exactly: the sum of the batches ``start <= batch < start + batches`` of a stream.

    Parameters: ``stream, phase, start, batches, width`` (of the head's levels, that the column is made of).
    ``bins`` are the occupied ones and ``counts`` what they hold.
    """
    stream = _stream(run, parameters, "stream")
    phase = _phase(parameters)
    level = _level(run, phase, _whole(parameters, "width", 1))
    start = _whole(parameters, "start", 0, run.length(phase))
    batches = _whole(parameters, "batches", 4**level, TILE * 4**level)
    block = run.columns(stream, phase, start, min(start + batches, run.length(phase)), level)
    return _sum_of(block.counts.sum(axis=0), block.counters.sum(axis=0)) | {
        "first": int(block.first[0]) if len(block) else start,
        "last": int(block.last[-1]) if len(block) else start,
        "recorded": int(block.number.sum()),
        "moments": {
            "sum": float(block.moments[:, 0].sum()),
            "sum_sq": float(block.moments[:, 1].sum()),
            "min": float(block.moments[:, 2].min(initial=math.inf)),
            "max": float(block.moments[:, 3].max(initial=-math.inf)),
        },
    }


def moments(run: Run, parameters: Parameters) -> dict[str, Any]:
    """Return what a tile holds of its columns but the bins, exactly: counters and moments of ``columns`` adjacent columns.

    Parameters: ``stream, phase, start, columns, width`` (batches a column, of which `start` is a multiple), ``base`` (of
    the head's levels, of which `width` is a multiple). Each of ``number, held``, the counters, ``sum, sum_sq, mean, std,
    min, max`` has an item for each column that there is, from the batch ``start`` on.
    """
    stream = _stream(run, parameters, "stream")
    phase = _phase(parameters)
    base = _whole(parameters, "base", 1)
    level = _level(run, phase, base)
    width = _whole(parameters, "width", base, MOST_COLUMNS * base)
    start = _whole(parameters, "start", 0, run.length(phase))
    if width % base or start % width:
        raise ArgumentError(f"width={width} cannot be: it is a multiple of base={base}, and start={start} one of it.")
    columns = _whole(parameters, "columns", 1, MOST_COLUMNS * base // width)
    stop = min(start + columns * width, run.length(phase))
    found = tile_columns(run, stream, phase, start, stop, width, level)
    arrays = arrays_of(found) | {"sum": found.moments[:, 0], "sum_sq": found.moments[:, 1]}
    return {"start": start, "width": width} | {name: array.tolist() for name, array in arrays.items()}


def twin(run: Run, parameters: Parameters) -> dict[str, Any]:
    """Return the sums that twin peaks are drawn from: of an epoch, the last quarter of its training and its validation.

    Parameters: ``stream, epoch``. Each of ``train`` and ``valid`` has ``batches`` (in which the stream fired), ``bins``,
    ``counts`` and ``counters``.
    """
    stream = _stream(run, parameters, "stream")
    table = run.batches
    if not len(table["epoch"]):
        raise ArgumentError("the run has no epochs yet.")
    number = asking.epoch_number(table["epoch"], _whole(parameters, "epoch", 0))
    return {"epoch": number} | {
        phase: _sum_of(counts, counters) | {"batches": fired}
        for phase, (counts, fired, counters) in reading.twin_sides(run, stream, number).items()
    }


def scalars(run: Run, parameters: Parameters) -> dict[str, Any]:
    """Return what was logged, on the axis of a phase's batches.

    Parameters: ``phase, start, stop, points``. ``width`` is so many batches that there are at most ``points``; of each
    name ``mean``, ``min`` and ``max`` of every ``width`` batches from ``start`` (rounded down to a multiple) on; of the
    training phase ``valid`` has the mean of each validation pass, ``at`` the training batch where it ran.
    """
    phase = _phase(parameters)
    length = run.length(phase)
    start = _whole(parameters, "start", 0, length, default=0)
    stop = _whole(parameters, "stop", 0, length, default=length)
    points = _whole(parameters, "points", 1, MOST_POINTS, default=1000)
    width = max(-(-(stop - start) // points), 1)
    start -= start % width
    table = run.batches
    names = reading.logged(run)
    mine = (table["phase"] == phase) & (table["index"] >= start) & (table["index"] < stop)
    place = (table["index"][mine] - start) // width
    number = max(-(-(stop - start) // width), 0)
    result: dict[str, Any] = {"start": start, "width": width, "names": {}, "valid": {}}
    for name in names:
        values = table[name][mine]
        known = np.isfinite(values)
        if known.any():
            result["names"][name] = _binned(values[known], place[known], number)
    if phase == "train":
        trained = np.cumsum(table["phase"] == "train")
        for name in names:
            own = (table["phase"] == "valid") & np.isfinite(table[name])
            if own.any():
                at, mean = reading.pass_means(trained[own], table[name][own])
                every = -(-len(at) // MOST_POINTS)
                result["valid"][name] = {"at": at[::every].tolist(), "mean": mean[::every].tolist()}
    return result


def units(run: Run, parameters: Parameters) -> dict[str, Any]:
    """Return the share of a layer's units that were not active even once, window by window.

    Parameters: ``stream, phase``. ``first``, ``last`` (batches), ``dead`` (share), ``units`` (number), ``judged_on``.
    """
    windows = run.units(_stream(run, parameters, "stream"), _phase(parameters))
    every = -(-len(windows) // MOST_WINDOWS) or 1
    return {
        "first": windows.first[::every].tolist(),
        "last": windows.last[::every].tolist(),
        "dead": windows.dead_share[::every].tolist(),
        "units": int(windows.active.shape[1]) if windows.active.ndim == 2 else 0,
        "judged_on": windows.judged_on,
    }


def facts(run: Run, parameters: Parameters) -> dict[str, Any]:
    """Return what is known of a layer: its row of ``named_modules``, its parameters, the activation that follows it."""
    stream = _stream(run, parameters, "stream")
    known = run.facts
    path = stream.facet.of if stream.facet else stream.name
    modules = {row.get("path"): row for row in known.get("named_modules") or ()}
    while path not in modules and any(mark in path for mark in ".["):
        path = path[: max(path.rfind("."), path.rfind("["))]
    parameters_of = [row for row in known.get("named_parameters") or () if row.get("module") == path]
    return {
        "module": modules.get(path),
        "parameters": parameters_of[:MOST_STREAMS],
        "follower": (known.get("followers") or {}).get(path),
    }


#: The function of each route, and the parameters that it takes.
ROUTES: dict[str, tuple[Callable[[Run, Parameters], Any], tuple[str, ...]]] = {
    "head": (lambda run, _: head(run), ()),
    "growth": (lambda run, _: growth(run), ()),
    "marks": (lambda run, _: marks(run), ()),
    "tiles": (tiles, ("streams", "phase", "width", "index", "skip", "exact")),
    "column": (column, ("stream", "phase", "start", "batches", "width")),
    "moments": (moments, ("stream", "phase", "start", "columns", "width", "base")),
    "twin": (twin, ("stream", "epoch")),
    "scalars": (scalars, ("phase", "start", "stop", "points")),
    "units": (units, ("stream", "phase")),
    "facts": (facts, ("stream",)),
    "findings": (lambda run, _: findings(run), ()),
}


def _sum_of(counts: Any, counters: Any) -> dict[str, Any]:
    occupied = np.flatnonzero(counts)
    return {
        "bins": occupied.tolist(),
        "counts": counts[occupied].tolist(),
        "counters": dict(zip(COUNTERS, (int(each) for each in counters), strict=True)),
    }


def _binned(values: Any, place: Any, number: int) -> dict[str, list[float]]:
    starts = np.flatnonzero(np.diff(place, prepend=-1))
    at = place[starts]
    result = {}
    for name, found in (
        ("mean", np.add.reduceat(values, starts) / np.diff(starts, append=len(values))),
        ("min", np.minimum.reduceat(values, starts)),
        ("max", np.maximum.reduceat(values, starts)),
    ):
        spread = np.full(number, np.nan)
        spread[at] = found
        result[name] = spread.tolist()
    return result


def _phase(parameters: Parameters) -> Phase:
    given = parameters.get("phase", "train")
    for phase in PHASES:
        if given == phase:
            return phase
    raise ArgumentError(f"{given[:80]!r} is not a phase: take one of {', '.join(PHASES)}.")


def _whole(parameters: Parameters, name: str, least: int, most: int | None = None, default: int | None = None) -> int:
    text = parameters.get(name)
    if text is None and default is not None:
        return default
    # isdecimal() takes other scripts' digits too, and int() of a long text takes long
    if text is None or len(text) > 15 or not (text.isascii() and text.isdecimal()):
        raise ArgumentError(f"{name}={str(text)[:80]!r} cannot be: it is a whole number.")
    value = int(text)
    if value < least or (most is not None and value > most):
        raise ArgumentError(f"{name}={value} cannot be: take {least} to {'any' if most is None else most}.")
    return value


def _streams(run: Run, parameters: Parameters) -> list[Stream]:
    texts = parameters.get("streams", "").split(",", MOST_STREAMS)
    if len(texts) > MOST_STREAMS:
        raise ArgumentError(f"streams= names more than {MOST_STREAMS}: ask for the others in another question.")
    return [_stream(run, {"streams": text}, "streams") for text in texts]


def _stream(run: Run, parameters: Parameters, name: str) -> Stream:
    wanted = _whole(parameters, name, 0)
    for stream in run.streams:
        if stream.id == wanted:
            return stream
    raise StreamError(f"the run has no stream of the id {wanted}: it has {len(run.streams)}.")


def _level(run: Run, phase: Phase, width: int) -> int:
    level = (width.bit_length() - 1) // 2
    if 4**level != width or width > max(4 * run.length(phase), 1):
        raise ArgumentError(f"width={width} cannot be: take one of the levels that head names.")
    return level
