"""Shares of draws by source are bounded, whatever the strategy; inside a source its own weights hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from cures_core.config.curriculum import CurriculumConfig, SourceQuota
from cures_core.curriculum import Curriculum, Posterior, Strategy, make_curriculum
from cures_core.curriculum.explain import draw_probabilities
from cures_core.curriculum.quotas import Quotas
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet, make_prompt
from cures_core.terms import Outcome
from cures_core.testing.curriculum import answered

STEP: dict[str, Any] = {"prompts_per_step": 7, "rollouts_per_step": 70}
KINDS: list[dict[str, Any]] = [
    {"type": "cures"},
    {"type": "cures", "allocation": {"type": "screen"}},
    {"type": "cures", "allocation": {"type": "neyman"}},
    {"type": "uniform"},
    {"type": "paper", "subsets": 1, "probe": 1, "steps_per_subset": 100},
    {"type": "dapo", "group_size": 2, "rollouts_per_step": 14},
]
POOL = PromptSet.of(
    make_prompt(f"{source} {i}", str(i), source=source)
    for source, num in (("big", 200), ("small", 40), ("tiny", 10))
    for i in range(num)
)


def config(kind: dict[str, Any], *quotas: dict[str, Any]) -> CurriculumConfig:
    values = {**STEP, **kind, "quotas": quotas}
    return TypeAdapter[CurriculumConfig](CurriculumConfig).validate_python(values)


def fresh(cfg: CurriculumConfig, pool: PromptSet = POOL, seed: int = 1) -> Strategy:
    return make_curriculum(cfg, pool, Posterior.fresh(pool, cfg.posterior), seed)


def go(strategy: Strategy, steps: int, rng: np.random.Generator | None = None) -> list[list[str]]:
    """Sources of the prompts that each step has drawn; half of what comes out is right."""
    rng, drawn = np.random.default_rng(3) if rng is None else rng, []
    for _ in range(steps):
        sources: dict[str, str] = {}
        while (batch := strategy.ready()) is None:
            requests = strategy.ask(strategy.rollouts_per_step)
            sources |= {q.prompt.id: q.prompt.source for q in requests}
            strategy.tell([answered(q, rng.choice([Outcome.CORRECT, Outcome.WRONG], q.n).tolist()) for q in requests])
        if "probing" not in batch.reason:
            drawn.append(list(sources.values()))
            for name in ("small", "tiny"):
                if f"draw_share/{name}" in batch.figures:
                    assert batch.figures[f"draw_share/{name}"] == drawn[-1].count(name) / len(drawn[-1])
    return drawn


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_held_to_within_a_prompt_over_any_number_of_steps(kind: dict[str, Any]) -> None:
    quotas = {"source": "small", "min": 0.3, "max": 0.3}, {"source": "tiny", "max": 0.05}
    small = tiny = total = 0
    steps = go(fresh(config(kind, *quotas)), 40)
    assert len(steps) > 30
    for sources in steps:
        assert len(sources) == 7
        total += len(sources)
        small, tiny = small + sources.count("small"), tiny + sources.count("tiny")
        assert abs(small - 0.3 * total) <= 1
        assert tiny <= 0.05 * total + 1


def test_without_quotas_nothing_has_changed_and_loose_ones_hardly_do() -> None:
    share = [sources.count("small") / len(sources) for sources in go(fresh(config({"type": "uniform"})), 200)]
    loose = config({"type": "uniform"}, {"source": "small", "max": 0.9})
    held = [sources.count("small") / len(sources) for sources in go(fresh(loose), 200)]
    assert np.mean(share) == pytest.approx(40 / 250, abs=0.03)
    assert np.mean(held) == pytest.approx(40 / 250, abs=0.01)
    assert "quota_carry" not in fresh(config({"type": "uniform"})).state_dict()


def test_inside_a_source_the_strategy_s_weights_hold() -> None:
    """Of the small source two prompts are known to be in between, all others to be solved."""
    cfg = config({"type": "cures", "signal": "expected_variance", "explore": 0.0}, {"source": "small", "min": 0.29})
    posterior = Posterior.fresh(POOL, cfg.posterior)
    labels = POOL.column("source")
    open_ones = [i for i, source in enumerate(labels) if source == "small"][:2]
    right = np.full(len(POOL), 400.0)
    wrong = np.zeros(len(POOL))
    right[open_ones] = wrong[open_ones] = 200
    posterior.update(POOL.ids, right, wrong, 0)
    strategy = make_curriculum(cfg, POOL, posterior, 1)
    asked = strategy.ask(70)
    assert {POOL.ids[i] for i in open_ones} <= {q.prompt.id for q in asked if q.prompt.source == "small"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_run_draws_the_same(kind: dict[str, Any]) -> None:
    cfg = config(kind, {"source": "small", "min": 0.37, "max": 0.41}, {"source": "tiny", "max": 0.11})
    whole, first = fresh(cfg), fresh(cfg)
    expected = go(whole, 12)
    rng = np.random.default_rng(3)
    begun = go(first, 5, rng)
    second = fresh(cfg, seed=9)
    second.load_state_dict(first.state_dict())
    assert begun + go(second, 7, rng) == expected


def test_a_step_tells_of_its_sources_where_there_are_several() -> None:
    pool = PromptSet.of(make_prompt(f"{name} {i}", "1", source=name) for name in ("a/b", "") for i in range(20))
    strategy = fresh(config({"type": "uniform"}), pool)
    requests = strategy.ask(70)
    outcome = {"a/b": Outcome.CORRECT, "": Outcome.WRONG}
    strategy.tell([answered(q, [outcome[q.prompt.source]] * q.n) for q in requests])
    batch = strategy.ready()
    assert batch is not None
    share = sum(q.prompt.source == "a/b" for q in requests) / len(requests)
    told = {name: value for name, value in batch.figures.items() if "/" in name}
    assert told == {
        "draw_share/a_b": share,
        "draw_share/none": pytest.approx(1 - share),
        "correct_share/a_b": 1.0,
        "correct_share/none": 0.0,
    }
    alone = fresh(config({"type": "uniform"}), pool.take([i for i, s in enumerate(pool.column("source")) if s]))
    asked = alone.ask(70)
    alone.tell([answered(q, [Outcome.WRONG] * q.n) for q in asked])
    batch = alone.ready()
    assert batch is not None
    assert not [name for name in batch.figures if "/" in name]


def test_an_explanation_knows_the_quotas() -> None:
    cfg = config({"type": "cures"}, {"source": "big", "max": 0.25})
    p = draw_probabilities(cfg, POOL, Posterior.fresh(POOL, cfg.posterior))  # type: ignore[arg-type]
    big = np.array([source == "big" for source in POOL.column("source")])
    assert p.sum() == pytest.approx(1)
    assert p[big].sum() == pytest.approx(0.25)


def test_a_state_of_other_quotas_is_taken_without_what_they_owed() -> None:
    before = fresh(config({"type": "cures"}, {"source": "small", "min": 0.3}))
    go(before, 3)
    after = fresh(config({"type": "cures"}, {"source": "small", "min": 0.3}, {"source": "tiny", "max": 0.1}))
    after.load_state_dict(before.state_dict())
    assert after.state_dict()["quota_carry"].tolist() == [0, 0, 0]
    plain = fresh(config({"type": "cures"}))
    plain.load_state_dict(before.state_dict())
    go(plain, 1)


def test_the_library_holds_them_too() -> None:
    sources = ["a"] * 50 + ["b"] * 50
    cfg = config({"type": "cures", "prompts_per_step": 5, "rollouts_per_step": 20}, {"source": "b", "max": 0.2})
    curriculum = Curriculum.from_ids(range(100), sources, config=cfg)
    drawn = []
    for _ in range(10):
        while curriculum.ready() is None:
            for ask in curriculum.ask():
                drawn.append(sources[ask.row])
                curriculum.tell(ask.request_id, correct=1, wrong=ask.n - 1)
    assert drawn.count("b") <= 0.2 * len(drawn) + 1


@pytest.mark.parametrize(
    ("quotas", "said"),
    [
        ([{"source": "a", "min": 0.6, "max": 0.5}], "source 'a': min 0.6 is above max 0.5"),
        ([{"source": "a"}, {"source": "a", "max": 0.5}], "source 'a' has two quotas"),
        ([{"source": "a", "min": 0.6}, {"source": "b", "min": 0.5}], "sum to 1.1"),
        ([{"source": "a", "max": 1.1}], "less than or equal to 1"),
    ],
)
def test_quotas_that_no_set_could_hold_are_refused_with_the_configuration(quotas: list[Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        config({"type": "cures"}, *quotas)


@pytest.mark.parametrize(
    ("quotas", "said"),
    [
        ([{"source": "smal", "min": 0.1}], "no prompt has the source 'smal'; sources are 'big', 'small', 'tiny'"),
        ([{"source": "tiny", "min": 0.9}], "0.9 of 20 prompts a step are more than the 10 that 'tiny' has"),
        ([{"source": name, "max": 0.3} for name in ("big", "small", "tiny")], "the largest shares sum to 0.9"),
    ],
)
def test_quotas_that_this_set_cannot_hold_are_refused_with_a_remedy(quotas: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fresh(config({"type": "uniform", "prompts_per_step": 20}, *quotas))


def test_a_strategy_of_one_s_own_says_that_it_holds_them() -> None:
    own = "tests.cures_core.curriculum.example_strategy:OnceEach"
    with pytest.raises(ConfigError, match=r"does not hold them. Draw its prompts by `self.draw`"):
        fresh(config({"type": "custom", "strategy": own}, {"source": "small", "max": 0.5}))


bounds = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@settings(max_examples=60)
@given(
    st.lists(bounds, min_size=1, max_size=4),
    st.integers(1, 12),
    st.lists(st.floats(0.001, 1.0), min_size=5, max_size=5),
    st.integers(0, 2**31),
)
def test_counts_follow_the_shares_and_the_shares_the_bounds(
    pairs: list[list[float]], num: int, weights: list[float], seed: int
) -> None:
    lows = np.array([low for low, _ in pairs])
    scale = max(1.0, float(lows.sum()))
    quotas = [SourceQuota(source=str(i), min=low / scale, max=high) for i, (low, high) in enumerate(pairs)]
    sources = [str(i) for i in range(len(quotas)) for _ in range(20)] + ["rest"] * 20
    held = Quotas(quotas, sources, num)
    natural = np.array(weights[: len(quotas) + 1])
    natural /= natural.sum()
    room = np.full(len(natural), 20 / num)
    share = held.shares(natural, room)
    assert share.sum() == pytest.approx(1)
    assert (share >= held._low - 1e-9).all()
    assert (share <= held._high + 1e-9).all()
    drawn = np.zeros(len(natural))
    for steps in range(1, 20):
        counts = held.counts(natural, np.full(len(natural), 20), num)
        assert counts.sum() == num
        drawn += counts
        assert np.abs(drawn - steps * num * share).max() <= 1 + 1e-6
    p = np.repeat(natural / 20, 20)
    rows = held.draw(p, np.arange(len(p)), num, np.random.default_rng(seed))
    assert len(rows) == len(set(rows.tolist())) == num
