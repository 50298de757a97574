"""Promotion outside of a run: the gate is asked about a finished run, or overruled with a reason."""

from __future__ import annotations

import logging
from contextlib import closing

from cures_core.config.evaluation import PromotionConfig
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, CorruptArtifact
from tasks.registry.history import pointer_key, read_pointer
from tasks.runs.figures import EpochFigures, EvaluateFigures, PolicyFigures, PromoteFigures
from tasks.runs.notes import noted_epochs, run_status, stage_record
from tasks.runs.opening import started_config
from tasks.runs.records import F, Record
from tasks.stages.promote import candidate_of, decide_and_move
from tasks.storage import Store
from tasks.storage.lease import Lease
from tasks.storage.values import set_aside

_log = logging.getLogger(__name__)


def promote_run(store: Store, name: str, model: str | None, who: str, why: str, *, override: bool) -> PromoteFigures:
    """Figures of the `promote` stage for the last checkpoint of run `name`.

    `model` names another pointer than the run's own. Holds the run's lease, so that nobody prunes it meanwhile.
    `override` also begins a history anew that cannot be read; the damaged one is set aside. Raises `ConfigError` where
    the run has no gate or no scores yet, and `LeaseHeld` while it goes on.
    """
    config = started_config(store, name)
    gate = _gate(config, name, model)
    is_over = run_status(store, name).status == "completed"  # then its notes are all there, or one is lost
    last = str(config.epochs if is_over else max(noted_epochs(store, name, EpochFigures), default=1))
    policy, state = _record(store, name, PolicyFigures, ""), _record(store, name, EpochFigures, last)
    before, after = _record(store, name, EvaluateFigures, "0"), _record(store, name, EvaluateFigures, last)
    candidate = {**candidate_of(name, state, policy, after), "who": who, "why": why}
    with closing(Lease(store, name, config.store.lease_ttl_s)) as lease:
        if override:
            _set_aside_damaged(store, gate.model)
        return decide_and_move(
            store, lease.commit, gate, config.evaluation, candidate, before, after, override=override
        )


def _set_aside_damaged(store: Store, model: str) -> None:
    try:
        read_pointer(store, model)
    except CorruptArtifact as error:
        key = pointer_key(model)
        _log.warning("%s Set aside as %s", error, set_aside(store, key, store.get(key) or b""))
        store.delete(key)


def _gate(config: RunConfig, name: str, model: str | None) -> PromotionConfig:
    if config.promotion is None:
        raise ConfigError(f"run {name} was configured without a gate; add [promotion] with model and suites, then run")
    if model is None:
        return config.promotion
    return PromotionConfig.model_validate({**config.promotion.model_dump(), "model": model})


def _record(store: Store, name: str, kind: type[F], label: str) -> Record[F]:
    found = stage_record(store, name, kind, label)
    if found is None:
        missing = f"{kind.stage} {label}".rstrip()
        raise ConfigError(f"run {name} has no {missing}; finish it: cures run --resume {name}")
    return found
