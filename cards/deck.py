"""The cards in the order in which they are read."""

from __future__ import annotations

from importlib import import_module

from cards.card import Card

__all__ = ["GROUPS", "card", "index"]

GROUPS: dict[str, list[str]] = {
    "The picture": ["three_steps", "first_sketch", "healthy"],
    "Steps too large, steps too small": [
        "collapse_and_recover", "learning_rate_too_high", "learning_rate_too_low", "exploding", "vanishing",
    ],
    "Units that say nothing": ["dead_relu", "sparse_relu", "saturated_tanh", "saturated_sigmoid"],
    "The beginning": ["poor_initialisation", "overconfident_start", "frozen_layer", "late_start"],
    "The last layer": ["twin_peaks_forming", "twin_peaks_apart", "classes_mixed"],
    "Numbers": ["out_of_range", "batch_norm_saves_the_day", "massive_activations", "fp16_underflow", "not_finite"],
}  # fmt: skip
"""Name of each group, and the modules of its cards."""


def card(slug: str) -> Card:
    """Return the card of a module of this package."""
    found: Card = import_module(f"cards.{slug}").CARD
    return found


def index() -> str:
    """Return the page that lists all cards, as Markdown."""
    parts = [
        "# Flash cards",
        "One pattern a card: a picture of a real training, what you see, what it means, what looks like it, what to try, and the "
        "rule that finds it. Read [what each mark means](../reading.md) first. `make cards` trains them all anew, on digits that "
        "come with a Python package, and refuses a card whose training does not show what its text says. Each prints on one page.",
    ]
    for group, slugs in GROUPS.items():
        rows = [f"## {group}\n", "| | |", "|---|---|"]
        for slug in slugs:
            title = card(slug).title
            picture = f"[![{title}](images/{slug}-small.png)]({slug}.md)"
            rows.append(f"| {picture} | **[{title}]({slug}.md)**: {card(slug).summary.strip()} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts) + "\n"
