"""Two evaluations, read from their records and compared suite by suite."""

from __future__ import annotations

import dataclasses
import json

from cures_core.config.base import Strict
from cures_core.config.evaluation import EvaluationConfig
from cures_core.config.run import RunConfig
from cures_core.evaluation.items import read_items
from cures_core.evaluation.paired import Evaluated, Paired, compare
from cures_core.evaluation.scores import Estimate, Gain, SuiteScore
from tasks.runs.figures import EvaluateFigures
from tasks.runs.records import Record, files_of
from tasks.storage import Store


class ScoreChange(Strict):
    """A measure of one suite before and after training."""

    suite: str
    """Name of the suite."""
    measure: str
    """As in "avg@4" and "greedy"."""
    before: Estimate
    """First score."""
    after: Estimate
    """Last score."""
    gain: Gain
    """Paired difference of the two."""
    n: int
    """Items."""
    k: int
    """Completions of each item."""
    unlike: tuple[str, ...]
    """What made the two differently: versions and machine, in words."""


def read_scores(store: Store, record: Record[EvaluateFigures]) -> list[SuiteScore]:
    """The scores of an evaluation, in the order of its configuration."""
    folder = files_of(store, record)
    return [SuiteScore.model_validate(row) for row in json.loads((folder / "scores.json").read_bytes())]


def read_evaluation(store: Store, record: Record[EvaluateFigures]) -> dict[str, Evaluated]:
    """Scores and items by suite."""
    folder = files_of(store, record)
    return {s.suite: Evaluated(s, read_items(folder / f"items-{s.suite}.parquet")) for s in read_scores(store, record)}


def paired(
    candidate: dict[str, Evaluated], incumbent: dict[str, Evaluated], cfg: EvaluationConfig
) -> dict[str, Paired]:
    """The candidate's gain on every suite both were scored on. Raises `ConfigError` for unlike settings."""
    return {name: compare(candidate[name], incumbent[name], cfg) for name in candidate if name in incumbent}


def gains(
    store: Store, cfg: RunConfig, before: Record[EvaluateFigures], after: Record[EvaluateFigures]
) -> list[ScoreChange]:
    """One row for each suite and measure."""
    first, last = read_evaluation(store, before), read_evaluation(store, after)
    rows = []
    for name, new in last.items():
        old = first[name]
        rows.append(_change(f"avg@{new.score.k}", old.score.avg, new.score.avg, compare(new, old, cfg.evaluation)))
        if old.score.greedy is not None and new.score.greedy is not None:
            pair = compare(_greedy(new), _greedy(old), cfg.evaluation)
            rows.append(_change("greedy", old.score.greedy, new.score.greedy, pair))
    return rows


def gain_of(pair: Paired) -> Gain:
    """The part of a paired comparison that reports show."""
    return Gain(value=pair.gain, low=pair.low, high=pair.high, p_value=pair.p_value)


def _change(measure: str, before: Estimate, after: Estimate, pair: Paired) -> ScoreChange:
    return ScoreChange(
        suite=pair.suite,
        measure=measure,
        before=before,
        after=after,
        gain=gain_of(pair),
        n=pair.n,
        k=pair.k,
        unlike=pair.unlike,
    )


def _greedy(evaluated: Evaluated) -> Evaluated:
    """The same items judged by their greedy completion alone."""
    items = [dataclasses.replace(item, correct=item.greedy or 0, samples=1) for item in evaluated.items]
    return Evaluated(evaluated.score.model_copy(update={"k": 1}), items)
