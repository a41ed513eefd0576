"""A diagnosis for people: as text for a terminal, and as HTML for a notebook."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator, Sequence

from colordim import manual
from colordim.diagnosis.finding import Declined, Diagnosis, Finding

__all__ = ["FINDINGS", "as_html", "as_text", "explanation", "in_a_line", "more", "printable", "rows_of", "when"]

#: Columns of a table of findings.
FINDINGS = ("severity", "symptom", "layers", "first_batch", "last_batch", "title", "numbers", "why", "remedies")

#: Characters of a line; the same in every terminal, so that the text can be pasted anywhere.
_WIDTH = 100
#: Layers that are named in a line; of more their number.
_LAYERS = 8


def as_text(diagnosis: Diagnosis, *, verbose: bool = False, width: int = _WIDTH) -> str:
    """Return a diagnosis as a good teacher would say it.

    Parameters
    ----------
    diagnosis : Diagnosis
    verbose : bool
        Also say of each rule that had too little to go by what is missing.
    width : int
        Characters of a line.

    Returns
    -------
    str
        The sentence; then of each finding what it is, where, since when, the numbers, why, what to try and what it explains.
    """
    lines = _wrapped(diagnosis.sentence, width)
    said: set[str] = set()
    for finding in diagnosis.findings:
        lines += ["", *_finding(finding, diagnosis.epochs, width, finding.why in said)]
        said.add(finding.why)
    if diagnosis.declined:
        lines.append("")
        if verbose:
            lines.append("Not judged:")
            for each in diagnosis.declined:
                lines += _wrapped(f"{each.symptom}: {each.why}", width, "  ", "    ")
        else:
            for why, names in _missing(diagnosis.declined).items():
                lines += _wrapped(f"Not judged: {', '.join(names)}; {why}", width)
    if diagnosis.muted:
        lines += ["", *_wrapped(f"Muted: {', '.join(diagnosis.muted)}.", width)]
    return "\n".join(lines)


def _missing(declined: Sequence[Declined]) -> dict[str, list[str]]:
    """Return the symptoms that more recording would let judge, by what to do; those that this model cannot have are left out."""
    found: dict[str, list[str]] = {}
    for each in declined:
        if "kinds=" in each.why:
            found.setdefault('record them with colordim.record(model, kinds="all", optimizer=optimizer).', []).append(
                each.symptom
            )
        elif any(call in each.why for call in ("rec.log(", "colordim.record(", "model.eval()")):
            found.setdefault(each.why, []).append(each.symptom)
    return found


def when(finding: Finding, epochs: Sequence[int]) -> str:
    """Return from which batch to which a finding holds, with the number of the epoch where it is known."""
    first, last = _batch(finding.first, epochs), _batch(finding.last, epochs)
    return f"batch {first}" if finding.first == finding.last else f"batch {first} to {last}"


def in_a_line(finding: Finding, epochs: Sequence[int] = ()) -> str:
    """Return a finding in a line, for a log: what, where, when, and what to try first."""
    more = f" and explains {len(list(finding.walk())) - 1} more" if finding.consequences else ""
    first = f" Try first: {finding.remedies[0].text}" if finding.remedies else ""
    return printable(
        f"{finding.severity.capitalize()}: {finding.title} ({when(finding, epochs)}, {finding.symptom}){more}.{first}"
    )


def more(finding: Finding) -> str:
    """Return the command that shows what the manual says of a finding."""
    return f"colordim docs {finding.symptom}"


def explanation(symptom: str) -> list[str]:
    """Return what the manual says of a symptom, in paragraphs; none if it is not there."""
    return manual.as_paragraphs("diagnosis", symptom) if "diagnosis" in manual.names() else []


def rows_of(diagnosis: Diagnosis) -> list[list[str | int]]:
    """Return the findings as rows of a table, each followed by what it explains; the columns are :data:`FINDINGS`."""
    return [
        [
            each.severity, each.symptom, ", ".join(each.layers), each.first, each.last, each.title,
            "; ".join(map(str, each.numbers)), each.why, " ".join(remedy.text for remedy in each.remedies),
        ]
        for finding in diagnosis.findings
        for each in finding.walk()
    ]  # fmt: skip


def printable(text: str) -> str:
    """Return a text without control characters: names of layers are not ours, and a terminal obeys some of them."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _batch(batch: int, epochs: Sequence[int]) -> str:
    number = sum(first <= batch for first in epochs) - 1
    return f"{batch:,}" if len(epochs) < 2 or number < 0 else f"{batch:,} (epoch {number})"


