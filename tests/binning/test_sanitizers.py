"""The kernel reads and writes where it may, and computes nothing that C leaves undefined."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import colordim

DRIVER = Path(__file__).with_name("drive_kernel.py")
FLAGS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")


@pytest.fixture(autouse=True, scope="module")
def chosen_backend() -> str:
    """These tests use no backend of this process."""
    return "none"


def run_driver(library: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(Path(colordim.__file__).parents[1]), **environment}
    command = [sys.executable, str(DRIVER), str(library)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_the_driver_finds_nothing_in_the_ordinary_build(library: Path) -> None:
    done = run_driver(library)
    assert done.returncode == 0, done.stderr
    assert "arrays counted" in done.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="preloads the sanitizer's library")
def test_the_sanitizers_find_nothing(compile_kernel: Callable[..., Path]) -> None:
    library = compile_kernel(*FLAGS, optional=True)
    compiler = os.environ.get("CC", "cc").split()
    names = ["libasan.so", "libubsan.so"]
    found = [
        subprocess.run([*compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False).stdout
        for name in names
    ]
    preload = [line.strip() for line in found if Path(line.strip()).is_absolute()]
    if len(preload) < len(names):
        pytest.skip("the compiler has no libasan to preload")
    done = run_driver(library, LD_PRELOAD=" ".join(preload), ASAN_OPTIONS="detect_leaks=0")
    assert done.returncode == 0, done.stderr
    assert "arrays counted" in done.stdout
