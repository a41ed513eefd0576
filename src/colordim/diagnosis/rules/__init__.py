"""The rules, one symptom a module: pure functions over the arrays of :class:`colordim.diagnosis.evidence.Evidence`."""

from colordim.diagnosis.rule import Rule
from colordim.diagnosis.rules import dead_units, not_finite

__all__ = ["RULES"]

#: All rules, in the order in which they are asked.
RULES: tuple[Rule, ...] = (not_finite.RULE, dead_units.RULE)
