"""The worlds of the curriculum benchmark, by name. Loaded late: what one needs, the others need not have."""

from __future__ import annotations

from importlib import import_module

from benchmarks.curriculum.worlds.world import World
from cures_core.errors import ConfigError

_MODULES = {"digits": "digits", "scratchpad": "scratchpad", "smollm2": "arithmetic", "smollm2-worked": "worked"}
WORLDS = tuple(_MODULES)


def world_of(name: str) -> World:
    """Raises `ConfigError` for an unknown name."""
    if name not in _MODULES:
        raise ConfigError(f"world {name!r}: use one of {', '.join(WORLDS)}")
    found: World = import_module(f"{__name__}.{_MODULES[name]}").WORLD
    return found
