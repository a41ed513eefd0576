"""Every script of examples/ runs as it stands, prints what docs/examples.md says, and leaves runs of which no value is lost."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbclient import NotebookClient

import colordim
from colordim.store.description import find_runs

ROOT = Path(__file__).parents[1]
EXAMPLES = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh")}
PAGE = (ROOT / "docs" / "examples.md").read_text("utf-8")

#: Run here, where PyTorch is loaded already.
LIGHT = ("colab.py", "accelerate_.py", "keras_.py", "ignite_.py", "duckdb_.py")

#: Run in processes of their own: the options of Python, and how many runs there are then.
HEAVY = {
    "lightning_.py": (["-W", "error"], 2),
    "huggingface_.py": (["-W", "error"], 1),
    "fastai_colorful_dimension.py": ([], 8),  # fastai's imports warn
    "distributed.py": (["-W", "error"], 1),
}


def promised(name: str) -> list[str]:
    """Return the lines that the page says an example prints, as patterns."""
    (section,) = re.findall(rf"^## {re.escape(name)}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    (block, *_) = re.findall(r"^```\n(.*?)^```", section, re.M | re.S)
    return [".*".join(map(re.escape, re.split(r"\.\.\.", line))) for line in block.splitlines()]


def check_output(name: str, output: str) -> None:
    """The lines are there, in their order."""
    lines = iter(output.splitlines())
    for pattern in promised(name):
        assert any(re.search(rf"{pattern}\s*$", line) for line in lines), (
            f"{name} does not print {pattern!r}:\n{output}"
        )


def check_runs(folder: Path, number: int = 1) -> None:
    """In every column the bins and the counters beside them add up to the size."""
    paths = find_runs(folder)
    assert len(paths) == number
    for path in paths:
        run = colordim.open(path)
        assert run.streams
        assert run.problems == ()
        for stream in run.streams:
            for phase in ("train", "valid"):
                moments = run.moments(stream, phase)
                beside = sum(moments[name] for name in ("under", "over", "nan", "pos_inf", "neg_inf"))
                assert (run.counts(stream, phase).sum(axis=1) + beside == moments["size"]).all()


def environment(folder: Path) -> dict[str, str]:
    """Of a process that uses this colordim, on one thread, with temporary files below the folder."""
    (folder / "bin").mkdir()
    command = folder / "bin" / "colordim"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m colordim "$@"\n')
    command.chmod(0o755)
    return os.environ | {
        "PYTHONPATH": str(Path(colordim.__file__).parents[1]), "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "TMPDIR": str(folder),
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22",
        "PYTHONIOENCODING": "utf-8",
    }  # fmt: skip


def start(folder: Path, *command: str | Path, status: int = 0) -> str:
    result = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment(folder), capture_output=True, encoding="utf-8"
    )
    assert result.returncode == status, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def test_each_is_run_and_described() -> None:
    apart = {
        "alerts_in_ci.py",
        "plain_pytorch.py",
        "watch_over_ssh.sh",
        "jax_.py",
    }  # below; integrations/recipes_for_jax.py
    assert {*LIGHT, *HEAVY, *apart} == EXAMPLES
    assert set(re.findall(r"^## (\S+)$", PAGE, re.M)) == EXAMPLES


@pytest.fixture
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setattr(sys, "argv", ["example"])
    yield
    plt.close("all")
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's variables
def test_light(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert names
    check_output(name, capfd.readouterr().out)
    check_runs(tmp_path)


@pytest.mark.parametrize("name", HEAVY)
def test_heavy(name: str, tmp_path: Path) -> None:
    options, runs = HEAVY[name]
    check_output(name, start(tmp_path, sys.executable, *options, ROOT / "examples" / name))
    check_runs(tmp_path, runs)


@pytest.mark.usefixtures("_clean")
@pytest.mark.parametrize(("lr", "status"), [("0.1", 0), ("1", 4)])
def test_a_problem_fails_the_job(
    lr: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["alerts_in_ci.py", "--lr", lr])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / "alerts_in_ci.py"), run_name="__main__")
    assert ended.value.code == status
    output = capfd.readouterr().out
    check_runs(tmp_path)
    if status == 0:
        check_output("alerts_in_ci.py", output)
    else:
        assert "PROBLEM: the learning rate is too high" in output


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore:::zmq[.]", "ignore:::jupyter_client[.]", "ignore:::nbclient[.]", "ignore:::traitlets[.]"
)
def test_plain_in_a_kernel_and_watched_over_ssh(tmp_path: Path) -> None:
    """One notebook runs in a kernel, as a script cannot show what a cell shows; its run is that which the other example looks at."""
    notebook = nbformat.read(ROOT / "notebooks" / "plain_pytorch.ipynb", as_version=4)
    shown = [output.output_type for cell in notebook.cells for output in cell.get("outputs", [])]
    notebook.cells.pop(0)  # installs
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") != "stderr"
    ]
    assert [output.output_type for output in outputs] == shown
    check_output("plain_pytorch.py", "".join(output.get("text", "") for output in outputs))
    check_runs(tmp_path)
    check_output("watch_over_ssh.sh", start(tmp_path, "sh", ROOT / "examples" / "watch_over_ssh.sh"))
