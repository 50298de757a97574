"""Figures of a run as commands print them: the outcome of a run, and its posterior."""

from __future__ import annotations

from pydantic import JsonValue

from cures_core.config.base import Strict
from cures_core.config.storage import StoreConfig
from cures_core.curriculum import load_posterior
from cures_core.errors import ConfigError
from tasks.runs.figures import EpochFigures, PriorFigures, PromoteFigures, ReportFigures, StateFigures
from tasks.runs.notes import find_run, noted_epochs, require_run, stage_notes, stage_record
from tasks.runs.reading import RunRecords
from tasks.runs.records import Record, RunRef, files_of
from tasks.runs.scores import ScoreChange, gains
from tasks.runs.training import spent
from tasks.snapshots.published import load_published, published_names, published_numbers
from tasks.storage import Store, open_store


class StageOutcome(Strict):
    """A stage of the run."""

    name: str
    """Name and label, as in "train_epoch 3"."""
    key: str
    """Key of its record."""
    cached: bool
    """Was it committed before?"""


class PromptsMoved(Strict):
    """What became of an earlier run's evidence, in prompts."""

    kept: int
    """Of prompts that are there still, or again."""
    reset: int
    """New or edited prompts, which start without any."""
    archived: int
    """Of prompts that have gone."""


class RunSummary(Strict):
    """The outcome of a run."""

    run: str
    """Run name."""
    stages: tuple[StageOutcome, ...]
    """Oldest first."""
    scores: tuple[ScoreChange, ...]
    """By suite and measure."""
    rollouts: dict[str, int]
    """prior, train and eval."""
    prompts: PromptsMoved
    """Of a prior that started from an earlier posterior."""
    snapshot: str
    """Tag of the last posterior."""
    promoted: PromoteFigures | None
    """What the gate decided; None where none was asked."""
    report: str
    """Path of the report's page."""


def summarise(run: RunRef, records: RunRecords, page: Record[ReportFigures]) -> RunSummary:
    """What `cures run --json` prints, but for the seconds. The run is over: all its records are there."""
    store, evaluations = open_store(run.config.store), list(records.evaluations.values())
    prior, snapshots = records.prior, list(records.snapshots.values())
    assert prior is not None
    return RunSummary(
        run=run.name,
        stages=tuple(
            StageOutcome(name=f"{n['stage']} {n['label']}".strip(), key=n["key"], cached=n["cached"])
            for n in stage_notes(store, run.name)
        ),
        scores=tuple(gains(store, run.config, evaluations[0], evaluations[-1])),
        rollouts={part: cost.rollouts for part, cost in spent(records).items()},
        prompts=_moved(prior.figures),
        snapshot=snapshots[-1].figures.tag,
        promoted=None if records.decision is None else records.decision.figures,
        report=str(store.local_path(page.files or "") / "report.html"),
    )


def _moved(prior: PriorFigures) -> PromptsMoved:
    return PromptsMoved(kept=prior.kept + prior.restored, reset=prior.new, archived=prior.archived)


def find_posterior(store: Store, typed: str) -> str:
    """As `find_run`, for a run or a name under which a posterior was published. Raises `ConfigError`."""
    return find_run(store, typed, published_names(store))


def posterior_summary(cfg: StoreConfig, run: str, epoch: int | None) -> dict[str, JsonValue]:
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
    figures = record.figures.model_dump(mode="json", include={"calibration", "reliability"})
    return {"run": run, "epoch": k, **posterior.summary(), "calibration": None, "reliability": [], **figures}


def posterior_record(store: Store, run: str, epoch: int | None) -> tuple[int, Record[StateFigures]]:
    """(epoch, record) whose files hold the run's posterior; the latest where `epoch` is None. Raises `ConfigError`."""
    require_run(store, run)
    done = noted_epochs(store, run, EpochFigures)
    k = max(done, default=0) if epoch is None else epoch
    record: Record[StateFigures] | None
    record = stage_record(store, run, EpochFigures, str(k)) if k else stage_record(store, run, PriorFigures)
    if record is None:
        raise ConfigError(f"run {run} has no posterior of epoch {k}; epochs done: {done or 'none'}")
    return k, record
