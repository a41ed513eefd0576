"""The commands that serve the viewer."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from colordim.cli import main
from colordim.column import Batch
from colordim.store.writer import FolderWriter
from colordim.web import server


def write_run(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = FolderWriter(path, {"name": path.name})
    writer.append(Batch(0, 0, "train", 0, 0, 0.0), [], np.zeros(0, np.int64), np.zeros((0, 4)))
    writer.close("stopped")
    return path


@contextmanager
def running(*arguments: object, **environment: str) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    """Run a command until it has printed its link; yield its lines."""
    clean = {name: value for name, value in os.environ.items() if name not in ("SSH_CONNECTION", "DISPLAY")}
    process = subprocess.Popen(
        [sys.executable, "-m", "colordim", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**clean, "PYTHONUNBUFFERED": "1", **environment},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or not re.search(environment.get("UNTIL", "Serving"), lines[-1]):
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()
        yield lines, process
    finally:
        process.kill()
        process.communicate()


def ask(link: str, path: str, **query: str) -> Any:
    parts = urlsplit(link)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 0, timeout=10)
    token = parse_qs(parts.query)["token"][0]
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as caught:
        main([str(each) for each in arguments])
    assert caught.value.code == 1
    output = capsys.readouterr()
    sentence, more = output.err.splitlines()
    assert more.startswith("More: colordim docs view")
    return sentence


def test_view_prints_a_link_that_works_and_stops_at_once(tmp_path: Path) -> None:
    with running("view", tmp_path, "--port", 0) as (lines, process):  # nothing is there yet
        (line,) = lines
        link = line.split(" at ")[1].strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", link)
        assert ask(link, "/api/runs")["runs"] == []
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_over_ssh_the_line_to_type_at_home_is_printed(tmp_path: Path) -> None:
    write_run(tmp_path)
    with running("view", tmp_path, "--port", 0, SSH_CONNECTION="10.0.0.1 1 10.0.0.2 22", UNTIL="ssh -L") as (lines, _):
        link = lines[0].split(" at ")[1].strip()
        assert link.endswith("#run=.")  # the folder is a run
        port = urlsplit(link).port
        assert re.fullmatch(
            rf"From home: ssh -L {port}:127\.0\.0\.1:{port} \S+, then open the link there\.\n", lines[1]
        )


def test_compare_serves_two_runs(tmp_path: Path) -> None:
    for name in ("a b", "deep/c&d", "e"):
        write_run(tmp_path / name)
    with running("compare", tmp_path / "a b", tmp_path / "deep" / "c&d", "--port", 0) as (lines, _):
        link = lines[0].split(" at ")[1].strip()
        assert urlsplit(link).fragment == "run=a%20b&with=deep/c%26d"
        assert [row["path"] for row in ask(link, "/api/runs")["runs"]] == ["a b", "deep/c&d"]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Serve nothing, and say what would have been."""
    calls: list[Any] = []

    def nothing(viewer: server.Viewer, listening: socket.socket) -> None:
        calls.append(viewer)
        viewer.close()
        listening.close()

    monkeypatch.setattr(server, "serve", nothing)
    opened: list[str] = []
    monkeypatch.setattr("colordim.viewing.open_for_user", opened.append)
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    calls.append(opened)
    return calls


def test_the_browser_is_opened_unless_it_is_not_to_be(
    served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, number in ((["--no-browser"], 0), ([], 1)):
        with pytest.raises(SystemExit):
            main(["view", str(tmp_path), "--port", "0", *arguments])
        assert len(served[0]) == number
    assert served[0][0] in capsys.readouterr().out
    monkeypatch.setenv("SSH_CONNECTION", "x")
    with pytest.raises(SystemExit):
        main(["view", str(tmp_path), "--port", "0"])
    assert len(served[0]) == 1


def test_other_addresses_and_proxies(served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([
            "view", str(tmp_path), "--port", "0", "--host", "0.0.0.0", "--allow-host", "node17", "--allow-origin",
            "https://hub.example.org", "--path-prefix", "/user/me/proxy/8765/",
        ])  # fmt: skip
    assert caught.value.code == 0
    warning, link, proxy = capsys.readouterr().out.splitlines()
    assert "Everybody who reaches 0.0.0.0" in warning
    assert "/user/me/proxy/8765/?token=" in link
    assert proxy.startswith("Through the proxy: https://hub.example.org/user/me/proxy/8765/?token=")
    access = served[1].app._access
    port = urlsplit(link.split(" at ")[1]).port
    allowed = {
        name: access.allows_host(name) for name in ("node17", f"localhost:{port}", "hub.example.org", "evil.example")
    }
    assert allowed == {"node17": True, f"localhost:{port}": True, "hub.example.org": True, "evil.example": False}


def test_errors_are_a_sentence(tmp_path: Path, served: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "a")
    assert "there is no folder" in failure(capsys, "view", tmp_path / "none")
    assert "is a file" in failure(capsys, "view", run / "run.json")
    assert "is an address" in failure(capsys, "view", "s3://bucket/run")
    assert "is not a run" in failure(capsys, "compare", run, tmp_path)
    assert "are the same run" in failure(capsys, "compare", run, tmp_path / "." / "a")
    assert "is no origin" in failure(capsys, "view", tmp_path, "--port", 0, "--allow-origin", "hub")
    with server.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 cannot be listened at" in failure(capsys, "view", tmp_path, "--port", port)
