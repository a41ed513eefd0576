"""A picture of a run where no page can be: the output of a notebook."""

from __future__ import annotations

import base64
import html
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MOST_PANELS", "image", "png"]

#: Panels of a picture; of more layers those that changed most are shown.
MOST_PANELS = 24
#: Bytes beyond which a picture is drawn with fewer pixels, since a notebook keeps it.
MOST_BYTES = 500_000
#: Dots per inch, from which to which.
FINE, COARSE = 90, 40


def png(figure: Figure) -> bytes:
    """Return a figure as PNG, in a size for a notebook."""
    dpi, data = FINE, b""
    while not data or (len(data) > MOST_BYTES and dpi > COARSE):
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
        data, dpi = buffer.getvalue(), dpi * 2 // 3
    return data


def image(data: bytes, described: str) -> str:
    """Return a PNG as an element of HTML, with a description for who cannot see it."""
    text = html.escape(described, quote=True)
    return f'<img alt="{text}" style="max-width: 100%" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
