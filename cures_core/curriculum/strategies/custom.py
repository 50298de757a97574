"""A strategy of the user's own, by dotted path."""

from __future__ import annotations

from cures_core.config.curriculum import CurriculumConfig, CustomConfig
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.errors import ConfigError
from cures_core.plugins import load_plugin


def load_strategy(cfg: CustomConfig) -> type[Strategy]:
    """The class that `cfg.strategy` names. Raises `ConfigError` naming what could not be imported, or what it is."""
    found = load_plugin(cfg.strategy, "curriculum.strategy")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(f"curriculum.strategy: {cfg.strategy} is no subclass of cures_core.curriculum.Strategy")
    return found


def check_strategy(cfg: CurriculumConfig) -> None:
    """Raise `ConfigError` where a strategy of the user's own cannot be loaded, or does not take its settings."""
    if isinstance(cfg, CustomConfig):
        load_strategy(cfg).read_options(cfg)
