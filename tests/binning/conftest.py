"""Every binning test runs on every backend; the kernel is compiled afresh from its sources.

What counts on a device runs on the CPU here, since it consists of torch operations alone.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import colordim.binning
from colordim.binning import device, use_backend
from colordim.binning.kernel import LIBRARY, Kernel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def hatch_build() -> Any:
    """The build script at the root of the source tree, as a module."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def compile_kernel(hatch_build: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles the kernel with more flags for the compiler, which may be optional, and returns the library."""

    def compiled(*flags: str, optional: bool = False) -> Path:
        library = tmp_path_factory.mktemp("kernel") / LIBRARY.name
        try:
            hatch_build.compile_kernel(ROOT, library, flags)
        except hatch_build.NotCompiledError as error:
            if optional or "no C compiler" in str(error):
                pytest.skip(str(error))
            raise
        return library

    return compiled


@pytest.fixture(scope="session")
def library(compile_kernel: Callable[..., Path]) -> Path:
    return compile_kernel("-Wall", "-Wextra", "-Werror")


@pytest.fixture(params=["reference", "kernel", "device"], autouse=True, scope="module")
def chosen_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    chosen: str = request.param
    if chosen == "device":
        colordim.binning._count = device.bin_by_operations
        yield chosen
        use_backend()
        return
    use_backend(Kernel(request.getfixturevalue("library")) if chosen == "kernel" else chosen)
    yield chosen
    use_backend()
