"""Who is refused, and what every answer carries."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from colordim.errors import ArgumentError
from colordim.web.security import Access
from colordim.web.server import listen


@pytest.fixture(scope="module")
def served(serve: Any, record: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("served")
    run = record(folder / "runs" / "lenet")
    run.add(8)
    run.close()
    outside = record(folder / "outside")
    outside.add()
    outside.close()
    (folder / "runs" / "link").symlink_to(folder / "outside")
    with serve(folder / "runs") as found:
        yield found


def sentence(answer: Any) -> str:
    found = answer.json
    assert list(found) == ["error"]
    assert found["error"].endswith(".")
    return str(found["error"])


def test_every_route_of_the_api_asks_for_the_token(served: Any) -> None:
    for path in ("/api/runs", "/api/head", "/api/events", "/api/nothing"):
        assert served.ask(path, headers={}).status == 401
        assert served.ask(path, headers={}, token=served.token[:-1]).status == 401
        assert served.ask(path, headers={"Authorization": f"Bearer {served.token}x"}).status == 401
        assert served.ask(path, headers={"Authorization": f"Basic {served.token}"}, run="lenet").status == 401
        assert served.ask(path, headers={}, token="é" * 40).status == 401
    assert "token" in sentence(served.ask("/api/runs", headers={}))
    assert served.ask("/api/runs").status == 200
    assert served.ask("/api/runs", headers={}, token=served.token).status == 200
    # a wrong header is not saved by a right query
    wrong = served.ask("/api/runs", headers={"Authorization": "Bearer x"}, token=served.token)
    assert wrong.status == 401


def test_tokens_are_long_and_differ() -> None:
    tokens = {Access(1).token for _ in range(10)}
    assert len(tokens) == 10
    assert min(map(len, tokens)) >= 43  # 32 bytes in base64


def headers(served: Any, **more: str) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {served.token}",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


def test_another_name_of_the_host_is_refused(served: Any) -> None:
    for name in ("127.0.0.1", "localhost", "LOCALHOST", "[::1]"):
        assert served.ask("/api/runs", headers=headers(served, Host=f"{name}:{served.port}")).status == 200
    evil = f"evil.example:{served.port}"
    for host in (evil, "localhost", f"localhost:{served.port + 1}", f"localhost.evil.example:{served.port}", ""):
        refused = served.ask("/api/runs", headers=headers(served, Host=host))
        assert refused.status == 403
        assert "--allow-host" in sentence(refused)
    assert served.ask("/", headers={"Host": evil}).status == 403  # the page as well


def test_another_origin_is_refused(served: Any) -> None:
    own = f"http://127.0.0.1:{served.port}"
    assert served.ask("/api/runs", headers=headers(served, Origin=own)).status == 200
    for origin in ("http://evil.example", "null", f"http://localhost:{served.port}", own + "0", ""):
        refused = served.ask("/api/runs", headers=headers(served, Origin=origin))
        assert refused.status == 403
        assert "--allow-origin" in sentence(refused)
    assert served.ask("/api/runs", headers=headers(served, Sec_Fetch_Site="cross-site")).status == 403
    assert served.ask("/api/runs", headers=headers(served, Sec_Fetch_Site="same-origin")).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_only_reading(served: Any, method: str) -> None:
    refused = served.ask("/api/runs", method)
    assert refused.status == 405
    assert refused.headers["allow"] == "GET, HEAD"
    assert served.ask("/api/runs", "HEAD").data == b""


def test_headers_of_every_answer(served: Any) -> None:
    for answer in (
        served.ask("/api/runs"),
        served.ask("/nothing"),
        served.ask("/api/runs", headers={}),
        served.ask("/api/head", run="none"),
    ):
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data: blob:",
            "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
        }  # fmt: skip
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


def test_no_path_leads_out_of_the_folder(served: Any, tmp_path: Path) -> None:
    names = [
        "../outside",
        "lenet/../lenet",
        "lenet/../../outside",
        "/etc",
        str(tmp_path),
        "lenet\0",
        "link",
        "..",
        "lenet/rank=0",
        "x" * 300,
    ]
    for name in names:
        refused = served.ask("/api/head", run=name)
        assert refused.status == 404, name
        assert "no run" in sentence(refused)
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static/..%2fserver.py", "/static//etc/passwd"):
        assert served.ask(path).status == 404
    listed = served.ask("/api/runs").json["runs"]
    assert [row["path"] for row in listed] == ["lenet"]
    assert served.ask("/api/head", run="lenet").status == 200
    assert served.ask("/api/head", run="./lenet/").status == 200


def test_lengths_are_bounded(served: Any) -> None:
    assert served.ask("/api/head", run="x" * 9000).status == 414
    assert served.ask("/api/runs", headers=headers(served, X_Long="x" * 9000)).status == 431
    assert served.ask("/api/runs?" + "&".join(f"a{i}=" for i in range(40))).status == 400
    assert served.ask("/api/head?run=lenet&run=lenet").status == 400
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as raw:  # no end of a header is waited for
        raw.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000)
        assert b" 400 " in raw.recv(100)


def test_a_proxy_is_let_in_by_name(serve: Any, record: Any, tmp_path: Path) -> None:
    record(tmp_path / "a").close()
    with serve(
        tmp_path, origins=("https://hub.example.org",), hosts=("node17",), prefix="/user/me/proxy/8765"
    ) as served:
        shown = headers(served, Host="hub.example.org", Origin="https://hub.example.org")
        for path in ("/user/me/proxy/8765/api/runs", "/api/runs"):  # whether it strips the prefix or not
            assert served.ask(path, headers=shown).status == 200
        assert served.ask("/api/runs", headers=headers(served, Host="node17:1234")).status == 200
        assert served.ask("/api/runs", headers={**shown, "Origin": "https://evil.example.org"}).status == 403
        moved = served.ask("/user/me/proxy/8765", headers=shown, token="x")
        assert (moved.status, moved.headers["location"]) == (307, "/user/me/proxy/8765/?token=x")
        assert served.ask("/user/me/proxy/87650/api/runs", headers=shown).status == 404


@pytest.mark.parametrize(
    "given",
    [
        {"origins": ["hub.example.org"]}, {"origins": ["https://a.example/path"]}, {"origins": ["*"]},
        {"hosts": ["https://a.example"]}, {"hosts": ["a b"]}, {"prefix": "user"}, {"prefix": "/a\r\nb"}, {"prefix": "//"},
    ],
)  # fmt: skip
def test_names_that_are_none(given: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"give (it|scheme)"):
        Access(1, **given)


def test_only_the_compared_runs_are_served(serve: Any, record: Any, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        record(tmp_path / name).close()
    (tmp_path / "c" / "facts.json").write_text('{"class": "Secret"}')
    (tmp_path / "b" / "rank=0" / "facts.json").symlink_to(tmp_path / "c" / "facts.json")
    with serve(tmp_path, ["a", "b"]) as served:
        assert {row["path"] for row in served.ask("/api/runs").json["runs"]} == {"a", "b"}
        assert [served.ask("/api/head", run=name).status for name in "abc"] == [200, 200, 404]
        # what is beside a run that is compared is outside
        assert served.ask("/api/head", run="b").json["model"]["class"] is None


def test_a_served_folder_may_be_a_link_and_a_run_itself(serve: Any, record: Any, tmp_path: Path) -> None:
    record(tmp_path / "real" / "a").close()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a")
    with serve(tmp_path / "link") as served:
        assert [row["path"] for row in served.ask("/api/runs").json["runs"]] == ["."]
        assert served.ask("/api/head", run=".").json["name"] == "lenet"
        assert served.ask("/api/head").json["name"] == "lenet"


def test_loopback_alone_is_listened_at_by_default(served: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.connect()
    assert connection.sock is not None
    assert connection.sock.getpeername()[0] == "127.0.0.1"
    connection.close()
    others = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in (each for each in others if not each.startswith("127.")):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, served.port), timeout=2)


def test_a_port_that_is_taken(served: Any) -> None:
    with pytest.raises(ArgumentError, match=f"port {served.port} .*--port"):
        listen("127.0.0.1", served.port)
    with pytest.raises(ArgumentError, match="no host"):
        listen("nowhere.invalid", 0)
    with listen("127.0.0.1", None) as first, listen("127.0.0.1", None) as second:
        assert first.getsockname()[1] != second.getsockname()[1]
