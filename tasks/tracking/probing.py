"""Do the trackers of a configuration answer? Logins and certificates are theirs to check, which they do at once, when a
run is opened."""

from __future__ import annotations

from cures_core.config.tracking import TrackingConfig
from tasks.tracking.tracker import tracker_module


def probe_trackers(cfg: TrackingConfig) -> str:
    """In words, which there are. Raises `ConfigError` for the first that is out of reach, and `MissingExtra`."""
    for name in cfg.chosen:
        tracker_module(name).probe(cfg)
    return ", ".join(cfg.chosen)
