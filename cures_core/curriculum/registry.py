"""Which strategy a configuration names."""

from __future__ import annotations

from collections.abc import Callable

from cures_core.config.curriculum import (
    CuresConfig,
    CurriculumConfig,
    CustomConfig,
    DapoConfig,
    PaperConfig,
    StrategyConfig,
    UniformConfig,
)
from cures_core.curriculum.posterior import Posterior
from cures_core.curriculum.strategies.cures import CuresCurriculum
from cures_core.curriculum.strategies.custom import load_strategy
from cures_core.curriculum.strategies.dapo import DapoCurriculum
from cures_core.curriculum.strategies.paper import PaperCurriculum
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.curriculum.strategies.uniform import UniformCurriculum
from cures_core.prompts import PromptSet

_STRATEGIES: dict[type[StrategyConfig], Callable[..., Strategy]] = {
    CuresConfig: CuresCurriculum,
    UniformConfig: UniformCurriculum,
    DapoConfig: DapoCurriculum,
    PaperConfig: PaperCurriculum,
}


def make_curriculum(cfg: CurriculumConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> Strategy:
    """The strategy that the configuration names, going on from a posterior (it is changed in place)."""
    strategy = load_strategy(cfg) if isinstance(cfg, CustomConfig) else _STRATEGIES[type(cfg)]
    return strategy(cfg, prompts, posterior, seed)
