"""A strategy of the user's own, by dotted path."""

from __future__ import annotations

import importlib

from cures_core.config.curriculum import CustomConfig
from cures_core.curriculum.strategies.strategy import Strategy
from cures_core.errors import ConfigError


def load_strategy(cfg: CustomConfig) -> type[Strategy]:
    """The class that `cfg.strategy` names. Raises `ConfigError` naming what could not be imported, or what it is."""
    module, _, name = cfg.strategy.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"curriculum.strategy: {cfg.strategy} cannot be imported ({error}). Put its module on PYTHONPATH"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise ConfigError(f"curriculum.strategy: {cfg.strategy} is no subclass of cures_core.curriculum.Strategy")
    return found
