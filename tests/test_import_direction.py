"""Imports run one way: a module imports only what stands to its left in ORDER, and no torch where none belongs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "colordim"

#: From left to right; the parts of one room may import each other.
ORDER = [
    "errors",
    "manual",
    "termination",
    "axis",
    "column",
    "binning",
    "recording",
    "store",
    "run",
    "statistics",
    "charts",
    "diagnosis",
    "export",
    "fleet",
    "reading",
    "asking",
    "listing",
    "web",
    "views",
    "publish",
    "resuming",
    "handle",
    "api",
    "__init__",
    "doctor",
    "importing",
    "integrations",
    "fastai",
    "lightning",
    "huggingface",
    "opener",
    "demo",
    "teaching",
    "exchange",
    "inventory",
    "judging",
    "reporting",
    "viewing",
    "cli",
    "__main__",
]

#: Rooms that may import torch; all others must work without it.
WITH_TORCH = {"binning", "recording", "doctor", "integrations", "fastai", "lightning", "huggingface", "demo"}

#: Rooms that must not know of each other although the order would allow it.
STRANGERS = {("store", "binning"), ("store", "recording"), ("run", "recording"), ("charts", "run"), ("charts", "store")}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield each imported module's dotted name, and whether the import runs when the module is imported."""
    lazy = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or _is_type_checking(node)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in lazy
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:  # `from colordim import axis` imports colordim.axis
                name = f"{node.module}.{alias.name}" if node.module == "colordim" else node.module or ""
                yield name, id(node) not in lazy


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def violations(path: str, tree: ast.AST) -> list[str]:
    here = room(SOURCE / path)
    found = []
    for name, eager in imports(tree):
        parts = name.split(".")
        if parts[0] == "torch" and eager and here not in WITH_TORCH:
            found.append(f"{path} imports torch")
        if parts[0] != "colordim":
            continue
        there = parts[1] if len(parts) > 1 and parts[1] in ORDER else "__init__"
        if here != there and (ORDER.index(there) > ORDER.index(here) or (here, there) in STRANGERS):
            found.append(f"{path} imports {name}")
    return found


@pytest.mark.parametrize("path", sorted(str(p.relative_to(SOURCE)) for p in SOURCE.rglob("*.py")))
def test_imports_run_one_way(path: str) -> None:
    assert violations(path, ast.parse((SOURCE / path).read_text())) == []


def test_planted_violations_are_found() -> None:
    planted = "import torch\ndef f():\n    import torch\nfrom colordim.charts import colorful\nimport colordim.axis"
    assert violations("store/folder.py", ast.parse(planted)) == [
        "store/folder.py imports torch",
        "store/folder.py imports colordim.charts",
    ]
    assert violations("run.py", ast.parse("from colordim.recording import recorder")) != []
    assert violations("charts/grid.py", ast.parse("from colordim.run import Run")) != []
    assert violations("axis.py", ast.parse("from colordim import run, errors")) == ["axis.py imports colordim.run"]
    assert violations("store/base.py", ast.parse("from colordim import record")) != []


def test_every_module_stands_in_the_order() -> None:
    assert {room(path) for path in SOURCE.rglob("*.py")} <= set(ORDER)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        (
            "import colordim",
            ["torch", "matplotlib", "starlette", "uvicorn", "typer", "rich", "fastai", "lightning", "transformers"],
        ),
        ("import colordim.recording.recorder, colordim.api", ["matplotlib", "typer", "rich"]),
        ("import colordim.cli", ["torch", "matplotlib", "starlette", "uvicorn"]),
        ("import colordim.views, colordim.run, colordim.statistics", ["torch"]),
    ],
)
def test_what_an_import_does_not_bring_along(statement: str, absent: list[str]) -> None:
    code = f"import sys; {statement}; print([name for name in {absent} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
