"""Figures of a run as commands print them: the outcome of a run, and its posterior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cures_core.config.storage import StoreConfig
from cures_core.curriculum import load_posterior
from cures_core.errors import ConfigError
from tasks.runs.notes import run_names, stage_notes, stage_record
from tasks.runs.records import Record, RunRef, files_of
from tasks.runs.scores import gains
from tasks.snapshots.published import load_published, published_numbers
from tasks.storage import Store, open_store


def summarise(
    run: RunRef,
    scores: Sequence[Record],
    states: Sequence[Record],
    snapshot: Record,
    decision: Record | None,
    page: Record,
) -> dict[str, Any]:
    """What `cures run --json` prints, but for the seconds: plain JSON values."""
    store = open_store(run.config.store)
    return {
        "run": run.name,
        "stages": [
            {"name": f"{n['stage']} {n['label']}".strip(), "key": n["key"], "cached": n["cached"]}
            for n in stage_notes(store, run.name)
        ],
        "scores": gains(store, run.config, scores[0], scores[-1]),
        "rollouts": {
            "prior": states[0].figures["rollouts"],
            "train": states[-1].figures["rollouts"] if len(states) > 1 else 0,
            "eval": sum(record.figures["rollouts"] for record in scores),
        },
        "prompts": {
            "kept": states[0].figures["kept"] + states[0].figures["restored"],
            "reset": states[0].figures["new"],
            "archived": states[0].figures["archived"],
        },
        "snapshot": snapshot.figures["tag"],
        "promoted": None if decision is None else decision.figures,
        "report": str(store.local_path(page.files or "") / "report.html"),
    }


def posterior_summary(cfg: StoreConfig, run: str, epoch: int | None) -> dict[str, Any]:
    """`Posterior.summary` of a run's posterior, with the calibration of the epoch that led to it (None for the prior).

    `run` may be a name under which a posterior was published: then `epoch` is its number, and `calibration` is absent.
    Raises `ConfigError` where there is no such run or epoch.
    """
    store = open_store(cfg)
    if published_numbers(store, run):
        k, _, posterior = load_published(store, run, epoch)
        return {"run": run, "epoch": k, **posterior.summary()}
    k, record = posterior_record(store, run, epoch)
    posterior = load_posterior(files_of(store, record) / "posterior.parquet")
    return {
        "run": run,
        "epoch": k,
        **posterior.summary(),
        "calibration": record.figures.get("calibration"),
        "reliability": record.figures.get("reliability", []),
    }


def posterior_record(store: Store, run: str, epoch: int | None) -> tuple[int, Record]:
    """(epoch, record) whose files hold the run's posterior; the latest where `epoch` is None. Raises `ConfigError`."""
    if run not in run_names(store):
        raise ConfigError(f"no run {run} in this store; `cures runs list` names those there are")
    done = [int(n["label"]) for n in stage_notes(store, run) if n["stage"] == "train_epoch"]
    k = max(done, default=0) if epoch is None else epoch
    record = stage_record(store, run, "train_epoch", str(k)) if k else stage_record(store, run, "estimate_prior")
    if record is None:
        raise ConfigError(f"run {run} has no posterior of epoch {k}; epochs done: {sorted(done) or 'none'}")
    return k, record
