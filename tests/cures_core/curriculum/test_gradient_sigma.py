"""sigma = "gradient": the variance formula, what training has measured steers the budget, and the state keeps it."""

from __future__ import annotations

import numpy as np
import pytest

from cures_core.config.curriculum import CuresConfig, NeymanAllocation
from cures_core.curriculum import Posterior, make_curriculum
from cures_core.curriculum.ask_tell import AskTell
from cures_core.curriculum.beta import gradient_variance
from cures_core.terms import Moments
from cures_core.testing.curriculum import prompt_set

POOL = prompt_set(8)
CFG = CuresConfig(
    prompts_per_step=8, rollouts_per_step=64, allocation=NeymanAllocation(sigma="gradient", max_rollouts=32)
)


def made() -> AskTell:
    return make_curriculum(CFG, POOL, Posterior.fresh(POOL, CFG.posterior), 0)


def asked(curriculum: AskTell) -> dict[str, int]:
    return {q.prompt.id: q.n for q in curriculum.ask(64)}


def test_the_variance_is_that_of_simulated_gradients() -> None:
    rng = np.random.default_rng(0)
    right, wrong = np.array([1.0, 0.5]), np.array([-0.2, 0.1])
    p = rng.beta(2.0, 3.0, 400_000)
    hit = rng.random(len(p)) < p
    noise = rng.normal(size=(len(p), 2)) * np.where(hit, 0.3, 0.8)[:, None]
    gradient = (hit - p)[:, None] * (np.where(hit[:, None], right, wrong) + noise)
    mean = p[:, None] * (1 - p)[:, None] * (right - wrong)  # E[gradient | p]
    simulated = ((gradient - mean) ** 2).sum(axis=1).mean()
    m_right, m_wrong = right @ right + 2 * 0.3**2, wrong @ wrong + 2 * 0.8**2
    gap = float((right - wrong) @ (right - wrong))
    one = np.ones(1)
    formula = gradient_variance(2 * one, 3 * one, m_right * one, m_wrong * one, gap * one)
    assert formula[0] == pytest.approx(simulated, rel=0.02)


def test_equal_moments_are_the_spread() -> None:
    plain = CFG.model_copy(update={"allocation": NeymanAllocation()})
    spread = asked(make_curriculum(plain, POOL, Posterior.fresh(POOL, CFG.posterior), 0))
    curriculum = made()
    assert asked(curriculum) == spread  # nothing is measured yet


def test_noisier_prompts_get_more_rollouts() -> None:
    curriculum = made()
    curriculum.learn({POOL.ids[0]: Moments(16.0, 16.0, 0.0), POOL.ids[1]: Moments(1.0, 1.0, 0.0)})
    sizes = asked(curriculum)
    assert sizes[POOL.ids[0]] > 1.2 * sizes[POOL.ids[2]]  # as 4 to the root of the mean, 8.5
    assert sizes[POOL.ids[2]] > 2 * sizes[POOL.ids[1]]
    assert sum(sizes.values()) == 64


def test_measurements_are_part_of_the_state_and_average() -> None:
    curriculum, copy = made(), made()
    curriculum.learn({POOL.ids[0]: Moments(10.0, 10.0, 0.0)})
    curriculum.learn({POOL.ids[0]: Moments(20.0, 20.0, 0.0)})
    state = curriculum.state_dict()
    assert state["moments"][0].tolist() == pytest.approx([13.0, 13.0, 0.0])
    copy.load_state_dict(state)
    assert asked(copy) == asked(curriculum)


def test_without_the_option_measurements_change_nothing() -> None:
    plain = CFG.model_copy(update={"allocation": NeymanAllocation()})
    one, two = (make_curriculum(plain, POOL, Posterior.fresh(POOL, CFG.posterior), 0) for _ in range(2))
    one.learn({POOL.ids[0]: Moments(100.0, 1.0, 0.0)})
    assert asked(one) == asked(two)
