"""The notebooks are the scripts of examples/, which test_examples.py runs, with outputs that are small enough for a repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
INSTALL = "install"
"""The tag of the first cell, which is not run here."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: Any) -> int:
    return sum("image/png" in output.get("data", {}) for cell in code(notebook) for output in cell.outputs)


def cells(notebook: Any) -> list[tuple[str, str, list[str]]]:
    return [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]


def scripts() -> dict[str, Any]:
    """Return the scripts that are notebooks too, by the names of these."""
    read = {path.stem.rstrip("_"): jupytext.read(path, fmt="py:percent") for path in (ROOT / "examples").glob("*.py")}
    return {name: script for name, script in read.items() if INSTALL in script.cells[0].metadata.get("tags", [])}


def test_each_has_its_script() -> None:
    assert sorted(scripts()) == [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_its_script(path: Path) -> None:
    assert cells(read(path)) == cells(scripts()[path.stem]), "make notebooks"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_of_it(path: Path) -> None:
    notebook = read(path)
    assert "%pip install" in notebook.cells[0].source
    assert path.stat().st_size < 1_000_000
    assert pictures(notebook) > 0
    counts = [cell.execution_count for cell in code(notebook)[1:]]
    assert counts == list(range(1, len(counts) + 1)), "it was run once, from top to bottom"
    outputs = json.dumps([cell.outputs for cell in code(notebook)])
    assert '"output_type": "error"' not in outputs
    assert '"name": "stderr"' not in outputs
    assert str(Path.home()) not in outputs
