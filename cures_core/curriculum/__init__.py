"""Which prompts, how many rollouts each, and what is known of every prompt. numpy, scipy and pyarrow only.

What is listed here is public and stable (docs/library.md); the modules below are not.
"""

from __future__ import annotations

from cures_core.config.curriculum import (
    CuresConfig,
    CurriculumConfig,
    CustomConfig,
    DapoConfig,
    EqualAllocation,
    NeymanAllocation,
    PaperConfig,
    PosteriorConfig,
    ProportionalWeighting,
    ScreenAllocation,
    SingleAllocation,
    SoftmaxWeighting,
    UniformConfig,
)
from cures_core.curriculum.allocation import allocate, allocate_equally
from cures_core.curriculum.ask_tell import Batch
from cures_core.curriculum.library import Ask, Curriculum, Step
from cures_core.curriculum.migration import migrate
from cures_core.curriculum.posterior import Posterior
from cures_core.curriculum.posterior_file import load_posterior, save_posterior
from cures_core.curriculum.registry import make_curriculum
from cures_core.curriculum.sampling import draw, effective_sample_size, weight_ratio
from cures_core.curriculum.strategies.strategy import Strategy, StrategyOptions

__all__ = [
    "Ask",
    "Batch",
    "CuresConfig",
    "Curriculum",
    "CurriculumConfig",
    "CustomConfig",
    "DapoConfig",
    "EqualAllocation",
    "NeymanAllocation",
    "PaperConfig",
    "Posterior",
    "PosteriorConfig",
    "ProportionalWeighting",
    "ScreenAllocation",
    "SingleAllocation",
    "SoftmaxWeighting",
    "Step",
    "Strategy",
    "StrategyOptions",
    "UniformConfig",
    "allocate",
    "allocate_equally",
    "draw",
    "effective_sample_size",
    "load_posterior",
    "make_curriculum",
    "migrate",
    "save_posterior",
    "weight_ratio",
]
