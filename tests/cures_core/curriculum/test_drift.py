"""The common shift of pass rates: found, followed, kept on disk and over a changed prompt set; off by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import Posterior, load_posterior, migrate, save_posterior
from cures_core.curriculum.drift import common_shift, shifted
from cures_core.testing.curriculum import prompt_set

POOL = prompt_set(200)
DRIFTING = PosteriorConfig(fading=0.98, group_fading=0.98, dead_prior=0.0, drift=0.3)


def moving(cfg: PosteriorConfig, steps: int = 40) -> tuple[Posterior, float]:
    """A posterior after visits of a policy that improves by 0.1 nats a step; and its mean error before each step."""
    rng, posterior = np.random.default_rng(0), Posterior.fresh(POOL, cfg)
    logits, errors = rng.normal(-2.0, 1.0, len(POOL)), []
    for step in range(1, steps + 1):
        logits += 0.1
        rows = rng.choice(len(POOL), 40, replace=False)
        rates = special.expit(logits[rows])
        if step > 10:
            errors.append(np.abs(posterior.mean(rows) - rates).mean())
        right = rng.binomial(8, rates)
        posterior.update([POOL.ids[i] for i in rows], right, 8 - right, step)
    return posterior, float(np.mean(errors))


@given(st.floats(-1.5, 1.5), st.integers(0, 1000))
def test_a_shift_is_found(shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = rng.uniform(0.1, 0.9, 2000)
    right = rng.binomial(8, special.expit(special.logit(before) + shift)).astype(float)
    assert common_shift(before, right, 8 - right, 10.0) == pytest.approx(shift, abs=0.1)


def test_little_evidence_or_a_small_deviation_leave_it_near_zero() -> None:
    one, none = np.array([1.0]), np.array([0.0])
    assert common_shift(np.array([]), np.array([]), np.array([]), 1.0) == 0.0
    assert common_shift(one / 2, none, none, 1.0) == 0.0
    assert 0 < common_shift(one / 2, one, none, 0.01) < 1e-3
    assert common_shift(one / 2, one, none, 1.0) > 0.3


@given(st.floats(0, 20), st.floats(0, 20), st.floats(-4, 4))
def test_shifted_counts_stay_counts(right: float, wrong: float, shift: float) -> None:
    s, f = shifted(np.array([right]), np.array([wrong]), np.array([shift]))
    assert s[0] + f[0] == pytest.approx(right + wrong, abs=1e-9)
    assert s[0] >= 0 <= f[0]
    assert (s[0] - right) * shift >= -1e-9
    np.testing.assert_allclose(shifted(np.array([right]), np.array([wrong]), np.zeros(1))[0], right, atol=1e-9)


def test_it_follows_a_policy_that_improves() -> None:
    posterior, error = moving(DRIFTING)
    assert error < 0.85 * moving(DRIFTING.model_copy(update={"drift": 0.0}))[1]
    assert posterior.shifts[-1] > 0.5


def test_it_is_kept_on_disk_and_counted_in_when_the_set_changes(tmp_path: Path) -> None:
    posterior, _ = moving(DRIFTING)
    save_posterior(posterior, tmp_path / "p.parquet")
    loaded = load_posterior(tmp_path / "p.parquet")
    np.testing.assert_array_equal(loaded.parameters(), posterior.parameters())
    copy = Posterior.fresh(POOL, DRIFTING)
    copy.load_state_dict(posterior.state_dict())
    np.testing.assert_array_equal(copy.parameters(), posterior.parameters())
    moved, _ = migrate(posterior, POOL, DRIFTING)
    np.testing.assert_allclose(moved.parameters(), posterior.parameters(), rtol=1e-12)
