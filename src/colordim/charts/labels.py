"""The words of a chart: shapes, shares and counts as text, and text that is made to fit."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

__all__ = ["compact", "elide", "elide_apart", "percent", "shape_names", "shape_text", "text_width", "tick_text"]

#: Modules that work on the last dimension, so that it is the features and the others are not a picture.
_LAST = re.compile(r"Linear|LayerNorm|RMSNorm|Embedding|Attention|Transformer|Softmax")
_RECURRENT = re.compile(r"^(LSTM|GRU|RNN)$")


def shape_names(shape: Sequence[int], module: str = "", arguments: str = "") -> tuple[str, ...]:
    """Return what the dimensions of a layer's output are, as far as its type tells; else nothing.

    BS is the batch size, NF the number of features (filters, channels), T the position in a sequence,
    D, H and W the depth, height and width of a picture.
    """
    last = _LAST.search(module) is not None
    if len(shape) == 2:
        return ("BS", "NF")
    if len(shape) == 3:
        if _RECURRENT.match(module):  # its states have the layers first, whatever its output has
            return ()
        if module.endswith("1d"):
            return ("BS", "NF", "T")
        return ("BS", "T", "NF") if last and "Attention" not in module else ()
    if len(shape) == 4 and not last:
        return ("BS", "NF", "H", "W")
    if len(shape) == 5 and module.endswith("3d"):
        return ("BS", "NF", "D", "H", "W")
    return ()


def shape_text(shape: Sequence[int], names: Sequence[str] = (), *, close: bool = False) -> str:
    """Return a shape as text: ``[BS 64, NF 8, H 14, W 14]``, `close` ``[BS64 NF8 H14 W14]``, ``[64, 8]`` without names."""
    if not names:
        return "[" + ", ".join(str(size) for size in shape) + "]"
    blank, between = ("", " ") if close else (" ", ", ")
    return "[" + between.join(f"{name}{blank}{size}" for name, size in zip(names, shape, strict=True)) + "]"


def percent(share: float) -> str:
    """Return a share in per cent with two digits; 0 % and 100 % are said only of none and of all."""
    if share != share:
        return "no values"
    value = 100.0 * share
    if value <= 0 or value == 100:
        return f"{value:.0f} %"
    if value < 0.01:
        return "< 0.01 %"
    if value > 99.99:
        return "> 99.99 %"
    if value > 99:
        return f"{min(value, 99.99):.4g} %"
    return f"{value:.2g} %"


def compact(number: float) -> str:
    """Return a count in few characters: 640, 1.2k, 3M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return f"{number:.3g}"


def tick_text(value: float) -> str:
    """Return a value on an axis, with the minus sign of typography."""
    text = f"{value:.3e}" if 0 < abs(value) < 1e-3 else f"{value:.4g}" if value else "0"
    text = re.sub(r"\.?0+e", "e", text)
    return re.sub(r"e([+-])0?(\d+)", lambda m: "e" + m[1].replace("+", "") + m[2], text).replace("-", "\u2212")


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Return the width of a text in points, without kerning."""
    return sum(_character_width(character, weight) for character in text) * size


def elide(text: str, width: float, size: float, weight: str = "normal", keep: str = "start") -> str:
    """Shorten a text with an ellipsis so that it is at most `width` points wide.

    Parameters
    ----------
    text : str
    width : float
        Points.
    size : float
        Size of the font in points.
    weight : str
    keep : {"start", "end"}
        Which end stays; of a dotted module path the end tells more.

    Returns
    -------
    str
        Empty if not even one character and the ellipsis fit.
    """
    if text_width(text, size, weight) <= width:
        return text
    room = width - text_width("…", size, weight)
    kept = ""
    for character in text if keep == "start" else text[::-1]:
        room -= text_width(character, size, weight)
        if room < 0:
            break
        kept += character
    if not kept:
        return ""
    return f"{kept.rstrip(' ,(')}…" if keep == "start" else f"…{kept[::-1].lstrip(' ,.')}"


def elide_apart(names: Sequence[str], width: float, size: float, weight: str = "normal") -> list[str]:
    """Shorten module paths to at most `width` points each, so that different ones stay different.

    Ends are kept, as :func:`elide` does. Where those are alike, the first component that tells the paths
    apart is kept too (``…3…query``); where that does not do, the number of the name among `names`.
    """
    short = [elide(name, width, size, weight, keep="end") for name in names]
    for group in _alike(names, short):
        parts = zip(*(names[i].split(".") for i in group), strict=False)
        alike = list(itertools.takewhile(lambda column: len(set(column)) == 1, parts))
        start = sum(len(column[0]) + 1 for column in alike)
        for i in group:
            lead = ("…" if start else "") + names[i][start:].partition(".")[0]
            tail = names[i][start:].partition(".")[2]
            room = width - text_width(lead, size, weight)
            if tail and room > width / 4:
                short[i] = lead + elide(f".{tail}", room, size, weight, keep="end")
    for group in _alike(names, short):
        for i in group:
            lead = f"{i} "
            short[i] = lead + elide(names[i], width - text_width(lead, size, weight), size, weight, keep="end")
    return short


def _alike(names: Sequence[str], short: Sequence[str]) -> list[list[int]]:
    """Return the positions of different names that became the same text."""
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(short):
        groups.setdefault(text, []).append(i)
    return [group for group in groups.values() if len({names[i] for i in group}) > 1]


@lru_cache(maxsize=4096)
def _character_width(character: str, weight: str) -> float:
    """Advance of a character at one point, the hinting of small sizes allowed for."""
    size = 20.0
    font = FontProperties(size=size, weight=weight)
    # between two letters, because a blank at an end has no width of its own
    whole, _, _ = text_to_path.get_text_width_height_descent(f"n{character}n", font, ismath=False)
    ends, _, _ = text_to_path.get_text_width_height_descent("nn", font, ismath=False)
    return float(1.03 * (whole - ends) / size)
