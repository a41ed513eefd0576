"""A writer that is forked, ends without being closed, or runs for long; test_torture.py kills it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colordim.column import Batch
from colordim.store.base import Block
from colordim.store.folder import FolderReader
from colordim.store.writer import FolderWriter

# Every integer of a row follows from its stream, batch and place, so that a reader can check any of them.
WRITER = """
import sys, time
import numpy as np
from colordim.axis import LinearAxis
from colordim.column import Batch, Stream
from colordim.store.writer import FolderWriter

path, limit, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
streams = [Stream(i, f"layer{i}", "activation", "ReLU", "", (4,), i, LinearAxis(0, 1, 50)) for i in range(5)]
writer = FolderWriter(path, {}, flush_batches=4, flush_seconds=0.01, seal_bytes=100_000)
for stream in streams[:-1]:
    writer.declare(stream)
place = np.arange(58)
for number in range(limit):
    if number == 30:
        writer.declare(streams[-1])
    chosen = streams if number >= 30 else streams[:-1]
    rows = np.concatenate([(number * 7 + stream.id * 3 + place) % 5 * (place % 3) for stream in chosen])
    moments = np.full((len(chosen), 4), float(number))
    writer.append(Batch(number, number, "train", 0, number, 0.0), chosen, rows, moments)
    if number % 10 == 9:
        writer.flush()
        print(number, flush=True)
    time.sleep(pause)
writer.close("stopped")
print("closed", flush=True)
"""


def check(reader: FolderReader) -> int:
    """Check every integer; return the number of batches, which are complete from the first on."""
    numbers = reader.batches()["batch"]
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert reader.problems == ()
    place = np.arange(58)
    for stream in reader.streams:
        block = Block.concatenate(list(reader.blocks(stream, "train", 0, 10**9)), 50)
        expected = (numbers[:, None] * 7 + stream.id * 3 + place) % 5 * (place % 3)
        fired = numbers >= (30 if stream.id == 4 else 0)
        np.testing.assert_array_equal(np.hstack([block.counts, block.counters]), expected * fired[:, None])
        np.testing.assert_array_equal(block.moments[fired], np.repeat(numbers[fired, None], 4, axis=1))
    return len(numbers)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_inert_in_a_forked_child(kit: Any, tmp_path: Path) -> None:
    code = WRITER.split("place = ")[0] + (
        "import os\n"
        "batch = Batch(0, 0, 'train', 0, 0, 0.0)\n"
        "put = lambda: writer.append(batch, streams[:1], np.ones(58, np.int64), np.ones((1, 4)))\n"
        "put()\n"
        "if os.fork() == 0:\n"
        "    began = time.monotonic()\n"
        "    for _ in range(500): put()\n"
        "    writer.declare(streams[4]); writer.flush(); writer.close('child')\n"
        "    sys.exit(time.monotonic() - began > 2 or len(writer._queue) > 1)\n"  # runs the exit handlers too
        "assert os.wait()[1] == 0; writer.flush(); writer.close('parent')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run"), "0", "0"], check=True, timeout=60)
    reader = FolderReader(tmp_path / "run")
    assert reader.ended == "parent"
    assert reader.batches()["batch"].tolist() == [0]
    assert len(reader.streams) == 4


def test_exit_without_close(tmp_path: Path) -> None:
    """A script that ends without stopping its recording loses nothing."""
    code = WRITER.replace('writer.close("stopped")', "sys.exit()").replace("flush_seconds=0.01", "flush_seconds=100")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run"), "33", "0"], check=True, timeout=60)
    reader = FolderReader(tmp_path / "run")
    assert check(reader) == 33
    assert reader.ended == "the process exited without stopping the recording"


def test_flushes_by_itself(kit: Any, tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path, {}, flush_seconds=0.1)
    for step in kit.training(0, 3):
        step.into(writer)
    began = time.monotonic()
    while len(FolderReader(tmp_path).batches()["batch"]) < 3:
        assert time.monotonic() < began + 5
        time.sleep(0.02)
    writer.close("stopped")


def test_memory_stays_flat(tmp_path: Path) -> None:
    """20,000 batches of 10 streams take no more memory than 1,000."""
    code = (
        "import pathlib, sys, time\nimport numpy as np\n"
        "from colordim.axis import SignedLogAxis\n"
        "from colordim.column import Batch, Stream\n"
        "from colordim.store.writer import FolderWriter\n"
        "streams = tuple(Stream(i, str(i), 'activation', '', '', (), i, SignedLogAxis(3)) for i in range(10))\n"
        "writer = FolderWriter(sys.argv[1], {}, seal_bytes=8 << 20)\n"  # the first seal comes before batch 1,000
        "for stream in streams: writer.declare(stream)\n"
        "rng = np.random.default_rng(0)\n"
        "pool = np.zeros((50, 10, 1033), np.int64)\n"
        "pool[:, :, 400:500] = rng.poisson(300, (50, 10, 100))\n"
        "def rss(): return int(pathlib.Path('/proc/self/status').read_text().split('VmRSS:')[1].split()[0]) / 1024\n"
        "peak = 0\n"
        "for number in range(20_001):\n"
        "    rows = pool[rng.integers(50)].ravel()\n"
        "    writer.append(Batch(number, number, 'train', 0, 0, 0.0), streams, rows, np.ones((10, 4)))\n"
        "    if number == 1000: writer.flush(); early = rss()\n"
        "    if number > 1000 and number % 100 == 0: peak = max(peak, rss())\n"
        "    time.sleep(0.0007)\n"  # a training takes time too, and lets other threads run
        "writer.close('stopped')\n"
        "print(early, peak, writer.dropped)\n"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "run")], check=True, timeout=200, capture_output=True
    )
    early, peak, dropped = map(float, done.stdout.split())
    assert done.stderr == b""
    assert dropped == 0
    assert peak - early < 60, f"{early:.0f} MB after 1,000 batches, {peak:.0f} MB at most later"
    assert len(FolderReader(tmp_path / "run").batches()["batch"]) == 20_001


def test_a_writer_thread_wakes_only_when_there_is_something(kit: Any, tmp_path: Path) -> None:
    writer = FolderWriter(tmp_path, {})
    writer.append(Batch(0, 0, "train", 0, 0, 0.0), (), np.zeros(0, np.int64), np.zeros((0, 4)))
    writer.flush()
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1
    writer.close("stopped")
