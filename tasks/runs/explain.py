"""What a run's curriculum would do next, explained from its posterior."""

from __future__ import annotations

from typing import Any

import numpy as np

from cures_core.config.curriculum import CuresConfig
from cures_core.config.storage import StoreConfig
from cures_core.curriculum.explain import draw_probabilities, explain_prompt, hopeless
from cures_core.curriculum.posterior_file import load_posterior
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet
from tasks.runs.opening import resumed_config, stage_record
from tasks.runs.summary import posterior_record
from tasks.stages.stage import files_of
from tasks.storage import Store, open_store

_SHOWN = 3


def propose_flags(cfg: StoreConfig, run: str, epoch: int | None, least: float) -> list[dict[str, Any]]:
    """`hopeless` prompts of a run's posterior: what to look at, and perhaps to flag. Any strategy will do.

    Raises `ConfigError` for an unknown run or epoch.
    """
    store = open_store(cfg)
    _, record = posterior_record(store, run, epoch)
    posterior = load_posterior(files_of(store, record) / "posterior.parquet")
    return hopeless(_prompts(store, run), posterior, least)


def _prompts(store: Store, run: str) -> PromptSet:
    data = stage_record(store, run, "validate_dataset")
    if data is None:
        raise ConfigError(f"run {run} has no validated prompt set yet")
    return PromptSet.read_parquet(files_of(store, data) / "prompts.parquet")


def explain(cfg: StoreConfig, run: str, epoch: int | None, prompt: str | None) -> list[dict[str, Any]]:
    """`explain_prompt` of one prompt, or of the three most and the three least drawn ones.

    Raises `ConfigError` for an unknown run, epoch or prompt, and for strategies other than `cures`.
    """
    store = open_store(cfg)
    _, record = posterior_record(store, run, epoch)
    config = resumed_config(cfg, run)
    if not isinstance(config.curriculum, CuresConfig):
        raise ConfigError(f"run {run} has the strategy {config.curriculum.type}: only `cures` can be explained")
    prompts = _prompts(store, run)
    posterior = load_posterior(files_of(store, record) / "posterior.parquet")
    if prompt is not None:
        return [explain_prompt(config.curriculum, prompts, posterior, prompt)]
    order = np.argsort(-draw_probabilities(config.curriculum, prompts, posterior), kind="stable")
    rows = order if len(order) <= 2 * _SHOWN else np.concatenate([order[:_SHOWN], order[-_SHOWN:]])
    return [explain_prompt(config.curriculum, prompts, posterior, prompts.ids[i]) for i in rows.tolist()]
