"""What is read from the demo's two trainings, on all of its digits: the first two of eight epochs."""

from __future__ import annotations

from pathlib import Path

from colordim.demo.data import load_digits
from colordim.demo.training import BAD, GOOD, batches_per_epoch, train
from colordim.diagnosis import diagnose, gather


def test_of_the_bad_run_that_it_collapses_and_where(tmp_path: Path) -> None:
    digits = load_digits()
    found = diagnose(gather(train(BAD, digits, tmp_path / "bad", epochs=2, seed=7))).findings[0]
    assert (found.symptom, found.severity) == ("collapse-and-recover", "problem")
    assert found.layers[0] == "conv4"  # each layer multiplies what the one before it does, so the last falls deepest
    assert batches_per_epoch(digits) <= found.first < 2 * batches_per_epoch(digits)
    assert {"batch-norm", "kaiming-init", "lower-lr"} <= {remedy.key for remedy in found.remedies}


def test_of_the_good_run_that_nothing_is_wrong_and_why(tmp_path: Path) -> None:
    found = diagnose(gather(train(GOOD, load_digits(), tmp_path / "good", epochs=2, seed=7)))
    assert found.healthy
    assert found.sentence.startswith("Nothing is wrong in 62 batches of 15 layers: all ")
    assert "every unit fires" in found.sentence
