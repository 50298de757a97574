"""What all prompts have in common when the policy moves: one shift of their pass rates, in nats of logit."""

from __future__ import annotations

import numpy as np

from cures_core.curriculum import special
from cures_core.curriculum.beta import Floats

_FARTHEST = 5.0  # nats; a shift of one update beyond it would be a different policy


def common_shift(predicted: Floats, successes: Floats, failures: Floats, deviation: float) -> float:
    """The likeliest shift d: successes ~ Binomial(n, sigmoid(logit(predicted) + d)), d ~ N(0, deviation^2).

    Arrays of shape (prompts,); without rollouts 0. The log likelihood is concave: its slope has one zero.
    """
    n = successes + failures
    if not n.sum() > 0:
        return 0.0
    logits = special.logit(np.clip(predicted, 1e-6, 1 - 1e-6))

    def slope(d: float) -> float:
        return float(np.sum(successes - n * special.expit(logits + d)) - d / deviation**2)

    return special.zero(slope, -_FARTHEST, _FARTHEST) if slope(-_FARTHEST) > 0 > slope(_FARTHEST) else 0.0


def shifted(successes: Floats, failures: Floats, shift: Floats) -> tuple[Floats, Floats]:
    """Counts of the same number of rollouts, had they been made after a shift; as they are where it is 0.

    Their share of successes, smoothed by half a rollout on either side, moves by `shift` in logit.
    """
    n = successes + failures
    before = (successes + 0.5) / (n + 1)
    moved = n * (special.expit(special.logit(before) + shift) - before)
    right = np.clip(successes + moved, 0.0, n)
    return np.asarray(right), np.asarray(n - right)
