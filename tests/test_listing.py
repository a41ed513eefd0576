"""What a list of runs says of each."""

from __future__ import annotations

import math

import numpy as np
import pytest

from colordim import listing
from colordim.column import Batch, Phase
from colordim.run import Run
from colordim.store.memory import MemoryStore

NAN = math.nan


@pytest.mark.parametrize(
    ("losses", "last"),
    [
        ([("train", 3.0), ("train", 2.0), ("valid", 9.0)], 2.0),  # not that of the validation behind it
        ([("train", 3.0), ("train", NAN), ("train", None)], 3.0),
        ([("train", None), ("valid", 9.0), ("valid", 8.0)], 8.0),
        ([("train", NAN)], None),
        ([("train", None)], None),
        ([], None),
    ],
)
def test_the_last_loss_is_that_of_the_training(losses: list[tuple[Phase, float | None]], last: float | None) -> None:
    store = MemoryStore({"name": "made"})
    index = {"train": 0, "valid": 0}
    for number, (phase, loss) in enumerate(losses):
        values = {} if loss is None else {"loss": loss}
        batch = Batch(number, index[phase], phase, 0, number, 0.0, True, values)
        store.append(batch, [], np.zeros(0, np.int64), np.zeros((0, 4)))
        index[phase] += 1
    assert listing.summary(Run(store)).last_loss == last
