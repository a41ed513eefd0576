from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import colordim
from colordim.demo import play as playing
from colordim.demo.data import Digits, load_digits
from colordim.demo.guide import commands
from colordim.errors import StoreError
from colordim.opener import open_for_user


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_digits()
    part = slice(None, None, 10)
    digits = Digits(
        whole.train_images[part], whole.train_labels[part], whole.valid_images[part], whole.valid_labels[part]
    )
    monkeypatch.setattr(playing, "load_digits", lambda: digits)


@pytest.mark.usefixtures("quick")
def test_the_demo_leaves_runs_a_picture_and_a_guide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "with a blank"
    for _ in range(2):  # the second replaces the runs of the first
        console = Console(file=io.StringIO(), width=100)
        playing.play(out, console, epochs=2, show=False)
    assert sorted(path.name for path in out.iterdir()) == ["bad", "bad-and-good.png", "good", "what-to-look-at.md"]
    for name in ("bad", "good"):
        assert colordim.open(out / name).length("train") == 6  # 400 digits, 3 batches an epoch
    assert (out / "bad-and-good.png").read_bytes().startswith(b"\x89PNG")
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert printed.count("accuracy") == 4
    assert "What colordim reads from them:\n  bad: " in printed
    for command in commands(out):
        assert command in printed
        assert command in (out / "what-to-look-at.md").read_text(encoding="utf-8")
    assert "'" in commands(out)[0]
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("quick")
def test_what_is_no_run_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="--out"):
        playing.play(tmp_path, Console(file=io.StringIO()), epochs=1, show=False)
    assert (tmp_path / "bad" / "thesis.txt").read_text() == "years of work"


def test_without_a_display_nothing_is_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "CI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("opened"))
    assert not open_for_user(tmp_path / "a.png")


def test_with_a_display_the_desktop_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    program = tmp_path / "xdg-open"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **k: asked.append(command))
    assert open_for_user(tmp_path / "a.png")
    assert asked == [[str(program), str(tmp_path / "a.png")]]
    monkeypatch.setenv("CI", "true")
    assert not open_for_user(tmp_path / "a.png")


def test_commands_name_the_program_as_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "colordim"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr("sys.argv", [str(program)])
    monkeypatch.setenv("PATH", "")
    assert (
        commands(Path("out"))[0] == f"{program} view out"
    )  # as `make demo` runs it, outside of an activated environment
    monkeypatch.setenv("PATH", str(program.parent))
    assert commands(Path("out"))[0] == "colordim view out"
    monkeypatch.setattr("sys.argv", ["-c"])
    assert commands(Path("out"))[0] == "colordim view out"
