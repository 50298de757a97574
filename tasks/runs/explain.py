"""What a run's curriculum would do next, explained from its posterior."""

from __future__ import annotations

import numpy as np

from cures_core.config.curriculum import CuresConfig, CurriculumConfig
from cures_core.config.storage import StoreConfig
from cures_core.curriculum import Posterior, load_posterior
from cures_core.curriculum.explain import Explanation, HopelessPrompt, draw_probabilities, explain_prompt, hopeless
from cures_core.errors import ConfigError
from cures_core.prompts import PromptSet
from tasks.runs.figures import ValidateFigures
from tasks.runs.notes import stage_record
from tasks.runs.opening import usable_config
from tasks.runs.records import files_of
from tasks.runs.summary import posterior_record
from tasks.snapshots.published import load_published, published_numbers
from tasks.storage import Store, open_store

_SHOWN = 3


def propose_flags(cfg: StoreConfig, run: str, epoch: int | None, least: float) -> list[HopelessPrompt]:
    """`hopeless` prompts of a run's posterior: what to look at, and perhaps to flag. Any strategy will do.

    Raises `ConfigError` for an unknown run or epoch.
    """
    return hopeless(*_believed(open_store(cfg), run, epoch), least)


def _believed(store: Store, run: str, epoch: int | None) -> tuple[PromptSet, Posterior]:
    """Prompts and posterior of a run, or of what was published under a name."""
    if published_numbers(store, run):
        _, prompts, posterior = load_published(store, run, epoch)
        return prompts, posterior
    _, record = posterior_record(store, run, epoch)
    return _prompts(store, run), load_posterior(files_of(store, record) / "posterior.parquet")


def _prompts(store: Store, run: str) -> PromptSet:
    data = stage_record(store, run, ValidateFigures)
    if data is None:
        raise ConfigError(f"run {run} has no validated prompt set yet")
    return PromptSet.read_parquet(files_of(store, data) / "prompts.parquet")


def explain(cfg: StoreConfig, run: str, epoch: int | None, prompt: str | None) -> list[Explanation]:
    """`explain_prompt` of one prompt, or of the three most and the three least drawn ones.

    What was published under a name is explained with the defaults of `cures`. Raises `ConfigError` for an unknown run,
    epoch or prompt, for strategies other than `cures`, and for settings that this version does not have.
    """
    store = open_store(cfg)
    prompts, posterior = _believed(store, run, epoch)
    if published_numbers(store, run):
        curriculum: CurriculumConfig = CuresConfig(prompts_per_step=32, rollouts_per_step=256, posterior=posterior.cfg)
    else:
        curriculum = usable_config(store, run).curriculum
    if not isinstance(curriculum, CuresConfig):
        raise ConfigError(f"run {run} has the strategy {curriculum.type}: only `cures` can be explained")
    if prompt is not None:
        return [explain_prompt(curriculum, prompts, posterior, prompt)]
    order = np.argsort(-draw_probabilities(curriculum, prompts, posterior), kind="stable")
    rows = order if len(order) <= 2 * _SHOWN else np.concatenate([order[:_SHOWN], order[-_SHOWN:]])
    return [explain_prompt(curriculum, prompts, posterior, prompts.ids[i]) for i in rows.tolist()]
