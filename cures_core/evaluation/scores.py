"""What an evaluation says: figures with their intervals and with every setting that they depend on."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from cures_core.config.base import Strict

SCHEMA = 1
Setting = str | int | float


class Estimate(Strict):
    """A figure in 0..1 with its confidence interval."""

    value: float
    """Point estimate."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


class Gain(Strict):
    """Paired difference of two scores on a suite, in -1..1."""

    value: float
    low: float
    high: float
    p_value: float


class LabelScore(Strict):
    """Figures of the items that share a level, subject or source."""

    avg: Estimate | float
    """avg@k of these items; a bare number in scores that were written without intervals."""
    n: int
    """Items."""
    unknown_share: float | None = None
    """Share of completions without a verdict; None where it was not kept."""
    truncated_share: float | None = None
    """Share of completions that ran into the token limit; None where it was not kept."""
    tokens_mean: float | None = None
    """Mean length of a completion, in tokens; None where it was not kept."""

    @model_validator(mode="before")
    @classmethod
    def _reads_pairs(cls, value: object) -> object:
        """Earlier versions wrote (avg@k, items)."""
        return {"avg": value[0], "n": value[1]} if isinstance(value, list | tuple) else value


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
    majority: Estimate | None = None
    """maj@k: a majority vote over the k completions, ties shared (`voting.majority`); None where k is 1 or it was not
    kept."""
    greedy: Estimate | None = None
    """Accuracy of one greedy completion of each item; None where it was not asked for."""
    unknown_share: float
    """Share of completions without a verdict; they count as not correct here, and nowhere in training."""
    truncated_share: float
    """Share of completions that ran into the token limit."""
    tokens_mean: float
    """Mean length of a sampled completion, in tokens."""
    thinking_tokens_mean: float | None = None
    """How much of it is thinking; None where the policy does not think, or it was not kept."""
    by_level: dict[str, LabelScore] = Field(default_factory=dict)
    """Figures by level; empty where no item has one."""
    by_source: dict[str, LabelScore] = Field(default_factory=dict)
    """Figures by source; empty where no item has one."""
    by_subject: dict[str, LabelScore] = Field(default_factory=dict)
    """Figures by subject; empty where no item has one."""
    settings: dict[str, Setting]
    """What was asked and how it was answered and judged, by dotted key of the configuration: items (suite_digest),
    sampling, prompt format, engine, verifier. Lists and tables as JSON."""
    made_with: dict[str, str] = Field(default_factory=dict)
    """Versions and machine that made the completions: the last digits depend on them. Scores compare across them, and
    the comparison says so. Empty in scores of earlier versions, which have them in `settings`."""

    @field_validator("settings")
    @classmethod
    def _math_verify_is_told_where_it_judges(cls, settings: dict[str, Setting]) -> dict[str, Setting]:
        """Earlier versions wrote its version whoever judged; `numeric` never asks it, nor do most others."""
        judges = {value for name, value in settings.items() if name.startswith("reward.") and name.endswith(".type")}
        if judges and "math" not in judges:
            return {name: value for name, value in settings.items() if name != "math-verify"}
        return settings
