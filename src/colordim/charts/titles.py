"""The lines above a panel: which layer it is, what it does, what comes out; shortened until they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.text import Text

from colordim.charts.labels import elide, elide_apart, shape_names, shape_text, text_width
from colordim.charts.style import INK, MUTED

__all__ = ["WIDE", "Caption", "draw_title", "tell_apart", "title_height"]

#: From this width, in inches, a panel has room for two lines; narrower ones have four short ones.
WIDE = 2.3
_LEADING = 1.28
_FOOT = 4.5  # points between the last line and the panel, and
_FOOT_WIDE = 12.0  # where the numbers of the epochs are between them


@dataclass(frozen=True)
class Caption:
    """What the title of a panel says.

    Attributes
    ----------
    name, module, arguments : str
        Of the layer: its path, its type, its ``extra_repr()``.
    shape : tuple of int
        Of what is shown.
    names_apply : bool
        Whether `shape` is that of a layer's output, whose dimensions have names.
    note : str
        What is said at the right: the share of zeros.
    mark : str
        What tells this panel from another of the same layer: the phase.
    """

    name: str
    module: str
    arguments: str
    shape: tuple[int, ...]
    names_apply: bool = True
    note: str = ""
    mark: str = ""


def title_height(width: float) -> float:
    """Return the height, in inches, that the titles of panels of `width` inches need."""
    name, rest = _sizes(width)
    below = 1 if width >= WIDE else 3
    return (_LEADING * (name + below * rest) + _foot(width) + 5.0) / 72


def tell_apart(captions: Sequence[Caption], width: float) -> list[Caption]:
    """Shorten the names that would become the same text above panels of `width` inches, in a way that keeps them apart."""
    size = _sizes(width)[0]
    room = min((_name_room(caption, width) for caption in captions), default=0.0)
    names = [caption.name for caption in captions]
    short = elide_apart(names, room, size, "bold")
    plain = [elide(name, room, size, "bold", keep="end") for name in names]
    return [
        caption if own == usual else replace(caption, name=own)
        for caption, own, usual in zip(captions, short, plain, strict=True)
    ]


def draw_title(ax: Axes, caption: Caption, width: float, height: float) -> list[Text]:
    """Write the title above a panel of `width` times `height` inches, no wider than the panel.

    Returns
    -------
    list of Text
        From the top line down, left to right.
    """
    name_size, size = _sizes(width)
    room = 72 * width
    head = f"{caption.name} · {caption.mark}" if caption.mark else caption.name
    shape = _shape(caption, 0.62 * room if width >= WIDE else room, size)
    if width >= WIDE:
        note = caption.note
        left = _note_start(caption, width)
        short = elide(head, left, name_size, "bold", keep="end")
        used = text_width(short, name_size, "bold")
        module = elide(caption.module, left - used - 6, size)
        used_shape = text_width(shape, size)
        lines = [
            [
                (0.0, short, name_size, "bold", INK),
                (used + 6, module, size, "normal", INK),
                (room, note, size, "normal", INK),
            ],
            [
                (0.0, shape, size, "normal", INK),
                (used_shape + 6, elide(caption.arguments, room - used_shape - 6, size), size, "normal", MUTED),
            ],
        ]
    else:
        left = room - text_width(caption.note, size) - 4
        lines = [
            [(0.0, elide(head, room, name_size, "bold", keep="end"), name_size, "bold", INK)],
            [(0.0, elide(caption.module, left, size), size, "normal", INK), (room, caption.note, size, "normal", INK)],
            [(0.0, shape, size, "normal", INK)],
            [(0.0, elide(caption.arguments, room, size), size, "normal", MUTED)],
        ]
    drawn = []
    for number, line in enumerate(reversed(lines)):
        y = 1 + (_foot(width) + _LEADING * size * number) / (72 * height)
        for x, text, points, weight, color in line:
            if text:
                drawn.append(
                    ax.text(
                        x / room,
                        y,
                        text,
                        fontsize=points,
                        fontweight=weight,
                        color=color,
                        transform=ax.transAxes,
                        ha="right" if x == room else "left",
                        va="baseline",
                        parse_math=False,
                    )
                )
    return drawn[::-1]


def _note_start(caption: Caption, width: float) -> float:
    return 72 * width - text_width(caption.note, _sizes(width)[1]) - 8


def _name_room(caption: Caption, width: float) -> float:
    """Return the points that are left for the name in the first line of a title."""
    room = _note_start(caption, width) if width >= WIDE else 72 * width
    return room - (text_width(f" · {caption.mark}", _sizes(width)[0], "bold") if caption.mark else 0.0)


def _foot(width: float) -> float:
    return _FOOT_WIDE if width >= WIDE else _FOOT


def _sizes(width: float) -> tuple[float, float]:
    return (8.5, 7.2) if width >= WIDE else (6.8, 5.9)


def _shape(caption: Caption, room: float, size: float) -> str:
    if not caption.shape and not caption.module:
        return ""
    names: Sequence[str] = shape_names(caption.shape, caption.module, caption.arguments) if caption.names_apply else ()
    choices = (
        shape_text(caption.shape, names),
        shape_text(caption.shape, names, close=True),
        shape_text(caption.shape),
    )
    fits = (text for text in choices if text_width(text, size) <= room)
    return next(fits, elide(choices[-1], room, size))
