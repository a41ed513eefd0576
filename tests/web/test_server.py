"""What the server answers, and how it tells of growth."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colordim.run import Run
from colordim.store.ranks import RunReader
from colordim.web import catalogue as catalogue_module
from colordim.web import events
from colordim.web.answers import ROUTES, answer


@pytest.fixture(scope="module")
def folder(record: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("served")
    run = record(made / "deep" / "ended")
    run.add(600)
    run.close()
    return made


@pytest.fixture(scope="module")
def served(serve: Any, folder: Path) -> Iterator[Any]:
    with serve(folder) as found:
        yield found


QUESTIONS: dict[str, dict[str, Any]] = {
    "head": {}, "growth": {}, "marks": {}, "moments": {"stream": 0, "phase": "train", "start": 0, "columns": 4, "width": 1, "base": 1}, "tiles": {"streams": "0,1", "phase": "train", "width": 1, "index": 0},
    "column": {"stream": 0, "phase": "train", "start": 0, "batches": 4, "width": 1}, "twin": {"stream": 0, "epoch": 0},
    "scalars": {"phase": "train"}, "units": {"stream": 0, "phase": "train"}, "facts": {"stream": 0}, "findings": {},
}  # fmt: skip


def test_every_route_answers_as_the_function_does(served: Any, folder: Path) -> None:
    assert set(QUESTIONS) == set(ROUTES)
    run = Run(RunReader(folder / "deep" / "ended"))
    for route, query in QUESTIONS.items():
        got = served.ask(f"/api/{route}", run="deep/ended", **query)
        expected = answer(run, route, {name: str(value) for name, value in query.items()})
        assert got.status == 200
        if route in ("head", "growth", "marks"):
            passing = {"seconds": 0, "path": ""}  # of the clock, and of the two ways to name the folder
            found, wanted = (json.loads(data) | passing for data in (got.data, expected))
            for each in (found, wanted):
                each.get("marks", {}).pop("seconds", None)
            assert found == wanted
        elif route == "findings":  # each has its own thread: tests/web/test_findings.py
            assert json.loads(got.data).keys() == json.loads(expected).keys()
        else:
            assert got.data == expected
        kind = "application/octet-stream" if route == "tiles" else "application/json"
        assert got.headers["content-type"] == kind


def test_large_answers_are_compressed_if_that_is_understood(served: Any) -> None:
    query = {"run": "deep/ended", **QUESTIONS["tiles"]}
    plain = served.ask("/api/tiles", **query)
    asked = {"Authorization": f"Bearer {served.token}", "Accept-Encoding": "gzip, br"}
    packed = served.ask("/api/tiles", headers=asked, **query)
    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert len(packed.data) < len(plain.data)
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in served.ask("/api/facts", headers=asked, run="deep/ended", stream=0).headers


@pytest.mark.parametrize(
    ("route", "query", "status"),
    [
        ("tiles", {"streams": "0", "width": 3, "index": 0}, 400), ("tiles", {}, 400), ("tiles", {"streams": "x"}, 400),
        ("column", {"stream": 99}, 404), ("head", {"more": 1}, 400), ("nothing", {}, 404),
        ("twin", {"stream": 0, "epoch": 10**14}, 400),
    ],
)  # fmt: skip
def test_questions_that_cannot_be(served: Any, route: str, query: dict[str, Any], status: int) -> None:
    got = served.ask(f"/api/{route}", run="deep/ended", **query)
    assert got.status == status
    assert got.json["error"].endswith(".")


def test_the_page_needs_no_token_and_only_its_files_are_served(serve: Any, tmp_path: Path) -> None:
    static = tmp_path / "static"
    static.mkdir()
    for name in ("index.html", "app.js", "style.css", "notes.txt"):
        (static / name).write_text(f"of {name}")
    with serve(tmp_path, static=static) as served:
        for path, name, kind in (
            ("/", "index.html", "text/html"), ("/static/app.js", "app.js", "text/javascript"),
            ("/static/style.css", "style.css", "text/css"),
        ):  # fmt: skip
            got = served.ask(path, headers={})
            assert (got.status, got.data.decode()) == (200, f"of {name}")
            assert got.headers["content-type"] == f"{kind}; charset=utf-8"
        for path in ("/static/notes.txt", "/static/", "/index.html", "/favicon.ico", "/static/none.js"):
            assert served.ask(path, headers={}).status == 404


def test_the_list_says_what_ls_says(serve: Any, record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = record(tmp_path / "b", "second")
    with serve(tmp_path) as served:
        run.add(6)
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "run.json").write_text("{")
        listed = {row["path"]: row for row in served.ask("/api/runs").json["runs"]}
        b = listed["b"]
        assert {name: b[name] for name in ("name", "state", "batches", "epochs", "streams", "last_loss", "created")} == {
            "name": "second", "state": "live", "batches": {"train": 6, "valid": 0}, "epochs": 2, "streams": 2,
            "last_loss": 0.5, "created": 1767323045.0,
        }  # fmt: skip
        assert b["size"] == sum(file.stat().st_size for file in (tmp_path / "b").rglob("*") if file.is_file())
        assert listed["a"]["state"] == "unreadable"
        assert "run.json is damaged" in listed["a"]["problem"]
        monkeypatch.setattr(catalogue_module, "_FRESH_LIST", -1.0)
        run.close()
        record(tmp_path / "c").close()
        rows = served.ask("/api/runs").json["runs"]
        assert {row["path"]: row["state"] for row in rows} == {"a": "unreadable", "b": "ended", "c": "ended"}
        monkeypatch.setattr(catalogue_module, "MOST_RUNS", 2)
        cut = served.ask("/api/runs").json
        assert (len(cut["runs"]), cut["more"], cut["pending"], cut["searched"]) == (2, 1, 0, True)
        monkeypatch.setattr(catalogue_module, "_LIST_SECONDS", -1.0)
        record(tmp_path / "d").close()
        late = served.ask("/api/runs").json
        assert late["pending"] == 1


def stream(served: Any, run: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    connection.request("GET", f"/api/events?run={run}&token={served.token}")
    return connection, connection.getresponse()


def read_event(response: http.client.HTTPResponse) -> tuple[str, Any]:
    """Return the next event; the chunks of HTTP are taken apart by the response."""
    name = b""
    while not name.startswith(b"event: "):
        name = response.readline()
        assert name, "the stream has ended"
    data = response.readline()
    assert data.startswith(b"data: ")
    return name[7:].strip().decode(), json.loads(data[6:])


def test_a_new_batch_is_told_and_read_within_a_second(serve: Any, record: Any, tmp_path: Path) -> None:
    run = record(tmp_path / "live")
    run.add(3)
    with serve(tmp_path) as served:
        connection, response = stream(served, "live")
        other, second = stream(served, "live")
        assert response.headers["content-type"].startswith("text/event-stream")
        for each in (response, second):
            name, growth = read_event(each)
            assert (name, growth["batches"]["train"], growth["ended"]) == ("growth", 3, None)
        run.add(2)
        begin = time.monotonic()
        for each in (response, second):
            assert read_event(each)[1]["batches"]["train"] == 5
        assert served.ask("/api/growth", run="live").json["batches"]["train"] == 5
        assert time.monotonic() - begin < 1
        run.close()
        assert read_event(response)[1]["ended"] == "stopped"
        assert response.read().strip() == b""  # and it ends
        assert read_event(second)[1]["ended"] == "stopped"
        connection.close()
        other.close()


def test_a_run_that_vanishes_ends_the_stream(serve: Any, record: Any, tmp_path: Path) -> None:
    record(tmp_path / "kept").close()
    shutil.copytree(tmp_path / "kept", tmp_path / "gone")
    (tmp_path / "gone" / "rank=0" / "end.json").unlink()
    with serve(tmp_path) as served:
        connection, response = stream(served, "gone")
        assert read_event(response)[0] == "growth"
        shutil.rmtree(tmp_path / "gone")
        name, said = read_event(response)
        assert name == "gone"
        assert "gone" in said["error"]
        assert response.read().strip() == b""
        connection.close()
        assert served.ask("/api/head", run="gone").status == 404


def test_streams_are_few_and_cost_nothing_when_nobody_listens(
    serve: Any, record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_SUBSCRIBERS", 2)
    monkeypatch.setattr(events, "HEARTBEAT", 0.1)
    run = record(tmp_path / "live")
    run.add()
    with serve(tmp_path) as served:
        looks: list[int] = []
        opened = served.viewer._catalogue.open("live")
        look = opened.grown

        def counted(seen: object) -> Any:
            looks.append(threading.get_ident())
            return look(seen)

        monkeypatch.setattr(opened, "grown", counted)
        listening = [stream(served, "live") for _ in range(2)]
        for _, response in listening:
            read_event(response)
        assert listening[0][1].readline() == b"\n"
        assert listening[0][1].readline() == b": still here\n"
        assert served.ask("/api/events", run="live").status == 503
        assert served.ask("/api/events", "HEAD", run="live").status == 200
        assert served.ask("/api/events", run="none").status == 404
        for connection, response in listening:
            response.close()
            connection.close()
        deadline = time.monotonic() + 5
        while served.viewer.events._channels and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not served.viewer.events._channels
        time.sleep(0.3)
        before = len(looks)
        time.sleep(0.6)
        assert len(looks) == before
        connection, response = stream(served, "live")  # and there is room again
        assert read_event(response)[0] == "growth"
        connection.close()


def test_a_stream_does_not_hold_up_the_end(serve: Any, record: Any, tmp_path: Path) -> None:
    run = record(tmp_path / "live")
    run.add()
    with serve(tmp_path) as served:
        connection, response = stream(served, "live")
        read_event(response)
        begin = time.monotonic()
    assert time.monotonic() - begin < 3
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port), timeout=1)


def test_few_runs_are_held_open(serve: Any, record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "_MOST_OPEN", 2)
    for name in "abc":
        record(tmp_path / name).close()
    with serve(tmp_path) as served:
        for name in "abcab":
            assert served.ask("/api/head", run=name).status == 200
        catalogue = served.viewer._catalogue
        assert len(catalogue._open) == 2
        assert catalogue.open("b") is catalogue.open("b")
