"""A strategy of the user's own, by dotted path."""

from __future__ import annotations

from cures_core.config.curriculum import CustomConfig
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.errors import ConfigError
from cures_core.plugins import load_plugin


def load_strategy(cfg: CustomConfig) -> type[Strategy]:
    """The class that `cfg.strategy` names. Raises `ConfigError` naming what could not be imported, or what it is."""
    found = load_plugin(cfg.strategy, "curriculum.strategy")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(f"curriculum.strategy: {cfg.strategy} is no subclass of cures_core.curriculum.Strategy")
    return found
