"""SIGTERM: what was recorded is there within a second, and then happens what would have happened without us."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import colordim
from colordim import termination
from colordim.store.folder import FolderReader
from colordim.termination import unbroken, unwatch, watch

if sys.platform == "win32":
    pytest.skip("Windows ends a process instead of sending it a signal", allow_module_level=True)

#: Seconds that a process may take to its end: a second of ours, and what a machine that is busy adds to it.
MARGIN = 8.0

# Nothing but appending, so that most signals come in the midst of it. What was appended is said first, so that a signal
# between the two lines makes one batch more at most.
APPEND = """
import os, signal, sys, time
import numpy as np
from colordim import termination
from colordim.axis import LinearAxis
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter

class Terminable:
    def hurry(self, dying):
        writer.hurry("ended by SIGTERM" if dying else None)
    def wait(self, until):
        writer.wait(until)

streams = [Stream(i, f"layer{i}", "activation", "ReLU", "", (4,), i, LinearAxis(0, 1, 50)) for i in range(5)]
writer = FolderWriter(sys.argv[1], {}, flush_seconds=100, flush_batches=1000, seal_bytes=3_000_000)
for stream in streams:
    writer.declare(stream)
termination.watch(Terminable())
place = np.arange(58)
rows = [np.concatenate([(k * 7 + stream.id * 3 + place) % 5 * (place % 3) for stream in streams]) for k in range(5)]
written = os.open(sys.argv[2], os.O_WRONLY)
print("ready", flush=True)
number = 0
while True:
    batch, moments = Batch(number, number, "train", 0, number, 0.0), np.full((5, 4), float(number))
    writer.append(batch, streams, rows[number % 5], moments)
    os.pwrite(written, number.to_bytes(8, "little"), 0)
    number += 1
"""

RECORD = """
import os, signal, sys, time, torch, colordim
model = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(3)])
"""


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line == "ready\n", line + process.communicate()[1]
    return process


def terminate(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Send SIGTERM, and return what the process says until its end, which comes soon."""
    began = time.monotonic()
    process.terminate()
    said = process.communicate(timeout=60)
    assert time.monotonic() - began < MARGIN
    return said


@pytest.mark.parametrize("seed", range(20))
def test_all_that_was_appended_is_there(tmp_path: Path, seed: int) -> None:
    counter = tmp_path / "counter"
    counter.write_bytes(bytes(8))
    process = run(APPEND, tmp_path / "run", counter)
    time.sleep(np.random.default_rng(seed).uniform(0.0, 0.4))
    assert terminate(process) == ("", "")
    assert process.returncode == -signal.SIGTERM
    reader = FolderReader(tmp_path / "run")
    numbers = reader.batches()["batch"]
    last = int.from_bytes(counter.read_bytes(), "little")
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert len(numbers) in (last + 1, last + 2)  # the last may have been appended, but not been said
    assert reader.problems == ()
    assert reader.ended == "ended by SIGTERM"
    place = np.arange(58)
    for stream in reader.streams:
        for block in reader.blocks(stream, "train", 0, 10**9):
            expected = (block.first[:, None] * 7 + stream.id * 3 + place) % 5 * (place % 3)
            np.testing.assert_array_equal(np.hstack([block.counts, block.counters]), expected)
            np.testing.assert_array_equal(block.moments, np.repeat(block.first[:, None], 4, axis=1))


def test_a_closed_batch_that_waits_for_its_loss_is_there(tmp_path: Path) -> None:
    process = run(
        RECORD
        + """
with colordim.record(model, folder=sys.argv[1]) as rec:
    for number in range(5):
        with rec.batch():
            model(torch.ones(3))
        rec.log(loss=number)
    print("ready", flush=True)
    time.sleep(60)
""",
        tmp_path / "run",
    )
    assert terminate(process) == ("", "")
    assert process.returncode == -signal.SIGTERM
    recorded = colordim.open(tmp_path / "run")
    assert recorded.ended == "ended by SIGTERM"
    assert recorded.batches["loss"].tolist() == [0, 1, 2, 3, 4]
    assert recorded.counts("0").sum(axis=1).tolist() == [3] * 5


