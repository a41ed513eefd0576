"""What the doctor says; where there is no GPU, its checks run with the CPU in the place of the device."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colordim import doctor
from colordim.axis import Axis
from colordim.binning import Row, device, reference
from colordim.cli import main

CPU = torch.device("cpu")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_says_what_counts_and_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["NumPy"] == np.__version__
    assert lines["torch"].startswith(f"{torch.__version__}, {torch.get_num_threads()} threads")
    assert lines["CPU"].startswith("counted by the ")
    assert {"colordim", "Python", "pyarrow", "CUDA"} <= set(lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "doctor", "--gpu")
    assert (code, out) == (1, "")
    assert (
        err
        == f"colordim: there is no GPU to examine: torch {torch.__version__} sees no CUDA device here.\nMore: colordim docs performance#gpu\n"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_benchmark_succeeds_without_a_gpu() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    result = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert result.stdout == "There is no GPU here: nothing was measured.\n"


def test_without_torch_it_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, _ = run(capsys, "doctor")
    assert code == 0
    assert 'pip install "colordim[torch]"' in out
    code, _, err = run(capsys, "doctor", "--gpu")
    assert code == 1
    assert 'pip install "colordim[torch]"' in err


def test_right_counts_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "AXES", doctor.AXES[:2])
    check = doctor.check_counts("counts", device.bin_by_operations, CPU, 1001)
    assert check.passed, check.result
    assert check.result == "equal for 24 tensors"
    assert not torch.are_deterministic_algorithms_enabled()


def one_value_elsewhere(tensor: Any, axis: Axis, row: Row) -> bool:
    counted = reference.bin_into(tensor, axis, row)
    row.counts[3] += 1
    row.counts[4] -= 1
    return counted


def a_sum_that_is_a_little_off(tensor: Any, axis: Axis, row: Row) -> bool:
    counted = reference.bin_into(tensor, axis, row)
    row.moments[0] *= 1 + 1e-9
    return counted


@pytest.mark.parametrize("count", [one_value_elsewhere, a_sum_that_is_a_little_off])
def test_wrong_counts_fail_and_say_where(count: doctor.Count) -> None:
    check = doctor.check_counts("counts", count, CPU, 101)
    assert check.passed is False
    assert "LinearAxis(-10, 10, 200) of float32" in check.result
    assert str(check).startswith("FAILED")


def test_what_raises_is_a_line_of_the_report_and_no_traceback() -> None:
    def fails(*_: object) -> bool:
        raise RuntimeError("no kernel image\nis available")

    for check in (
        doctor.check_counts("counts", fails, CPU, 10),
        doctor.check_waiting("waiting", fails, CPU),
        doctor.speed("speed", fails, CPU, 10),
    ):
        assert check.passed is False
        assert check.result == "RuntimeError: no kernel image is available"


def test_a_recording_on_the_device_is_compared_with_one_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    check = doctor.check_recording("recording", CPU, batches=3)
    assert (check.passed, check.result) == (True, "3 batches")
    made, real = iter(range(1000)), doctor.tricky

    def another_each_time(axis: Axis, n: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
        return real(axis, n, dtype, next(made))

    monkeypatch.setattr(doctor, "tricky", another_each_time)
    assert doctor.check_recording("recording", CPU, batches=3).passed is False


def test_the_costs_are_ratios() -> None:
    assert "x torch.sum" in doctor.speed("speed", device.bin_by_operations, CPU, 1000, rounds=2).result
    assert " ms a step, 12 layers" in doctor.cost("cost", CPU, width=2, size=2, rounds=1).result


def test_a_report_with_a_failure_exits_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_require_gpu", lambda: None)
    for passed, code, last in ((True, 0, "All checks passed."), (False, 1, "1 checks failed: please send")):
        monkeypatch.setattr(doctor, "examine_gpu", lambda passed=passed: iter([doctor.Check("counts", passed, "")]))
        lines: list[str] = []
        assert doctor.examine(True, lines.append) == code
        assert lines[-1].startswith(last)
