"""Run folders that mean harm, or are broken: a sentence each, no crash, no wait, no growth."""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colordim.axis import LinearAxis
from colordim.column import Batch, Units
from colordim.errors import AxisError, FormatError
from colordim.store import files, parquet
from colordim.store.place import LocalPlace
from colordim.store.tail import MAGIC, TailReader
from colordim.web.catalogue import Catalogue

QUESTIONS: dict[str, dict[str, Any]] = {
    "head": {}, "growth": {}, "marks": {}, "moments": {"stream": 0, "phase": "train", "start": 0, "columns": 4, "width": 1, "base": 1}, "tiles": {"streams": "0,1", "phase": "train", "width": 1, "index": 0},
    "column": {"stream": 0, "phase": "train", "start": 0, "batches": 4, "width": 1}, "twin": {"stream": 0, "epoch": 0},
    "scalars": {"phase": "train"}, "units": {"stream": 0, "phase": "train"}, "facts": {"stream": 0},
}  # fmt: skip


def resident() -> float:
    """Return the memory of this process, in MB."""
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def ask_all(served: Any, run: str) -> dict[str, Any]:
    """Ask everything of a run, with a little memory; return the answers that are no tiles."""
    before, begin = resident(), time.monotonic()
    found = {}
    for route, query in QUESTIONS.items():
        got = served.ask(f"/api/{route}", run=run, **query)
        assert got.status in (200, 400, 404, 422), (route, got)
        if got.status != 200 or route != "tiles":
            found[route] = got.json
        if got.status != 200:
            assert got.json["error"].endswith("."), got.json
            assert "Traceback" not in got.json["error"]
    assert served.ask("/api/runs").status == 200
    assert time.monotonic() - begin < 10
    assert resident() - before < 200
    return found


@pytest.fixture
def healthy(record: Any, tmp_path: Path) -> Path:
    """A run with sealed files and with units."""
    run = record(tmp_path / "runs" / "one")
    run.add(12)
    return Path(run.close())


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path) -> None:
    """Put the file outside, and a link to it in its place."""
    outside = next(each for each in path.parents if each.name == "runs").parent / "outside"
    outside.mkdir(exist_ok=True)
    shutil.move(path, outside / path.name)
    path.symlink_to(outside / path.name)


def huge(path: Path) -> None:
    os.truncate(path, 1 << 40)


def deep(path: Path) -> None:
    path.write_text("[" * 200_000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [fifo, link, huge, deep, folder, half])
@pytest.mark.parametrize(
    "name", ["run.json", "rank=0/streams.json", "rank=0/end.json", "rank=0/batches", "rank=0/columns/level=0"]
)
def test_a_file_that_is_no_honest_one(serve: Any, healthy: Path, harm: Callable[[Path], None], name: str) -> None:
    path = healthy / name
    harm(next(path.rglob("*.parquet")) if path.is_dir() else path)
    with serve(healthy.parent) as served:
        found = ask_all(served, "one")
    if name in ("run.json", "rank=0/streams.json"):
        assert "error" in found["head"]
        if harm is huge:
            assert "has 1,099,511,627,776 bytes" in found["head"]["error"]
    elif name != "rank=0/columns/level=0":  # these are read only by questions that need them
        assert found["head"]["problems"] or "error" in found["head"], found["head"]
    else:
        assert found["column"].get("bins") == []  # left out


def test_links_that_leave_the_folder_are_named(serve: Any, record: Any, tmp_path: Path, healthy: Path) -> None:
    outside = tmp_path / "secret"
    shutil.move(healthy / "rank=0", outside)
    (healthy / "rank=0").symlink_to(outside)
    record(tmp_path / "elsewhere").close()
    (healthy.parent / "two").mkdir()
    (healthy.parent / "two" / "run.json").symlink_to(tmp_path / "elsewhere" / "run.json")
    (healthy.parent / "two" / "rank=0").symlink_to(tmp_path / "elsewhere" / "rank=0")
    # but within the folder links are followed
    record(healthy.parent / "three").close()
    (healthy.parent / "four").symlink_to("three")
    with serve(healthy.parent) as served:
        assert "leads out of the folder" in str(ask_all(served, "one")["head"])
        assert "leads out of the folder" in ask_all(served, "two")["head"]["error"]
        assert ask_all(served, "four")["head"]["name"] == "lenet"
        rows = {row["path"]: row["state"] for row in served.ask("/api/runs").json["runs"]}
        assert rows == {"one": "unreadable", "three": "ended"}


NAMES = [
    "<script>alert(1)</script>",
    "a\"b'c`</title>",
    "ü" * 10_000,
    "😀.conv",
    "\u202eevil\u202c",
    "a\nb\0c",
    "../../x",
]


