"""Stage: a posterior becomes a version under DVC and git, with its lineage."""

from __future__ import annotations

from cures_core.config.marks import results
from cures_core.errors import CorruptArtifact, MissingInput
from cures_core.files import digest_json
from tasks.runs.figures import Figures, PolicyFigures, SnapshotFigures, StateFigures, ValidateFigures
from tasks.runs.records import Record, RunRef, files_of
from tasks.snapshots import publish_snapshot, read_snapshot
from tasks.stages.stage import Made, as_stage, run_stage
from tasks.stages.workspace import Workspace
from tasks.storage import open_store


@as_stage("snapshot_posterior {k}")
def snapshot_posterior(
    run: RunRef,
    k: int,
    data: Record[ValidateFigures],
    policy: Record[PolicyFigures],
    state: Record[StateFigures],
    parent: Record[SnapshotFigures] | None,
) -> Record[SnapshotFigures]:
    """Publish the posterior of `state` as `posterior/<run>/<k>`."""
    cfg = run.config
    places = cfg.snapshot.within(cfg.store.url, cfg.store.endpoint_url)
    again = run.times("snapshot_posterior", k)  # a snapshot is never replaced
    tag = f"posterior/{run.name}/{k}{f'.{again}' if again else ''}"
    before = None if parent is None else parent.figures.tag
    lineage = {
        "run": run.name,
        "epoch": k,
        "step": state.figures.step,
        "parent": before or cfg.prior.start_from,
        "posterior": state.figures.posterior_digest,
        "policy": policy.figures.digest,
        "weights": state.figures.weights_digest or None,
        "prompts": data.figures.digest,
        "config": digest_json(results(cfg)),
        **({} if cfg.fork is None else {"fork": cfg.fork.model_dump(mode="json")}),
        "versions": state.versions,
        "created_at": state.created_at,
    }
    inputs = {
        "tag": tag,
        # What the run started from is in the digest of its configuration, so that the parent here need not tell it.
        "lineage": {name: lineage[name] for name in lineage if name not in ("versions", "created_at")}
        | {"parent": before},
        "places": places.model_dump(mode="json"),
    }

    def work(space: Workspace) -> Made[SnapshotFigures]:
        parquet = files_of(open_store(cfg.store), state) / "posterior.parquet"
        return Made(publish_snapshot(parquet, lineage, tag, places, space.scratch))

    def still_there(record: Record[SnapshotFigures]) -> bool:
        try:
            read_snapshot(record.figures.tag, places)
        except (MissingInput, CorruptArtifact):
            return False
        return True

    parents: list[Record[Figures]] = [state, *([] if parent is None else [parent])]
    return run_stage(run, SnapshotFigures, 2, inputs, parents, work, label=str(k), still_there=still_there)
