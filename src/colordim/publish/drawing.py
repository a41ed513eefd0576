"""The figure of an epoch as a PNG image, drawn here or in a process of its own.

Drawing is Python, and takes a tenth of a second a layer: in a thread of a process that trains, the training would wait
for it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from colordim.column import KINDS
from colordim.publish.epochs import Span, spans
from colordim.store.ranks import RunReader
from colordim.views import Run

__all__ = ["draw", "draw_beside", "main"]

#: Dots per inch: a grid of sixty layers is then about two thousand pixels wide.
_DPI = 80
#: Seconds after which a process that draws is given up.
_PATIENCE = 300.0


def draw(run: Run, span: Span) -> dict[str, bytes]:
    """Draw the layers up to the end of an epoch.

    Parameters
    ----------
    run : Run
    span : Span

    Returns
    -------
    dict of str to bytes
        A PNG image under its name, ``activation/train``: of another kind where no activations were recorded, and of
        validation where the epoch has nothing else.
    """
    phase = next(iter(span.extents))
    kind = min((stream.kind for stream in run.streams), key=KINDS.index)
    buffer = BytesIO()
    run.colorful(kind=kind, phase=phase, stop=span.extents[phase][1]).savefig(buffer, format="png", dpi=_DPI)
    return {f"{kind}/{phase}": buffer.getvalue()}


def draw_beside(run: Run, span: Span) -> dict[str, bytes]:
    """Draw the same in another process, at low priority, which reads the folder of the run.

    Raises
    ------
    OSError, RuntimeError
        If there is no such process, or it failed.
    """
    source = str(Path(__file__).parents[2])  # where this package was found
    paths = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])
    with TemporaryDirectory(prefix="colordim-") as out:
        command = [sys.executable, "-m", __name__, run.path, str(span.epoch), out]
        ended = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            start_new_session=True,  # what Ctrl-C stops is the training
        )
        if ended.returncode:
            raise RuntimeError((ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1])
        return {path.stem.replace("-", "/"): path.read_bytes() for path in Path(out).iterdir()}


def main(arguments: Sequence[str]) -> None:
    """Draw, in the process that :func:`draw_beside` begins."""
    path, epoch, out = arguments
    if hasattr(os, "nice"):
        os.nice(5)
    run = Run(RunReader(path))
    (span,) = (span for span in spans(run) if span.epoch == int(epoch))
    for name, png in draw(run, span).items():
        (Path(out) / f"{name.replace('/', '-')}.png").write_bytes(png)


if __name__ == "__main__":
    main(sys.argv[1:])