def test_names_are_data(serve: Any, record: Any, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>\u202e'\""
    run = record(tmp_path / name, "</script>" * 1000, NAMES)
    run.add(2)
    run.close()
    with serve(tmp_path) as served:
        (row,) = served.ask("/api/runs").json["runs"]
        assert (row["path"], row["name"]) == (name, "</script>" * 1000)
        got = served.ask("/api/head", run=name)
        assert got.headers["content-type"] == "application/json"
        assert [stream["name"] for stream in got.json["streams"]] == NAMES
        ask_all(served, name)


def axis(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(streams: dict[str, Any]) -> None:
        streams["streams"][0]["axis"].update(changes)

    return change


def many(streams: dict[str, Any]) -> None:
    streams["streams"] = [{**streams["streams"][0], "id": i, "axis": {**AXIS, "bins": 1 << 20}} for i in range(100)]


def million(streams: dict[str, Any]) -> None:
    streams["streams"] = [{"id": i} for i in range(10**6)]


AXIS = LinearAxis(-2, 2, 4).to_dict()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (axis(bins=10**12), "declares 1,000,000,000,002 bins|declares 1,000,000,000,004 bins"),
        (axis(bins=10**7), "10000000 bins are too many"),
        (axis(bins=-(10**12)), "cannot be"), (axis(bins=float("inf")), "restore it"), (axis(lo=10**400), "restore it"),
        (axis(bins="4"), "damaged|cannot be"), (axis(type="signed_log", bits=60), "mantissa bits"), (many, "declares 104,857,600 bins"),
        (million, "damaged"), (lambda streams: streams.update(streams={"a": 1}), "damaged"),
        (lambda streams: streams["streams"][0].update(axis=[]), "restore it"),
    ],
)  # fmt: skip
def test_absurd_streams(serve: Any, healthy: Path, change: Callable[[dict[str, Any]], None], said: str) -> None:
    path = healthy / "rank=0" / files.STREAMS
    described = files.from_json(path.read_text())
    change(described)
    path.write_text(json.dumps(described))
    with serve(healthy.parent) as served:
        error = ask_all(served, "one")["head"]["error"]
    assert any(each in error for each in said.split("|")), error


def test_what_cannot_be_read_is_let_go(healthy: Path) -> None:
    path = healthy / "rank=0" / files.STREAMS
    path.write_text(json.dumps({"streams": [{"id": i} for i in range(300_000)]}))
    catalogue = Catalogue(healthy.parent)
    sizes = []
    for _ in range(4):
        with pytest.raises(FormatError, match="damaged"):
            catalogue.open("one")
        catalogue._failed.clear()
        sizes.append(resident())
    assert sizes[-1] - sizes[0] < 30  # one reading takes 70


def test_bins_without_end() -> None:
    with pytest.raises(AxisError, match="1000000000000 bins are too many: take at most 4194304"):
        LinearAxis(-1, 1, 10**12)


@pytest.mark.parametrize("ranks", [1, 2])
def test_indices_beyond_all_bounds(serve: Any, record: Any, tmp_path: Path, ranks: int) -> None:
    run = record(tmp_path / "far")
    run.add(2)
    run.add(2, start=10**15)
    run.close()
    if ranks == 2:
        shutil.copytree(tmp_path / "far" / "rank=0", tmp_path / "far" / "rank=1")
    with serve(tmp_path) as served:
        found = ask_all(served, "far")
    if ranks == 1:
        assert found["growth"]["batches"]["train"] == 10**15 + 4
        assert sum(found["twin"]["train"]["counts"]) == 7  # of the last of the four batches


def test_more_units_than_bits(serve: Any, record: Any, tmp_path: Path) -> None:
    run = record(tmp_path / "units")
    run.writer.append(
        Batch(0, 0, "train", 0, 0, 1e9, True), [], np.zeros(0, np.int64), np.zeros((0, 4)),
        [Units(0, "second", "train", 0, 0, 10**12, b"\xff")],
    )  # fmt: skip
    run.writer.flush()
    with serve(tmp_path) as served:
        found = ask_all(served, "units")
        assert "more units than bits" in str(found["head"]["problems"])
        run.close()
        ask_all(served, "units")


def test_tails_that_lie(serve: Any, record: Any, tmp_path: Path) -> None:
    run = record(tmp_path / "live")
    run.add(2)
    tail = next((tmp_path / "live" / "rank=0").glob("tail-*.cdt"))
    whole = tail.read_bytes()
    run.close()
    sealed = tmp_path / "live" / "rank=0"
    for lie in (
        struct.pack("<4sII", b"\xc0\x1dFr", 0xFFFFFFFF, 0) + b"x" * 1000,
        struct.pack("<4sIIQQQ", b"\xc0\x1dFr", 24, zlib.crc32(struct.pack("<QQQ", *[1 << 60] * 3)), *[1 << 60] * 3),
        b"\0" * (1 << 20),
    ):
        (sealed / "tail-0000000009.cdt").write_bytes(whole + lie)
        with serve(tmp_path) as served:
            found = ask_all(served, "live")
        assert "tail-0000000009.cdt" in str(found["head"]["problems"])


def test_a_tail_of_markers_alone_is_given_up(tmp_path: Path) -> None:
    number = 200_000
    # Each declares all that follows, so that a naive search takes a checksum of 480 GB.
    marks = b"".join(struct.pack("<4sII", b"\xc0\x1dFr", 12 * (number - i - 1), 0) for i in range(number))
    (tmp_path / "tail-0000000000.cdt").write_bytes(MAGIC + marks)
    reader = TailReader(LocalPlace(tmp_path), "tail-0000000000.cdt", 0)
    begin = time.process_time()
    reader.refresh(ended=False)
    assert time.process_time() - begin < 5
    assert reader.problems == ["tail-0000000000.cdt: the batches from 0 on are left out, because its end is damaged."]


def test_a_sealed_file_that_declares_too_much(serve: Any, healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_MOST_BYTES", 10)
    with serve(healthy.parent) as served:
        found = ask_all(served, "one")
        assert "declares more than" in str(served.ask("/api/head", run="one").json["problems"])
    assert found["column"]["bins"] == []


def test_what_fails_in_any_way_is_a_sentence(serve: Any, healthy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("colordim.web.catalogue.answer", fail)
    with serve(healthy.parent) as served:
        got = served.ask("/api/head", run="one")
    assert got.status == 422
    assert "MemoryError: Unable to allocate 9 TiB" in got.json["error"]
    assert threading.active_count() < 50
