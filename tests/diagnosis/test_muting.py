"""What a project mutes stands in the nearest pyproject.toml, and a mistake in it names the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from colordim.diagnosis.muting import project_mute
from colordim.errors import ArgumentError


def project(folder: Path, text: str) -> Path:
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    return folder


def test_the_nearest_file_above_counts(tmp_path: Path) -> None:
    project(tmp_path, '[tool.colordim]\nmute = ["plateau"]')
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    assert project_mute(inner) == ("plateau",)
    project(inner.parent, '[tool.colordim]\nmute = ["massive-activations", "dead-units:features.*"]')
    assert project_mute(inner) == ("massive-activations", "dead-units:features.*")
    project(inner, "[project]\nname = 'x'")
    assert project_mute(inner) == ()


def test_the_current_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project(tmp_path, '[tool.colordim]\nmute = ["plateau"]'))
    assert project_mute() == ("plateau",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[tool.colordim]\nmute = ["platou"]', "'platou' is no symptom .* nearest is 'plateau'"),
        ("[tool.colordim]\nmute = 'plateau'", "mute is a list of symptoms"),
        ("[tool.colordim]\nmute = [3]", "mute is a list of symptoms"),
        ("[tool.colordim]\nmutes = []", "has no 'mutes', it takes mute"),
        ("tool.colordim = 3", "takes mute"),
        ("mute = [", "cannot be read"),
    ],
)
def test_a_mistake_names_the_file(tmp_path: Path, text: str, said: str) -> None:
    project(tmp_path, text)
    with pytest.raises(ArgumentError, match=said) as caught:
        project_mute(tmp_path)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)
