"""One process records, another reads; the first is killed; the memory of a long recording stays flat."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import colordim
from colordim.errors import NotARunError

# Every batch is filled with a value of its own, so that a reader can tell what each column must hold.
RECORD = """
import sys, torch, colordim
folder, batches = sys.argv[1], int(sys.argv[2])
model = torch.nn.Sequential(*[torch.nn.Identity() for _ in range(10)])
with colordim.record(model, folder=folder) as rec:
    for i in range(batches):
        model(torch.full((8, 4), float(i % 1000 + 1)))
        rec.log(loss=i)
"""

MEMORY = """
import sys, torch, colordim
model = torch.nn.Sequential(*[torch.nn.Tanh() for _ in range(10)])
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024
torch.manual_seed(0)
with colordim.record(model, folder=sys.argv[1]) as rec:
    for i in range(20_000):
        model(torch.randn(16, 16) * 3)
        if i + 1 in (6_000, 20_000):  # after the first segment was sealed, and after the fourth
            print(resident())
"""


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", RECORD, str(tmp_path / "run"), "1000000"])
    yield process
    process.kill()
    process.wait()


def opened(path: Path) -> colordim.Run:
    for _ in range(600):
        try:
            run = colordim.open(path)
        except NotARunError:
            time.sleep(0.1)
            continue
        if run.length():
            return run
        time.sleep(0.1)
    raise AssertionError("the recording process wrote nothing within a minute")


def check(run: colordim.Run) -> int:
    """Check every column of the run against what its batch was filled with; return their number."""
    batches = run.batches["batch"]
    assert batches.tolist() == list(range(len(batches)))
    assert run.batches["loss"].tolist() == batches.tolist()
    for name in ("0", "9"):
        moments, counts = run.moments(name), run.counts(name)
        assert moments["first"].tolist() == batches.tolist()
        assert moments["sum"].tolist() == (32 * (batches % 1000 + 1.0)).tolist()
        assert (counts.max(axis=1) == 32).all()
        assert (counts.sum(axis=1) == 32).all()
        bucket = counts.argmax(axis=1)
        edges = run.stream(name).axis.edges
        assert (edges[bucket] <= batches % 1000 + 1).all()
        assert (batches % 1000 + 1 < edges[bucket + 1]).all()
    assert run.problems == ()
    return len(batches)


def test_a_run_is_read_complete_and_growing_while_another_process_records(
    recording: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    run = opened(tmp_path / "run")
    lengths = []
    for _ in range(8):
        lengths.append(check(run.refresh()))
        time.sleep(0.3)
    assert run.ended is None
    assert np.diff(lengths).min() >= 0
    assert lengths[-1] > lengths[0]
    assert recording.poll() is None


def test_killed_at_any_instant_all_but_the_last_flush_is_there(
    recording: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    before = check(opened(tmp_path / "run"))
    time.sleep(0.7)
    before = max(before, check(colordim.open(tmp_path / "run")))
    recording.send_signal(signal.SIGKILL)
    recording.wait()
    run = colordim.open(tmp_path / "run")
    assert check(run) >= before
    assert run.ended is None


def test_the_memory_of_a_long_recording_stays_flat(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "run")], capture_output=True, text=True, check=True
    )
    after_6000, after_20000 = (float(line) for line in result.stdout.split())
    assert after_20000 - after_6000 < 60  # MB
    run = colordim.open(tmp_path / "run")
    assert run.length() == 20_000
    assert (run.moments("5")["size"] == 256).all()
