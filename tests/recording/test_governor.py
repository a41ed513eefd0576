"""The interval that keeps recording within its budget, against the cost formula worked out by hand."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from colordim.column import Batch
from colordim.errors import ArgumentError
from colordim.recording.governor import MAX_EVERY, Governor, Meter
from colordim.run import Run
from colordim.store.memory import MemoryStore


def run(governor: Governor, batches: int, cost: float, passed: float, step: float, noise: float = 0.0) -> list[int]:
    """Drive a governor with a training of constant costs; return the batches that it recorded."""
    draw = random.Random(3)
    recorded = []
    for index in range(batches):
        hit = index % governor.every == 0
        factor = 1 + noise * draw.expovariate(1)
        governor.batch(hit, (cost if hit else passed) * factor, step * factor)
        if hit:
            recorded.append(index)
    return recorded


@pytest.mark.parametrize(
    ("budget", "cost", "every"),
    [
        (0.05, 0.004, 1),  # 4 % of a step of 100 ms: every batch
        (0.05, 0.006, 2),  # 6 %: every second costs 3 %
        (0.02, 0.015, 8),  # 15 % / 8 = 1.9 %
        (0.02, 0.017, 16),  # 17 % / 8 would be 2.1 %
        (0.01, 1.0, 1024),  # a thousand per cent
    ],
)
def test_the_smallest_power_of_two_within_the_budget(budget: float, cost: float, every: int) -> None:
    governor = Governor(budget)
    run(governor, 3000, cost, 0.0, 0.1)
    assert governor.every == every


def test_what_passing_over_costs_counts_as_well() -> None:
    governor = Governor(0.02)
    run(governor, 500, 0.010, 0.0015, 0.1)
    # (10 + 15 * 1.5) / 16 = 2.03 ms is too much for 2 ms, (10 + 31 * 1.5) / 32 = 1.77 ms is not.
    assert governor.every == 32


def test_a_budget_that_cannot_be_kept_records_as_rarely_as_it_may() -> None:
    governor = Governor(0.01)
    run(governor, 500, 0.010, 0.002, 0.1)
    assert governor.every == MAX_EVERY


def test_recorded_batches_stay_nested_and_noise_does_not_break_the_budget() -> None:
    governor = Governor(0.02)
    recorded = run(governor, 4000, 0.012, 0.0001, 0.1, noise=0.3)
    late = [index for index in recorded if index > 200]
    share = (0.012 * len(late) + 0.0001 * (3800 - len(late))) / (0.1 * 3800)
    assert 0.01 <= share <= 0.02
    assert all(index % 8 == 0 for index in late)


def test_it_follows_a_training_that_becomes_slower() -> None:
    governor = Governor(0.02)
    run(governor, 300, 0.015, 0.0, 0.1)
    assert governor.every == 8
    run(governor, 600, 0.015, 0.0, 1.0)
    assert governor.every == 1


def test_without_a_budget_every_batch_is_recorded() -> None:
    governor = Governor(None)
    assert run(governor, 50, 10.0, 10.0, 0.1) == list(range(50))


def test_the_first_batches_and_pauses_do_not_count() -> None:
    governor = Governor(0.05)
    for _ in range(3):
        governor.batch(True, 100.0, 0.1)  # making buffers
    governor.batch(True, 0.004, None)  # a validation came between
    assert governor.every == 1
    governor.batch(True, 0.004, 0.1)
    assert governor.every == 1


@pytest.mark.parametrize("budget", [0, -0.1, 1.5, float("nan")])
def test_a_budget_that_is_no_share(budget: float) -> None:
    with pytest.raises(ArgumentError, match=r"budget=.* cannot be"):
        Governor(budget)


def test_a_recording_stores_its_cost_and_keeps_its_budget(record: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with record(model, budget=1e-9) as rec:  # no machine records that cheaply: all but the first are passed over
        for _ in range(60):
            model(torch.randn(2, 4))
    recorded = rec.run.batches["recorded"]
    # Three batches to warm up and one to measure; the decision after that holds from the next batch on.
    assert recorded[:4].all()
    assert 4 <= recorded.sum() <= 6
    assert rec.run.cost > 0
    assert (rec.run.batches["recording_s"] > 0).all()
    assert (rec.run.batches["step_s"][:-1] >= 0).all()

    with record(model) as rec:
        for _ in range(20):
            model(torch.randn(2, 4))
    assert rec.run.batches["recorded"].all()


def test_the_cost_is_the_share_of_the_steps_that_are_known() -> None:
    store = MemoryStore()
    for index, values in enumerate(
        [{"recording_s": 9.0}, {"recording_s": 1.0, "step_s": 10.0}, {"recording_s": 2.0, "step_s": 20.0}]
    ):
        store.append(
            Batch(index, index, "train", 0, index, 0.0, True, values), [], np.zeros(0, np.int64), np.zeros((0, 4))
        )
    assert Run(store).cost == 3.0 / 30.0
    assert np.isnan(Run(MemoryStore()).cost)


def test_a_step_is_what_lies_between_two_batches_without_what_was_spent() -> None:
    meter = Meter(Governor(None), lambda: 6.0)
    meter.open(100.0)
    meter.spend(0.5)
    meter.spend(0.25)
    assert meter.close(True, 103.0, uninterrupted=True) == {
        "recording_s": 6.75,
        "step_s": 2.25,
    }  # 6 s on the other thread
    meter.handed_on(True, 0.125)
    meter.open(103.0)
    assert meter.close(True, 104.0, uninterrupted=False) == {"recording_s": 3.125}  # 6 s over two batches
