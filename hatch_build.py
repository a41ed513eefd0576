"""Compile the kernel when colordim is built, or say why not, and pack the manual; the build itself never fails for the former.

Run as a program it builds the kernel in the source tree: ``python hatch_build.py``.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface

    Hook = BuildHookInterface[Any]
else:
    try:
        from hatchling.builders.hooks.plugin.interface import BuildHookInterface as Hook
    except ImportError:  # run as a program, or by the tests
        Hook = object

__all__ = ["CustomBuildHook", "NotCompiledError", "compile_kernel", "pages"]

PACKAGE = Path("src", "colordim", "binning")
NAME = {"win32": "_kernel.dll", "darwin": "_kernel.dylib"}.get(sys.platform, "_kernel.so")
NOTE = "_kernel.txt"

# Vectorised loops need -O3 with older compilers, and leave to take sums in any order, which `omp simd` gives them: this
# is no OpenMP library. Without -ffp-contract, clang would not use fused multiply-add.
UNIX_FLAGS = [
    "-O3",
    "-std=c11",
    "-fopenmp-simd",
    "-fno-math-errno",
    "-ffp-contract=fast",
    "-fPIC",
    "-fvisibility=hidden",
]


class NotCompiledError(Exception):
    """The kernel could not be compiled; the message says why."""


class CustomBuildHook(Hook):
    """Adds the kernel and the manual to wheels; an editable install has them in the source tree."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is put together."""
        root = Path(self.root)
        editable = version == "editable"
        self._directory = root / PACKAGE if editable else Path(tempfile.mkdtemp(prefix="colordim-kernel-"))
        built = build(root, self._directory)
        files = [] if editable else [NOTE, NAME] if built else [NOTE]  # an editable install finds them where they are
        for name in files:
            build_data["force_include"][str(self._directory / name)] = f"colordim/binning/{name}"
        if not editable:
            build_data["force_include"].update(pages(root / "docs"))
        if built:
            # Neither Python nor torch is linked: one wheel for all of their versions.
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled aside."""
        if version != "editable":
            shutil.rmtree(self._directory, ignore_errors=True)


def pages(docs: Path) -> dict[str, str]:
    """Return where in a wheel each page of the manual goes; what begins with an underscore is made from them."""
    found = (path for path in docs.rglob("*.md") if not path.relative_to(docs).parts[0].startswith("_"))
    return {str(path): f"colordim/pages/{path.relative_to(docs).as_posix()}" for path in sorted(found)}


def build(root: Path, directory: Path) -> bool:
    """Put the library into `directory` if it can be compiled, and a note on how or why not in any case."""
    library = directory / NAME
    library.unlink(missing_ok=True)
    try:
        note = compile_kernel(root, library)
    except NotCompiledError as error:
        note = str(error)
    (directory / NOTE).write_text(note + "\n", "utf-8")
    return library.exists()


def compile_kernel(root: Path, library: Path, flags: tuple[str, ...] = ()) -> str:
    """Compile the kernel, and return with which compiler.

    Parameters
    ----------
    root : path
        Of the source tree.
    library : path
        Where the shared library goes.
    flags : tuple of str
        Passed to the compiler after all others; the environment's ``CC``, ``CFLAGS`` and ``LDFLAGS`` are heeded too.

    Raises
    ------
    NotCompiledError
        If there is no compiler, or it fails.
    """
    compiler = _find_compiler()
    source = root / PACKAGE / "_kernel.c"
    own = [*shlex.split(os.environ.get("CFLAGS", "")), *shlex.split(os.environ.get("ARCHFLAGS", ""))]
    with tempfile.TemporaryDirectory() as scratch:
        if Path(compiler[0]).stem.lower() == "cl":
            out = Path(scratch, NAME)
            command = [*compiler, "/nologo", "/O2", "/std:c11", "/LD", *own, *flags, str(source), f"/Fe{out}"]
        else:
            out = Path(scratch, NAME)
            link = ["-shared", *shlex.split(os.environ.get("LDFLAGS", ""))]
            command = [*compiler, *UNIX_FLAGS, *own, *flags, *link, str(source), "-o", str(out), "-lm"]
        try:
            result = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotCompiledError(f"the C compiler could not be run when colordim was installed ({error})") from error
        if result.returncode or not out.exists():
            lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
            first = next((line for line in lines if "error" in line.lower()), lines[-1])
            raise NotCompiledError(f"the C compiler failed when colordim was installed ({first.strip()})")
        shutil.copyfile(out, library)
    return f"compiled with {_version(compiler)}"


def _find_compiler() -> list[str]:
    """Return the command of the first C compiler there is: ``CC``, the one that Python was built with, or a usual one."""
    asked = shlex.split(os.environ.get("CC", ""))
    if asked:
        return asked
    usual = ["cl", "clang", "gcc"] if sys.platform == "win32" else ["cc", "gcc", "clang"]
    built_with = shlex.split(sysconfig.get_config_var("CC") or "")[:1]
    for name in [*usual, *built_with]:
        if found := shutil.which(name):
            return [found]
    raise NotCompiledError("no C compiler was found when colordim was installed")


def _version(compiler: list[str]) -> str:
    try:
        shown = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Path(compiler[0]).name
    lines = (shown.stdout or shown.stderr).strip().splitlines()
    return lines[0] if lines else Path(compiler[0]).name


def _platform_tag() -> str:
    from packaging.tags import sys_tags  # hatchling brings it

    platforms = (tag.platform for tag in sys_tags())
    return next(name for name in platforms if "manylinux" not in name and "musllinux" not in name)


if __name__ == "__main__":
    here = Path(__file__).parent
    done = build(here, here / PACKAGE)
    sys.stdout.write((here / PACKAGE / NOTE).read_text("utf-8"))
    sys.exit(not done)
