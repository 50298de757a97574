"""Promotion outside of a run: the gate is asked about a finished run, or overruled with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cures_core.config.evaluation import PromotionConfig
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from tasks.runs.opening import stage_notes, stage_record, started_config
from tasks.runs.records import Record
from tasks.stages.promote import decide_and_move
from tasks.storage import Store


def promote_run(store: Store, name: str, model: str | None, who: str, why: str, *, override: bool) -> Mapping[str, Any]:
    """Figures of the `promote` stage for the last checkpoint of run `name`.

    `model` names another pointer than the run's own. Raises `ConfigError` where the run has no gate or no scores yet.
    """
    config = started_config(store, name)
    gate = _gate(config, name, model)
    policy, before = _record(store, name, "prepare_policy", ""), _record(store, name, "evaluate_checkpoint", "0")
    epochs = [int(note["label"]) for note in stage_notes(store, name) if note["stage"] == "train_epoch"]
    last = str(max(epochs, default=1))
    state, after = _record(store, name, "train_epoch", last), _record(store, name, "evaluate_checkpoint", last)
    candidate = {"run": name, "state": state.id, "policy": policy.id, "evaluation": after.id, "who": who, "why": why}
    return decide_and_move(store, gate, config.evaluation, candidate, before, after, override=override)


def _gate(config: RunConfig, name: str, model: str | None) -> PromotionConfig:
    if config.promotion is None:
        raise ConfigError(f"run {name} was configured without a gate; add [promotion] with model and suites, then run")
    if model is None:
        return config.promotion
    return PromotionConfig.model_validate({**config.promotion.model_dump(), "model": model})


def _record(store: Store, name: str, stage: str, label: str) -> Record:
    found = stage_record(store, name, stage, label)
    if found is None:
        raise ConfigError(f"run {name} has no {stage} {label}".rstrip() + f"; finish it: cures run --resume {name}")
    return found
