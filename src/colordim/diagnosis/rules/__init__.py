"""The rules, one symptom a module: pure functions over the arrays of :class:`colordim.diagnosis.evidence.Evidence`."""

from colordim.diagnosis.rule import Rule
from colordim.diagnosis.rules import (
    batch_norm_hides_drift,
    collapse_and_recover,
    dead_output,
    dead_units,
    divergence,
    exploding_activations,
    exploding_gradients,
    frozen,
    gradients_not_zeroed,
    input_scale,
    late_start,
    learning_rate_too_high,
    learning_rate_too_low,
    massive_activations,
    no_gradient,
    not_finite,
    not_in_optimizer,
    overconfident_start,
    plateau,
    poor_init,
    precision,
    saturation,
    train_valid_mismatch,
    vanishing_gradients,
)

__all__ = ["RULES"]

#: All rules, in the order in which they are asked.
RULES: tuple[Rule, ...] = (
    not_finite.RULE,
    gradients_not_zeroed.RULE,
    not_in_optimizer.RULE,
    no_gradient.RULE,
    frozen.RULE,
    input_scale.RULE,
    poor_init.RULE,
    overconfident_start.RULE,
    learning_rate_too_high.RULE,
    learning_rate_too_low.RULE,
    collapse_and_recover.RULE,
    exploding_activations.RULE,
    exploding_gradients.RULE,
    vanishing_gradients.RULE,
    dead_units.RULE,
    saturation.RULE,
    dead_output.RULE,
    train_valid_mismatch.RULE,
    precision.RULE,
    batch_norm_hides_drift.RULE,
    massive_activations.RULE,
    late_start.RULE,
    plateau.RULE,
    divergence.RULE,
)
