"""What the tests of frameworks share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import colordim
from colordim.diagnosis import Finding


@pytest.fixture
def stops_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return what lets a problem be found as soon as so many batches of training and validation are over."""

    def patch(batches: int) -> None:
        found = Finding("plateau", "problem", "it does not move", (), 0, 1, (), "why")

        def stopped_by(recording: colordim.Recording) -> Finding | None:
            recorder = recording._recorder
            return found if recorder is not None and recorder.closed_batches >= batches else None

        monkeypatch.setattr(colordim.Recording, "stopped_by", property(stopped_by))

    return patch
