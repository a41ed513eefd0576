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
    "with_page",
]


class ColordimError(Exception):
    """Base of all errors that colordim raises; the message is one sentence with the way out.

    Parameters
    ----------
    *args : object
        The sentence.
    page : str, optional
        Where this one is explained, if there is a better place than that of its class.

    Attributes
    ----------
    page : str
        Page of the manual, with or without a heading: ``colordim docs PAGE`` shows it. Tracebacks say so in a note.
    """

    page = "start"

    def __init__(self, *args: object, page: str = "") -> None:
        super().__init__(*args)
        if page:
            self.page = page
        self.add_note(f"More: colordim docs {self.page}")


class ArgumentError(ColordimError, ValueError):
    """An argument outside its domain: an unknown phase, a batch interval below one."""

    page = "options"


class AxisError(ColordimError, ValueError):
    """A histogram axis that cannot be: ``lo >= hi``, zero bins, or two axes that do not merge."""

    page = "binning"


class SelectionError(ColordimError, ValueError):
    """A layer selection that matches nothing, or a model without anything to record."""

    page = "options#layers"


class RecordingError(ColordimError, RuntimeError):
    """A recording used against its order: started twice, a window inside a window."""

    page = "recording#what-a-batch-is"


class StoreError(ColordimError, OSError):
    """A run folder that cannot be created or written, or a run in an object store that cannot be reached."""

    page = "store"


class NotARunError(ColordimError, FileNotFoundError):
    """A path or address that holds no colordim run."""

    page = "store"


class FormatError(ColordimError, ValueError):
    """A run of a newer schema, or a file of a run that is damaged."""

    page = "store"


class StreamError(ColordimError, LookupError):
    """A stream name, pattern or index that the run does not have."""

    page = "run"


class DependencyError(ColordimError, ImportError):
    """An optional package that is needed for what was asked and is not installed."""

    page = "start"


class TrainingStopped(ColordimError, RuntimeError):  # noqa: N818  # not an error: what on_finding="stop" asks for
    """Raised into a training by ``record(on_finding="stop")`` when there is a problem.

    Attributes
    ----------
    finding : colordim.diagnosis.Finding
        The problem.
    """

    page = "diagnose#while-it-trains"

    def __init__(self, sentence: str, finding: object = None, page: str = "") -> None:
        super().__init__(sentence, page=page)
        self.finding = finding


class ColordimWarning(UserWarning):
    """Something was not recorded, or not written; training goes on."""


# What lies between a line of the user's and a hook, or the end of a `with` block.
_NOT_THE_USERS = frozenset({"colordim", "torch", "contextlib", "threading"})


def with_page(sentence: str, page: str) -> str:
    """Return a sentence that ends with the page of the manual that explains it, if there is one."""
    return f"{sentence} [colordim docs {page}]" if page else sentence


def warn(sentence: str, page: str = "") -> None:
    """Issue a :class:`ColordimWarning` that points at the line of the user's code that led here, and names the page that explains it."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USERS:
        level, frame = level + 1, frame.f_back
    if frame.f_globals.get("__name__") == "threading":  # a thread of ours, to which no line of the user's led
        warnings.warn_explicit(with_page(sentence, page), ColordimWarning, "colordim", 0, module="colordim")
    else:
        warnings.warn(with_page(sentence, page), ColordimWarning, stacklevel=level)
