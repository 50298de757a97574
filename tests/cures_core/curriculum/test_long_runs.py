"""Prompts over many steps: those that come late, those that come back, and the order they are kept in."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.config.curriculum import CuresConfig
from cures_core.curriculum import Posterior, make_curriculum
from cures_core.curriculum.migration import migrate
from cures_core.prompts import PromptSet, make_prompt
from cures_core.terms import Outcome, Prompt
from cures_core.testing.curriculum import answered, prompt_set
from tests.cures_core.curriculum.test_strategies import go_on

CURES = CuresConfig(prompts_per_step=16, rollouts_per_step=64)


def prompts_of(kind: str, num: int, source: str) -> list[Prompt]:
    return [make_prompt(f"{kind} {i}", str(i), source=source) for i in range(num)]


def mean_draws(drawn: dict[str, int], prompts: list[Prompt]) -> float:
    return sum(drawn[p.id] for p in prompts) / len(prompts)


def test_prompts_added_in_mid_run_enter_fairly() -> None:
    solved, frontier = prompts_of("solved", 400, "a"), prompts_of("frontier", 60, "a")
    late_solved, late_frontier = prompts_of("late solved", 40, "a"), prompts_of("late frontier", 30, "a")
    rate = {p.id: 0.99 for p in solved + late_solved} | {p.id: 0.4 for p in frontier + late_frontier}
    before, after = PromptSet.of(solved + frontier), PromptSet.of(solved + frontier + late_solved + late_frontier)
    rng = np.random.default_rng(1)
    first = make_curriculum(CURES, before, Posterior.fresh(before, CURES.posterior), 0)
    go_on(first, rate, 120, rng)
    posterior, counts = migrate(first.posterior, after, CURES.posterior)
    assert counts["new"] == 70
    second = make_curriculum(CURES, after, posterior, 0)
    _, drawn = go_on(second, rate, 120, rng)
    # What is worth training on is drawn as often whether it came early or late; what is solved is seen and left.
    assert 0.6 < mean_draws(drawn, late_frontier) / mean_draws(drawn, frontier) < 1.6
    assert mean_draws(drawn, late_solved) < 0.6 * mean_draws(drawn, late_frontier)
    assert min(drawn[p.id] for p in late_frontier) > 0


def test_solved_prompts_that_come_back_are_noticed() -> None:
    solved, forgotten, frontier = (prompts_of(k, n, "a") for k, n in (("solved", 300), ("forgotten", 30), ("open", 40)))
    rate = {p.id: 0.995 for p in solved + forgotten} | {p.id: 0.4 for p in frontier}
    pool = PromptSet.of(solved + forgotten + frontier)
    rng = np.random.default_rng(2)
    curriculum = make_curriculum(CURES, pool, Posterior.fresh(pool, CURES.posterior), 0)
    _, before = go_on(curriculum, rate, 150, rng)
    assert mean_draws(before, forgotten) < 0.4 * mean_draws(before, frontier)
    rate |= {p.id: 0.3 for p in forgotten}  # the policy has lost them
    go_on(curriculum, rate, 150, rng)
    _, later = go_on(curriculum, rate, 100, rng)
    assert mean_draws(later, forgotten) > 0.5 * mean_draws(later, frontier)
    assert mean_draws(later, forgotten) > 2.5 * mean_draws(later, solved)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_the_prompts_does_not_matter(seed: int) -> None:
    prompts = list(prompt_set(40))
    mixed = [prompts[i] for i in np.random.default_rng(seed).permutation(40)]

    def asked(order: list[Prompt]) -> list[dict[str, Any]]:
        pool = PromptSet.of(order)
        curriculum = make_curriculum(CURES, pool, Posterior.fresh(pool, CURES.posterior), 3)
        steps = []
        for _ in range(4):
            requests = curriculum.ask(curriculum.rollouts_per_step)
            steps.append({q.prompt.id: q.n for q in requests})
            # An answer that depends on the prompt alone.
            right = [int(q.prompt.id[:2], 16) / 255 for q in requests]
            curriculum.tell(
                [
                    answered(q, [Outcome.CORRECT if (i + 0.5) / q.n < p else Outcome.WRONG for i in range(q.n)])
                    for q, p in zip(requests, right, strict=True)
                ]
            )
            curriculum.ready()
        return steps

    assert asked(mixed) == asked(prompts)
