"""A run as it stands right now, read from the store and from the scratch folders of this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cures_core.report import ReportData
from tasks.runs.opening import run_overview, scratch_root, stage_notes, stage_record, started_config
from tasks.runs.records import Record, RunRef
from tasks.stages.report import report_data
from tasks.storage import Store


def live_report(store: Store, name: str) -> ReportData:
    """What the report would show if the run ended now. Raises `ConfigError` where there is no such run.

    Steps of an epoch that is not over come from its last saved step, where the run is on this machine.
    """
    run = RunRef(name=name, config=started_config(store, name), token=0, data_digest="")
    found: dict[str, dict[str, Record]] = {}
    for note in stage_notes(store, name):
        record = stage_record(store, name, note["stage"], note["label"])
        if record is not None:
            found.setdefault(note["stage"], {})[note["label"]] = record
    states = [*found.get("estimate_prior", {}).values(), *_in_order(found.get("train_epoch", {}))]
    shown = report_data(
        store,
        run,
        data=next(iter(found.get("validate_dataset", {}).values()), None),
        policy=next(iter(found.get("prepare_policy", {}).values()), None),
        states=states,
        scores=_in_order(found.get("evaluate_checkpoint", {})),
        snapshots=_in_order(found.get("snapshot_posterior", {})),
        decision=next(iter(found.get("promote", {}).values()), None),
    )
    overview = run_overview(store, name)
    return shown.model_copy(
        update={
            "status": overview["status"],
            "trouble": overview["error"],
            "steps": (*shown.steps, *unfinished_steps(run, len(shown.steps))),
        }
    )


def unfinished_steps(run: RunRef, done: int) -> list[dict[str, Any]]:
    """Steps after step `done` that a running epoch has saved on this machine."""
    rows: dict[int, dict[str, Any]] = {}
    for folder in sorted((scratch_root(run) / "train_epoch").glob("*/scratch")):
        if not _is_of(folder / "job.json", run):
            continue
        for path in sorted(folder.glob("step-*/metrics.jsonl")):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:  # the epoch has just moved on
                continue
            rows |= {int(row["step"]): row for row in map(json.loads, lines)}
    return [{"seconds": 0.0, **rows[step]} for step in sorted(rows) if step > done]


def _is_of(spec: Path, run: RunRef) -> bool:
    """Does the job in this scratch folder compute for a run of this configuration?"""
    return spec.is_file() and json.loads(spec.read_bytes())["config"] == run.config.model_dump(mode="json")


def _in_order(records: dict[str, Record]) -> list[Record]:
    return [records[label] for label in sorted(records, key=int)]
