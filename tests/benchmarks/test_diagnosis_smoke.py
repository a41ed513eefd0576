"""The smoke set of the diagnosis benchmark: real trainings of a few seconds, healthy and broken, each of them read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from benchmarks.diagnosis.spec import Spec
from benchmarks.diagnosis.split import part
from benchmarks.diagnosis.train import RUN, train

import colordim
from colordim.diagnosis import diagnose, gather

#: Of these the loss says more than the inside of the model does.
OUTSIDE = {"plateau", "divergence", "train-valid-mismatch"}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Give torch its threads back."""
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


@pytest.mark.parametrize("spec", part("smoke"), ids=lambda spec: spec.id)
def test_what_is_said_of_a_training(spec: Spec, tmp_path: Path) -> None:
    train(spec, tmp_path, watch=False)
    found = diagnose(gather(colordim.open(tmp_path / RUN)))
    if spec.kind == "healthy":
        assert found.severity != "problem", found.sentence
        assert found.sentence.startswith("Nothing is wrong")
    elif spec.kind == "fault":
        assert found.findings[0].severity == "problem"
        assert found.findings[0].symptom in spec.label.symptoms
        if spec.label.layers:
            assert spec.label.names(found.findings[0].layers[0])
    else:
        said = {each.symptom for finding in found.findings for each in finding.walk() if each.severity != "note"}
        assert said <= OUTSIDE
