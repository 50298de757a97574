"""Does anything answer where the trackers of a configuration are? Asked before a run does any work: their own clients
try for minutes. Logins and certificates are theirs to check, which they do at once, when a run is opened."""

from __future__ import annotations

from pathlib import Path

import httpx

from cures_core.config.tracking import TrackingConfig
from cures_core.errors import ConfigError
from cures_core.extras import missing_extra
from cures_core.files import require_writable

_TIMEOUT_S = 10.0


def probe_trackers(cfg: TrackingConfig) -> str:
    """In words, which there are. Raises `ConfigError` for the first that is out of reach, and `MissingExtra`."""
    if cfg.mlflow is not None and cfg.mlflow.startswith(("http://", "https://")):
        _require_answer("tracking.mlflow", cfg.mlflow, "Start it, or leave the key away")
    if cfg.tensorboard is not None:
        require_writable(Path(cfg.tensorboard), "tracking.tensorboard")
    if cfg.wandb is not None:
        _wandb()
    return ", ".join(name for name in ("mlflow", "tensorboard", "wandb") if getattr(cfg, name) is not None)


def _wandb() -> None:
    try:
        import wandb
    except ImportError as error:
        raise missing_extra("wandb", "tracking.wandb", error, "leave the key away") from error
    settings = wandb.setup().settings  # of its environment and its files, which may name another server
    if settings.mode not in ("offline", "disabled", "dryrun"):
        _require_answer("tracking.wandb", settings.base_url, "Set WANDB_MODE=offline, or leave the key away")


def _require_answer(key: str, url: str, remedy: str) -> None:
    """Whatever it answers. Nothing is told to it, so whose certificate it has does not matter here: the clients have
    settings of their own for that."""
    try:
        httpx.get(url, timeout=_TIMEOUT_S, verify=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(f"{key}: {url} does not answer ({error}). {remedy}") from error
