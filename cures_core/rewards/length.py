"""Knows what the length of a completion does to its verdict: cut off ones, and those that come close to the limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cures_core.config.run import RunConfig
from cures_core.config.training import OverlongPenalty
from cures_core.means import ratio, valued
from cures_core.terms import FinishReason, Group, Outcome, Rollout, Verdict

TRUNCATED = "cut off at the token limit"
"""Reason of a verdict that is wrong for being cut off."""


@dataclass(frozen=True)
class LengthRule:
    """What training makes of truncated and long completions; by default nothing."""

    truncated: Literal["judged", "masked", "wrong"] = "judged"
    overlong: OverlongPenalty | None = None
    max_tokens: int = 0
    """Most tokens of a completion."""

    @classmethod
    def of(cls, cfg: RunConfig) -> LengthRule:
        """That of a run."""
        return cls(cfg.training.truncated, cfg.training.overlong, cfg.rollout.max_new_tokens)

    def applied(self, rollout: Rollout, verdict: Verdict) -> Verdict:
        """The verdict after the rule. An unknown one stays as it is."""
        if verdict.outcome is Outcome.UNKNOWN:
            return verdict
        if rollout.finish_reason is FinishReason.LENGTH:
            if self.truncated == "masked":
                return replace(verdict, masked=True)
            if self.truncated == "wrong":
                paid = None if verdict.reward is None else 0.0
                verdict = replace(verdict, outcome=Outcome.WRONG, reason=TRUNCATED, reward=paid)
        penalty = self.penalty(rollout)
        return replace(verdict, reward=verdict.paid - penalty) if penalty else verdict

    def figures(self, groups: Sequence[Group]) -> dict[str, float]:
        """What the rule has done to a step's rollouts: shares of all, and the mean of what was taken off."""
        judged = [pair for group in groups for pair in zip(group.rollouts, group.verdicts, strict=True)]
        penalties = [self.penalty(r) for r, v in judged if v.outcome is not Outcome.UNKNOWN]
        masked = sum(v.masked for _, v in judged)
        overruled = sum(v.reason == TRUNCATED for _, v in judged)
        return valued(
            masked_share=ratio(masked, len(judged)) if self.truncated == "masked" else None,
            ruled_wrong_share=ratio(overruled, len(judged)) if self.truncated == "wrong" else None,
            overlong_share=ratio(sum(p > 0 for p in penalties), len(penalties)) if self.overlong else None,
            overlong_penalty_mean=ratio(sum(penalties), len(penalties)) if self.overlong else None,
        )

    def penalty(self, rollout: Rollout) -> float:
        """What is taken off a completion's reward (DAPO, eq. 13)."""
        if self.overlong is None:
            return 0.0
        if rollout.finish_reason is FinishReason.LENGTH:
            return self.overlong.penalty
        buffer = self.overlong.buffer_tokens
        beyond = len(rollout.token_ids) - (self.max_tokens - buffer)
        return self.overlong.penalty * min(max(beyond, 0), buffer) / buffer


AS_JUDGED = LengthRule()
