"""Do the trackers of a configuration answer? Asked before a run does any work: their own clients try for minutes."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from cures_core.config.tracking import TrackingConfig
from cures_core.errors import ConfigError
from cures_core.extras import missing_extra
from cures_core.files import require_writable

_TIMEOUT_S = 10.0
_NAMED = "/api/2.0/mlflow/experiments/get-by-name"


def probe_trackers(cfg: TrackingConfig) -> str:
    """In words, which there are. Raises `ConfigError` for the first that would not take a run's figures, and
    `MissingExtra`."""
    if cfg.mlflow is not None:
        _mlflow(cfg.mlflow, cfg.mlflow_experiment)
    if cfg.tensorboard is not None:
        require_writable(Path(cfg.tensorboard), "tracking.tensorboard")
    if cfg.wandb is not None:
        _wandb()
    return ", ".join(name for name in ("mlflow", "tensorboard", "wandb") if getattr(cfg, name) is not None)


def _mlflow(uri: str, experiment: str) -> None:
    """Asks a server for the experiment, which need not be there yet; folders and databases are made by the client."""
    if not uri.startswith(("http://", "https://")):
        return
    headers, auth = {}, None
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    elif user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        auth = httpx.BasicAuth(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    verified = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
    try:
        answer = httpx.get(
            f"{uri.rstrip('/')}{_NAMED}",
            params={"experiment_name": experiment},
            headers=headers,
            auth=auth,
            timeout=_TIMEOUT_S,
            follow_redirects=True,
            verify=verified,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"tracking.mlflow: no server answers at {uri} ({error}). Start it, or leave the key away"
        ) from error
    if answer.status_code in (401, 403):
        raise ConfigError(
            f"tracking.mlflow: {uri} answers {answer.status_code}: set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to those of an account that may write there"
        )
    if answer.status_code >= 500 or not answer.headers.get("content-type", "").startswith("application/json"):
        raise ConfigError(
            f"tracking.mlflow: what answers at {uri} is no MLflow server that works (status {answer.status_code}). "
            "Name one, or leave the key away"
        )


def _wandb() -> None:
    """Whatever the server says: who may write is asked when the run is opened, which takes no work either."""
    try:
        import wandb
    except ImportError as error:
        raise missing_extra("wandb", "tracking.wandb", error, "leave the key away") from error
    settings = wandb.setup().settings  # of its environment and its files, which may name another server
    if settings.mode in ("offline", "disabled", "dryrun"):
        return
    try:
        httpx.get(settings.base_url, timeout=_TIMEOUT_S, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigError(
            f"tracking.wandb: {settings.base_url} does not answer ({error}). Set WANDB_MODE=offline, or leave the key "
            "away"
        ) from error
