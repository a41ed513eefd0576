"""Runs in object stores: an S3 server on the loopback interface, and fsspec's memory."""

from __future__ import annotations

import io
import logging
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

import colordim
from colordim.cli import main
from colordim.column import PHASES, Batch, Stream, Units
from colordim.errors import ArgumentError, ColordimError, DependencyError, NotARunError, StoreError
from colordim.store.place import RemoteFile
from colordim.store.writer import FolderWriter

_names = count()


@dataclass(frozen=True)
class Answer:
    """What the server said to one request."""

    method: str
    path: str
    query: str
    status: int
    bytes: int


@dataclass
class Server:
    """An S3 server in a thread, and what it answered."""

    answers: list[Answer] = field(default_factory=list)
    writer: Any = None  # what others than the reader write with

    def __post_init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        status: list[str] = []

        def start(line: str, headers: Any, *rest: Any) -> Any:
            status.append(line)
            return start_response(line, headers, *rest)

        data = b"".join(self._app(environ, start))
        said = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], int(status[0][:3]), len(data)
        self.answers.append(Answer(*said))
        return [data]

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, ask: Callable[[], object]) -> list[Answer]:
        """Return what was answered meanwhile."""
        self.answers.clear()
        ask()
        return list(self.answers)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", server.url)
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", "/nowhere")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        server.writer = fsspec.filesystem("s3", skip_instance_cache=True)
        server.writer.makedirs("bucket", exist_ok=True)  # the server outlives the fixture in its process
        yield server
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


@dataclass(frozen=True)
class Remote:
    """A folder in a store, that another program than the reader writes."""

    url: str
    system: Any
    sent: dict[str, bytes] = field(default_factory=dict)

    def path(self, name: str = "") -> str:
        return f"{self.url.partition('://')[2]}/{name}".rstrip("/")

    def sync(self, folder: Path, only: str = "*") -> None:
        """Copy what is there, and delete what is not."""
        here = {path.relative_to(folder).as_posix() for path in folder.rglob(only) if path.is_file()}
        for name in here:
            self.put(folder, name)
        if only == "*":
            self.delete(*(self.names() - here))

    def put(self, folder: Path, name: str) -> None:
        data = (folder / name).read_bytes()
        if self.sent.get(name) != data:
            self.system.pipe_file(self.path(name), data)
            self.sent[name] = data

    def names(self) -> set[str]:
        begin = len(self.path()) + (self.url.startswith("memory://") and 1) + 1
        return {path[begin:] for path in self.system.find(self.path())}

    def delete(self, *names: str) -> None:
        for name in names:
            self.system.rm_file(self.path(name))
            self.sent.pop(name, None)

    def cut(self, name: str, size: int) -> None:
        """Keep that many bytes of a file."""
        self.system.pipe_file(self.path(name), self.sent.pop(name)[:size])


@pytest.fixture(params=["s3", "memory"])
def remote(request: pytest.FixtureRequest, server: Server) -> Remote:
    if request.param == "s3":
        return Remote(f"s3://bucket/runs/run{next(_names)}", server.writer)
    return Remote(f"memory://runs/run{next(_names)}", fsspec.filesystem("memory"))


@pytest.fixture
def s3(server: Server) -> Remote:
    return Remote(f"s3://bucket/runs/run{next(_names)}", server.writer)


def assert_same(ours: colordim.Run, theirs: colordim.Run) -> None:
    """Both give the same of everything."""
    assert ours.streams == theirs.streams
    assert ours.info == theirs.info
    assert ours.facts == theirs.facts
    assert ours.ended == theirs.ended
    assert list(ours.batches) == list(theirs.batches)
    for name, values in theirs.batches.items():
        np.testing.assert_array_equal(ours.batches[name], values, err_msg=name)
    for stream, phase, level in ((0, PHASES[0], 0), (0, PHASES[1], 1), (-1, PHASES[0], 2), (-1, PHASES[1], 0)):
        assert_same_columns(ours.columns(stream, phase, level=level), theirs.columns(stream, phase, level=level))
    assert_same_columns(ours.overview(1, 20), theirs.overview(1, 20))
    assert ours.problems == theirs.problems


