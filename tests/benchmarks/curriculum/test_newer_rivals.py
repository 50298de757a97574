"""MaxRL, Reinforce-Ada and Knapsack RL: what they are published to do, through the public seam."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.curriculum import rivals
from benchmarks.curriculum.rivals.knapsack import split, value
from benchmarks.pretend import answered, pretend_prompts
from cures_core.config.curriculum import CustomConfig
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.prompts import PromptSet
from cures_core.terms import Group
from cures_core.testing.curriculum import CurriculumExam
from cures_core.training.advantages import batch_samples

PATHS = {"maxrl": "maxrl:MaxRl", "ada": "reinforce_ada:ReinforceAda", "knapsack": "knapsack:Knapsack"}


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURES_PLUGINS", rivals.PLUGINS)


def strategy(name: str, prompts: PromptSet, seed: int = 0, **fields: Any) -> Strategy:
    shape = {"prompts_per_step": 4, "rollouts_per_step": 64}
    cfg = CustomConfig(type="custom", strategy=f"benchmarks.curriculum.rivals.{PATHS[name]}", **{**shape, **fields})
    return make_curriculum(cfg, prompts, Posterior.fresh(prompts, cfg.posterior), seed)


class TestMaxRl(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return strategy("maxrl", prompts, seed)


class TestReinforceAda(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return strategy("ada", prompts, seed)


class TestKnapsack(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return strategy("knapsack", prompts, seed)


def step(curriculum: Strategy, rates: dict[str, float], rng: np.random.Generator) -> tuple[list[Group], list[Group]]:
    """(what was told, what is trained on) in one step with these pass rates."""
    told, budget = [], curriculum.rollouts_per_step
    while (batch := curriculum.ready()) is None:
        groups = [answered(q, rng.random(q.n) < rates[q.prompt.id]) for q in curriculum.ask(budget)]
        curriculum.tell(groups)
        told += groups
        budget -= sum(g.request.n for g in groups)
    return told, list(batch.groups)


def test_maxrl_divides_by_the_pass_rate_of_the_group() -> None:
    prompts = pretend_prompts(["s"] * 4, ["1"] * 4)
    curriculum = strategy("maxrl", prompts)
    requests = curriculum.ask(64)
    curriculum.tell([answered(request, np.arange(request.n) < i * 4) for i, request in enumerate(requests)])
    batch = curriculum.ready()
    assert batch is not None
    samples = batch_samples(batch.groups, "dr-grpo", "prompt")
    by_request: dict[str, set[float]] = {}
    for sample in samples:
        by_request.setdefault(sample.rollout.request_id, set()).add(round(sample.advantage, 6))
    found = sorted(sorted(values) for values in by_request.values())
    # 4, 8 and 12 of 16 are right; with none of them right there is no gradient.
    assert found == [[-1.0, 0.333333], [-1.0, 1.0], [-1.0, 3.0]]


def test_reinforce_ada_goes_on_until_a_prompt_is_resolved_and_pays_for_all_of_it() -> None:
    prompts = pretend_prompts(["s"] * 4, ["1"] * 4)
    ids = prompts.ids
    rates = dict(zip(ids, (1.0, 0.0, 0.5, 0.5), strict=True))
    curriculum = strategy("ada", prompts, options={"per_round": 4, "rounds": 4, "group_size": 8})
    told, trained = step(curriculum, rates, np.random.default_rng(0))
    spent = {i: sum(g.request.n for g in told if g.request.prompt.id == i) for i in ids}
    assert spent[ids[0]] == spent[ids[1]] == 16  # never resolved
    assert all(8 <= spent[i] <= 16 for i in ids[2:])
    mixed = [g for g in trained if g.request.prompt.id in ids[2:]]
    assert all(len(g.rollouts) == 8 for g in trained)
    assert all((g.successes, g.failures) == (4, 4) for g in mixed if min(rates.values()) == 0.0)


def test_reinforce_ada_positive_stops_at_the_first_success() -> None:
    prompts = pretend_prompts(["s"] * 4, ["1"] * 4)
    curriculum = strategy("ada", prompts, options={"exit": "positive", "per_round": 2, "rounds": 8})
    told, _ = step(curriculum, dict.fromkeys(prompts.ids, 1.0), np.random.default_rng(0))
    assert sum(g.request.n for g in told) == 2 * 4


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=3), st.integers(0, 8))
def test_the_split_is_the_best_there_is(rates: list[float], spare: int) -> None:
    low, high, p = 2, 6, np.array(rates)
    budget = min(low * len(p) + spare, high * len(p))
    found = split(p, budget, low, high)
    assert found.sum() == budget
    assert found.min() >= low
    assert found.max() <= high
    every = [np.array(n) for n in product(range(low, high + 1), repeat=len(p)) if sum(n) == budget]
    assert value(p, found).sum() == pytest.approx(max(value(p, n).sum() for n in every))
