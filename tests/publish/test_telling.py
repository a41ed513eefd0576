"""Each finding is told once, and again only when it has become worse; whoever fails to take it stops nobody."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from colordim.diagnosis import Diagnosis, Finding, Severity
from colordim.errors import ArgumentError
from colordim.publish.telling import Telling, portable, tellers, wants_stop


def finding(
    layers: tuple[str, ...] = ("a",), severity: Severity = "problem", symptom: str = "dead-units", last: int = 9, **rest: Any
) -> Finding:  # fmt: skip
    return Finding(symptom, severity, f"{symptom} in {layers}", layers, 0, last, (), "why", **rest)


class Heard:
    def __init__(self, *to: Any, since: int = 0) -> None:
        self.findings: list[Finding] = []
        self.stops: list[Finding] = []
        self.said: dict[str, str] = {}
        self.tell = Telling(to or (self.findings.append,), self.stops.append, self._say, since)

    def _say(self, key: str, sentence: str, page: str) -> None:
        self.said.setdefault(key, sentence)

    def take(self, *findings: Finding) -> list[Finding]:
        """Tell a diagnosis; return what was new in it."""
        before = len(self.findings)
        self.tell(Diagnosis(findings, "s"))
        return self.findings[before:]


def test_once_for_each_symptom_and_layer() -> None:
    heard = Heard()
    a, b = finding(("a",)), finding(("b",))
    assert heard.take(a) == [a]
    assert heard.take(a, b) == [b]
    assert heard.take(finding(("a", "c"))) == []  # the same one, with another layer
    other = finding(("a",), symptom="saturation")
    assert heard.take(a, b, other) == [other]
    whole = finding((), symptom="plateau")
    assert heard.take(whole) == [whole]
    assert heard.take(whole) == []


def test_again_when_it_is_worse() -> None:
    heard = Heard()
    assert len(heard.take(finding(severity="warning"))) == 1
    assert heard.take(finding(severity="note")) == []
    assert len(heard.take(finding(severity="problem"))) == 1
    assert heard.take(finding(severity="warning"), finding(severity="problem")) == []


def test_what_another_explains_is_not_told_even_when_it_stands_alone_later() -> None:
    heard = Heard()
    effect = finding(("b",), symptom="plateau")
    cause = finding(consequences=(effect,))
    assert heard.take(cause) == [cause]
    assert heard.take(cause, effect) == []


def test_what_was_over_before_this_recording_began_is_not_told() -> None:
    heard = Heard(since=10)
    assert heard.take(finding(last=9)) == []
    assert len(heard.take(finding(last=10))) == 1


def test_logging_by_severity(caplog: pytest.LogCaptureFixture) -> None:
    heard = Heard("log")
    with caplog.at_level(logging.INFO, "colordim"):
        heard.take(finding(), finding(("b",), "warning"), finding(("c",), "note"))
    assert [(each.name, each.levelname) for each in caplog.records] == [
        ("colordim", "ERROR"), ("colordim", "WARNING"), ("colordim", "INFO"),
    ]  # fmt: skip
    assert caplog.records[0].getMessage().startswith("Problem: dead-units in ('a',) (batch 0 to 9, dead-units)")


def test_warnings_are_said() -> None:
    heard = Heard("warn")
    heard.take(finding(), finding(("b",), "note"))
    assert [each.split(":")[0] for each in heard.said.values()] == ["Problem", "Note"]


def test_only_the_first_problem_stops() -> None:
    heard = Heard("stop")
    heard.take(finding(severity="warning"), finding(("b",), "note"))
    assert heard.stops == []
    heard.take(finding(("c",)), finding(("d",)))
    heard.take(finding(("e",)))
    assert [each.layers for each in heard.stops] == [("c",)]


def test_a_function_that_fails_is_named_and_called_again() -> None:
    calls = []

    def fails(found: Finding) -> None:
        calls.append(found.layers)
        raise KeyError("no")

    heard = Heard(fails, "warn")
    heard.take(finding(), finding(("b",)))
    assert calls == [("a",), ("b",)]
    assert "KeyError" in heard.said["on_finding"]
    assert len(heard.said) == 3


@pytest.mark.parametrize(
    ("given", "said"), [("stopp", "take 'stop'"), (3, "a function of the finding"), (["log", None], "on_finding=None")]
)
def test_what_is_no_teller_is_refused(given: Any, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        tellers(given)


def test_what_is_named() -> None:
    assert tellers(None) == ()
    assert tellers("log") == ("log",)
    assert tellers(("log", print)) == ("log", print)
    assert [wants_stop(each) for each in (None, "log", "stop", ["log", "stop"], print)] == [
        False,
        False,
        True,
        True,
        False,
    ]
    assert [portable(each) for each in (None, "stop", print, ["log", print])] == [None, "stop", None, ["log"]]