def _finding(finding: Finding, epochs: Sequence[int], width: int, again: bool) -> Iterator[str]:
    """Yield the lines of a finding; `again` if why was said of another one already."""
    yield from _wrapped(f"{finding.severity.upper()}: {finding.title}", width, "", "  ")
    where = ", ".join(finding.layers[:_LAYERS]) or "the whole model"
    if len(finding.layers) > _LAYERS:
        where += f" and {len(finding.layers) - _LAYERS} more"
    rows = [
        ("where", where),
        ("when", when(finding, epochs)),
        *(("seen" if i == 0 else "", str(number)) for i, number in enumerate(finding.numbers)),
        *([("why", finding.why)] if not again else []),
        *((f"try {i}", remedy.text) for i, remedy in enumerate(finding.remedies if not again else (), 1)),
        *(("leads to", _consequence(each)) for each in list(finding.walk())[1:]),
        ("more", f"as above, {more(finding)}" if again else more(finding)),
    ]
    before = None
    for name, text in rows:
        yield from _wrapped(text, width, f"  {'' if name == before else name:<9} ", " " * 12)
        before = name


def _consequence(finding: Finding) -> str:
    return f"{finding.title} (from batch {finding.first:,} on)"


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        printable(text), max(width, 40), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first.rstrip()]


def as_html(diagnosis: Diagnosis) -> str:
    """Return a diagnosis as HTML without scripts; all text is escaped, as names of layers may be anything."""
    parts = [f"<p><strong>{_escaped(diagnosis.sentence)}</strong></p>"]
    parts += [_finding_as_html(finding, diagnosis.epochs) for finding in diagnosis.findings]
    if diagnosis.declined:
        rows = "".join(f"<li>{_escaped(each.symptom)}: {_escaped(each.why)}</li>" for each in diagnosis.declined)
        parts.append(f"<details><summary>Not judged, for want of evidence</summary><ul>{rows}</ul></details>")
    if diagnosis.muted:
        parts.append(f"<p>Muted: {_escaped(', '.join(diagnosis.muted))}.</p>")
    return f'<div class="colordim-diagnosis" style="max-width: 50em">{"".join(parts)}</div>'


def _finding_as_html(finding: Finding, epochs: Sequence[int]) -> str:
    rows = [
        ("Where", ", ".join(finding.layers) or "the whole model"),
        ("When", when(finding, epochs)),
        ("Seen", "; ".join(map(str, finding.numbers))),
        ("Why", finding.why),
        *((f"Try {i}", remedy.text) for i, remedy in enumerate(finding.remedies, 1)),
        *(("Leads to", _consequence(each)) for each in list(finding.walk())[1:]),
    ]
    body = "".join(
        f'<tr><th style="text-align: left; vertical-align: top">{name}</th>'
        f'<td style="text-align: left">{_escaped(text)}</td></tr>'
        for name, text in rows
        if text
    )
    summary = f"<summary><b>{finding.severity}</b>: {_escaped(finding.title)}</summary>"
    meant = "".join(f"<p>{_escaped(each)}</p>" for each in explanation(finding.symptom))
    meant = f"<details><summary>{_escaped(more(finding))}</summary>{meant}</details>"
    return f"<details{' open' if finding.severity == 'problem' else ''}>{summary}<table>{body}</table>{meant}</details>"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
