"""Rollouts, tokens and seconds of a run's parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cures_core.config.evaluation import EvaluatedSuite
from cures_core.config.prior import FullPrior, SamplePrior
from cures_core.config.run import RunConfig

Part = Literal["prior", "training", "evaluation"]
PARTS: tuple[Part, ...] = ("prior", "training", "evaluation")


@dataclass(frozen=True)
class Rates:
    """What was measured: completion tokens and seconds of one rollout by part, and seconds that do not depend on
    their number (`fixed`). `source` says where. `measured_bytes`: of the process before it held a policy and at its
    peak, and of torch on a GPU."""

    source: str
    tokens: Mapping[Part, float]
    seconds: Mapping[Part, float]
    fixed: Mapping[str, float] = field(default_factory=dict)
    measured_bytes: Mapping[str, int] = field(default_factory=dict)


def rollouts(cfg: RunConfig, prompts: int, suites: Mapping[str, int]) -> dict[Part, int]:
    """Rollouts of a run whose prior lacks evidence of `prompts`; `suites`: items by name. Training may take fewer:
    strategies that stop a step early do."""
    prior = 0
    if isinstance(cfg.prior, SamplePrior):
        prior = min(cfg.prior.budget // cfg.prior.rollouts_per_prompt, prompts) * cfg.prior.rollouts_per_prompt
    elif isinstance(cfg.prior, FullPrior):
        prior = prompts * cfg.prior.rollouts_per_prompt
    scored = sum(of_suite(suite, suites[suite.name]) for suite in cfg.evaluation.suites)
    return {
        "prior": prior,
        "training": cfg.epochs * cfg.steps_per_epoch * cfg.curriculum.rollouts_per_step,
        "evaluation": scored * evaluations(cfg),
    }


def evaluations(cfg: RunConfig) -> int:
    """Checkpoints that are scored, the base policy among them."""
    return 1 + sum(cfg.evaluation.due(k, cfg.epochs) for k in range(1, cfg.epochs + 1))


def of_suite(suite: EvaluatedSuite, items: int) -> int:
    """Rollouts of one scoring of a suite of so many items."""
    return (items if suite.limit is None else min(items, suite.limit)) * (suite.samples + suite.greedy)


def most_tokens(cfg: RunConfig, counts: Mapping[Part, int], suites: Mapping[str, int]) -> dict[Part, int]:
    """Completion tokens if every completion were as long as it may be."""
    limit = cfg.rollout.max_new_tokens
    scored = sum(of_suite(s, suites[s.name]) * (s.max_new_tokens or limit) for s in cfg.evaluation.suites)
    return {
        "prior": counts["prior"] * limit,
        "training": counts["training"] * limit,
        "evaluation": scored * evaluations(cfg),
    }


def expected_tokens(counts: Mapping[Part, int], rates: Rates) -> dict[Part, int]:
    """Completion tokens at the measured lengths."""
    return {part: round(counts[part] * rates.tokens[part]) for part in PARTS}


def seconds(counts: Mapping[Part, int], rates: Rates) -> dict[str, float]:
    """Seconds by part, the fixed ones included."""
    return {**rates.fixed, **{str(part): counts[part] * rates.seconds[part] for part in PARTS}}
