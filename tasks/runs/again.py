"""Stages that a person has asked to do again: they get keys of their own, so what was there stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

from cures_core.config.base import Strict
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from tasks.storage import Store
from tasks.storage.lease import Lease
from tasks.storage.values import aside_command, decode_value, encode_value


class Again(Strict):
    """`runs/<run>/again.json`."""

    times: dict[str, int]
    """How often each stage, as in `train_epoch-2`, is to be done again; stages that are done once are not named."""


def stages_in_order(config: RunConfig) -> list[str]:
    """All stages of a run, in the order of the flow."""
    names = ["validate_dataset", "prepare_policy", "estimate_prior", "evaluate_checkpoint-0", "snapshot_posterior-0"]
    for k in range(1, config.epochs + 1):
        names += [f"train_epoch-{k}", f"snapshot_posterior-{k}"]
        names += [f"evaluate_checkpoint-{k}"] if config.evaluation.due(k, config.epochs) else []
    return [*names, *(["promote"] if config.promotion is not None else []), "report"]


def times_again(store: Store, run: str) -> Mapping[str, int]:
    """How often each stage of a run is to be done again. Raises `CorruptArtifact`."""
    place = again_place(run)
    data = store.get(place)
    remedy = f"To ask anew: {aside_command(place)}, then cures run --resume {run} --from STAGE"
    return {} if data is None else decode_value(Again, data, place, remedy).times


def ask_again(store: Store, run: str, config: RunConfig, first: str) -> list[str]:
    """From now on stage `first` of the run and those after it are done once more; returns their names.

    `first` is a stage as `cures runs show` prints it, as in "train_epoch 2"; without a number the first of its kind.
    Raises `ConfigError` for another name, `LeaseHeld` while the run goes on.
    """
    names = stages_in_order(config)
    wanted = "-".join(first.split())
    starts = [i for i, name in enumerate(names) if name == wanted or name.rpartition("-")[0] == wanted]
    if not starts:
        raise ConfigError(f"--from {first}: no stage of run {run}; its stages: {', '.join(names).replace('-', ' ')}")
    redone = names[starts[0] :]
    with closing(Lease(store, run, config.store.lease_ttl_s)) as lease:
        before = times_again(store, run)
        times = {**before, **{name: before.get(name, 0) + 1 for name in redone}}
        lease.commit(again_place(run), encode_value(Again(times=times)), store.get(again_place(run)))
    return redone


def again_place(run: str) -> str:
    """Where the store keeps what was asked to be done again."""
    return f"runs/{run}/again.json"
