"""The fading and the prior's strength that are read off the outcomes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import betabinom

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import Posterior
from cures_core.curriculum.migration import migrate
from cures_core.curriculum.model_selection import FADINGS, SCORED, STRENGTHS, Memory
from cures_core.curriculum.posterior_file import load_posterior, save_posterior
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet, make_prompt

POOL = PromptSet.of(make_prompt(f"problem {i}", str(i), source="one") for i in range(120))
FITTED = PosteriorConfig(fading="fitted", strength="fitted", dead_prior=0.0)


def visited(rates: np.ndarray, steps: int, moving: bool = False) -> Posterior:
    """A posterior after visits of 40 prompts with 4 rollouts a step; the pass rates change places if `moving`."""
    posterior, rng = Posterior.fresh(POOL, FITTED), np.random.default_rng(0)
    for step in range(1, steps + 1):
        if moving and step % 8 == 0:
            rates = rng.permutation(rates)
        rows = rng.permutation(len(POOL))[:40]
        right = rng.binomial(4, rates[rows])
        posterior.update([POOL.ids[row] for row in rows], right, 4 - right, step)
    return posterior


def test_rates_that_stay_are_remembered_and_rates_that_move_are_forgotten() -> None:
    rates = np.random.default_rng(1).uniform(0, 1, 120)
    assert visited(rates, 120).memory.fading >= 0.99
    assert visited(rates, 120, moving=True).memory.fading <= 0.95


def test_a_prior_is_worth_much_where_prompts_are_alike_and_little_where_they_are_not() -> None:
    assert visited(np.full(120, 0.4), 60).memory.strength == max(STRENGTHS)
    assert visited(np.repeat([0.02, 0.98], 60), 60).memory.strength == min(STRENGTHS)


def test_scores_are_log_likelihoods_of_the_beta_binomial() -> None:
    memory = Memory(FITTED)
    before = memory.log_evidence.copy()
    right, wrong = np.array([[1.0] * len(FADINGS)]), np.array([[2.0] * len(FADINGS)])
    memory.score((right, wrong), np.array([0.3]), np.array([0.2]), (np.array([0.0]), np.array([4.0])))
    for j, k in enumerate(STRENGTHS):
        expected = np.log(0.8 * betabinom(4, 1 + k * 0.3, 2 + k * 0.7).pmf(0) + 0.2)
        assert memory.log_evidence[:, j] - before[:, j] == pytest.approx(expected)


def test_evidence_for_models_is_forgotten_too() -> None:
    memory = Memory(FITTED)
    memory.log_evidence[0, 0] = 10.0
    memory.forget(100)
    assert 3 < memory.log_evidence[0, 0] < 4


def test_a_group_that_nothing_is_known_of_tells_nothing() -> None:
    posterior = Posterior.fresh(POOL, FITTED)
    start = posterior.memory.log_evidence.copy()
    posterior.update(POOL.ids[:50], np.full(50, 4), np.zeros(50), 0)
    np.testing.assert_array_equal(posterior.memory.log_evidence, start)
    posterior.update(POOL.ids[50:], np.full(70, 4), np.zeros(70), 0)
    assert (posterior.memory.log_evidence != start).all()


def test_only_so_many_prompts_are_compared() -> None:
    pool = PromptSet.of(make_prompt(f"p {i}", str(i)) for i in range(SCORED + 300))

    def evidence(last: int) -> np.ndarray:
        posterior = Posterior.fresh(pool, FITTED)
        for _ in range(2):
            posterior.update(pool.ids[:last], np.full(last, 4), np.zeros(last), 0)
        return posterior.memory.log_evidence

    np.testing.assert_allclose(evidence(SCORED), evidence(SCORED + 300), rtol=0.05)
    assert np.abs(evidence(SCORED // 2)).sum() < 0.7 * np.abs(evidence(SCORED)).sum()


def test_what_a_prediction_is_worth_is_a_start_that_outcomes_correct() -> None:
    posterior = Posterior.fresh(POOL, FITTED)
    posterior.set_prior(np.linspace(0.05, 0.95, 120), 9.0)
    assert posterior.memory.strength == 10.0
    a, b = posterior.parameters()
    np.testing.assert_allclose(a + b, 10.0)
    for step in range(1, 20):  # the predictions turn out to be the wrong way round
        posterior.update(POOL.ids, [0 if mean > 0.5 else 4 for mean in np.linspace(0.95, 0.05, 120)], [2] * 120, step)
    assert posterior.memory.strength < 10.0


def test_given_values_are_used_as_they_are() -> None:
    posterior = Posterior.fresh(POOL, PosteriorConfig(fading=0.5, strength=7.0))
    assert (posterior.memory.fading, posterior.memory.strength) == (0.5, 7.0)
    posterior.update(POOL.ids[:2], [4, 0], [0, 4], 0)
    assert posterior.memory.log_evidence.shape == (*posterior.right.shape[1:], 1) == (1, 1)


def test_the_choice_is_kept_in_states_files_and_changed_sets(tmp_path: Path) -> None:
    posterior = visited(np.repeat([0.02, 0.98], 60), 30)
    again = Posterior.fresh(POOL, FITTED)
    again.load_state_dict(posterior.state_dict())
    save_posterior(posterior, tmp_path / "p.parquet")
    loaded = load_posterior(tmp_path / "p.parquet")
    moved, _ = migrate(posterior, PromptSet.of(list(POOL)[:100]), FITTED)
    for other in (again, loaded, moved):
        assert other.memory.best == posterior.memory.best
    np.testing.assert_allclose(loaded.parameters(), posterior.parameters())
    for one in (posterior, again):
        one.update(POOL.ids[:60], np.full(60, 1), np.full(60, 3), 31)
    np.testing.assert_array_equal(again.parameters(), posterior.parameters())
    assert {"fading", "strength"} <= set(posterior.summary())


def test_a_state_of_other_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match="with another posterior"):
        Posterior.fresh(POOL, FITTED).load_state_dict(Posterior.fresh(POOL, PosteriorConfig(fading=0.9)).state_dict())
    state = Posterior.fresh(POOL, FITTED).state_dict()
    del state["right"]
    with pytest.raises(ConfigError, match="another version"):
        Posterior.fresh(POOL, FITTED).load_state_dict(state)
