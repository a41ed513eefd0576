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
import pytest

import colordim
from colordim.store.description import find_runs

ROOT = Path(__file__).parents[1]
EXAMPLES = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh")}
PAGE = (ROOT / "docs" / "examples.md").read_text("utf-8")

#: Run here, where PyTorch is loaded already; by script: the frameworks whose warnings are their own.
LIGHT = {"colab.py": (), "accelerate_.py": (), "keras_.py": ("keras",), "ignite_.py": ("ignite",), "duckdb_.py": ()}

#: Run in processes of their own: the options of Python, and how many runs there are then.
HEAVY = {
    "lightning_.py": (["-W", "error"], 2),
    "huggingface_.py": (["-W", "error"], 1),
    "fastai_colorful_dimension.py": ([], 8),  # fastai's imports warn
    "jax_.py": (["-W", "error"], 1),  # a process that has imported JAX warns whenever it is forked
    "distributed.py": (["-W", "error"], 1),
    "alerts_in_ci.py": (["-W", "error"], 1),
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
        assert any(re.search(rf"{pattern}\s*$", line) for line in lines), f"{name} does not print {pattern!r}:\n{output}"


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
    plain = {"plain_pytorch.py"}  # test_notebooks.py runs it in a kernel, and the next test what it leaves behind
    assert plain | {*LIGHT, *HEAVY, "watch_over_ssh.sh"} == EXAMPLES
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


def test_a_problem_fails_the_job(tmp_path: Path) -> None:
    output = start(tmp_path, sys.executable, ROOT / "examples" / "alerts_in_ci.py", "--lr", "1", status=4)
    assert "PROBLEM: the learning rate is too high" in output


def test_plain_and_watched_over_ssh(tmp_path: Path) -> None:
    check_output("plain_pytorch.py", start(tmp_path, sys.executable, "-W", "error", ROOT / "examples" / "plain_pytorch.py"))
    check_runs(tmp_path)
    (tmp_path / "bin" / "colordim").unlink()
    (tmp_path / "bin").rmdir()
    check_output("watch_over_ssh.sh", start(tmp_path, "sh", ROOT / "examples" / "watch_over_ssh.sh"))
