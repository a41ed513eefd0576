"""A run that was recorded once, and copies of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.docs.pages import make_run


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the pages speak of."""
    folder = tmp_path_factory.mktemp("docs") / "lenet"
    make_run(folder)
    return folder


@pytest.fixture
def here(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a copy of the run at `runs/lenet`."""
    shutil.copytree(recorded, tmp_path / "runs" / "lenet")
    monkeypatch.chdir(tmp_path)
    return tmp_path
