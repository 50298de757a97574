"""A run that goes on from another one with other settings: what it takes over, and where it begins.

The fork stands on the committed records of the other run up to its last epoch. Within the epoch that was broken off it
goes on from the newest checkpoint that is healthy: written after a step with a finite loss, whole, and with finite
weights. When the fork is started that checkpoint is copied into the store under its digest
(`tasks.stages.unfinished.keep_beginning`), so that the fork can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cures_core.checkpoints.checkpoint import load_checkpoint
from cures_core.config.fork import Fork
from cures_core.config.marks import Change, is_within
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, CorruptArtifact
from cures_core.files import digest_file
from cures_core.manifest import MANIFEST
from cures_core.prompts import PromptSet
from tasks.runs.again import times_again
from tasks.runs.figures import EpochFigures, Figures, PolicyFigures, PriorFigures, StateFigures, ValidateFigures
from tasks.runs.notes import stage_notes, stage_record
from tasks.runs.records import Record, RunRef, committed_any, files_of, has_figures
from tasks.stages.keys import READS
from tasks.stages.train_epoch import epoch_key
from tasks.stages.unfinished import checkpoints_of, spoilt_from
from tasks.storage import Store
from tasks.storage.lease import Lease
from tasks.validation.tokens import misfits, rooms
from tasks.validation.validator import DATA

_TAKEN = (ValidateFigures.stage, PolicyFigures.stage, PriorFigures.stage, EpochFigures.stage)


def fork(store: Store, name: str, before: RunConfig, after: RunConfig, changed: Sequence[Change]) -> RunConfig:
    """`after` as a fork of run `name`, whose configuration is `before`.

    Raises `ConfigError` where nothing is left to train under the changed settings, and `LeaseHeld` while the run goes
    on.
    """
    lease = Lease(store, name, before.store.lease_ttl_s)
    try:
        records = _records(store, name)
        if not records:
            return after  # nothing was done that could be taken over
        begun = _begun(store, name, before, records, after.epochs)
    finally:
        lease.close()
    data = records.get(ValidateFigures.stage)
    if data is not None and has_figures(data, ValidateFigures):
        _require_room(store, name, data, before, after)
    keys = [change.path for change in changed if is_within(change.path, READS["train_epoch"])]
    if keys and after.epochs <= begun.epoch:
        raise ConfigError(
            f"run {name} has trained its {begun.epoch} epochs, so {', '.join(keys)} would change nothing: add --set "
            f"epochs=N with N above {begun.epoch}, or start a new run with --config"
        )
    faults = () if after.faults == before.faults else after.faults  # the other run's drills are over
    return after.model_copy(update={"fork": begun, "faults": faults})


def _records(store: Store, name: str) -> dict[str, Record[Figures]]:
    """The committed records that a fork may stand on, by stage and label; epochs without a gap."""
    noted = {f"{n['stage']} {n['label']}".strip(): (n["stage"], n["key"]) for n in stage_notes(store, name)}
    found = {
        label: record
        for label, (stage, key) in noted.items()
        if stage in _TAKEN and (record := _whole(store, stage, key)) is not None
    }
    if "estimate_prior" not in found:
        found.pop(ValidateFigures.stage, None)  # nothing that is known speaks of these prompts: they may be others
        return _up_to(found, 0)
    return _up_to(found, _last_epoch(found))


def _require_room(store: Store, name: str, data: Record[ValidateFigures], before: RunConfig, after: RunConfig) -> None:
    """The prompts stay what they are. Raises `ConfigError` where changed settings leave some of them no room."""
    now = rooms(after)
    if now == rooms(before):
        return
    files, find = files_of(store, data), misfits(after, now)
    for called in now:
        path = files / "prompts.parquet" if called == DATA else files / "suites" / f"{called}.parquet"
        prompts = PromptSet.read_parquet(path)
        if found := list(find(called, prompts)):
            i, (_, detail) = found[0]
            raise ConfigError(
                f"{len(found):,} prompts of run {name} would not fit, as {prompts.ids[i]}: {detail}. Leave them more "
                "room, or start a new run with --config, which leaves them out"
            )


def _whole(store: Store, stage: str, key: str) -> Record[Figures] | None:
    try:
        return committed_any(store, stage, key)
    except CorruptArtifact:  # what comes before it can still be taken over
        return None


def _up_to(records: dict[str, Record[Figures]], epoch: int) -> dict[str, Record[Figures]]:
    """Those records, without epochs after `epoch`."""
    return {
        label: record
        for label, record in records.items()
        if record.stage != "train_epoch" or int(label.split()[1]) <= epoch
    }


def _last_epoch(records: dict[str, Record[Figures]]) -> int:
    epoch = 0
    while f"train_epoch {epoch + 1}" in records:
        epoch += 1
    return epoch


def _begun(store: Store, name: str, cfg: RunConfig, records: dict[str, Record[Figures]], epochs: int) -> Fork:
    """Where a fork begins: after the last epoch of `records`, or inside the next one."""
    epoch = _last_epoch(records)
    standing = records.get(f"train_epoch {epoch}")
    end = standing.figures.step if standing is not None and has_figures(standing, EpochFigures) else 0
    step, checkpoint = end, ""
    if epoch < epochs and (key := _next_key(store, name, cfg, records, epoch)) is not None:
        spoilt = spoilt_from(store, "train_epoch", key)
        if spoilt is not None and epoch and spoilt <= end:  # the last step of that epoch was one too many
            return _begun(store, name, cfg, _up_to(records, epoch - 1), epochs)
        run = RunRef(name=name, config=cfg, token=0)
        for folder in checkpoints_of(store, run, "train_epoch", key):
            if (healthy := _healthy_step(folder)) is not None:
                step, checkpoint = healthy, digest_file(folder / MANIFEST)
                break
        else:
            if cfg.fork is not None and cfg.fork.epoch == epoch:  # a fork that has come to no checkpoint of its own
                step, checkpoint = cfg.fork.step, cfg.fork.checkpoint
    keys = {label: record.key for label, record in records.items()}
    return Fork(run=name, epoch=epoch, step=step, records=keys, checkpoint=checkpoint)


def _next_key(store: Store, name: str, cfg: RunConfig, records: dict[str, Record[Figures]], epoch: int) -> str | None:
    """Key of the epoch after `epoch`, under the settings that the run has had; None where it cannot have begun."""
    data = stage_record(store, name, ValidateFigures)
    state = records.get(f"train_epoch {epoch}" if epoch else "estimate_prior")
    policy = records.get("prepare_policy")
    if data is None or policy is None or state is None:
        return None
    assert has_figures(policy, PolicyFigures)
    assert has_figures(state, StateFigures)
    run = RunRef(name=name, config=cfg, token=0, again=dict(times_again(store, name)))
    return epoch_key(run, epoch + 1, data, policy, state)


def _healthy_step(folder: Path) -> int | None:
    """The step of a checkpoint that training can go on from; None for a damaged or diverged one."""
    import torch

    try:
        checkpoint = load_checkpoint(folder)
    except CorruptArtifact:
        return None
    finite = all(bool(torch.isfinite(tensor).all()) for tensor in checkpoint.weights.values())
    return checkpoint.step if checkpoint.healthy and finite else None