def assert_same_columns(ours: Any, theirs: Any) -> None:
    for name in ("first", "last", "number", "counts", "counters"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    # Sums of float64 values, added in another order where a level is missing.
    np.testing.assert_allclose(ours.moments, theirs.moments, rtol=1e-12, atol=1e-12)


def record(kit: Any, path: Path, batches: int = 130, **options: Any) -> Any:
    """Write a run of several segments, and with a tail unless it is closed."""
    return kit.record(path, seed=5, batches=batches, flush_every=10, seal_batches=40, **options)


# The same of everything.


def test_a_run_that_has_ended(kit: Any, tmp_path: Path, remote: Remote) -> None:
    memory = record(kit, tmp_path)
    remote.sync(tmp_path)
    run = colordim.open(remote.url)
    assert_same(run, colordim.open(tmp_path))
    assert (run.path, run.ended, run.problems) == (remote.url, "stopped", ())
    assert {name.rpartition("/")[0] for name in remote.names()} >= {"rank=0/batches", "rank=0/moments/level=1"}
    kit.same(run._reader, memory)  # which has never been in a file


def test_units_and_facts(tmp_path: Path, remote: Remote) -> None:
    writer = FolderWriter(tmp_path, {"name": "a", "model": {"class": "Net"}}, seal_bytes=1)
    stream = Stream(0, "fc", "activation", "Linear", "", (3,), 0, colordim.LinearAxis(0, 1, 2))
    writer.declare(stream)
    writer.describe({"followers": {"fc": "relu"}})
    for i, active in enumerate((0b10100000, 0b10000000)):
        units = [Units(0, "relu", "train", i, i, 3, bytes([active]))]
        row = np.array([1, 2, 0, 0, 0, 0, 0, 0, 3, 1], np.int64)
        writer.append(Batch(i, i, "train", 0, i, 0.0), (stream,), row, np.array([[1.0, 1.0, 0.0, 1.0]]), units)
        writer.flush()
    writer.close("stopped")
    remote.sync(tmp_path)
    run = colordim.open(remote.url)
    assert run.units("fc").active.tolist() == [[True, False, True], [True, False, False]]
    assert (run.facts["class"], run.facts["followers"]) == ("Net", {"fc": "relu"})
    assert run.counts("fc").tolist() == [[1, 2], [1, 2]]


def test_several_ranks(kit: Any, tmp_path: Path, remote: Remote) -> None:
    for rank in range(2):  # the other has counted the same
        info = {"name": "a", "rank": {"rank": rank, "world_size": 2}}
        writer = FolderWriter(tmp_path / f"rank={rank}", info, flush_batches=7 + rank, seal_batches=30)
        for step in kit.training(3, 70):
            step.into(writer)
        writer.close("stopped")
    remote.sync(tmp_path)
    run = colordim.open(remote.url)
    assert set(run.batches["ranks"]) == {2}
    assert_same(run, colordim.open(tmp_path))


def test_a_run_that_grows(kit: Any, tmp_path: Path, remote: Remote) -> None:
    """Tails grow and are sealed between two looks; some looks find nothing new."""
    folder = tmp_path / "run"
    writer = FolderWriter(folder, {"name": "a"}, seal_batches=40)
    run, seen = None, set()
    for step in kit.training(8, 120):
        step.into(writer)
        if step.batch.batch % 20 != 19:
            continue
        writer.flush()
        remote.sync(folder)
        run = run or colordim.open(remote.url)
        assert_same(run.refresh().refresh(), colordim.open(folder))
        assert (len(run.batches["batch"]), run.ended, run.problems) == (step.batch.batch + 1, None, ())
        seen |= remote.names()
    assert run is not None
    assert len([name for name in seen if "tail-" in name]) > 1
    assert len([name for name in remote.names() if "/batches/" in name]) > 1
    writer.close("stopped")
    remote.sync(folder)
    assert_same(run.refresh(), colordim.open(folder))
    assert (len(run.batches["batch"]), run.ended) == (120, "stopped")


def test_a_tail_is_read_from_where_the_last_look_ended(kit: Any, tmp_path: Path, server: Server, s3: Remote) -> None:
    writer = FolderWriter(tmp_path, {"name": "a"})
    steps = kit.training(8, 40)
    for step in (next(steps) for _ in range(30)):
        step.into(writer)
    writer.flush()
    s3.sync(tmp_path)
    run = colordim.open(s3.url)
    tail = next(tmp_path.rglob("tail-*"))
    size = tail.stat().st_size

    def read() -> list[int]:
        answers = server.asked(run.refresh)
        return [each.bytes for each in answers if each.path.endswith(".cdt") and each.status == 206]

    assert read() == []  # S3 has no empty ranges: the answer is 416
    for step in steps:
        step.into(writer)
    writer.flush()
    s3.sync(tmp_path)
    assert read() == [tail.stat().st_size - size]
    assert run.length("train") + run.length("valid") == 40
    assert run.problems == ()


def test_an_empty_tail(tmp_path: Path, remote: Remote) -> None:
    FolderWriter(tmp_path, {"name": "a"}).close("stopped")
    remote.sync(tmp_path)
    remote.system.pipe_file(remote.path("rank=0/tail-0000000000.cdt"), b"")
    assert colordim.open(remote.url).length() == 0


def test_listings_that_fsspec_keeps_hide_nothing(kit: Any, tmp_path: Path, s3: Remote) -> None:
    """Not the end of a run, nor a segment in a folder that somebody else has listed before."""
    folder = tmp_path / "run"
    writer = FolderWriter(folder, {"name": "a"}, seal_bytes=1)
    steps = kit.training(8, 40)
    for step in (next(steps) for _ in range(20)):
        step.into(writer)
    writer.flush()
    s3.sync(folder)
    run = colordim.open(s3.url)
    for step in steps:
        step.into(writer)
    writer.close("stopped")
    for name in ("rank=0", "rank=0/batches", "rank=0/columns/level=0", "rank=0/moments/level=0"):
        fsspec.filesystem("s3").ls(s3.path(name))  # through which the run is read, too
    s3.sync(folder)
    assert_same(run.refresh(), colordim.open(folder))
    assert run.ended == "stopped"


def test_a_remote_file_is_read_as_any_other() -> None:
    data = bytes(range(100))
    system = fsspec.filesystem("memory")
    system.pipe_file("/file", data)
    files: list[Any] = [RemoteFile(system, "/file", len(data)), io.BytesIO(data)]
    got, expected = (
        [file.read(10), file.read(10), file.seek(-7, 2), file.tell(), file.read(), file.read(3), file.seek(90), file.read(20),
         file.seek(-5, 1), file.read(1), file.seek(200), file.read(1)]
        for file in files
    )  # fmt: skip
    assert got == expected


# Damage.


def segments(folder: Path, what: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in (folder / "rank=0" / what).glob("*.parquet"))


@pytest.mark.parametrize("how", ["cut", "deleted"])
def test_a_damaged_file_is_reported_and_the_rest_is_right(kit: Any, tmp_path: Path, remote: Remote, how: str) -> None:
    memory = record(kit, tmp_path)
    remote.sync(tmp_path)
    run = colordim.open(remote.url)
    names = segments(tmp_path, "columns/level=0")
    if how == "cut":
        remote.cut(names[1], 1000)
    else:  # after the folder was listed
        remote.delete(names[1])
    lost = range(*(int(Path(name).stem) for name in names[1:3]))
    stream = memory.streams[0]
    with pytest.warns(colordim.ColordimWarning, match=re.escape(names[1].partition("/")[2])):
        got = run.columns(stream)
    expected = colordim.open(tmp_path).columns(stream)
    table = memory.batches()
    left = table["index"][(table["phase"] == "train") & ~np.isin(table["batch"], lost) & table["recorded"]]
    kept = np.isin(expected.first, left)
    assert 0 < np.count_nonzero(kept) < len(kept)
    np.testing.assert_array_equal(got.first, expected.first[kept])
    np.testing.assert_array_equal(got.counts, expected.counts[kept])
    (problem,) = run.problems
    assert f"batches {table['batch'][table['recorded'] & (table['batch'] >= lost.start)][0]} to" in problem
    # What is put right is read again.
    remote.sync(tmp_path)
    np.testing.assert_array_equal(run.refresh().counts(stream), expected.counts)
    assert run.problems == ()


@pytest.mark.parametrize("how", ["cut", "deleted before", "deleted after"])
def test_a_level_that_is_missing_is_summed_up_anew(kit: Any, tmp_path: Path, remote: Remote, how: str) -> None:
    record(kit, tmp_path)
    remote.sync(tmp_path)
    run = colordim.open(remote.url)
    for name in segments(tmp_path, "columns/level=1"):
        remote.cut(name, 500) if how == "cut" else remote.delete(name)
    assert_same(run if how == "deleted after" else colordim.open(remote.url), colordim.open(tmp_path))
    assert run.problems == ()


def test_what_is_seen_in_the_midst_of_copying_is_never_wrong(kit: Any, tmp_path: Path, remote: Remote) -> None:
    record(kit, tmp_path)
    remote.sync(tmp_path, "*.json")
    for name in segments(tmp_path, "batches"):  # the worst order: these make a segment count
        remote.put(tmp_path, name)
    run = colordim.open(remote.url)
    with pytest.warns(colordim.ColordimWarning, match="are left out"):
        assert len(run.columns("layer0")) == 0
    remote.sync(tmp_path)
    assert_same(run.refresh(), colordim.open(tmp_path))
    assert run.problems == ()


# What it costs.


@pytest.fixture(scope="module")
def large(kit: Any, tmp_path_factory: pytest.TempPathFactory, server: Server) -> tuple[Path, Remote]:
    """One segment of 40 streams, which are of one kind."""
    path = tmp_path_factory.mktemp("large") / "run"
    writer = FolderWriter(path, {"name": "a"}, seal_bytes=1 << 40, flush_bytes=1 << 30)
    streams = [kit.stream(i, colordim.LinearAxis(-1, 1, 200)) for i in range(40)]
    for stream in streams:
        writer.declare(stream)
    rng = np.random.default_rng(0)
    for i in range(700):
        rows = np.zeros((len(streams), 208), np.int64)
        rows[:, :200] = rng.integers(0, 200, (len(streams), 200))
        rows[:, 206], rows[:, 207] = rows[:, :200].sum(1), 1
        writer.append(Batch(i, i, "train", 0, i, float(i)), streams, rows.reshape(-1), rng.normal(size=(40, 4)))
    writer.close("stopped")
    remote = Remote("s3://bucket/large", server.writer)
    remote.sync(path)
    return path, remote


def test_a_stream_is_read_without_the_others(large: tuple[Path, Remote], server: Server) -> None:
    path, remote = large
    (columns,) = segments(path, "columns/level=0")
    size = (path / columns).stat().st_size
    assert size > 5_000_000
    run = colordim.open(remote.url)
    run.counts(0)  # the footers
    answers = server.asked(lambda: run.counts(17))
    assert [each.path.rpartition("rank=0/")[2] for each in answers] == [
        columns.partition("/")[2],
        columns.partition("/")[2].replace("columns", "moments"),
    ]
    assert [each.status for each in answers] == [206, 206]
    assert size / 60 < answers[0].bytes < size / 30  # the 40th part, and what lies between its columns


def test_the_number_of_requests(large: tuple[Path, Remote], server: Server) -> None:
    _, remote = large
    runs: list[colordim.Run] = []
    opened = server.asked(lambda: runs.append(colordim.open(remote.url)))
    first = server.asked(lambda: runs[0].counts(3))
    batches = server.asked(lambda: runs[0].batches)
    overview = server.asked(lambda: runs[0].overview(3, 40))
    assert len(opened) <= 15  # of these, four listings, and one for each level
    assert sum(each.bytes for each in opened) < 30_000
    assert len(first) <= 3 * 3  # of each file the size, where no listing says it, the footer and what is wanted
    assert len(batches) == 0  # they came with the first columns
    assert len(overview) <= 3 + 2


def test_readers_in_several_threads(large: tuple[Path, Remote]) -> None:
    path, remote = large
    run, expected = colordim.open(remote.url), colordim.open(path)

    def read(number: int) -> bool:
        if number % 7 == 0:
            run.refresh()
        return bool((run.counts(number, start=600) == expected.counts(number, start=600)).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(24)))
    assert run.problems == ()


