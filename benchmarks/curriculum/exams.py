"""How an arm's policy is scored on held-out prompts. Scoring is free: it is in none of the accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from benchmarks.curriculum.exact import ExactRates
from benchmarks.curriculum.worlds.world import Pool
from cures_core.epoch import roll_out
from cures_core.policy.loading import Policy
from cures_core.prompts import PromptSet
from cures_core.rewards.verifier import Verifier
from cures_core.rollout import RolloutEngine
from cures_core.terms import Group, Outcome, Request

_SEED = 999
PASS_AT = 8


class Exam(Protocol):
    """Scores by name. `avg_at_1` (pass rate at the sampling temperature), `greedy`, `pass_at_K` and `entropy` (nats a
    token) are of frontier prompts and in every exam."""

    def measure(self) -> dict[str, float]: ...


class SampledExam:
    """K completions of every prompt, and the greedy one; entropy is the mean of -log p of the tokens drawn."""

    def __init__(self, prompts: PromptSet, samples: int, engine: RolloutEngine, verifier: Verifier) -> None:
        self._prompts, self._samples, self._engine, self._verifier = prompts, samples, engine, verifier
        self._sampled = engine.cfg

    def measure(self) -> dict[str, float]:
        groups = self._groups(self._samples)
        right = [[v.outcome is Outcome.CORRECT for v in group.verdicts] for group in groups]
        self._engine.retune(self._sampled.model_copy(update={"temperature": 0.0}))
        try:
            greedy = [group.verdicts[0].outcome is Outcome.CORRECT for group in self._groups(1)]
        finally:
            self._engine.retune(self._sampled)
        rates = [_mean(row) for row in right]
        sources = [prompt.source for prompt in self._prompts]
        return {
            "avg_at_1": _mean(rates),
            **{
                f"avg_at_1 {name}": _mean([r for r, s in zip(rates, sources, strict=True) if s == name])
                for name in sorted(set(sources))
            },
            f"pass_at_{self._samples}": _mean([any(row) for row in right]),
            "greedy": _mean(greedy),
            "entropy": -_mean([p for group in groups for r in group.rollouts for p in r.logprobs]),
        }

    def _groups(self, n: int) -> list[Group]:
        requests = [Request(f"score-{i}", prompt, n, _SEED) for i, prompt in enumerate(self._prompts)]
        return roll_out(requests, self._engine, self._verifier)


class ExactExam:
    """Where one completion alone is right: its probability, of the mixture (`heldout_*`) and of the frontier; only the
    entropy is sampled."""

    def __init__(self, pool: Pool, policy: Policy, engine: RolloutEngine) -> None:
        self._heldout, self._frontier = (ExactRates(policy, list(part)) for part in (pool.heldout, pool.frontier))
        self._asked, self._engine = list(pool.frontier), engine

    def measure(self) -> dict[str, float]:
        heldout, heldout_greedy = self._heldout.measure()
        rates, greedy = self._frontier.measure()
        requests = [Request(f"score-{i}", prompt, 1, _SEED) for i, prompt in enumerate(self._asked)]
        logprobs = [p for group in self._engine.generate(requests) for r in group for p in r.logprobs]
        return {
            "heldout_sampled": float(heldout.mean()),
            "heldout_greedy": float(heldout_greedy.mean()),
            "frontier_sampled": float(rates.mean()),
            "frontier_greedy": float(greedy.mean()),
            "avg_at_1": float(rates.mean()),
            f"pass_at_{PASS_AT}": float(np.mean(1 - (1 - rates) ** PASS_AT)),
            "greedy": float(greedy.mean()),
            "entropy": -_mean(logprobs),
        }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
