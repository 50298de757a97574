"""A registered model as a normal Hugging Face folder, with a model card written from the records."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError, CorruptArtifact
from tasks.inputs.pretrained import with_base
from tasks.registry.card import model_card
from tasks.registry.history import Entry, existing_pointer
from tasks.registry.weights import weights_fault
from tasks.runs.figures import EpochFigures, EvaluateFigures, PolicyFigures, PriorFigures, ValidateFigures
from tasks.runs.notes import stage_record
from tasks.runs.opening import started_config
from tasks.runs.prune import checkpoint_of
from tasks.runs.records import F, Record, committed, files_of
from tasks.runs.scores import read_scores
from tasks.stages.prepare_policy import base_policy
from tasks.storage import Store


def export_model(store: Store, model: str, version: int | None, out: Path) -> None:
    """Write `out`: weights (adapters merged), tokenizer, README.md. It is either absent or whole.

    Raises `ConfigError` where `out` exists, and `CorruptArtifact` where the store has lost a record or file.
    """
    if out.exists():
        raise ConfigError(f"{out}: is there already; name a new folder")
    _, pointer = existing_pointer(store, model)
    entry = pointer.current if version is None else pointer.entry(version)
    if fault := weights_fault(store, entry, deep=True):
        raise CorruptArtifact(f"{model}, version {entry.version}: {fault}")
    config = started_config(store, entry.run)
    state = _record(store, EpochFigures, entry.state)
    scores = read_scores(store, _record(store, EvaluateFigures, entry.evaluation))
    scratch = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        _write_weights(store, config, entry, state, scratch)
        data = stage_record(store, entry.run, ValidateFigures)
        prior = stage_record(store, entry.run, PriorFigures)
        card = model_card(model, entry, config, data, prior, state, scores)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        scratch.rename(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_weights(store: Store, config: RunConfig, entry: Entry, state: Record[EpochFigures], out: Path) -> None:
    from cures_core.checkpoints.checkpoint import load_checkpoint
    from cures_core.jobs.assemble import assemble_policy
    from cures_core.jobs.spec import Job
    from cures_core.policy.loading import save_policy

    base = base_policy(store, config, _record(store, PolicyFigures, entry.policy))
    out.parent.mkdir(parents=True, exist_ok=True)
    job = Job(name="evaluate", config=config, scratch=out, out=out, policy=str(base))
    save_policy(assemble_policy(with_base(job), load_checkpoint(checkpoint_of(state, files_of(store, state)))), out)


def _record(store: Store, kind: type[F], record_id: str) -> Record[F]:
    found = committed(store, kind, record_id.partition("/")[2])
    if found is None:
        raise CorruptArtifact(f"{record_id}: is not in the store any more; resume the run to make it again")
    return found
