from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from cures_core.config.curriculum import (
    CuresConfig,
    CurriculumConfig,
    NeymanAllocation,
    PosteriorConfig,
    ProportionalWeighting,
    ScreenAllocation,
    SingleAllocation,
    SoftmaxWeighting,
    UniformConfig,
)
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.curriculum.ask_tell import Batch
from cures_core.errors import ConfigError, CurriculumMisuse
from cures_core.prompts import PromptSet, make_prompt
from cures_core.terms import Outcome, Request
from cures_core.testing.curriculum import CurriculumExam, answered, prompt_set, step


def fresh(cfg: CurriculumConfig, prompts: PromptSet, seed: int = 0) -> Strategy:
    return make_curriculum(cfg, prompts, Posterior.fresh(prompts, cfg.posterior), seed)


class TestUniform(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(UniformConfig(prompts_per_step=6, rollouts_per_step=26), prompts, seed)


class TestCures(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(CuresConfig(prompts_per_step=6, rollouts_per_step=26), prompts, seed)


class TestCuresWithAllocation(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        cfg = CuresConfig(
            prompts_per_step=6,
            rollouts_per_step=30,
            signal="plugin_spread",
            weighting=SoftmaxWeighting(temperature=0.1),
            allocation=NeymanAllocation(min_rollouts=2, max_rollouts=9),
        )
        return fresh(cfg, prompts, seed)


class TestCuresWithScreening(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(
            CuresConfig(prompts_per_step=7, rollouts_per_step=12, allocation=ScreenAllocation()), prompts, seed
        )


def play(
    cfg: CurriculumConfig, pool: PromptSet, rate: dict[str, float], steps: int
) -> tuple[list[Batch], dict[str, int]]:
    """`go_on` with a fresh strategy."""
    return go_on(fresh(cfg, pool, seed=4), rate, steps, np.random.default_rng(9))


def asked_in(cfg: CurriculumConfig) -> list[Any]:
    """What twelve steps ask for, and what they train on."""
    pool, rate = wasteful_pool()
    batches, drawn = play(cfg, pool, rate, 12)
    return [drawn, [[(g.request.prompt.id, g.request.n) for g in b.groups] for b in batches]]


def go_on(
    curriculum: Strategy, rate: dict[str, float], steps: int, rng: np.random.Generator
) -> tuple[list[Batch], dict[str, int]]:
    """Steps against fixed pass rates; returns the batches and how often each prompt was drawn."""
    batches, drawn = [], dict.fromkeys(rate, 0)
    for _ in range(steps):
        while (batch := curriculum.ready()) is None:
            groups = []
            for q in curriculum.ask(curriculum.rollouts_per_step):
                drawn[q.prompt.id] += 1
                hits = rng.random(q.n) < rate[q.prompt.id]
                groups.append(answered(q, [Outcome.CORRECT if hit else Outcome.WRONG for hit in hits]))
            curriculum.tell(groups)
        batches.append(batch)
    return batches, drawn


def wasteful_pool() -> tuple[PromptSet, dict[str, float]]:
    """500 prompts: 85 % solved, 10 % worth training on, 5 % never solved; the groups hold a mixture."""
    rows = []
    for i in range(500):
        kind = "easy" if i % 20 < 17 else "frontier" if i % 20 < 19 else "dead"
        source = "frontier" if kind == "frontier" else "bulk"
        rows.append(
            (make_prompt(f"problem {i}", str(i), source=source), {"easy": 0.995, "frontier": 0.4, "dead": 0.0}[kind])
        )
    return PromptSet.of(p for p, _ in rows), {p.id: rate for p, rate in rows}


def test_cures_finds_what_is_worth_training_on_and_drops_the_dead() -> None:
    pool, rate = wasteful_pool()
    shape: dict[str, Any] = {"prompts_per_step": 16, "rollouts_per_step": 128}
    uniform, _ = play(UniformConfig(**shape), pool, rate, 50)
    cures, drawn = play(CuresConfig(**shape), pool, rate, 50)

    def informative(batches: list[Batch]) -> float:
        return sum(b.figures["informative_share"] for b in batches[10:]) / 40

    assert informative(cures) > 2.5 * informative(uniform)
    dead = [drawn[i] for i in pool.ids if rate[i] == 0]
    assert sum(dead) / len(dead) < 2


def test_solved_prompts_are_still_drawn_now_and_then() -> None:
    pool, rate = wasteful_pool()
    cfg = CuresConfig(prompts_per_step=16, rollouts_per_step=128, explore=0.2)
    _, drawn = play(cfg, pool, rate, 60)
    easy = [drawn[i] for i in pool.ids if rate[i] > 0.9]
    assert sum(easy) > 0.1 * sum(drawn.values())


def test_by_failures_prompts_out_of_reach_are_drawn_most_until_they_are_taken_for_dead() -> None:
    prompts = prompt_set(60)
    rate = {name: (0.05, 0.5, 0.95)[i % 3] for i, name in enumerate(prompts.ids)}
    shape: dict[str, Any] = {"prompts_per_step": 6, "rollouts_per_step": 48}

    def shares(**options: Any) -> list[float]:
        _, drawn = play(CuresConfig(**shape, **options), prompts, rate, 80)
        counts = [sum(drawn[i] for i in prompts.ids if rate[i] == p) for p in (0.05, 0.5, 0.95)]
        return [count / sum(counts) for count in counts]

    undead = PosteriorConfig(dead_prior=0.0)
    hard, middle, easy = shares(signal="thompson_failure", posterior=undead)
    assert hard > middle > easy
    assert hard > shares(posterior=undead)[0] + 0.1
    assert shares(signal="thompson_failure", posterior=PosteriorConfig(dead_prior=0.5))[0] < hard


CHANGES: list[dict[str, Any]] = [
    {"signal": "plugin_spread"},
    {"signal": "thompson_failure"},
    {"signal": "expected_variance"},
    {"weighting": ProportionalWeighting(power=1.0)},
    {"weighting": SoftmaxWeighting(temperature=0.05)},
    {"explore": 0.9},
    {"allocation": NeymanAllocation()},
    {"allocation": ScreenAllocation()},
    {"prompts_per_step": 20},
    {"rollouts_per_step": 160},
    {"posterior": PosteriorConfig(fading=0.5)},
    {"posterior": PosteriorConfig(strength="fitted")},
    {"posterior": PosteriorConfig(group_fading=0.2)},
    {"posterior": PosteriorConfig(strength=30.0)},
    {"posterior": PosteriorConfig(group_strength=40.0)},
    {"posterior": PosteriorConfig(dead_prior=0.0)},
    {"posterior": PosteriorConfig(dead_prior="fitted")},
    {"posterior": PosteriorConfig(dead_fading=0.5)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: "-".join(f"{k}={v}" for k, v in c.items())[:40])
def test_every_option_changes_what_is_asked(change: dict[str, Any]) -> None:
    pool, rate = wasteful_pool()
    base: dict[str, Any] = {"prompts_per_step": 16, "rollouts_per_step": 128}
    _, one = play(CuresConfig(**base), pool, rate, 8)
    batches, two = play(CuresConfig(**{**base, **change}), pool, rate, 8)
    if "allocation" in change:
        assert len({len(g.verdicts) for b in batches for g in b.groups}) > 1
    else:
        assert one != two


def test_a_request_says_what_is_expected_of_its_prompt_before_its_rollouts() -> None:
    pool, rate = wasteful_pool()
    shape: dict[str, Any] = {"prompts_per_step": 16, "rollouts_per_step": 40, "allocation": ScreenAllocation()}
    curriculum, rng, rounds = fresh(CuresConfig(**shape), pool), np.random.default_rng(9), []
    for _ in range(6):
        while curriculum.ready() is None:
            requests, posterior = curriculum.ask(40), curriculum.posterior
            believed = posterior.mean(posterior.rows([q.prompt.id for q in requests]))
            assert [q.expected for q in requests] == believed.tolist()
            rounds.append(len(requests))
            hits = [rng.random(q.n) < rate[q.prompt.id] for q in requests]
            curriculum.tell(
                [
                    answered(q, [Outcome.CORRECT if hit else Outcome.WRONG for hit in one])
                    for q, one in zip(requests, hits, strict=True)
                ]
            )
    assert len(rounds) > 6  # failed ones were asked for again, and less is expected of them


class TestCuresWithSingles(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        cfg = CuresConfig(prompts_per_step=8, rollouts_per_step=8, allocation=SingleAllocation())
        return fresh(cfg, prompts, seed)


def test_single_rollouts_of_as_many_prompts() -> None:
    pool, rate = wasteful_pool()
    cfg = CuresConfig(prompts_per_step=32, rollouts_per_step=32, allocation=SingleAllocation())
    batches, _ = play(cfg, pool, rate, 5)
    assert [[len(g.verdicts) for g in b.groups] for b in batches] == [[1] * 32] * 5
    with pytest.raises(ValidationError, match="32 prompts of 1 to 1 rollouts take 32"):
        CuresConfig(prompts_per_step=32, rollouts_per_step=64, allocation=SingleAllocation())


def test_allocation_changes_the_sizes_alone() -> None:
    pool, rate = wasteful_pool()
    base: dict[str, Any] = {"prompts_per_step": 16, "rollouts_per_step": 128}
    cfg = CuresConfig(**base, allocation=NeymanAllocation(min_rollouts=2, max_rollouts=12))
    batches, _ = play(cfg, pool, rate, 10)
    sizes = [len(g.verdicts) for b in batches for g in b.groups]
    assert (min(sizes), max(sizes)) == (2, 12)
    assert {sum(len(g.verdicts) for g in b.groups) for b in batches} == {128}


def test_what_may_be_dead_gets_rollouts_by_the_chance_that_it_is_not() -> None:
    cfg = CuresConfig(prompts_per_step=8, rollouts_per_step=256, allocation=NeymanAllocation(max_rollouts=128))
    curriculum = fresh(cfg, prompt_set(8))
    dead = np.array([0.99, 0.75, 0, 0, 0, 0, 0, 0])
    curriculum.posterior.dead_log_odds = np.log(np.maximum(dead, 1e-9) / (1 - dead))
    sizes = np.array([ask.n for ask in curriculum.ask(256)])
    # The mean variance of a reward is the living prompt's times the chance that it lives, and n goes by its root.
    np.testing.assert_allclose(sizes, 256 * np.sqrt(1 - dead) / np.sqrt(1 - dead).sum(), atol=1)


def test_groups_with_signal_come_first() -> None:
    pool, rate = wasteful_pool()
    for batch in play(CuresConfig(prompts_per_step=16, rollouts_per_step=128), pool, rate, 5)[0]:
        flags = [g.informative for g in batch.groups]
        assert flags == sorted(flags, reverse=True)


def test_a_pool_smaller_than_a_step_is_drawn_whole() -> None:
    curriculum = fresh(CuresConfig(prompts_per_step=16, rollouts_per_step=128), prompt_set(5))
    asked, batch = step(curriculum, 0.5, np.random.default_rng(0))
    assert (len(asked), sum(q.n for q in asked), len(batch.groups)) == (5, 128, 5)


def test_misuse_is_named() -> None:
    curriculum = fresh(UniformConfig(prompts_per_step=2, rollouts_per_step=4), prompt_set(8))
    curriculum.ask(4)
    with pytest.raises(CurriculumMisuse, match="still to be told"):
        curriculum.ask(4)
    with pytest.raises(CurriculumMisuse, match="between steps"):
        curriculum.state_dict()
    with pytest.raises(ConfigError, match="migrate"):
        make_curriculum(
            UniformConfig(prompts_per_step=2, rollouts_per_step=4),
            prompt_set(8),
            Posterior.fresh(prompt_set(9), PosteriorConfig()),
            0,
        )
    with pytest.raises(ConfigError, match="empty"):
        fresh(UniformConfig(prompts_per_step=2, rollouts_per_step=4), PromptSet.of([]))


def test_a_state_is_saved_between_steps_only_and_taken_back_by_its_like_alone() -> None:
    shape: dict[str, Any] = {"prompts_per_step": 2, "rollouts_per_step": 4}
    curriculum = fresh(UniformConfig(**shape), prompt_set(8))
    state = curriculum.state_dict()
    requests = curriculum.ask(4)
    told(curriculum, requests, [Outcome.WRONG] * len(requests))
    with pytest.raises(CurriculumMisuse, match=r"^a step is going on: the state can be saved between steps only$"):
        curriculum.state_dict()  # all told, and still not closed
    with pytest.raises(ConfigError, match=r"^the saved state is of the strategy uniform, this one is cures$"):
        fresh(CuresConfig(**shape), prompt_set(8)).load_state_dict(state)
    with pytest.raises(ConfigError, match=r"^the saved state is of another prompt set$"):
        fresh(UniformConfig(**shape), prompt_set(9)).load_state_dict(state)


def test_a_state_of_the_version_that_measured_more_is_taken_back() -> None:
    cfg = CuresConfig(prompts_per_step=2, rollouts_per_step=4)
    state = fresh(cfg, prompt_set(8), seed=5).state_dict()
    older = {**state, "moments": np.zeros((0, 3)), "posterior": {**state["posterior"], "shifts": np.zeros(1)}}
    curriculum = fresh(cfg, prompt_set(8))
    curriculum.load_state_dict(older)
    assert curriculum.ask(4) == fresh(cfg, prompt_set(8), seed=5).ask(4)


def test_a_loaded_state_is_a_copy() -> None:
    cfg = CuresConfig(prompts_per_step=2, rollouts_per_step=4)
    state = fresh(cfg, prompt_set(8), seed=5).state_dict()
    first, second = fresh(cfg, prompt_set(8)), fresh(cfg, prompt_set(8))
    asked = []
    for curriculum in (first, second):
        curriculum.load_state_dict(state)
        asked.append([q.prompt.id for _ in range(3) for q in step(curriculum, 0.5, np.random.default_rng(0))[0]])
    assert asked[0] == asked[1]


@pytest.mark.parametrize("cfg", [UniformConfig, CuresConfig])
@pytest.mark.parametrize(("pool", "budget", "prompts"), [(12, 30, 6), (4, 30, 4), (12, 7, 3), (12, 3, 1), (12, 1, 0)])
def test_as_many_prompts_as_the_step_the_pool_and_the_budget_allow(
    cfg: type[UniformConfig | CuresConfig], pool: int, budget: int, prompts: int
) -> None:
    """Two rollouts each at least."""
    asked = fresh(cfg(prompts_per_step=6, rollouts_per_step=30), prompt_set(pool)).ask(budget)
    assert len(asked) == prompts
    assert sum(q.n for q in asked) == (budget if prompts else 0)
    assert all(q.n >= 2 for q in asked)


@pytest.mark.parametrize(("budget", "prompts"), [(32, 8), (16, 4), (15, 3), (3, 0)])
def test_a_smaller_budget_takes_fewer_prompts_with_the_fewest_rollouts_that_the_allocation_allows(
    budget: int, prompts: int
) -> None:
    cfg = CuresConfig(prompts_per_step=8, rollouts_per_step=64, allocation=NeymanAllocation(min_rollouts=4))
    asked = fresh(cfg, prompt_set(40)).ask(budget)
    assert len(asked) == prompts
    assert sum(q.n for q in asked) == (budget if prompts else 0)
    assert all(q.n >= 4 for q in asked)


def test_what_is_due_in_a_large_pool_is_part_of_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cures_core.curriculum.strategies.cures._FRESH_ROWS", 40)
    cfg = CuresConfig(prompts_per_step=6, rollouts_per_step=24, signal="expected_variance")
    curriculum, resumed = fresh(cfg, prompt_set(400)), fresh(cfg, prompt_set(400))
    step(curriculum, 0.5, np.random.default_rng(0))
    resumed.load_state_dict(curriculum.state_dict())
    for seed in range(3):
        asked = [step(one, 0.5, np.random.default_rng(seed))[0] for one in (curriculum, resumed)]
        assert asked[0] == asked[1]
        np.testing.assert_array_equal(curriculum.state_dict()["weight"], resumed.state_dict()["weight"])


def test_in_a_large_pool_what_was_told_is_renewed_at_once_and_the_rest_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cures_core.curriculum.strategies.cures._FRESH_ROWS", 40)
    pool = prompt_set(400)
    cfg = CuresConfig(prompts_per_step=6, rollouts_per_step=24, signal="expected_variance")
    curriculum = fresh(cfg, pool)
    rng = np.random.default_rng(0)
    asked, _ = step(curriculum, 1.0, rng)
    drawn = curriculum.posterior.rows([q.prompt.id for q in asked])
    before = np.array(curriculum.state_dict()["weight"])
    step(curriculum, 1.0, rng)
    changed = np.flatnonzero(np.array(curriculum.state_dict()["weight"]) != before)
    assert set(drawn.tolist()) <= set(changed.tolist()) <= set(drawn.tolist()) | set(range(50))
    for _ in range(8):
        step(curriculum, 1.0, rng)
    assert np.all(np.array(curriculum.state_dict()["weight"]) != before)


def screened(prompts: int, rollouts: int, **posterior: float) -> tuple[Strategy, list[Request]]:
    """A strategy that screens, and its first requests."""
    cfg = CuresConfig(
        prompts_per_step=prompts,
        rollouts_per_step=rollouts,
        allocation=ScreenAllocation(max_rollouts=4),
        posterior=PosteriorConfig(**posterior),
    )
    curriculum = fresh(cfg, prompt_set(24))
    return curriculum, curriculum.ask(rollouts)


def told(curriculum: Strategy, requests: list[Request], outcomes: list[Outcome]) -> None:
    curriculum.tell([answered(q, [o] * q.n) for q, o in zip(requests, outcomes, strict=True)])


def test_screening_goes_on_with_what_failed_its_first_rollout() -> None:
    curriculum, first = screened(prompts=6, rollouts=14)
    assert [q.n for q in first] == [1] * 6
    told(curriculum, first, [Outcome.WRONG, Outcome.CORRECT, Outcome.UNKNOWN, Outcome.WRONG, *[Outcome.CORRECT] * 2])
    assert curriculum.ready() is None
    second = curriculum.ask(8)
    assert {q.prompt.id: q.n for q in second} == {first[0].prompt.id: 3, first[3].prompt.id: 3}  # 4 each, no more
    told(curriculum, second, [Outcome.CORRECT, Outcome.WRONG])
    batch = curriculum.ready()
    assert batch is not None
    assert batch.reason == "complete"
    assert sorted(len(g.verdicts) for g in batch.groups) == [1, 1, 1, 1, 4, 4]


@pytest.mark.parametrize("outcome", [Outcome.CORRECT, Outcome.UNKNOWN])
def test_screening_ends_where_nothing_failed(outcome: Outcome) -> None:
    curriculum, first = screened(prompts=6, rollouts=14)
    told(curriculum, first, [outcome] * 6)
    batch = curriculum.ready()
    assert batch is not None
    assert batch.reason == "complete"


def test_screening_ends_where_the_budget_is_spent() -> None:
    curriculum, first = screened(prompts=6, rollouts=6)
    told(curriculum, first, [Outcome.WRONG] * 6)
    batch = curriculum.ready()
    assert batch is not None
    assert batch.reason == "complete"


def test_screening_does_not_go_on_with_prompts_taken_for_dead() -> None:
    curriculum, first = screened(prompts=6, rollouts=14, dead_prior=0.9)
    told(curriculum, first, [Outcome.WRONG] * 5 + [Outcome.CORRECT])
    assert curriculum.ready() is not None
