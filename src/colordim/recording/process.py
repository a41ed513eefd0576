"""Whether this is still the process that records: a forked child inherits hooks and queues, but has no right to them."""

from __future__ import annotations

import os

__all__ = ["generation"]

# Asking the system for the process id in every hook of every layer would cost a call of the kernel each.
_generation = 0


def generation() -> int:
    """Return a number that differs between a process and the children that are forked from it."""
    return _generation


def _forked() -> None:
    global _generation
    _generation += 1


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_forked)
