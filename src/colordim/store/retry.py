"""When to try again what has failed."""

from __future__ import annotations

import time

__all__ = ["Retry"]

#: Seconds until a failed write is tried again: the first time, and at most.
_FIRST, _LAST = 0.5, 30.0


class Retry:
    """Longer and longer pauses; `at` is when the next try is due, None if nothing has failed."""

    def __init__(self) -> None:
        self.succeeded()

    def succeeded(self) -> None:
        self.at: float | None = None
        self._pause = _FIRST

    def failed(self) -> None:
        self.at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LAST)
