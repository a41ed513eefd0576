"""Who is told of a finding while a training is recorded: each finding once, and again only if it has become worse."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from colordim.diagnosis.finding import SEVERITIES, Diagnosis, Finding
from colordim.diagnosis.text import in_a_line
from colordim.errors import ArgumentError

__all__ = ["OnFinding", "Teller", "Telling", "portable", "tellers", "wants_stop"]

Named = Literal["log", "warn", "stop"]
Teller = Named | Callable[[Finding], object]
#: What ``record(on_finding=...)`` takes.
OnFinding = Teller | Sequence[Teller] | None

_NAMES: tuple[Named, ...] = get_args(Named)
_LEVELS = {"problem": logging.ERROR, "warning": logging.WARNING, "note": logging.INFO}
_logger = logging.getLogger("colordim")


def tellers(on_finding: OnFinding) -> tuple[Teller, ...]:
    """Return what ``on_finding=`` names, one by one.

    Raises
    ------
    ArgumentError
        If a part of it is none of ``"log"``, ``"warn"``, ``"stop"``, and cannot be called.
    """
    if on_finding is None:
        return ()
    found = tuple(on_finding) if isinstance(on_finding, (list, tuple)) else (on_finding,)
    for each in found:
        if each not in _NAMES and not callable(each):
            near = difflib.get_close_matches(each, _NAMES, n=1) if isinstance(each, str) else []
            raise ArgumentError(
                f"on_finding={each!r} cannot be: take "
                + (
                    f"{near[0]!r}." if near else '"log", "warn", "stop", a function of the finding, or a list of these.'
                ),
                page="diagnose#while-it-trains",
            )
    return found


def wants_stop(on_finding: Any) -> bool:
    """Return whether a training is to be stopped for a problem."""
    return "stop" in (on_finding if isinstance(on_finding, (list, tuple)) else (on_finding,))


def portable(on_finding: Any) -> Any:
    """Return what of `on_finding` a copy or a pickle may hold: names, and no functions."""
    if isinstance(on_finding, (list, tuple)):
        return [each for each in on_finding if isinstance(each, str)]
    return on_finding if isinstance(on_finding, str) else None


class Telling:
    """Tells the findings of one diagnosis after the other.

    Parameters
    ----------
    to : sequence of "log", "warn", "stop" or callable
    stop : callable
        Is given the first finding for which the training is to be stopped.
    say : callable
        Takes a key and a sentence for the user, who hears what has a key only once.
    since : int
        First training batch of this recording: what ended before it concerns an earlier one.
    """

    def __init__(
        self,
        to: Sequence[Teller],
        stop: Callable[[Finding], None],
        say: Callable[[str, str, str], object],
        since: int = 0,
    ) -> None:
        self._to = list(to)
        self._stop = stop
        self._say = say
        self._since = since
        self._told: dict[tuple[str, str], int] = {}  # the severity by symptom and layer

    def __call__(self, diagnosis: Diagnosis) -> None:
        """Tell what is new in a diagnosis: root causes, and not what they explain."""
        for finding in diagnosis.findings:
            if finding.last >= self._since and self._is_new(finding):
                self._tell(finding, diagnosis)

    def _is_new(self, finding: Finding) -> bool:
        """Whether none of its layers was told of with this symptom, as severe as now; consequences count as told."""
        severity = SEVERITIES.index(finding.severity)
        known = [self._told.get((finding.symptom, layer)) for layer in finding.layers or ("",)]
        for each in finding.walk():
            for layer in each.layers or ("",):
                key = each.symptom, layer
                self._told[key] = min(severity, self._told.get(key, severity))
        return not any(before is not None and before <= severity for before in known)

    def _tell(self, finding: Finding, diagnosis: Diagnosis) -> None:
        line = in_a_line(finding, diagnosis.epochs)
        for to in list(self._to):
            if to == "log":
                _logger.log(_LEVELS[finding.severity], "%s", line)
            elif to == "warn":
                self._say(f"finding:{line}", line, finding.symptom)
            elif to == "stop":
                if finding.severity == "problem":
                    self._to.remove(to)
                    self._stop(finding)
            elif callable(to):
                try:
                    to(finding)
                except Exception as error:
                    self._say(
                        "on_finding",
                        f"The function of on_finding= has failed ({type(error).__name__}: {error}); the training goes on, "
                        "and it is called again for the next finding.",
                        "diagnose#while-it-trains",
                    )
