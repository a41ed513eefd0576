"""What all tests share."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from colordim.store.writer import FolderWriter


@pytest.fixture(autouse=True)
def close_writers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test left open, so that it does not look for its folder when the process ends."""
    made: list[FolderWriter] = []
    create = FolderWriter.__init__

    def tracked(self: FolderWriter, *args: Any, **options: Any) -> None:
        create(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(FolderWriter, "__init__", tracked)
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for writer in made:
            writer.close("the test is over")
