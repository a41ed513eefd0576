"""The head of a run: what the page knows before it asks for columns, as JSON."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np

from colordim import reading
from colordim.charts.labels import shape_names, shape_text
from colordim.column import PHASES, Phase, Stream
from colordim.run import Run
from colordim.store.place import is_url

__all__ = ["TILE", "growth", "head", "marks"]

#: Columns of a tile that the server sends.
TILE = 512

#: Recorded batches up to which they are read at once.
_SOON = 16384

#: Marks of epochs that the page is told of at most; of more every 2nd, 3rd, ... is.
_EPOCHS = 4096


def head(run: Run) -> dict[str, Any]:
    """Return the run in JSON types: :func:`growth`, and what does not change while it grows.

    Returns
    -------
    dict
        Of `growth`, and ``marks`` (as :func:`marks` returns them; null where they take longer than all else), ``name, path,
        created, model`` (class and number of parameters), ``streams``: a row for each in call order: ``id, name, kind,
        module, arguments, shape`` (text), ``axis``, ``facet`` (null, or ``of, index, label``).
    """
    facts = run.facts
    now = growth(run)
    return {
        **now,
        "marks": marks(run) if sum(now["recorded"].values()) <= _SOON and not is_url(run.path) else None,
        "name": run.name,
        "path": run.path,
        "created": str(run.info.get("created", "")),
        "model": {"class": facts.get("class"), "parameters": facts.get("parameters")},
        "streams": [_stream(stream) for stream in run.streams],
    }


def growth(run: Run) -> dict[str, Any]:
    """Return what of the head grows with the run; known without reading its batches, so at once for a million.

    Returns
    -------
    dict
        ``batches, recorded`` (by phase); ``levels``: of each phase a row for each column width that can be had,
        ``width`` (batches) and ``kept`` (first batch of which there are columns of it); ``tile`` (columns of a tile),
        ``ended, problems, count`` (number of streams).
    """
    extents = {phase: run.extent(phase) for phase in PHASES}
    return {
        "batches": {phase: batches for phase, (batches, _) in extents.items()},
        "recorded": {phase: recorded for phase, (_, recorded) in extents.items()},
        "levels": {phase: _levels(run, phase) for phase in PHASES},
        "tile": TILE,
        "ended": run.ended,
        "problems": list(run.problems[:20]),
        "count": len(run.streams),
    }


def marks(run: Run) -> dict[str, Any]:
    """Return what is known of the batches themselves.

    Returns
    -------
    dict
        ``epochs``: of each phase ``first`` (batch), ``number``, and ``at``, the training batches before it; ``scalars``
        (logged names), ``seconds`` (since the last batch, null without one), ``cost`` (share of the training time, null
        if unknown), ``note``.
    """
    table = run.batches
    last = float(table["time"][-1]) if len(table["time"]) else math.nan
    cost = run.cost
    return {
        "epochs": {phase: _epochs(run, phase) for phase in PHASES},
        "scalars": reading.logged(run),
        "seconds": time.time() - last if math.isfinite(last) else None,
        "cost": cost if math.isfinite(cost) else None,
        "note": reading.notes(run),
    }


def _stream(stream: Stream) -> dict[str, Any]:
    output = stream.kind in ("activation", "gradient")
    names = shape_names(stream.shape, stream.module, stream.arguments) if output else ()
    facet = stream.facet and {"of": stream.facet.of, "index": stream.facet.index, "label": stream.facet.label}
    return {
        "id": stream.id,
        "name": stream.name,
        "kind": stream.kind,
        "module": stream.module,
        "arguments": stream.arguments,
        "shape": shape_text(stream.shape, names) if stream.shape else "",
        "axis": stream.axis.to_dict(),
        "facet": facet,
    }


def _epochs(run: Run, phase: Phase) -> dict[str, list[int]]:
    first, number = reading.epochs(run, phase)
    table = run.batches
    trained = table["batch"][table["phase"] == "train"]
    mine = table["phase"] == phase
    batch = table["batch"][mine][np.searchsorted(table["index"][mine], first)]
    every = -(-len(first) // _EPOCHS) or 1
    at = np.searchsorted(trained, batch)
    return {"first": first[::every].tolist(), "number": number[::every].tolist(), "at": at[::every].tolist()}


def _levels(run: Run, phase: Phase) -> list[dict[str, int]]:
    length = run.length(phase)
    rows = []
    level = 0
    while level == 0 or 4**level < length or run.kept(phase, level - 1) > 0:
        rows.append({"width": 4**level, "kept": run.kept(phase, level)})
        level += 1
    return rows
