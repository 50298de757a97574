"""Predicted pass rates: where features tell more than groups, where they do not, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cures_core.builtin.chains import build_pool
from cures_core.config.curriculum import PosteriorConfig
from cures_core.curriculum import Posterior, load_posterior, migrate, save_posterior
from cures_core.curriculum.predictor import FEWEST, kind_of, predict
from cures_core.prompts import PromptSet, make_prompt

CFG = PosteriorConfig(dead_prior=0.0)


def chains(labels: bool) -> tuple[PromptSet, np.ndarray]:
    """Chains with or without source and level, and pass rates that depend on operator and length."""
    rows = build_pool(1200, 5, easy=0.0, hopeless=0.0)
    pool = PromptSet.of(
        make_prompt(r["problem"], r["answer"], r["source"] if labels else "", r["level"] if labels else "", "")
        for r in rows
    )
    hardness = {"*": 0.9, ">": 0.7, "<": 0.5, "|": 0.3}
    rates = np.array([hardness[p.problem[1]] ** (len(p.problem) // 2 - 1) for p in pool])
    return pool, rates


def rolled_out(pool: PromptSet, rates: np.ndarray, num: int = 400) -> tuple[Posterior, np.ndarray]:
    rng, posterior = np.random.default_rng(0), Posterior.fresh(pool, CFG)
    rows = rng.choice(len(pool), num, replace=False)
    right = rng.binomial(4, rates[rows])
    posterior.update([pool.ids[i] for i in rows], right, 4 - right, 0)
    return posterior, np.setdiff1d(np.arange(len(pool)), rows)


def test_without_labels_features_predict_what_was_never_seen() -> None:
    pool, rates = chains(labels=False)
    posterior, unseen = rolled_out(pool, rates)
    before = np.abs(posterior.mean()[unseen] - rates[unseen]).mean()
    found = predict(pool, posterior, seed=0)
    assert found is not None
    assert found.used
    assert found.features > found.groups + 0.1
    assert "the features are used" in found.words()
    posterior.set_prior(found.rates, found.strength)
    after = np.abs(posterior.mean()[unseen] - rates[unseen]).mean()
    assert after < 0.6 * before


def test_what_was_rolled_out_is_known_as_well_as_what_was_not() -> None:
    """Outcomes that a prediction was fitted to, and that are counted beside it, would count twice."""
    pool, rates = chains(labels=False)
    posterior, unseen = rolled_out(pool, rates)
    found = predict(pool, posterior, seed=0)
    assert found is not None
    posterior.set_prior(found.rates, found.strength)
    error = np.abs(posterior.mean() - rates)
    assert np.delete(error, unseen).mean() < 1.2 * error[unseen].mean()


def test_where_labels_say_it_all_the_groups_are_used() -> None:
    rng = np.random.default_rng(1)
    groups = np.arange(1200) % 4
    pool = PromptSet.of(make_prompt(f"{rng.integers(1 << 60):x}", "1", str(g), "", "") for g in groups)
    rates = np.array([0.1, 0.4, 0.6, 0.9])[[int(p.source) for p in pool]]
    found = predict(pool, rolled_out(pool, rates)[0], seed=0)
    assert found is not None
    assert not found.used
    assert len(found.rates) == 0
    assert "the groups are used" in found.words()


def test_too_little_evidence_gives_none_and_equal_outcomes_are_no_error() -> None:
    pool, rates = chains(labels=False)
    assert predict(pool, rolled_out(pool, rates, FEWEST - 1)[0], 0) is None
    assert not predict(pool, rolled_out(pool, np.ones(len(pool)))[0], 0).used  # type: ignore[union-attr]


def test_predictions_stay_with_the_posterior(tmp_path: Path) -> None:
    pool, rates = chains(labels=False)
    posterior, _ = rolled_out(pool, rates)
    posterior.set_prior(rates, 5.0)
    save_posterior(posterior, tmp_path / "p.parquet")
    np.testing.assert_allclose(load_posterior(tmp_path / "p.parquet").mean(), posterior.mean(), rtol=1e-12)
    smaller = pool.take(np.arange(0, 1200, 2))
    moved, _ = migrate(posterior, smaller, CFG)
    np.testing.assert_allclose(moved.mean(), posterior.mean()[::2], rtol=1e-9)


def test_predictions_move_with_their_group() -> None:
    pool, rates = chains(labels=False)
    posterior, _ = rolled_out(pool, rates)
    posterior.set_prior(rates, 5.0)
    before = posterior.mean()
    posterior.update(pool.ids[:300], np.full(300, 8), np.zeros(300), 1)
    assert (posterior.mean()[300:] > before[300:]).mean() > 0.9


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("1,234", "integer"),
        ("-3.5", "decimal"),
        (r"\frac{1}{2}", "fraction"),
        ("(B)", "choice"),
        ("x^2", "formula"),
        ("red", "text"),
    ],
)
def test_kinds_of_answers(answer: str, kind: str) -> None:
    assert kind_of(answer) == kind
