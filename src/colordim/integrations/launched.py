"""What processes that were launched for a training leave behind for the one that launched them."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Note"]


class Note:
    """A small file among the temporary ones, since a launched process has copies of all objects and hands none back.

    It belongs to the process that made the object, and goes with it; launched processes have the object by fork or pickle.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._path = Path(tempfile.gettempdir()) / f"colordim-{self._owner}-{secrets.token_hex(8)}.json"
        weakref.finalize(self, _remove, self._path, self._owner)

    def leave(self, state: Mapping[str, Any]) -> None:
        """Write down JSON types, unless this process is the one that would read them."""
        if os.getpid() != self._owner:
            aside = self._path.with_suffix(f".{os.getpid()}")
            aside.write_text(json.dumps(state), encoding="utf-8")
            aside.replace(self._path)

    def read(self) -> dict[str, Any] | None:
        """Return what was left behind since the owner has last read it, if anything was."""
        try:
            state: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        except OSError:
            return None
        _remove(self._path, self._owner)
        return state


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:
        path.unlink(missing_ok=True)
