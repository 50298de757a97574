"""All records of a run, by their kind: the one thing that reports, comparisons, plans and commands read a run by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.runs.figures import (
    EpochFigures,
    EvaluateFigures,
    Figures,
    PolicyFigures,
    PriorFigures,
    PromoteFigures,
    SnapshotFigures,
    StateFigures,
    ValidateFigures,
)
from tasks.runs.notes import noted_epochs, require_run, stage_record
from tasks.runs.records import F, Record
from tasks.storage import Store


@dataclass(frozen=True)
class RunRecords:
    """What a run has committed so far. Epochs are keyed by their number, in order."""

    data: Record[ValidateFigures] | None = None
    policy: Record[PolicyFigures] | None = None
    prior: Record[PriorFigures] | None = None
    epochs: Mapping[int, Record[EpochFigures]] = field(default_factory=dict)
    evaluations: Mapping[int, Record[EvaluateFigures]] = field(default_factory=dict)
    """By the epoch whose checkpoint was scored; 0: the base policy."""
    snapshots: Mapping[int, Record[SnapshotFigures]] = field(default_factory=dict)
    """By the epoch whose posterior they hold; 0: the prior."""
    decision: Record[PromoteFigures] | None = None

    @property
    def states(self) -> dict[int, Record[StateFigures]]:
        """What holds a posterior: the prior under 0, and the epochs."""
        return {**({} if self.prior is None else {0: self.prior}), **self.epochs}

    @property
    def labelled(self) -> list[tuple[str, Record[Figures]]]:
        """(epoch, record) of all of them, stage by stage; "" for stages of the whole run."""
        once = [("", record) for record in (self.data, self.policy, self.prior) if record is not None]
        by_epoch = [
            (str(k), record) for kind in (self.epochs, self.evaluations, self.snapshots) for k, record in kind.items()
        ]
        return [*once, *by_epoch, *([] if self.decision is None else [("", self.decision)])]


def read_run(store: Store, name: str) -> RunRecords:
    """The records that a run has used. Raises `ConfigError` for no such run, `CorruptArtifact` for a damaged record."""
    require_run(store, name)
    return RunRecords(
        data=stage_record(store, name, ValidateFigures),
        policy=stage_record(store, name, PolicyFigures),
        prior=stage_record(store, name, PriorFigures),
        epochs=by_epoch(store, name, EpochFigures),
        evaluations=by_epoch(store, name, EvaluateFigures),
        snapshots=by_epoch(store, name, SnapshotFigures),
        decision=stage_record(store, name, PromoteFigures),
    )


def by_epoch(store: Store, name: str, kind: type[F]) -> dict[int, Record[F]]:
    """A run's records of one stage, by epoch, in order. Raises `CorruptArtifact`."""
    found = {k: stage_record(store, name, kind, str(k)) for k in noted_epochs(store, name, kind)}
    return {k: record for k, record in found.items() if record is not None}
