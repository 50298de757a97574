"""The comment under a pull request: what changed, what was rejected, what is contaminated, what a run would cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cures_core.config.prior import FullPrior, SamplePrior
from cures_core.config.run import RunConfig


def summary(found: Mapping[str, Any], validation: Mapping[str, Any], config: RunConfig) -> str:
    """Markdown from `changes` and from the summary of `validate`; holds counts and ids, no prompt text."""
    prompts, cost = validation["prompts"], rollouts(found, config)
    lines = [
        "### Prompt set",
        "",
        "| " + " | ".join(found["counts"]) + " |",
        "|" + "---|" * len(found["counts"]),
        "| " + " | ".join(f"{n:,}" for n in found["counts"].values()) + " |",
        "",
        f"Validation: {prompts['rows_read']:,} rows, {prompts['kept']:,} kept, {prompts['rejected']:,} rejected, "
        f"{prompts['dropped']:,} dropped.",
        *(f"- {reason}: {number:,}" for reason, number in prompts["reasons"].items()),
        "",
        "Contamination: " + (_overlaps(validation) or "no suite shares a prompt with the set") + ".",
        "",
        f"Cost of a run: {sum(cost.values()):,} rollouts at most ("
        + ", ".join(f"{number:,} {part}" for part, number in cost.items())
        + ").",
        "",
        "**Retraining is due**: " + "; ".join(found["reasons"]) if found["due"] else "Retraining is not due.",
        "",
        f"Change `{found['key']}`",
    ]
    return "\n".join(lines) + "\n"


def rollouts(found: Mapping[str, Any], config: RunConfig) -> dict[str, int]:
    """Upper bounds by part of a run, for one that starts from the posterior of the earlier prompts."""
    fresh, prior = len(found["ids"]["new"]) + len(found["ids"]["edited"]), 0
    if isinstance(config.prior, SamplePrior):
        prior = min(config.prior.budget, fresh * config.prior.rollouts_per_prompt)
    elif isinstance(config.prior, FullPrior):
        prior = fresh * config.prior.rollouts_per_prompt
    return {"prior": prior, "training": config.epochs * config.steps_per_epoch * config.curriculum.rollouts_per_step}


def _overlaps(validation: Mapping[str, Any]) -> str:
    parts = []
    for suite, kinds in validation["contamination"]["by_suite"].items():
        told = ", ".join(f"{number} {kind}" for kind, number in kinds.items() if number)
        if told:
            parts.append(f"{suite} ({told})")
    return ", ".join(parts)
