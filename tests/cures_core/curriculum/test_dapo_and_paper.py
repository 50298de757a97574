"""The strategies that the field compares with, as published."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cures_core.config.curriculum import CurriculumConfig, DapoConfig, PaperConfig
from cures_core.curriculum import Strategy, make_curriculum
from cures_core.prompts import PromptSet
from cures_core.testing.curriculum import CurriculumExam, prompt_set, step
from tests.cures_core.curriculum.test_strategies import asked_in, fresh

SMALL: dict[str, Any] = {"prompts_per_step": 4, "rollouts_per_step": 32}
BIG: dict[str, Any] = {"prompts_per_step": 16, "rollouts_per_step": 128}


class TestDapo(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(DapoConfig(**SMALL, group_size=4), prompts, seed)


class TestPaper(CurriculumExam):
    def make(self, prompts: PromptSet, seed: int) -> Strategy:
        return fresh(PaperConfig(**SMALL, subsets=2, steps_per_subset=2), prompts, seed)


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (DapoConfig(**BIG), {"group_size": 4}),
        (PaperConfig(**BIG, subsets=5), {"subsets": 3}),
        (PaperConfig(**BIG, subsets=5), {"probe": 2}),
        (PaperConfig(**BIG, subsets=10, steps_per_subset=9), {"steps_per_subset": 2}),
        (PaperConfig(**BIG, subsets=5), {"temperature": 0.01}),
        (PaperConfig(**BIG, subsets=10), {"max_rollouts": 8}),
    ],
    ids=lambda x: str(x)[:30] if isinstance(x, dict) else x.type,
)
def test_every_option_changes_what_is_asked(base: CurriculumConfig, change: dict[str, Any]) -> None:
    assert asked_in(base) != asked_in(base.model_copy(update=change))


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


def test_paper_forgets_predictions_too_and_a_resumed_run_knows_it() -> None:
    prompts, rng = prompt_set(8), np.random.default_rng(0)

    def predicted() -> Strategy:
        curriculum = fresh(PaperConfig(**SMALL, subsets=1, steps_per_subset=1), prompts)
        curriculum.posterior.set_prior(np.full(8, 0.9), 34.0)
        return make_curriculum(curriculum.cfg, prompts, curriculum.posterior, seed=0)

    curriculum = predicted()
    first = curriculum.state_dict()
    assert [step(curriculum, 0.5, rng)[1].reason for _ in range(2)] == ["probing subset 1: 8 prompts", "complete"]
    curriculum.ask(32)
    np.testing.assert_array_equal(curriculum.posterior.parameters(), np.ones((2, 8)))
    curriculum.defer()
    resumed = predicted()
    resumed.load_state_dict(curriculum.state_dict())
    np.testing.assert_array_equal(resumed.posterior.parameters(), np.ones((2, 8)))
    resumed.load_state_dict(first)
    np.testing.assert_array_equal(resumed.posterior.parameters(), predicted().posterior.parameters())
