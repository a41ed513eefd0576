"""The notebooks run from top to bottom, and what they show is small enough for a repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
INSTALL = "install"
"""The tag of the first cell, which the tests leave out."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: Any) -> list[str]:
    return [
        output["data"]["image/png"]
        for cell in code(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore:::zmq[.]", "ignore:::jupyter_client[.]", "ignore:::nbclient[.]", "ignore:::traitlets[.]"
)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook, there = read(path), len(pictures(read(path)))
    first = notebook.cells.pop(0)
    assert first.metadata.tags == [INSTALL]
    assert "%pip install" in first.source
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": tmp_path}}).execute()
    assert len(pictures(notebook)) == there > 0


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_of_it(path: Path) -> None:
    notebook = read(path)
    assert path.stat().st_size < 1_000_000
    counts = [cell.execution_count for cell in code(notebook)[1:]]
    assert counts == list(range(1, len(counts) + 1)), "it was run once, from top to bottom"
    outputs = json.dumps([cell.outputs for cell in code(notebook)])
    assert '"output_type": "error"' not in outputs
    assert '"name": "stderr"' not in outputs
    assert str(Path.home()) not in outputs
