"""Which strategy a configuration names."""

from __future__ import annotations

from typing import Any

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
    StrategyConfig,
    UniformConfig,
)
from cures_core.curriculum.posterior import Posterior
from cures_core.curriculum.strategies.arc import ArcCurriculum
from cures_core.curriculum.strategies.cures import CuresCurriculum
from cures_core.curriculum.strategies.custom import load_strategy
from cures_core.curriculum.strategies.dapo import DapoCurriculum
from cures_core.curriculum.strategies.gvm import GvmCurriculum
from cures_core.curriculum.strategies.mopps import MoppsCurriculum
from cures_core.curriculum.strategies.official import OfficialCurriculum
from cures_core.curriculum.strategies.paper import PaperCurriculum
from cures_core.curriculum.strategies.speed import SpeedCurriculum
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.curriculum.strategies.uniform import UniformCurriculum
from cures_core.prompts import PromptSet

_STRATEGIES: dict[type[StrategyConfig], Any] = {
    CuresConfig: CuresCurriculum,
    UniformConfig: UniformCurriculum,
    DapoConfig: DapoCurriculum,
    SpeedConfig: SpeedCurriculum,
    GvmConfig: GvmCurriculum,
    MoppsConfig: MoppsCurriculum,
    ArcConfig: ArcCurriculum,
    PaperConfig: PaperCurriculum,
    OfficialConfig: OfficialCurriculum,
}


def make_curriculum(cfg: CurriculumConfig, prompts: PromptSet, posterior: Posterior, seed: int) -> Strategy:
    """The strategy that the configuration names, going on from a posterior (it is changed in place)."""
    strategy: Any = load_strategy(cfg) if isinstance(cfg, CustomConfig) else _STRATEGIES[type(cfg)]
    return strategy(cfg, prompts, posterior, seed)  # type: ignore[no-any-return]
