"""The colorful dimension as text: two rows of the picture in every character, or shades of ASCII."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from colordim.axis import Axis
from colordim.charts.labels import compact

__all__ = ["FRAME_WIDTH", "HeatMap", "color_bar", "draw", "draws_blocks", "heat_map", "limits"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

#: From the fewest to the most values; the blank is kept for none at all.
SHADES = ".:-=+*#%@"

_GUTTER = 10  # value labels and the axis line
_MARGIN = 2  # the zero mark at the right
#: Characters of a panel that are not columns.
FRAME_WIDTH = _GUTTER + _MARGIN
_FRAME = 5  # title, the strips above and below the window, batch axis and its labels
_COLORS = [
    Color.from_rgb(*(round(255 * channel) for channel in colormaps["viridis"](0.04 + 0.96 * i / 63)[:3]))
    for i in range(64)
]
_ZERO, _EPOCH, _BAD, _FAINT = (
    Style(color="bright_red"),
    Style(color="bright_blue", bold=True),
    Style(color="bright_magenta"),
    Style(dim=True),
)


@dataclass(frozen=True)
class HeatMap:
    """The histograms of one stream, merged to the columns and rows of a picture.

    Attributes
    ----------
    title : str
    cells : ndarray of float64, shape ``[rows, columns]``
        Share of the column's values (or their count per batch), the lowest row first.
    above, below : ndarray of float64, shape ``[columns]``
        The same for what lies outside the window; infinities are in `bad`.
    bad : ndarray of bool, shape ``[columns]``
        Whether the column has a NaN or an infinity.
    edges : ndarray of float64, shape ``[rows + 1]``
        Values at the borders of the rows.
    first : ndarray of int64, shape ``[columns]``
        First batch of each column.
    batches : int
        How many batches a column holds; the last may hold fewer.
    size : float
        Values of the stream per batch, on average.
    epochs : ndarray of int64
        First batch of each epoch.
    unit : float
        What one value per batch is in `cells`: ``1 / size`` for shares, 1 for counts.
    """

    title: str
    cells: FloatArray
    above: FloatArray
    below: FloatArray
    bad: npt.NDArray[np.bool_]
    edges: FloatArray
    first: IntArray
    batches: int
    size: float
    epochs: IntArray
    unit: float


def draws_blocks(console: Console) -> bool:
    """Tell whether the console shows at least 256 colours and half blocks; without, there is ASCII."""
    return (
        console.color_system in {"256", "truecolor", "windows"}
        and not console.no_color
        and console.encoding.lower().startswith("utf")
    )


def heat_map(
    counts: npt.ArrayLike,
    counters: npt.NDArray[np.int64],
    axis: Axis,
    window: Callable[[int], FloatArray],
    *,
    first: npt.ArrayLike | None = None,
    number: npt.ArrayLike | None = None,
    epochs: npt.ArrayLike = (),
    title: str = "",
    width: int = 100,
    height: int = 27,
    blocks: bool = True,
    color: str = "share",
) -> HeatMap:
    """Merge histograms to what fits in `width` characters and `height` lines.

    Adjacent columns are added up by a whole factor, so that every batch is in the picture with
    the weight of its values, and no batch is in two columns.

    Parameters
    ----------
    counts : array_like of int, shape ``[batches, bins]``
    counters : ndarray of int64, shape ``[batches, 8]``
        In the order of :data:`colordim.column.COUNTERS`.
    axis : Axis
        Of the bins.
    window : callable
        Given a number of rows, returns the ``rows + 1`` ascending values at their borders.
    first, number : array_like of int, shape ``[batches]``, optional
        First batch of each column and how many batches it holds already.
    epochs : array_like of int, optional
        First batch of each epoch.
    title : str
    width, height : int
        Characters and lines of the panel, the colour bar not included; at least 20 and 8.
    blocks : bool
        Two rows a line (half blocks) or one (ASCII).
    color : {"share", "count"}
        What the colour means: the share of the column's values, or their number per batch.
    """
    counts = np.asarray(counts, dtype=np.int64)
    n = len(counts)
    first = np.arange(n, dtype=np.int64) if first is None else np.asarray(first, dtype=np.int64)
    number = np.ones(n, dtype=np.int64) if number is None else np.asarray(number, dtype=np.int64)
    factor = max(1, -(-n // max(1, width - FRAME_WIDTH)))
    starts = np.arange(0, n, factor)
    under, over, nan, pos_inf, neg_inf, _, size, _ = (
        np.add.reduceat(counters, starts, axis=0) if n else np.zeros((0, 8), np.int64)
    ).T
    bad = nan + pos_inf + neg_inf > 0
    lines = max(1, height - _FRAME - int(bad.any()))
    edges = np.asarray(window(lines * (2 if blocks else 1)), dtype=np.float64)
    merged = np.add.reduceat(counts, starts, axis=0) if n else counts
    rows = axis.project(edges) @ merged.T
    rows[0] += under
    rows[-1] += over
    batches = np.add.reduceat(number, starts) if n else number
    cells = rows / np.maximum(size if color == "share" else batches, 1)
    mean_size = float(size.sum() / max(1, number.sum()))
    return HeatMap(
        title=title,
        cells=cells[1:-1],
        above=cells[-1],
        below=cells[0],
        bad=bad,
        edges=edges,
        first=first[starts],
        batches=int(batches.max(initial=1)),
        size=mean_size,
        epochs=np.asarray(epochs, dtype=np.int64),
        unit=1 / max(mean_size, 1.0) if color == "share" else 1.0,
    )


def limits(maps: Sequence[HeatMap]) -> tuple[float, float]:
    """Return what the lowest and the highest colour stand for, if the `maps` are to share them.

    The lowest is one value in a batch of the largest layer, the highest the fullest cell; they are
    at least a decade apart.
    """
    high = max((float(part.max(initial=0)) for m in maps for part in (m.cells, m.above, m.below)), default=0.0) or 1.0
    return min([high / 10, *(m.unit for m in maps)]), high


def draw(heat: HeatMap, *, low: float, high: float, blocks: bool = True, width: int = 100) -> Text:
    """Return a heat map as lines of text, none longer than `width`.

    Parameters
    ----------
    heat : HeatMap
        Merged for the same `blocks` and `width`.
    low, high : float
        What the lowest and the highest colour stand for, in the unit of the map's cells.
    blocks : bool
        Half blocks in colour, or ASCII.
    width : int
        Characters.
    """
    repeat = max(1, (width - FRAME_WIDTH) // max(1, len(heat.first)))

    def shade(values: FloatArray) -> IntArray:
        return np.repeat(_levels(values, low, high, len(_COLORS) if blocks else len(SHADES)), repeat, axis=-1)

    per_line = 2 if blocks else 1
    lines = len(heat.cells) // per_line
    labels = _value_labels(heat.edges, per_line)
    levels = shade(heat.cells)
    zero = _row_of(heat.edges, 0.0)
    above, below = shade(heat.above[None])[0], shade(heat.below[None])[0]
    text = Text(no_wrap=True)
    note = (
        f"  {heat.batches} {'batches' if width >= 70 else ''} a column".replace("  a", " a") if heat.batches > 1 else ""
    )
    text.append(_cut(heat.title, width - len(note)), "bold")
    text.append(note + "\n", _FAINT)
    up, down = ("▲", "▼") if blocks else ("^", "v")
    _line(text, f"{up}{_outside(heat.above, heat.unit)}", _strip(above, 1, blocks), "│" if blocks else "|", _FAINT)
    for line in range(lines - 1, -1, -1):
        at_zero = zero is not None and zero // per_line == line
        label = labels.get(line, "")
        tick = ("┤" if label else "│") if blocks else ("+" if label else "|")
        cells = levels[line * per_line : (line + 1) * per_line]
        _line(
            text,
            label,
            _half_blocks(cells) if blocks else _ascii(cells[0]),
            tick,
            _ZERO if at_zero else _FAINT,
            at_zero,
        )
    _line(text, f"{down}{_outside(heat.below, heat.unit)}", _strip(below, 0, blocks), "│" if blocks else "|", _FAINT)
    if heat.bad.any():
        mark = "×" if blocks else "x"
        _line(
            text, "NaN/Inf", Text("".join(mark if b else " " for b in np.repeat(heat.bad, repeat)), _BAD), " ", _FAINT
        )
    text.append(_batch_axis(heat, repeat, blocks, width))
    return text


def color_bar(
    low: float, high: float, size: float | None = None, *, color: str = "share", blocks: bool = True, width: int = 100
) -> Text:
    """Return the colour bar: shares above it, and the counts below it that they are of `size` values.

    Parameters
    ----------
    low, high : float
        As for :func:`draw`.
    size : float, optional
        Values in a batch; None if panels of several sizes share the bar.
    color : {"share", "count"}
        What `low` and `high` are.
    blocks : bool
    width : int
    """
    length = max(10, min(width - FRAME_WIDTH, 64))
    shares = color == "share"
    values = np.geomspace(low, high, length)
    levels = _levels(values, low, high, len(_COLORS) if blocks else len(SHADES))
    text = Text(no_wrap=True)
    text.append(
        _scale("share" if shares else "count", low, high, length, _percent if shares else compact) + "\n", _FAINT
    )
    text.append(" " * _GUTTER)
    text.append(_half_blocks(np.vstack([levels, levels])) if blocks else _ascii(levels))
    text.append("\n")
    if size is not None and shares:
        text.append(_scale("count", low * size, high * size, length, compact) + "\n", _FAINT)
    return text


def _levels(values: FloatArray, low: float, high: float, steps: int) -> IntArray:
    """Return the step of the logarithmic scale for each value, -1 where there is nothing."""
    position = np.log10(np.clip(values, low, high) / low) / math.log10(high / low)
    return np.where(values > 0, np.minimum(position * steps, steps - 1), -1).astype(np.int64)


def _half_blocks(levels: IntArray) -> Text:
    """Draw two rows, the lower one first, as one line."""
    text = Text()
    for lower, upper in levels.T.tolist():
        if upper >= 0 and lower >= 0:
            text.append("▀", Style.from_color(_COLORS[upper], _COLORS[lower]))
        elif upper >= 0:
            text.append("▀", Style.from_color(_COLORS[upper]))
        elif lower >= 0:
            text.append("▄", Style.from_color(_COLORS[lower]))
        else:
            text.append(" ")
    return text


def _ascii(levels: IntArray) -> Text:
    return Text("".join(SHADES[level] if level >= 0 else " " for level in levels.tolist()))


def _strip(levels: IntArray, half: int, blocks: bool) -> Text:
    if not blocks:
        return _ascii(levels)
    rows = np.full((2, len(levels)), -1)
    rows[half] = levels  # the half that faces the window stays blank and sets the strip off
    return _half_blocks(rows)


def _line(text: Text, label: str, cells: Text, tick: str, style: Style, zero: bool = False) -> None:
    text.append(f"{label:>{_GUTTER - 2}} ", style)
    text.append(tick, style)
    text.append(cells)
    if zero:
        text.append("◂" if tick in "┤│" else "<", _ZERO)
    text.append("\n")


def _batch_axis(heat: HeatMap, repeat: int, blocks: bool, width: int) -> Text:
    columns = len(heat.first)
    length = columns * repeat
    plain, tick, epoch = ("─", "┬", "┴") if blocks else ("-", "+", "^")
    marks = [plain] * length
    labels = [" "] * (length + _MARGIN)
    last = int(heat.first[-1]) if columns else 0
    step = _nice_step(last / max(1, length / 10)) if columns else 1
    free = 0
    for value in range(0, last + 1, step):
        at = int(np.searchsorted(heat.first, value, side="right") - 1) * repeat
        digits = str(value)
        start = max(0, at - len(digits) // 2)
        if at >= 0 and start >= free and start + len(digits) <= len(labels):
            marks[at] = tick
            labels[start : start + len(digits)] = digits
            free = start + len(digits) + 2
    starts = {int(np.searchsorted(heat.first, e, side="right") - 1) * repeat for e in heat.epochs[1:].tolist()}
    text = Text(" " * (_GUTTER - 1) + ("└" if blocks else "+"), _FAINT)
    for at, mark in enumerate(marks):
        text.append(*((epoch, _EPOCH) if at in starts else (mark, _FAINT)))
    text.append("\n" + f"{'batch':>{_GUTTER - 2}}  " + "".join(labels).rstrip(), _FAINT)
    text.append("\n")
    return text


def _value_labels(edges: FloatArray, per_line: int) -> dict[int, str]:
    """Return labels for lines, by line from the bottom: zero first, then round values where there is room."""
    low, high = float(edges[0]), float(edges[-1])
    steps = np.diff(edges)
    if np.allclose(steps, steps[0], atol=0.0):  # a window of 1e-9 is no less logarithmic
        step = (high - low) / max(5, len(edges) // per_line / 4)
        nice = 10 ** math.floor(math.log10(step))
        nice *= next(m for m in (1, 2, 5, 10) if m * nice >= step * 0.999)
        values = [k * nice for k in range(math.ceil(low / nice), math.floor(high / nice) + 1)]
    else:
        powers = [10.0**k for k in range(-12, 9)]
        values = [v for p in reversed(powers) for v in (p, -p) if low <= v <= high]
    labels: dict[int, str] = {}
    for value in sorted(values, key=lambda v: v != 0) if 0 in values else [0.0, *values]:
        row = _row_of(edges, value)
        if row is not None and all(abs(row // per_line - other) > 1 for other in labels):
            labels[row // per_line] = f"{value:g}"
    return labels


def _row_of(edges: FloatArray, value: float) -> int | None:
    if not edges[0] <= value <= edges[-1]:
        return None
    return min(int(np.searchsorted(edges, value, side="right")) - 1, len(edges) - 2)


def _nice_step(least: float) -> int:
    power = int(10 ** max(0, math.ceil(math.log10(max(least, 1))) - 1))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= least)


def _scale(name: str, low: float, high: float, length: int, form: Callable[[float], str]) -> str:
    """Return a line of labels at the decades between `low` and `high`, and at both ends."""
    line = [" "] * (_GUTTER + length + 8)
    line[: _GUTTER - 2] = f"{name:>{_GUTTER - 2}}"
    span = math.log10(high / low) or 1.0  # nothing to show: one colour, one label
    decades = [10.0**k for k in range(math.ceil(math.log10(low) + 0.3), math.floor(math.log10(high) - 0.3) + 1)]
    taken: list[tuple[int, int]] = []
    for value in (low, high, *decades):
        label = form(value)
        at = _GUTTER + round((length - 1) * math.log10(value / low) / span)
        start = at if value == low else at - len(label) + 1 if value == high else at - len(label) // 2
        if all(start >= e + 2 or start + len(label) + 2 <= s for s, e in taken):
            line[start : start + len(label)] = label
            taken.append((start, start + len(label)))
    return "".join(line).rstrip()


def _outside(values: FloatArray, unit: float) -> str:
    mean = float(values.mean()) if len(values) else 0.0
    if unit == 1.0:
        return compact(mean)
    return _percent(mean)


def _percent(share: float) -> str:
    if 0 < share < 1e-4:  # at most seven characters, or the gutter overflows
        return f"{100 * share:.1g} %" if share >= 1e-5 else f"{100 * share:.0e} %".replace("e-0", "e-")
    return f"{100 * share:.2g} %" if share < 0.995 else ">99 %" if share < 1 else "100 %"


def _cut(title: str, width: int) -> str:
    return title if len(title) <= width else title[: width - 1] + "…"
