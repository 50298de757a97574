"""Which prompts, how many rollouts each, and what is known of every prompt. numpy and scipy only."""

from __future__ import annotations

from cures_core.config.curriculum import CuresConfig, CurriculumConfig
from cures_core.curriculum.base import Batch, Curriculum
from cures_core.curriculum.migration import migrate
from cures_core.curriculum.posterior import Posterior
from cures_core.curriculum.posterior_file import load_posterior, save_posterior
from cures_core.curriculum.strategies.base import Strategy
from cures_core.curriculum.strategies.cures import CuresCurriculum
from cures_core.curriculum.strategies.uniform import UniformCurriculum
from cures_core.prompts import PromptSet


def make_curriculum(cfg: CurriculumConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> Strategy:
    """The strategy that the configuration names, going on from a posterior (it is changed in place)."""
    if isinstance(cfg, CuresConfig):
        return CuresCurriculum(cfg, prompts, posterior, seed)
    return UniformCurriculum(cfg, prompts, posterior, seed)


__all__ = [
    "Batch",
    "Curriculum",
    "Posterior",
    "Strategy",
    "load_posterior",
    "make_curriculum",
    "migrate",
    "save_posterior",
]