def test_a_training_goes_on_if_it_handles_the_signal_itself(tmp_path: Path) -> None:
    """A handler that was there before is called once flushed, the closed batch keeps its loss, and nothing has ended."""
    process = run(
        RECORD
        + """
def handler(*_):
    run = colordim.open(sys.argv[1])
    print(run.length(), run.ended, flush=True)
    global said
    said = True
said = False
signal.signal(signal.SIGTERM, handler)
with colordim.record(model, folder=sys.argv[1]) as rec:
    for number in range(4):
        with rec.batch():
            model(torch.ones(3))
        if number == 2:
            print("ready", flush=True)
            while not said: time.sleep(0.01)
        rec.log(loss=number)
assert signal.getsignal(signal.SIGTERM) is handler
run = colordim.open(sys.argv[1])
print(run.ended, run.batches["loss"].tolist())
""",
        tmp_path / "run",
    )
    assert terminate(process) == ("2 None\nstopped [0.0, 1.0, 2.0, 3.0]\n", "")
    assert process.returncode == 0


def test_a_handler_that_raises_ends_the_recording_as_any_error_does(tmp_path: Path) -> None:
    process = run(
        RECORD
        + """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
with colordim.record(model, folder=sys.argv[1]) as rec:
    print("ready", flush=True)
    while True: model(torch.ones(3))
""",
        tmp_path / "run",
    )
    terminate(process)
    assert process.returncode == 3
    assert colordim.open(tmp_path / "run").ended == "SystemExit: 3"


def test_several_recordings_of_one_process(tmp_path: Path) -> None:
    process = run(
        RECORD
        + """
with colordim.record(model, folder=sys.argv[1] + "/a") as a, colordim.record(model, folder=sys.argv[1] + "/b") as b:
    for _ in range(3): model(torch.ones(3))
    with colordim.record(model, folder=sys.argv[1] + "/c"): model(torch.ones(3))
    print("ready", flush=True)
    time.sleep(60)
""",
        tmp_path,
    )
    assert terminate(process) == ("", "")
    assert process.returncode == -signal.SIGTERM
    ends = [colordim.open(tmp_path / name).ended for name in "abc"]
    assert ends == ["ended by SIGTERM", "ended by SIGTERM", "stopped"]


def test_a_forked_child_dies_as_if_we_were_not_there(tmp_path: Path) -> None:
    process = run(
        RECORD
        + """
with colordim.record(model, folder=sys.argv[1]) as rec:
    model(torch.ones(3))
    child = os.fork()
    if child == 0:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL: time.sleep(10)
        os._exit(1)
    os.kill(child, signal.SIGTERM)  # perhaps before the child has set itself up
    status = os.wait()[1]
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print("ready", flush=True)
print(os.waitstatus_to_exitcode(status), colordim.open(sys.argv[1]).ended)
""",
        tmp_path / "run",
    )
    assert process.communicate(timeout=60) == ("-15 stopped\n", "")


def test_a_disk_that_hangs_costs_a_second(tmp_path: Path) -> None:
    """Also if the training is waiting for it: queue_bytes are reached, and append waits inside."""
    code = APPEND.replace("seal_bytes=3_000_000", "flush_bytes=10_000, queue_bytes=100_000, patience=60")
    hang = "import colordim.store.tail as tail\ntail.TailWriter.append = lambda *_: time.sleep(100)\n"
    (tmp_path / "counter").write_bytes(bytes(8))
    process = run(code.replace("streams = [", hang + "streams = [", 1), tmp_path / "run", tmp_path / "counter")
    time.sleep(0.5)
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    assert FolderReader(tmp_path / "run").ended is None


def test_sealing_that_takes_longer_keeps_neither_the_batches_nor_the_end(tmp_path: Path) -> None:
    code = APPEND.replace("seal_bytes=3_000_000", "flush_bytes=1_000_000, seal_bytes=30_000")
    slow = "from colordim.store.segments import Segment\ndef seal(self, folder, streams, between):\n"
    slow += "    while True: between(); time.sleep(0.02)\nSegment.seal = seal\n"
    (tmp_path / "counter").write_bytes(bytes(8))
    process = run(code.replace("streams = [", slow + "streams = [", 1), tmp_path / "run", tmp_path / "counter")
    time.sleep(0.3)
    terminate(process)
    assert process.returncode == -signal.SIGTERM
    reader = FolderReader(tmp_path / "run")
    assert reader.ended == "ended by SIGTERM"
    last = int.from_bytes((tmp_path / "counter").read_bytes(), "little")
    assert len(reader.batches()["batch"]) in (last + 1, last + 2)
    assert reader.problems == ()


# In this process, with a handler of our own so that it survives.


class Watched:
    def __init__(self) -> None:
        self.said: list[str] = []

    def hurry(self, dying: bool) -> None:
        self.said.append("dying" if dying else "going on")

    def wait(self, until: float) -> None:
        self.said.append("waited")


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """What reaches the handler that was there before."""
    numbers: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(number))
    yield numbers
    signal.signal(signal.SIGTERM, before)


def send() -> None:
    signal.raise_signal(signal.SIGTERM)


