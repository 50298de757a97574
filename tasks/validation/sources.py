"""Knows whether the sources that a configuration names are sources of the prompts."""

from __future__ import annotations

from collections.abc import Collection

from cures_core.config.rewards import BySourceConfig
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError

_SHOWN = 12


def require_sources(cfg: RunConfig, sources: Collection[str]) -> None:
    """Raise `ConfigError` where a verifier or a quota is for a source that no prompt of the set has: a name written
    wrongly would leave its prompts to the default."""
    named = (
        [("reward.by_source", name) for name in cfg.reward.sources] if isinstance(cfg.reward, BySourceConfig) else []
    )
    named += [("curriculum.quotas", quota.source) for quota in cfg.curriculum.quotas]
    known = sorted(set(sources))
    for setting, name in named:
        if name not in known:
            shown = ", ".join(map(repr, known[:_SHOWN])) + (" ..." if len(known) > _SHOWN else "")
            raise ConfigError(
                f"{setting} names the source {name!r}, which no prompt of {cfg.data.path} has; there are {shown}. "
                "Correct the name, or take the entry out"
            )
