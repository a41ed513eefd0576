"""SIGTERM, which schedulers send before they kill: what was recorded is written, then happens what would have happened.

Python runs a signal handler in the main thread, between any two of its bytecodes: also in the midst of a method of
ours that has taken a lock and changed half of something. Writing everything out at that point would write the half, and
since that lock can be taken twice by one thread, nothing would hold it back. So methods of which that is true are
:func:`unbroken`: a signal that arrives inside one is remembered, and acted upon when it is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import wraps
from types import FrameType
from typing import Any, ParamSpec, Protocol, TypeVar

__all__ = ["LIMIT", "Terminable", "interrupted", "unbroken", "unwatch", "wait_for", "watch"]

P = ParamSpec("P")
T = TypeVar("T")

#: Seconds that writing may take once the signal has come.
LIMIT = 1.0
#: Seconds after which a wait of ours looks whether a signal has come meanwhile.
_SLICE = 0.1


class Terminable(Protocol):
    """What has something to write. Neither method may print: the handler may have interrupted a print."""

    def hurry(self, dying: bool) -> None:
        """Begin to write everything; `dying` says whether the process ends afterwards."""

    def wait(self, until: float) -> None:
        """Return when everything is written, or it is `until` by :func:`time.monotonic`."""


class _Handler:
    """What is installed for SIGTERM, in front of what was there; it only passes signals on once it has been replaced."""

    def __init__(self, previous: Any) -> None:
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if _here.handler is not self or not _here.watched:
            self._pass_on(number, frame)
        elif _here.acting:
            return  # one signal or two within a second: the system does not tell them apart either
        elif _here.depth:
            _here.remembered = _here.remembered or (self, number, time.monotonic() + LIMIT)
        else:
            self.act(number, frame, time.monotonic() + LIMIT)

    def act(self, number: int, frame: FrameType | None, until: float) -> None:
        _here.acting = True
        try:
            watched = list(_here.watched)
            dying = self._kills()
            for each in watched:  # all are told before any is waited for
                with contextlib.suppress(Exception):
                    each.hurry(dying)
            for each in watched:
                with contextlib.suppress(Exception):
                    each.wait(until)
        finally:
            _here.acting = False
            self._pass_on(number, frame)

    def restore(self) -> None:
        """Put back what was there, unless somebody has put a handler of their own in front of this one."""
        if self._is_installed():
            signal.signal(signal.SIGTERM, self._previous)

    def _is_installed(self) -> bool:
        present: object = signal.getsignal(signal.SIGTERM)
        return present is self

    def _kills(self) -> bool:
        # A handler of somebody else that calls this one decides itself whether the process goes on. Without us it
        # would have found SIG_DFL, which cannot be called. The first process of a container ignores SIGTERM by default.
        return self._previous is signal.SIG_DFL and self._is_installed() and os.getpid() != 1

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if callable(self._previous):
            self._previous(number, frame)
        elif self._kills():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)  # not only to this thread, which may have blocked it


class _Here:
    """What this process knows; changed in the main thread, except for the list."""

    def __init__(self) -> None:
        self.watched: list[Terminable] = []
        self.handler: _Handler | None = None
        self.depth = 0  # how many unbroken methods the main thread is in
        self.acting = False
        self.remembered: tuple[_Handler, int, float] | None = None


_here = _Here()


def watch(recording: Terminable) -> None:
    """Have a recording written at SIGTERM, until :func:`unwatch`.

    In another thread than the main one, which cannot install a handler, it is written only if there is one already.
    Nothing is installed where SIGTERM is ignored, or handled by something that is not Python.
    """
    _here.watched.append(recording)
    if threading.current_thread() is not threading.main_thread():
        return
    present = signal.getsignal(signal.SIGTERM)
    if present is not _here.handler and (present is signal.SIG_DFL or callable(present)):
        _here.handler = _Handler(present)
        signal.signal(signal.SIGTERM, _here.handler)


def unwatch(recording: Terminable) -> None:
    """Forget a recording; with the last one, the handler goes."""
    if recording in _here.watched:
        _here.watched.remove(recording)
    if _here.handler and not _here.watched and threading.current_thread() is threading.main_thread():
        _here.handler.restore()
        _here.handler = None


def unbroken(method: Callable[P, T]) -> Callable[P, T]:
    """Let SIGTERM wait until the main thread has left the method."""

    @wraps(method)
    def whole(*args: P.args, **kwargs: P.kwargs) -> T:
        if threading.get_ident() != threading.main_thread().ident:  # handlers run in the main thread only
            return method(*args, **kwargs)
        before = _here.depth
        try:
            _here.depth = before + 1
            return method(*args, **kwargs)
        finally:
            # A signal before the next line is remembered, and one after it acted upon at once: none is lost in between.
            _here.depth = before
            if _here.remembered and not before:
                handler, number, until = _here.remembered
                _here.remembered = None
                handler.act(number, None, until)

    return whole


def wait_for(changed: threading.Condition, predicate: Callable[[], bool], seconds: float) -> bool:
    """Do what ``changed.wait_for`` does, but give up as soon as a signal is remembered: it has a second."""
    end = time.monotonic() + seconds
    while not predicate():
        left = end - time.monotonic()
        if left <= 0 or _here.remembered:
            return False
        changed.wait(min(left, _SLICE))
    return True


def interrupted() -> bool:
    """Return whether a signal waits until what is running now is left."""
    return _here.remembered is not None


class _Mask(threading.local):
    """The signals that a thread had blocked before it began to fork."""

    before: Any = None


_mask = _Mask()


def _forking() -> None:
    """Hold SIGTERM back: Python forgets what reaches a child before it has set itself up, where SIG_DFL would kill it."""
    if _here.handler:
        _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _unblock() -> None:
    if _mask.before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)
        _mask.before = None


def _forked() -> None:
    """Leave a forked child as it would be without us: it has the handler, but not the recordings' threads."""
    _here.watched.clear()
    _here.depth = 0
    _here.acting = False
    _here.remembered = None
    if _here.handler:
        _here.handler.restore()
        _here.handler = None
    _unblock()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_forking, after_in_parent=_unblock, after_in_child=_forked)