def test_remembered_until_an_unbroken_method_is_left(handled: list[int]) -> None:
    watched = Watched()
    watch(watched)

    @unbroken
    def inner() -> None:
        send()

    @unbroken
    def outer() -> None:
        inner()
        send()
        assert (watched.said, handled) == ([], [])
        assert not termination.wait_for(threading.Condition(), lambda: False, 60)

    outer()
    assert watched.said == ["going on", "waited"]
    assert handled == [signal.SIGTERM]
    send()
    assert handled == [signal.SIGTERM] * 2
    unwatch(watched)


def test_what_was_there_is_put_back_with_the_last_recording(handled: list[int]) -> None:
    previous = signal.getsignal(signal.SIGTERM)
    first, second = Watched(), Watched()
    watch(first)
    ours = signal.getsignal(signal.SIGTERM)
    watch(second)
    assert signal.getsignal(signal.SIGTERM) is ours is not previous
    unwatch(first)
    send()
    assert (first.said, second.said) == ([], ["going on", "waited"])
    unwatch(second)
    assert signal.getsignal(signal.SIGTERM) is previous


def test_a_framework_that_has_wrapped_our_handler_keeps_it(handled: list[int]) -> None:
    first, second = Watched(), Watched()
    watch(first)
    ours: Any = signal.getsignal(signal.SIGTERM)
    wrapped: list[int] = []

    def framework(number: int, frame: FrameType | None) -> None:
        wrapped.append(number)
        ours(number, frame)

    signal.signal(signal.SIGTERM, framework)
    send()
    assert (first.said, wrapped, handled) == (["going on", "waited"], [signal.SIGTERM], [signal.SIGTERM])
    unwatch(first)
    assert signal.getsignal(signal.SIGTERM) is framework
    send()
    assert (first.said, len(wrapped), len(handled)) == (["going on", "waited"], 2, 2)
    watch(second)  # a handler of its own, in front of the framework's
    send()
    assert (second.said, len(wrapped), len(handled)) == (["going on", "waited"], 3, 3)
    unwatch(second)
    assert signal.getsignal(signal.SIGTERM) is framework


def test_a_framework_that_replaced_the_default_decides_about_dying() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    watched = Watched()
    watch(watched)
    ours: Any = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda number, frame: ours(number, frame))
    send()
    assert watched.said == ["going on", "waited"]
    unwatch(watched)
    send()
    signal.signal(signal.SIGTERM, before)


def test_the_first_process_of_a_container_does_not_die_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ignores SIGTERM for it where nothing is installed, so the training goes on and is recorded."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    watched = Watched()
    watch(watched)
    monkeypatch.setattr("colordim.termination.os.getpid", lambda: 1)
    send()
    assert watched.said == ["going on", "waited"]
    unwatch(watched)
    signal.signal(signal.SIGTERM, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    watched = Watched()
    watch(watched)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    unwatch(watched)
    signal.signal(signal.SIGTERM, before)


def in_a_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_another_thread_installs_nothing_but_is_written(handled: list[int]) -> None:
    previous = signal.getsignal(signal.SIGTERM)
    threaded, watched = Watched(), Watched()
    in_a_thread(lambda: watch(threaded))
    assert signal.getsignal(signal.SIGTERM) is previous
    watch(watched)
    unwatch(watched)
    assert signal.getsignal(signal.SIGTERM) is not previous, "the other recording still goes on"
    send()
    assert (threaded.said, watched.said) == (["going on", "waited"], [])
    in_a_thread(lambda: unwatch(threaded))
    send()
    assert threaded.said == ["going on", "waited"]
    assert len(handled) == 2


def test_an_error_of_ours_does_not_keep_the_signal(handled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(watched, "hurry", lambda dying: Path("/nowhere").stat())
    watch(watched)
    send()
    assert handled == [signal.SIGTERM]
    unwatch(watched)


def test_a_recorder_that_is_busy_or_a_device_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Identity())
    with colordim.record(model, folder=tmp_path / "run") as rec:
        with rec.batch():
            model(torch.ones(3))
        recorder: Any = rec._recorder
        drained: list[bool] = []
        hangs = threading.Event()

        def drain(last: bool = True) -> None:
            drained.append(last)
            hangs.wait(60)

        monkeypatch.setattr(recorder._batches, "drain", drain)
        with recorder._lock:  # the handler has interrupted the recorder
            recorder.hand_on(True)
        assert drained == []
        began = time.monotonic()
        recorder.hand_on(True)
        assert time.monotonic() - began < 30
        assert drained == [True]
        hangs.set()
        monkeypatch.undo()
