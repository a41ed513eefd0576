"""The Triton kernel where there is no GPU: interpreted, it equals the reference; and it compiles for GPUs."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

DRIVE = Path(__file__).with_name("drive_triton.py")

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.fixture(autouse=True, scope="module")
def chosen_backend() -> str:
    """These tests name their backends themselves: they run once."""
    return "both"


def drive(what: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, str(DRIVE), what], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_interpreted_it_equals_the_reference() -> None:
    assert drive("count", TRITON_INTERPRET="1") == "180 tensors counted\n"


@pytest.mark.skipif(sys.platform != "linux", reason="Triton brings its assembler along on Linux only")
def test_it_compiles_for_old_and_new_gpus(tmp_path: Path) -> None:
    assert drive("compile", TRITON_CACHE_DIR=str(tmp_path)) == "18 kernels compiled\n"
