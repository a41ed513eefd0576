"""A diagnosis in words: everything is said once, and names of layers stay data."""

from __future__ import annotations

import html
from html.parser import HTMLParser

from colordim.diagnosis import Declined, Diagnosis, Finding, Number, Remedy
from colordim.diagnosis.text import FINDINGS, as_html, as_text, explanation, in_a_line, rows_of, when

HOSTILE = '<img src=x onerror="alert(1)">\u202e\x1b[2J'
LATE = Finding("late-start", "note", "tail starts late", ("tail",), 40, 99, (), "It waits.")
DEAD = Finding(
    "dead-units", "problem", f"9 of 10 units of {HOSTILE} never fire", (HOSTILE, "relu"), 1200, 2399,
    (Number("dead units", 0.9, 0.5, "above", "%"), Number("units", 9, 0, "above", "of 10")), "A rectifier passes nothing.",
    (Remedy("leaky-relu", "Take nn.LeakyReLU."), Remedy("lower-lr", "Lower the learning rate.")), (LATE,),
)  # fmt: skip
SECOND = Finding("dead-units", "warning", "half of b is dead", ("b",), 3, 3, (), DEAD.why, DEAD.remedies)
_DECLINED = (
    Declined("precision", 'Pass kinds="all".'),
    Declined("saturation", 'Record activations: kinds="all".'),
    Declined("late-start", "No layer is bounded."),
)
SICK = Diagnosis(
    (DEAD, SECOND), "It is dead.", _DECLINED, 2400, "run", ("plateau",), (0, 1000, 2000)
)  # fmt: skip
WELL = Diagnosis((), "Nothing is wrong.", (), 10, "run")


def test_the_sentence_comes_first_and_of_a_healthy_run_it_is_all() -> None:
    assert str(WELL) == "Nothing is wrong."
    assert str(SICK).splitlines()[0] == "It is dead."


def test_a_finding_is_told_whole() -> None:
    text = as_text(SICK, width=200)
    shown = HOSTILE.replace("\u202e", "\ufffd").replace("\x1b", "\ufffd")
    assert text.split("\n\n")[1].splitlines() == [
        f"PROBLEM: 9 of 10 units of {shown} never fire",
        f"  where     {shown}, relu",
        "  when      batch 1,200 (epoch 1) to 2,399 (epoch 2)",
        "  seen      dead units: 90 % (above 50 %)",
        "            units: 9 of 10 (above 0)",
        "  why       A rectifier passes nothing.",
        "  try 1     Take nn.LeakyReLU.",
        "  try 2     Lower the learning rate.",
        "  leads to  tail starts late (from batch 40 on)",
        "  more      colordim docs dead-units",
    ]


def test_what_was_said_of_another_finding_is_not_said_again() -> None:
    assert as_text(SICK).split("\n\n")[2].splitlines() == [
        "WARNING: half of b is dead",
        "  where     b",
        "  when      batch 3 (epoch 0)",
        "  more      as above, colordim docs dead-units",
    ]


def test_what_was_not_judged_is_named_and_explained_on_request() -> None:
    assert "Not judged: precision, saturation; record them with" in as_text(SICK, width=200)
    assert "bounded" not in as_text(SICK)  # what the model cannot have is no evidence that is missing
    assert '  saturation: Record activations: kinds="all".' in as_text(SICK, verbose=True)
    assert as_text(SICK).endswith("Muted: plateau.")


def test_no_line_is_longer_than_asked_for() -> None:
    assert max(map(len, as_text(SICK, width=60).splitlines())) <= 60


def test_many_layers_are_counted() -> None:
    finding = Finding("plateau", "note", "t", tuple(f"l{i}" for i in range(11)), 0, 1, (), "w")
    assert "l7 and 3 more" in as_text(Diagnosis((finding,), "s"))
    assert "where     the whole model" in as_text(Diagnosis((Finding("plateau", "note", "t", (), 0, 1, (), "w"),), "s"))


def test_epochs_are_named_where_there_are_several() -> None:
    assert when(LATE, (0,)) == "batch 40 to 99"
    assert when(LATE, (0, 41)) == "batch 40 (epoch 0) to 99 (epoch 1)"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_notebook_shows_names_as_text() -> None:
    tags = Tags()
    tags.feed(as_html(SICK))
    assert tags.seen == {"div", "p", "strong", "details", "summary", "b", "table", "tr", "th", "td", "ul", "li"}
    assert '<img src=x onerror="alert(1)">\ufffd' in tags.text
    assert "Lower the learning rate." in tags.text
    assert SICK._repr_html_() == as_html(SICK)


def test_a_line_for_a_log() -> None:
    shown = HOSTILE.replace("\u202e", "\ufffd").replace("\x1b", "\ufffd")
    assert in_a_line(DEAD, (0,)) == (
        f"Problem: 9 of 10 units of {shown} never fire (batch 1,200 to 2,399, dead-units) and explains 1 more. Try first: "
        "Take nn.LeakyReLU."
    )


def test_a_table_has_a_row_for_each_finding_and_consequence() -> None:
    rows = rows_of(SICK)
    assert [row[1] for row in rows] == ["dead-units", "late-start", "dead-units"]
    assert all(len(row) == len(FINDINGS) for row in rows)
    assert dict(zip(FINDINGS, rows[1], strict=True)) == {
        "severity": "note", "symptom": "late-start", "layers": "tail", "first_batch": 40, "last_batch": 99,
        "title": "tail starts late", "numbers": "", "why": "It waits.", "remedies": "",
    }  # fmt: skip


def test_html_holds_what_the_manual_says_of_each_symptom() -> None:
    text = as_html(SICK)
    assert text.count("<summary>colordim docs dead-units</summary>") == 2
    (paragraph,) = explanation("dead-units")
    assert text.count(html.escape(paragraph)) == 2
