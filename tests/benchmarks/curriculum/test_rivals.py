"""The rivals: each keeps the promises of a strategy, checks its options, and does what it is there for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.curriculum import rivals
from benchmarks.curriculum.rivals import mopps, official
from cures_core.config.curriculum import (
    CuresConfig,
    CurriculumConfig,
    CustomConfig,
    PaperConfig,
    PosteriorConfig,
)
from cures_core.config.training import TorchTrainerConfig
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.curriculum.strategies.custom import check_strategy
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet
from cures_core.terms import Outcome, Request
from cures_core.testing.curriculum import CurriculumExam, answered, prompt_set, step
from cures_core.training.advantages import batch_samples
from tasks.stages.job_process import run_job
from tests.cures_core.curriculum.test_library import defers_and_is_told_late, tells_in_any_order_and_goes_on
from tests.cures_core.curriculum.test_strategies import asked_in, fresh, play, wasteful_pool
from tests.cures_core.jobs.epochs import make_job, outcome
from tests.cures_core.test_empty_sets import bears_every_outcome

SMALL: dict[str, Any] = {"prompts_per_step": 4, "rollouts_per_step": 32}
BIG: dict[str, Any] = {"prompts_per_step": 16, "rollouts_per_step": 128}


def rival(name: str, **settings: Any) -> CustomConfig:
    """The configuration of a rival: its shape and posterior, and all else as options."""
    shape = {key: settings.pop(key) for key in ("prompts_per_step", "rollouts_per_step")}
    posterior = {"Mopps": mopps.POSTERIOR, "Official": official.POSTERIOR}.get(name, PosteriorConfig())
    path = f"benchmarks.curriculum.rivals.{name.lower()}:{name}"
    return CustomConfig(**shape, posterior=posterior, strategy=path, options=settings)


def changed(cfg: CurriculumConfig, change: dict[str, Any]) -> CurriculumConfig:
    """With other options."""
    assert isinstance(cfg, CustomConfig)
    return cfg.model_copy(update={"options": {**cfg.options, **change}})


class TestSpeed(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(rival("Speed", **SMALL, screen=2), prompts, seed)


class TestGvm(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(rival("Gvm", **SMALL), prompts, seed)


class TestMopps(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(rival("Mopps", **SMALL, candidates=3), prompts, seed)


class TestArc(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(rival("Arc", **SMALL), prompts, seed)


class TestOfficial(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(rival("Official", **SMALL), prompts, seed)


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (rival("Speed", **BIG), {"screen": 2}),
        (rival("Speed", **BIG), {"screen_share": 0.8}),
        (rival("Gvm", **BIG), {"alpha": 1.0}),
        (rival("Gvm", **BIG), {"beta": 1.0}),
        (rival("Gvm", **BIG), {"min_rollouts": 6}),
        (rival("Gvm", **BIG), {"max_rollouts": 9}),
        (rival("Mopps", **BIG), {"target": 0.9}),
        (rival("Mopps", **BIG), {"candidates": 2}),
        (rival("Arc", **BIG), {"drift": 0.3}),
        (rival("Arc", **BIG), {"width": 0.05}),
        (rival("Arc", **BIG), {"tolerance": 0.8}),
    ],
    ids=lambda x: str(x)[:30] if isinstance(x, dict) else x.strategy.rpartition(":")[2],
)
def test_every_option_changes_what_is_asked(base: CurriculumConfig, change: dict[str, Any]) -> None:
    assert asked_in(base) != asked_in(changed(base, change))


def test_options_that_need_evidence_to_matter() -> None:
    prompts = prompt_set(60)

    def asked(cfg: CurriculumConfig) -> list[tuple[str, int]]:
        posterior = Posterior.fresh(prompts, cfg.posterior)
        posterior.update(prompts.ids, np.arange(60) % 5, 4 - np.arange(60) % 5, 0)
        curriculum = make_curriculum(cfg, prompts, posterior, 0)
        for _ in range(6):
            step(curriculum, 0.5, np.random.default_rng(0))
        return [(q.prompt.id, q.n) for q in curriculum.ask(200)]

    shape: dict[str, Any] = {"prompts_per_step": 12, "rollouts_per_step": 200}
    published = rival("Official", **shape, subsets=1, processes=1, repeats=1)
    for change in ({"entropy": 5.0}, {"processes": 6}, {"repeats": 3}):
        assert asked(published) != asked(changed(published, change))


def test_speed_stops_at_the_largest_group() -> None:
    pool, rate = wasteful_pool()
    for size in (6, 16):
        batches, _ = play(rival("Speed", **BIG, screen=4, group_size=size), pool, rate, 10)
        assert max(g.request.n for b in batches for g in b.groups) <= size


def test_screened_and_continued_rollouts_are_one_group() -> None:
    pool, rate = wasteful_pool()
    batches, _ = play(rival("Speed", **BIG, screen=4), pool, rate, 10)
    groups = [g for b in batches for g in b.groups]
    assert groups
    for group in groups:
        assert len(group.rollouts) == len(group.verdicts) == group.request.n > 4
        assert group.informative


def test_gvm_gives_more_to_harder_prompts() -> None:
    pool, rate = wasteful_pool()
    batches, _ = play(rival("Gvm", **BIG), pool, rate, 40)
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for batch in batches[20:]:
        for group in batch.groups:
            sizes[rate[group.request.prompt.id] > 0.9].append(group.request.n)
    assert np.mean(sizes[False]) > 1.25 * np.mean(sizes[True])


class TestFaultsOfThePublishedCode:
    """Each shows the fault in `cures-official`, where that has it, and its absence in `cures`.

    Those outside the curriculum: lost optimizer state (`test_resumed_training_equals_uninterrupted_training`), and
    half-written results taken for whole ones (`tests/cures_core/checkpoints/test_checkpoint.py`).
    """

    def test_fault_sampling_is_uniform_in_effect(self) -> None:
        prompts = prompt_set(200)
        posterior = Posterior.fresh(prompts, rival("Official", **SMALL).posterior)
        posterior.update(prompts.ids, np.arange(200) % 5, 4 - np.arange(200) % 5, 0)
        published = make_curriculum(rival("Official", **SMALL), prompts, posterior, 0)
        published.ask(32)
        ratio = published._figures["weight_ratio"]
        assert ratio < 1.01
        cures = fresh(PaperConfig(**SMALL, subsets=1), prompts)
        cures.posterior.load_state_dict(posterior.state_dict())
        cures._probed = 200  # type: ignore[attr-defined]
        cures.ask(32)
        assert cures._figures["weight_ratio"] > 3

    def test_fault_the_budget_is_missed(self) -> None:
        pool, rate = wasteful_pool()
        published, _ = play(rival("Official", **BIG, subsets=1, processes=1, repeats=1), pool, rate, 24)
        trained = [b.figures["step_rollouts"] for b in published if not b.reason.startswith("probing")]
        assert len(trained) > 4
        assert max(trained) < 64
        for cfg in (rival("Gvm", **BIG), rival("Mopps", **BIG)):
            batches, _ = play(cfg, pool, rate, 5)
            assert {b.figures["step_rollouts"] for b in batches} == {128}

    def test_fault_training_never_reaches_the_weights(self) -> None:
        prompts = prompt_set(30)

        def second_ask(cfg: CurriculumConfig, outcome: Outcome) -> list[str]:
            curriculum = fresh(cfg, prompts)
            curriculum.tell([answered(q, [outcome] * q.n) for q in curriculum.ask(120)])
            curriculum.ready()
            return [q.prompt.id for q in curriculum.ask(120)]

        shape: dict[str, Any] = {"prompts_per_step": 10, "rollouts_per_step": 120}
        published = rival("Official", **shape)
        assert second_ask(published, Outcome.CORRECT) == second_ask(published, Outcome.WRONG)
        cures = CuresConfig(**shape)
        assert second_ask(cures, Outcome.CORRECT) != second_ask(cures, Outcome.WRONG)

    def test_fault_the_temperature_does_nothing(self) -> None:
        prompts = prompt_set(200)
        posterior = Posterior.fresh(prompts, rival("Official", **SMALL).posterior)
        posterior.update(prompts.ids, np.arange(200) % 5, 4 - np.arange(200) % 5, 0)

        def ratio(cfg: CurriculumConfig) -> float:
            curriculum = make_curriculum(cfg, prompts, posterior, 0)
            curriculum.ask(32)
            return curriculum._figures["weight_ratio"]

        probed: dict[str, Any] = {**SMALL, "subsets": 1}
        # Ten times the divisor, and the weights still differ by next to nothing.
        assert ratio(rival("Official", **probed, entropy=0.1)) < 1.1
        sharp, soft = (ratio(PaperConfig(**probed, temperature=t)) for t in (0.05, 0.5))
        assert sharp > 5 * soft

    def test_fault_all_right_and_all_wrong_are_given_up(self) -> None:
        prompts = prompt_set(200)
        posterior = Posterior.fresh(prompts, rival("Official", **SMALL).posterior)
        posterior.update(prompts.ids, np.arange(200) % 5, 4 - np.arange(200) % 5, 0)
        settled = {i for i, right in zip(prompts.ids, np.arange(200) % 5, strict=True) if right in (0, 4)}

        def rolled_out(cfg: CurriculumConfig) -> set[str]:
            copy = Posterior.fresh(prompts, posterior.cfg)
            copy.load_state_dict(posterior.state_dict())
            curriculum = make_curriculum(cfg, prompts, copy, 0)
            seen: set[str] = set()
            for _ in range(60):
                requests = curriculum.ask(curriculum.rollouts_per_step)
                seen |= {q.prompt.id for q in requests}
                curriculum.tell([answered(q, [Outcome.CORRECT, *[Outcome.WRONG] * (q.n - 1)]) for q in requests])
                curriculum.ready()
            return seen

        shape: dict[str, Any] = {"prompts_per_step": 16, "rollouts_per_step": 64}
        published = rival("Official", **shape, subsets=1, steps_per_subset=100, processes=1, repeats=1)
        assert not rolled_out(published) & settled
        assert len(rolled_out(CuresConfig(**shape)) & settled) > 0.5 * len(settled)

    def test_fault_a_checker_that_fails_is_a_failure_of_the_policy(self) -> None:
        prompts = prompt_set(40)
        curriculum = fresh(CuresConfig(**SMALL), prompts)
        before = curriculum.posterior.mean().copy()
        curriculum.tell([answered(q, [Outcome.UNKNOWN] * q.n) for q in curriculum.ask(32)])
        np.testing.assert_array_equal(curriculum.posterior.mean(), before)
        batch = curriculum.ready()
        assert batch is not None
        assert batch.figures["unknown_share"] == 1

    def test_fault_more_rollouts_are_more_weight_in_the_loss(self) -> None:
        first, second = prompt_set(2)
        few = answered(Request("a", first, 2, 0), [Outcome.CORRECT, Outcome.WRONG])
        many = answered(Request("b", second, 8, 0), [Outcome.CORRECT, Outcome.WRONG] * 4)

        def share_of_few(weight: Literal["prompt", "token"]) -> float:
            weights = [s.weight for s in batch_samples([few, many], "grpo", weight)]
            return sum(weights[:2]) / sum(weights)

        assert share_of_few("token") == pytest.approx(0.2)  # as published: the allocation changes the objective
        assert share_of_few("prompt") == pytest.approx(0.5)
        assert TorchTrainerConfig(learning_rate=1e-3).loss_weight == "prompt"


@pytest.mark.parametrize(
    ("cfg", "words"),
    [
        (rival("Speed", **SMALL, screen=16), "group_size 16 leaves nothing to continue after screen 16"),
        (rival("Gvm", **SMALL, max_rollouts=7), "4 prompts of 2 to 7 rollouts take 8 to 28 rollouts"),
        (rival("Gvm", **SMALL, min_rollouts=9), "rollouts_per_step 32 is below 9 x prompts_per_step 4"),
        (rival("Mopps", **SMALL, target=1.5), r"curriculum\.options\.target: Input should be less than 1 \(got 1\.5\)"),
        (rival("Arc", **SMALL, drif=0.1), "Arc has no such option; its options are drift, width, tolerance"),
        (rival("Official", **SMALL, probe=0), r"options\.probe: Input should be greater than or equal to 1"),
        (rival("Mopps", **SMALL).model_copy(update={"posterior": PosteriorConfig()}), "it forgets by decay"),
        (rival("Official", **SMALL).model_copy(update={"posterior": PosteriorConfig()}), "does not fade"),
    ],
    ids=lambda x: "" if isinstance(x, str) else x.strategy.rpartition(":")[2],
)
def test_bad_options_are_named_before_any_work(cfg: CustomConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_strategy(cfg)


def test_mopps_forgets_by_the_visit() -> None:
    """Lambda times what was counted, plus what came out; a visit without a verdict changes nothing."""
    prompts = prompt_set(4)
    curriculum = fresh(rival("Mopps", **SMALL, decay=0.25), prompts)
    for said in (Outcome.CORRECT, Outcome.WRONG, Outcome.UNKNOWN):
        curriculum.tell([answered(q, [said] * q.n) for q in curriculum.ask(32)])
        curriculum.ready()
    assert curriculum.posterior.successes.tolist() == [2.0] * 4
    assert curriculum.posterior.failures.tolist() == [8.0] * 4


@pytest.mark.parametrize("before", ["", "mine", f"mine,{rivals.PLUGINS}"])
def test_the_commands_of_the_benchmarks_may_run_them_and_what_they_might_before(
    before: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURES_PLUGINS", before)
    rivals.allow()
    assert os.environ["CURES_PLUGINS"] == ",".join([*filter(None, before.split(",")[:1]), rivals.PLUGINS])
    check_strategy(rival("Arc", **SMALL))


STEPS: list[CustomConfig] = [
    *(rival(name, prompts_per_step=6, rollouts_per_step=24) for name in ("Arc", "Mopps", "Gvm", "Official")),
    rival("Speed", prompts_per_step=2, rollouts_per_step=24, screen=2, group_size=4),
]


@pytest.mark.parametrize("cfg", STEPS, ids=lambda x: x.strategy.rpartition(":")[2])
def test_they_serve_other_trainers_too(cfg: CustomConfig, tmp_path: Path) -> None:
    tells_in_any_order_and_goes_on(cfg, tmp_path)
    defers_and_is_told_late(cfg)


@settings(max_examples=60)
@given(st.sampled_from(STEPS), st.data())
def test_they_bear_every_outcome(cfg: CustomConfig, data: st.DataObject) -> None:
    bears_every_outcome(cfg, data)


@pytest.mark.parametrize("cfg", STEPS, ids=lambda x: x.strategy.rpartition(":")[2])
def test_a_budget_that_feeds_no_group_asks_for_nothing_or_fits(cfg: CustomConfig) -> None:
    for budget in range(1, cfg.rollouts_per_step + 1):
        assert sum(q.n for q in fresh(cfg, prompt_set(12)).ask(budget)) <= budget


def test_an_epoch_of_the_pipeline_runs_one(tmp_path: Path) -> None:
    """In a process of its own, which has what it may run from the environment."""
    cfg = rival("Mopps", prompts_per_step=6, rollouts_per_step=36, target=0.4)
    job = make_job(tmp_path, {}, steps=2, curriculum=cfg.model_dump(mode="json"))
    run_job(job)
    saved, figures = outcome(job)
    assert (saved.step, figures["rollouts"]) == (2, 72)
    assert saved.curriculum["type"] == "benchmarks.curriculum.rivals.mopps:Mopps"
