"""What an evaluation says: figures with their intervals and with every setting that they depend on."""

from __future__ import annotations

from pydantic import Field

from cures_core.config.base import Strict

SCHEMA = 1


class Estimate(Strict):
    """A figure in 0..1 with its confidence interval."""

    value: float
    """Point estimate."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


class SuiteScore(Strict):
    """Scores of one policy on one suite. Two of them compare only where `settings` agree."""

    suite: str
    """Name of the suite."""
    policy: str = ""
    """Content digest of the policy that was scored; empty where it was not told."""
    n: int
    """Items."""
    k: int
    """Sampled completions of each item."""
    avg: Estimate
    """avg@k: mean over items of the share of correct completions."""
    pass_at: dict[str, Estimate]
    """Unbiased pass@j by j, for j = 1, 2, 4 ... and k (arXiv 2107.03374, equation 1)."""
    greedy: Estimate | None = None
    """Accuracy of one greedy completion of each item; None where it was not asked for."""
    unknown_share: float
    """Share of completions without a verdict; they count as not correct here, and nowhere in training."""
    truncated_share: float
    """Share of completions that ran into the token limit."""
    tokens_mean: float
    """Mean length of a sampled completion, in tokens."""
    by_level: dict[str, tuple[float, int]] = Field(default_factory=dict)
    """avg@k and number of items by level."""
    by_source: dict[str, tuple[float, int]] = Field(default_factory=dict)
    """avg@k and number of items by source."""
    settings: dict[str, str | int | float]
    """What the figures depend on beside the policy: suite digest, k, temperature, seed, token limit, prompt format,
    verifier, confidence, resamples, engine and versions."""
