"""Random and mutated questions to every route: no error of the server's own, and nothing that grows."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest

from colordim.web.answers import ROUTES

FULL = bool(os.environ.get("COLORDIM_TORTURE"))
SECONDS = 60.0 if FULL else 5.0

VALUES = ["", "0", "1", "4", "16", "2", "-1", "1e3", "0x1", "٣", "999999999999999", "9" * 400, "train", "valid", "test",
          "0,1", ",", "0," * 100, "NaN", "\0", "../", "%", "a b", "é", "one", "two", ".", "..", "/", "one/rank=0", "x" * 5000]  # fmt: skip
PHASED = ("train", "valid")


def question(rng: random.Random, token: str) -> bytes:
    """Return the bytes of a request: mostly one that a page could send, with something wrong in it at times."""
    route = rng.choice([*ROUTES, *ROUTES, *ROUTES, "runs", "nothing", "events"])
    names = list(ROUTES[route][1]) if route in ROUTES else []
    query = {
        name: rng.choice(PHASED) if name == "phase" else rng.choice(("1", "4", "16")) if name == "width"
        else str(rng.randrange(3)) if name in ("streams", "stream", "skip", "index", "exact", "epoch") else str(rng.randrange(1200))
        for name in names
    }  # fmt: skip
    query |= {"run": rng.choice(("one", "two")), "token": token}
    while rng.random() < 0.4:
        name = rng.choice([*query, "x", "run"])
        if rng.random() < 0.3:
            query.pop(name, None)
        else:
            query[name] = (
                rng.choice(VALUES) if rng.random() < 0.8 else "".join(map(chr, rng.choices(range(1, 0x3000), k=20)))
            )
    path = (
        f"/api/{route}"
        if rng.random() < 0.95
        else rng.choice(("/", "/static/x", "//", "/api", "/api/", "/%00", "/api/head/x"))
    )
    text = "&".join(f"{name}={quote_from_bytes(value.encode())}" for name, value in query.items())
    method = rng.choice(("GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "G")) if route != "events" else "HEAD"
    lines = [
        f"{method} {path}?{text} HTTP/1.1", "Host: 127.0.0.1:PORT", "Connection: close",
        *(["Accept-Encoding: gzip"] if rng.random() < 0.3 else []),
        *([f"Origin: {rng.choice(('null', 'http://127.0.0.1:PORT', 'x' * 100))}"] if rng.random() < 0.1 else []),
        *(["Content-Length: 5"] if rng.random() < 0.02 else []),
    ]  # fmt: skip
    data = bytearray("\r\n".join([*lines, "", ""]).encode())
    if rng.random() < 0.1:  # and bytes that no client would send
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def send(port: int, data: bytes, hang_up: bool) -> bytes:
    """Return the whole answer; nothing to a client that has hung up, or whose request has no end."""
    whole = b"\r\nConnection: close\r\n" in data and data.endswith(b"\r\n\r\n")  # else it may be waited for more
    with socket.create_connection(("127.0.0.1", port), timeout=10 if whole else 0.05) as connection:
        connection.sendall(data.replace(b"PORT", b"%d" % port))
        parts: list[bytes] = []
        with contextlib.suppress(ConnectionResetError, *(() if whole else (TimeoutError,))):
            while not hang_up and (part := connection.recv(1 << 16)):
                parts.append(part)
    return b"".join(parts)


def memory() -> float:
    """Return the resident memory of this process, in MB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


@pytest.mark.timeout(600)
def test_random_questions(serve: Any, record: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run = record(tmp_path / name)
        run.add(1100 if name == "one" else 10)
        if name == "one":
            run.close()
    seed = random.randrange(2**32) if FULL else 7
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    with serve(tmp_path) as served:

        def some(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                data = question(rng, served.token)
                hang_up = rng.random() < 0.05
                said = send(served.port, data, hang_up)
                status = said[9:12].decode() or "nothing"
                found[status] += 1
                # 422 would be what no check has foreseen: these runs are whole
                assert status in ("200", "307", "400", "401", "403", "404", "405", "414", "431", "nothing"), (
                    seed,
                    data,
                    said,
                )
                assert b"Traceback" not in said

        some(SECONDS / 4)  # threads are made, caches filled
        before = memory(), threading.active_count(), len([*Path("/proc/self/fd").iterdir()])
        some(SECONDS * 3 / 4)
        after = memory(), threading.active_count(), len([*Path("/proc/self/fd").iterdir()])
    sys.stdout.write(
        f"\nseed {seed}: {found.total()} questions in {SECONDS:.0f} s, {dict(found)}; memory {before[0]:.0f} to {after[0]:.0f} MB, "
        f"threads {before[1]} to {after[1]}, open files {before[2]} to {after[2]}\n"
    )
    assert found["200"] > found.total() / 5
    assert found["nothing"] < found.total() / 8  # to those who hung up, and what is no HTTP at all
    assert after[0] - before[0] < 30
    assert after[1] <= before[1] + 1
    assert after[2] <= before[2] + 3
