"""Make notebooks/ from those scripts of examples/ that begin with a cell to install: ``make notebooks``, or this with names of scripts.

The cell to install is written and not run. Pictures (in 128 colours), tables and printed lines are kept; what goes to stderr is not,
nor are pages of more than 100 kB.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).parents[1]


def light(output: Any) -> Any:
    """Return an output that a repository can hold."""
    data = output.get("data", {})
    if len(data.get("text/html", "")) > 100_000:
        del data["text/html"]
    if "image/png" in data:
        small = io.BytesIO()
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        picture.quantize(128).save(small, "PNG", optimize=True)
        data["image/png"] = base64.b64encode(small.getvalue()).decode()
    return output


def make(script: Path) -> None:
    """Run the cells of a script in a new kernel, and write them with their outputs."""
    notebook = jupytext.read(script, fmt="py:percent")
    if not notebook.cells or "install" not in notebook.cells[0].metadata.get("tags", []):
        return
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    install = notebook.cells.pop(0)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    notebook.cells.insert(0, install)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same each time
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code":
            cell.outputs = [light(output) for output in cell.outputs if output.get("name") != "stderr"]
    path = ROOT / "notebooks" / f"{script.stem.rstrip('_')}.ipynb"
    nbformat.write(notebook, path)
    sys.stdout.write(f"Wrote {path.relative_to(ROOT)}, {path.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    for script in [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "examples").glob("*.py")):
        make(script)