# Errors: a sentence each, of a class of ours.


def sentence(url: str, kind: type[ColordimError]) -> str:
    with pytest.raises(ColordimError) as caught:
        colordim.open(url)
    assert type(caught.value) is kind
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


def test_no_run_at_the_address(kit: Any, tmp_path: Path, remote: Remote) -> None:
    assert sentence(remote.url, NotARunError) == f"there is nothing at {remote.url}: check the address."
    record(kit, tmp_path, batches=5)
    remote.sync(tmp_path)
    above = remote.url.rpartition("/")[0]
    assert "is not a run, as it holds no run.json, but run" in sentence(above, NotARunError)
    assert "holds no run.json, but batches, columns, end.json, ...:" in sentence(f"{remote.url}/rank=0", NotARunError)
    run = colordim.open(remote.url)
    remote.delete(*remote.names())
    with pytest.raises(NotARunError, match="is gone"):
        run.refresh()


def test_no_such_bucket(server: Server) -> None:
    assert sentence("s3://elsewhere/run", NotARunError) == "there is nothing at s3://elsewhere/run: check the address."
    assert "Bucket name" in sentence("s3://no_such_BUCKET!/run", StoreError)


def test_no_credentials(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert sentence("s3://bucket/run", StoreError) == (
        "the run s3://bucket/run cannot be read (Unable to locate credentials): "
        "check the address, the credentials and the connection."
    )
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_no_permission(s3: Remote, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(environ: Any, start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [("Content-Type", "application/xml")])
        return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]

    monkeypatch.setattr(server, "_app", refuse)
    assert "cannot be read (Access Denied): check" in sentence(s3.url, StoreError)


def test_a_server_that_is_lost(kit: Any, tmp_path: Path, s3: Remote, server: Server, monkeypatch: Any) -> None:
    """Nothing is guessed, and the run is read on as soon as the server is back."""

    def fail(environ: Any, start_response: Any) -> list[bytes]:
        start_response("400 Bad Request", [("Content-Type", "application/xml")])
        return [b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"]

    memory = record(kit, tmp_path, close=False)
    s3.sync(tmp_path)
    run = colordim.open(s3.url)
    with monkeypatch.context() as patch:
        patch.setattr(server, "_app", fail)
        with pytest.raises(StoreError, match=r"cannot be read \(The provided token has expired\)"):
            run.refresh()
        with pytest.warns(colordim.ColordimWarning, match="are left out"):
            run.counts(0)
        assert run.ended is None
    run.refresh()
    kit.same(run._reader, memory)
    assert run.problems == ()


def test_a_refresh_that_fails_half_way_keeps_the_old_snapshot(
    kit: Any, tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    writer = FolderWriter(folder, {"name": "a"})
    steps = kit.training(8, 60)
    for step in (next(steps) for _ in range(30)):
        step.into(writer)
    writer.flush()
    shutil.copytree(folder, tmp_path / "before")
    remote.sync(folder)
    run = colordim.open(remote.url)
    for step in steps:
        step.into(writer)
    writer.close("stopped")  # what was a tail is sealed, with more batches
    remote.sync(folder)

    def fail(*_: object) -> None:
        raise OSError("Connection reset")

    with monkeypatch.context() as patch:
        patch.setattr("colordim.store.snapshot.read_streams", fail)
        with pytest.raises(StoreError, match="Connection reset"):
            run.refresh()
    assert_same(run, colordim.open(tmp_path / "before"))
    assert_same(run.refresh(), colordim.open(folder))


def test_a_server_that_does_not_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    assert "Could not connect to the endpoint URL" in sentence("s3://bucket/run", StoreError)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_addresses_of_an_unknown_kind() -> None:
    assert sentence("s4://bucket/run", ArgumentError) == (
        "s4://bucket/run is no address that can be read: fsspec knows no s4://."
    )


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("memory://run", "fsspec", "remote"),
        ("s3://bucket/run", "s3fs", "s3"),
        ("simplecache::s3a://bucket/run", "s3fs", "s3"),
        ("gs://bucket/run", "gcsfs", "gs"),
        ("gcs://bucket/run", "gcsfs", "gs"),
        ("az://container/run", "adlfs", "az"),
        ("abfs://container/run", "adlfs", "az"),
    ],
)
def test_packages_that_are_not_installed(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    if module != "fsspec":
        known = sys.modules["fsspec.registry"]._registry  # classes that were imported before
        for kind in [kind for kind, found in known.items() if found.__module__.startswith(module)]:
            monkeypatch.delitem(known, kind)
    assert f'pip install "colordim[{extra}]".' in sentence(url, DependencyError)


def test_nothing_is_imported_before_an_address_is_opened(kit: Any, tmp_path: Path) -> None:
    record(kit, tmp_path, batches=5)
    code = (
        f"import sys, colordim; colordim.open({str(tmp_path)!r}).counts(0); colordim.open({tmp_path.as_uri()!r}); "
        "print([name for name in ('fsspec', 's3fs', 'aiohttp', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# The command line.


def test_show_takes_an_address(kit: Any, tmp_path: Path, remote: Remote, capsys: pytest.CaptureFixture[str]) -> None:
    record(kit, tmp_path / "run", batches=30)
    remote.sync(tmp_path / "run")
    with pytest.raises(SystemExit) as ended:
        main(["show", remote.url, "--layer", "layer0", "--out", str(tmp_path / "a.png")])
    assert ended.value.code == 0
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(SystemExit) as ended:
        main(["show", f"{remote.url}-none"])
    assert (ended.value.code, capsys.readouterr().err) == (
        1, f"colordim: there is nothing at {remote.url}-none: check the address.\nMore: colordim docs {NotARunError.page}\n",
    )  # fmt: skip


def test_ls_refuses_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ls", "s3://bucket/runs"])
    assert capsys.readouterr().err == (
        "colordim: ls lists folders of this machine: colordim show takes an address, that of a run in s3://bucket/runs.\n"
        "More: colordim docs queries#fleets\n"
    )
