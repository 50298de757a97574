"""A run as it stands right now, read from the store and from the scratch folders of this machine."""

from __future__ import annotations

from pathlib import Path

from cures_core.files import found_below
from cures_core.jobs.spec import Job
from cures_core.report import ReportData
from tasks.runs.notes import run_overview
from tasks.runs.opening import scratch_root, started_config
from tasks.runs.reading import read_run
from tasks.runs.records import RunRef
from tasks.runs.training import Metrics, parse_metrics
from tasks.stages.report import report_data
from tasks.storage import Store


def live_report(store: Store, name: str) -> ReportData:
    """What the report would show if the run ended now. Raises `ConfigError` where there is no such run.

    Steps of an epoch that is not over come from its last saved step, where the run is on this machine.
    """
    run = RunRef(name=name, config=started_config(store, name), token=0)
    shown, overview = report_data(store, run, read_run(store, name)), run_overview(store, name)
    return shown.model_copy(
        update={
            "status": overview.status,
            "trouble": overview.error,
            "steps": (*shown.steps, *unfinished_steps(run, len(shown.steps))),
        }
    )


def unfinished_steps(run: RunRef, done: int) -> list[Metrics]:
    """Steps after step `done` that a running epoch has saved on this machine."""
    rows: dict[int, Metrics] = {}
    for folder in unfinished_folders(run):
        for path in found_below(folder, "step-*/metrics.jsonl"):
            try:
                saved = parse_metrics(path.read_bytes())
            except (FileNotFoundError, ValueError):  # the epoch has just moved on, or finds the damage when it goes on
                continue
            rows |= {int(row["step"]): row for row in saved}
    return [{"seconds": 0.0, **rows[step]} for step in sorted(rows) if step > done]


def unfinished_folders(run: RunRef) -> list[Path]:
    """Where epochs of a run that are not over save their steps on this machine."""
    found = found_below(scratch_root(run) / "train_epoch", "*/*/scratch")
    return [folder for folder in found if _is_of(folder / "job.json", run)]


def _is_of(spec: Path, run: RunRef) -> bool:
    """Does the job in this scratch folder compute for a run of this configuration?"""
    try:
        return Job.model_validate_json(spec.read_bytes()).config == run.config
    except (FileNotFoundError, ValueError):  # no job has begun there, or one of another version
        return False
