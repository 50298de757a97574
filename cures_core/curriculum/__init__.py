"""Which prompts, how many rollouts each, and what is known of every prompt. numpy, scipy and pyarrow only.

What is listed here is public and stable (docs/library.md); the modules below are not.
"""

from __future__ import annotations

from cures_core.config.curriculum import (
    ArcConfig,
    CuresConfig,
    CurriculumConfig,
    CustomConfig,
    DapoConfig,
    EqualAllocation,
    EssWeighting,
    GvmConfig,
    MoppsConfig,
    NeymanAllocation,
    PosteriorConfig,
    ProportionalWeighting,
    ScreenAllocation,
    SoftmaxWeighting,
    SpeedConfig,
    UniformConfig,
)
from cures_core.curriculum.ask_tell import Batch
from cures_core.curriculum.library import Ask, Curriculum, Step
from cures_core.curriculum.migration import migrate
from cures_core.curriculum.posterior import Posterior
from cures_core.curriculum.posterior_file import load_posterior, save_posterior
from cures_core.curriculum.registry import make_curriculum
from cures_core.curriculum.strategies.strategy import Strategy

__all__ = [
    "ArcConfig",
    "Ask",
    "Batch",
    "CuresConfig",
    "Curriculum",
    "CurriculumConfig",
    "CustomConfig",
    "DapoConfig",
    "EqualAllocation",
    "EssWeighting",
    "GvmConfig",
    "MoppsConfig",
    "NeymanAllocation",
    "Posterior",
    "PosteriorConfig",
    "ProportionalWeighting",
    "ScreenAllocation",
    "SoftmaxWeighting",
    "SpeedConfig",
    "Step",
    "Strategy",
    "UniformConfig",
    "load_posterior",
    "make_curriculum",
    "migrate",
    "save_posterior",
]
