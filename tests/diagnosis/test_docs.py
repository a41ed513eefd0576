"""Every symptom is described, and every remedy that a rule suggests has its sentence."""

from __future__ import annotations

import re
from pathlib import Path

from colordim.diagnosis import SYMPTOMS
from colordim.diagnosis.remedies import TEXTS
from colordim.diagnosis.rules import RULES

ROOT = Path(__file__).parents[2]
RULE_FILES = sorted((ROOT / "src" / "colordim" / "diagnosis" / "rules").glob("*.py"))


def test_each_symptom_has_its_heading_and_no_other_has() -> None:
    headings = re.findall(r"^### (.+)$", (ROOT / "docs" / "diagnosis.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(SYMPTOMS)


def test_each_rule_has_a_module_of_its_own_and_is_asked() -> None:
    modules = {path.stem for path in RULE_FILES} - {"__init__"}
    assert modules == {rule.symptom.replace("-", "_") for rule in RULES}


def test_each_remedy_is_known_and_each_known_one_is_suggested() -> None:
    suggested = {key for path in RULE_FILES for key in re.findall(r'"([a-z]+(?:-[a-z]+)*)"', path.read_text())}
    assert set(TEXTS) <= suggested
