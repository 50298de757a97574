"""Trainers that roll out every prompt equally often, in one go, can follow some strategies and not others."""

from __future__ import annotations

from cures_core.curriculum import CuresConfig, CurriculumConfig, EqualAllocation
from cures_core.errors import ConfigError

_FIT = ("cures", "uniform", "custom")


def group_size(config: CurriculumConfig) -> int:
    """Rollouts of every prompt. Raises `ConfigError` for a strategy that asks twice in a step or for unequal groups."""
    if config.type not in _FIT:
        raise ConfigError(
            f"curriculum.type: this trainer rolls out equal groups in one go, which {config.type} does not ask for; "
            f"take one of {', '.join(_FIT)}"
        )
    if isinstance(config, CuresConfig) and not isinstance(config.allocation, EqualAllocation):
        raise ConfigError(
            f"curriculum.allocation: this trainer rolls out equal groups, not those of {config.allocation.type!r}; "
            "leave it at 'equal'"
        )
    size, rest = divmod(config.rollouts_per_step, config.prompts_per_step)
    if rest:
        raise ConfigError(
            f"curriculum: {config.rollouts_per_step} rollouts do not make {config.prompts_per_step} equal groups; set "
            f"rollouts_per_step to a multiple of prompts_per_step"
        )
    return size
