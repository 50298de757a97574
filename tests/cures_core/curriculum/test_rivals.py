from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

from cures_core.config.curriculum import (
    ArcConfig,
    CuresConfig,
    CurriculumConfig,
    CustomConfig,
    DapoConfig,
    GvmConfig,
    MoppsConfig,
    OfficialConfig,
    PaperConfig,
    SpeedConfig,
)
from cures_core.config.training import TorchTrainerConfig
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet
from cures_core.terms import Outcome, Request
from cures_core.testing.curriculum import CurriculumExam, answered, prompt_set, step
from cures_core.training.advantages import batch_samples
from tests.cures_core.curriculum.test_strategies import fresh, play, wasteful_pool

SMALL: dict[str, Any] = {"prompts_per_step": 4, "rollouts_per_step": 32}
BIG: dict[str, Any] = {"prompts_per_step": 16, "rollouts_per_step": 128}
EXAMPLE = "tests.cures_core.curriculum.example_strategy:LongestAgo"


class TestDapo(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(DapoConfig(**SMALL, group_size=4), prompts, seed)


class TestSpeed(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(SpeedConfig(**SMALL, screen=2), prompts, seed)


class TestGvm(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(GvmConfig(**SMALL), prompts, seed)


class TestMopps(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(MoppsConfig(**SMALL, candidates=3), prompts, seed)


class TestArc(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(ArcConfig(**SMALL), prompts, seed)


class TestPaper(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(PaperConfig(**SMALL, subsets=2, steps_per_subset=2), prompts, seed)


class TestOfficial(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(OfficialConfig(**SMALL), prompts, seed)


class TestCustom(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(CustomConfig(**SMALL, strategy=EXAMPLE), prompts, seed)


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (DapoConfig(**BIG), {"group_size": 4}),
        (SpeedConfig(**BIG), {"screen": 2}),
        (SpeedConfig(**BIG), {"screen_share": 0.8}),
        (GvmConfig(**BIG), {"alpha": 1.0}),
        (GvmConfig(**BIG), {"beta": 1.0}),
        (GvmConfig(**BIG), {"min_rollouts": 6}),
        (GvmConfig(**BIG), {"max_rollouts": 9}),
        (MoppsConfig(**BIG), {"target": 0.9}),
        (MoppsConfig(**BIG), {"candidates": 2}),
        (ArcConfig(**BIG), {"drift": 0.3}),
        (ArcConfig(**BIG), {"width": 0.05}),
        (ArcConfig(**BIG), {"tolerance": 0.8}),
        (PaperConfig(**BIG, subsets=5), {"subsets": 3}),
        (PaperConfig(**BIG, subsets=5), {"probe": 2}),
        (PaperConfig(**BIG, subsets=10, steps_per_subset=9), {"steps_per_subset": 2}),
        (PaperConfig(**BIG, subsets=5), {"temperature": 0.01}),
        (PaperConfig(**BIG, subsets=10), {"max_rollouts": 8}),
    ],
    ids=lambda x: str(x)[:30] if isinstance(x, dict) else x.type,
)
def test_every_option_changes_what_is_asked(base: CurriculumConfig, change: dict[str, Any]) -> None:
    pool, rate = wasteful_pool()

    def asked(cfg: CurriculumConfig) -> list[Any]:
        batches, drawn = play(cfg, pool, rate, 12)
        return [drawn, [[(g.request.prompt.id, g.request.n) for g in b.groups] for b in batches]]

    assert asked(base) != asked(base.model_copy(update=change))


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
    official = OfficialConfig(**shape, subsets=1, processes=1, repeats=1)
    for change in ({"entropy": 5.0}, {"processes": 6}, {"repeats": 3}):
        assert asked(official) != asked(official.model_copy(update=change))
    custom = CustomConfig(**shape, strategy=EXAMPLE)
    assert asked(custom) != asked(custom.model_copy(update={"options": {"luck": 9.0}}))


def test_speed_stops_at_the_largest_group() -> None:
    pool, rate = wasteful_pool()
    for size in (6, 16):
        batches, _ = play(SpeedConfig(**BIG, screen=4, group_size=size), pool, rate, 10)
        assert max(g.request.n for b in batches for g in b.groups) <= size


def test_screened_and_continued_rollouts_are_one_group() -> None:
    pool, rate = wasteful_pool()
    batches, _ = play(SpeedConfig(**BIG, screen=4), pool, rate, 10)
    groups = [g for b in batches for g in b.groups]
    assert groups
    for group in groups:
        assert len(group.rollouts) == len(group.verdicts) == group.request.n > 4
        assert group.informative


def test_dapo_pays_for_what_it_discards_and_gives_up_when_the_budget_is_spent() -> None:
    curriculum, rng = fresh(DapoConfig(**SMALL, group_size=4), prompt_set(40)), np.random.default_rng(0)
    asked, batch = step(curriculum, 1.0, rng)
    assert sum(q.n for q in asked) == 32
    assert batch.groups == []
    assert batch.reason == "budget spent: 0 of 4 informative groups"
    assert len({q.prompt.id for q in asked}) == len(asked)
    asked, batch = step(curriculum, 0.5, rng)
    assert batch.reason == "complete"
    assert len(batch.groups) == 4


def test_gvm_gives_more_to_harder_prompts() -> None:
    pool, rate = wasteful_pool()
    batches, _ = play(GvmConfig(**BIG), pool, rate, 40)
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for batch in batches[20:]:
        for group in batch.groups:
            sizes[rate[group.request.prompt.id] > 0.9].append(group.request.n)
    assert np.mean(sizes[False]) > 1.25 * np.mean(sizes[True])


def test_paper_probes_trains_forgets_and_goes_on() -> None:
    prompts = prompt_set(40)
    curriculum, rng = fresh(PaperConfig(**SMALL, subsets=2, steps_per_subset=2), prompts), np.random.default_rng(0)
    reasons = [step(curriculum, 0.5, rng)[1].reason for _ in range(5)]
    assert reasons[:3] == [f"probing subset 1: {n} prompts" for n in (8, 16, 20)]
    assert reasons[3:] == ["complete", "complete"]
    assert curriculum.posterior.evidence().sum() > 20 * 4
    asked, batch = step(curriculum, 0.5, rng)
    assert batch.reason == "probing subset 2: 8 prompts"
    assert curriculum.posterior.evidence().sum() == 32
    assert len(asked) == 8


class TestFaultsOfThePublishedCode:
    """Each shows the fault in `cures-official`, where that has it, and its absence in `cures`.

    Those outside the curriculum: lost optimizer state (`test_resumed_training_equals_uninterrupted_training`), and
    half-written results taken for whole ones (`tests/cures_core/checkpoints/test_checkpoint.py`).
    """

    def test_fault_sampling_is_uniform_in_effect(self) -> None:
        prompts = prompt_set(200)
        posterior = Posterior.fresh(prompts, OfficialConfig(**SMALL).posterior)
        posterior.update(prompts.ids, np.arange(200) % 5, 4 - np.arange(200) % 5, 0)
        official = make_curriculum(OfficialConfig(**SMALL), prompts, posterior, 0)
        official.ask(32)
        ratio = official._figures["weight_ratio"]
        assert ratio < 1.01
        cures = fresh(PaperConfig(**SMALL, subsets=1), prompts)
        cures.posterior.load_state_dict(posterior.state_dict())
        cures._probed = 200  # type: ignore[attr-defined]
        cures.ask(32)
        assert cures._figures["weight_ratio"] > 3

    def test_fault_the_budget_is_missed(self) -> None:
        pool, rate = wasteful_pool()
        official, _ = play(OfficialConfig(**BIG, subsets=1, processes=1, repeats=1), pool, rate, 24)
        trained = [b.figures["step_rollouts"] for b in official if not b.reason.startswith("probing")]
        assert len(trained) > 4
        assert max(trained) < 64
        for cfg in (GvmConfig(**BIG), MoppsConfig(**BIG)):
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
        official = OfficialConfig(**shape)
        assert second_ask(official, Outcome.CORRECT) == second_ask(official, Outcome.WRONG)
        cures = CuresConfig(**shape)
        assert second_ask(cures, Outcome.CORRECT) != second_ask(cures, Outcome.WRONG)

    def test_fault_the_temperature_does_nothing(self) -> None:
        prompts = prompt_set(200)
        posterior = Posterior.fresh(prompts, OfficialConfig(**SMALL).posterior)
        posterior.update(prompts.ids, np.arange(200) % 5, 4 - np.arange(200) % 5, 0)

        def ratio(cfg: CurriculumConfig) -> float:
            curriculum = make_curriculum(cfg, prompts, posterior, 0)
            curriculum.ask(32)
            return curriculum._figures["weight_ratio"]

        probed: dict[str, Any] = {**SMALL, "subsets": 1}
        # Ten times the divisor, and the weights still differ by next to nothing.
        assert ratio(OfficialConfig(**probed, entropy=0.1)) < 1.1
        sharp, soft = (ratio(PaperConfig(**probed, temperature=t)) for t in (0.05, 0.5))
        assert sharp > 5 * soft

    def test_fault_all_right_and_all_wrong_are_given_up(self) -> None:
        prompts = prompt_set(200)
        posterior = Posterior.fresh(prompts, OfficialConfig(**SMALL).posterior)
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
        official = OfficialConfig(**shape, subsets=1, steps_per_subset=100, processes=1, repeats=1)
        assert not rolled_out(official) & settled
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
    ("path", "message"),
    [("no.such.module:X", "cannot be imported"), ("json:nothing", "cannot be imported"), ("json:loads", "no subclass")],
)
def test_a_bad_dotted_path_is_named(path: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURES_PLUGINS", path)
    with pytest.raises(ConfigError, match=rf"^curriculum\.strategy: {path} .*{message}"):
        fresh(CustomConfig(**SMALL, strategy=path), prompt_set(8))
