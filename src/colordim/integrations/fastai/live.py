"""The Twin Peaks chart, drawn anew after each epoch while a fit runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colordim.recording.notices import Notices

if TYPE_CHECKING:
    from colordim import Run

__all__ = ["FILE", "LiveChart", "notebook"]

#: In the folder of the run.
FILE = "twin_peaks.png"


class LiveChart:
    """One chart a fit: in a notebook a display of its own below the cell, which is updated, elsewhere a file."""

    def __init__(self) -> None:
        self._notices = Notices()
        self._display: Any = None
        self._said: set[Path] = set()
        self._failed = False

    def begin(self) -> None:
        """Show the next chart in a display of its own: a fit begins, perhaps in another cell."""
        self._display = None

    def update(self, run: Run) -> None:
        """Draw the last recorded layer in the newest epoch; an error ends the drawing, and not the training."""
        if self._failed:
            return
        try:
            self._draw(run)
        except Exception as error:
            self._failed = True
            self._notices.say(
                "live chart",
                f"The live chart is no longer drawn, because drawing it failed ({type(error).__name__}: {error}); "
                "training and recording go on.",
            )

    def _draw(self, run: Run) -> None:
        figure = run.twin_peaks()
        if notebook():
            from IPython.display import display

            if self._display is None:
                self._display = display(figure, display_id=True)
            else:
                self._display.update(figure)
        elif run.path:
            file = Path(run.path) / FILE
            figure.savefig(file)
            if file not in self._said:
                self._said.add(file)
                print(f"Twin Peaks after each epoch: {file}")  # noqa: T201 - the user asked for a chart that is live


def notebook() -> bool:
    """Whether this runs in the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
