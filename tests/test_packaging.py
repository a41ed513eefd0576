"""What a release consists of: the wheel builds, holds what it should and nothing else, and its description is sound."""

from __future__ import annotations

import email
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest
import yaml

import colordim

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_twine_has_nothing_to_say(wheel: Path) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(wheel)], capture_output=True, text=True, timeout=120
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "PASSED" in checked.stdout


def test_the_wheel_holds_the_package_its_kernel_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"colordim", f"colordim-{colordim.__version__}.dist-info"}
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "colordim").rglob("*.py")}
    static = {
        p.relative_to(ROOT / "src").as_posix() for p in (ROOT / "src/colordim/web/static").rglob("*") if p.is_file()
    }
    assert sources | static | {"colordim/py.typed", "colordim/binning/_kernel.txt"} <= names
    assert not [name for name in names if name.endswith((".c", ".h", ".pyc"))]
    # Without a compiler the wheel is one of plain Python: then the note says why.
    assert any(Path(name).stem == "_kernel" and not name.endswith(".txt") for name in names) != wheel.name.endswith(
        "py3-none-any.whl"
    )


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 1_500_000


def test_the_description_says_what_there_is(metadata: Message) -> None:
    assert metadata["Name"] == "colordim"
    assert metadata["Version"] == colordim.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    needed = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert not [each for each in needed if each.startswith("torch")], "looking at runs needs no PyTorch"
    assert str(metadata.get_payload()).startswith("# colordim")


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert citation["version"] == colordim.__version__
    assert citation["license"] == "Apache-2.0"


def test_a_release_builds_for_three_systems_and_is_checked_before_it_is_published() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text("utf-8"))["jobs"]
    systems = {name.split("-")[0] for name in jobs["wheels"]["strategy"]["matrix"]["os"]}
    assert systems == {"ubuntu", "macos", "windows"}
    assert jobs["publish"]["needs"] == "check"
    assert set(jobs["check"]["needs"]) == {"wheels", "source"}
    assert "twine check --strict" in str(jobs["check"]["steps"])
