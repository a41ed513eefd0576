"""What colordim raises and warns with: every class also derives from a standard one."""

from __future__ import annotations

import sys
import warnings

__all__ = [
    "ArgumentError",
    "AxisError",
    "ColordimError",
    "ColordimWarning",
    "DependencyError",
    "FormatError",
    "NotARunError",
    "RecordingError",
    "SelectionError",
    "StoreError",
    "StreamError",
    "TrainingStopped",
    "warn",
]


class ColordimError(Exception):
    """Base of all errors that colordim raises; the message is one sentence with the way out."""


class ArgumentError(ColordimError, ValueError):
    """An argument outside its domain: an unknown phase, a batch interval below one."""


class AxisError(ColordimError, ValueError):
    """A histogram axis that cannot be: ``lo >= hi``, zero bins, or two axes that do not merge."""


class SelectionError(ColordimError, ValueError):
    """A layer selection that matches nothing, or a model without anything to record."""


class RecordingError(ColordimError, RuntimeError):
    """A recording used against its order: started twice, a window inside a window."""


class StoreError(ColordimError, OSError):
    """A run folder that cannot be created or written, or a run in an object store that cannot be reached."""


class NotARunError(ColordimError, FileNotFoundError):
    """A path or address that holds no colordim run."""


class FormatError(ColordimError, ValueError):
    """A run of a newer schema, or a file of a run that is damaged."""


class StreamError(ColordimError, LookupError):
    """A stream name, pattern or index that the run does not have."""


class DependencyError(ColordimError, ImportError):
    """An optional package that is needed for what was asked and is not installed."""


class TrainingStopped(ColordimError, RuntimeError):  # noqa: N818  # not an error: what on_finding="stop" asks for
    """Raised into a training by ``record(on_finding="stop")`` when there is a problem.

    Attributes
    ----------
    finding : colordim.diagnosis.Finding
        The problem.
    """

    def __init__(self, sentence: str, finding: object = None) -> None:
        super().__init__(sentence)
        self.finding = finding


class ColordimWarning(UserWarning):
    """Something was not recorded, or not written; training goes on."""


# What lies between a line of the user's and a hook, or the end of a `with` block.
_NOT_THE_USERS = frozenset({"colordim", "torch", "contextlib"})


def warn(sentence: str) -> None:
    """Issue a :class:`ColordimWarning` that points at the line of the user's code that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, ColordimWarning, stacklevel=level)
