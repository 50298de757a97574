"""Runs beside each other: their last scores, paired where they compare, their curves, costs and settings."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from cures_core.config.marks import Mark, is_within, leaves
from cures_core.config.retired import retired_in
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from cures_core.evaluation.lm_eval import lm_eval_results
from cures_core.evaluation.paired import Evaluated, compare
from cures_core.evaluation.scores import SuiteScore
from cures_core.machine import joined_machines
from cures_core.report.comparison_page import Against, ComparedRun, Comparison
from tasks.runs.figures import EvaluateFigures
from tasks.runs.notes import read_started, require_run, run_overview
from tasks.runs.opening import kept_config, started_config
from tasks.runs.reading import RunRecords, by_epoch, read_run
from tasks.runs.records import Record
from tasks.runs.scores import gain_of, read_evaluation, read_scores
from tasks.runs.training import Metrics, accounts, entropy_of, scored, steps, training_seconds, wasted
from tasks.storage import Store

_UNSAID = ("faults", "fork")


def evaluation_of(store: Store, run: str, epoch: int | None) -> tuple[int, Record[EvaluateFigures]]:
    """(epoch, record) of one evaluation, the last where `epoch` is None. Raises `ConfigError` where there is none."""
    require_run(store, run)
    found = by_epoch(store, run, EvaluateFigures)
    k = max(found, default=0) if epoch is None else epoch
    if k not in found:
        raise ConfigError(f"run {run} has no evaluation of epoch {k}; scored epochs: {sorted(found) or 'none'}")
    return k, found[k]


def scores_of(store: Store, run: str, epoch: int | None) -> list[SuiteScore]:
    """The scores of one evaluation. Raises `ConfigError` where there is none."""
    return read_scores(store, evaluation_of(store, run, epoch)[1])


def lm_eval_of(store: Store, run: str, epoch: int | None) -> dict[str, object]:
    """The same evaluation as lm-evaluation-harness writes it."""
    k, record = evaluation_of(store, run, epoch)
    made = dt.datetime.fromisoformat(record.created_at).timestamp()
    items = read_evaluation(store, record)
    return lm_eval_results(items, f"{run} epoch {k}", made, record.seconds, record.versions)


def compare_runs(store: Store, names: Sequence[str]) -> Comparison:
    """The runs of `names`, the first being what the others are compared with. Raises `ConfigError` for unknown ones."""
    if len(set(names)) < 2:
        raise ConfigError(f"name at least two different runs; got {', '.join(names) or 'none'}")
    configs = {name: started_config(store, name) for name in names}
    first: dict[str, Evaluated] = {}
    rows = []
    read = {name: read_run(store, name) for name in configs}
    for name, cfg in configs.items():
        records = read[name]
        evaluations = list(records.evaluations.values())
        last = read_evaluation(store, evaluations[-1]) if evaluations else {}
        first = last if name == names[0] else first
        against = [] if name == names[0] else [_against(last[s], first[s], cfg) for s in last if s in first]
        rows.append(_compared(store, name, records, against, cfg))
    return Comparison(runs=tuple(rows), settings=_differences(store, configs, read))


def _against(ours: Evaluated, theirs: Evaluated, cfg: RunConfig) -> Against:
    try:
        pair = compare(ours, theirs, cfg.evaluation)
    except ConfigError as error:
        return Against(suite=ours.score.suite, why_not=str(error))
    return Against(suite=pair.suite, gain=gain_of(pair), unlike=pair.unlike)


def _compared(store: Store, name: str, records: RunRecords, against: Sequence[Against], cfg: RunConfig) -> ComparedRun:
    rows = steps(store, records.epochs.values())
    rewards = [
        (float(row["rollouts_total"]), float(row.get("correct_share", row["reward_mean"])))
        for row in rows
        if "reward_mean" in row  # not where no verdict is known
    ]
    return ComparedRun(
        run=name,
        status=run_overview(store, name).status,
        scores=tuple(scored(store, records, rows)),
        cost=accounts(records, rows),
        wasted=wasted(cfg, rows),
        seconds=training_seconds(records.epochs, rows),
        entropy=_last_entropy(rows),
        rewards=tuple(rewards),
        against=tuple(against),
    )


def _last_entropy(rows: Sequence[Metrics]) -> float | None:
    """Mean over the last tenth of the steps."""
    values = [value for row in rows if (value := entropy_of(row)) is not None]
    last = values[-max(1, len(values) // 10) :]
    return sum(last) / len(last) if last else None


def _differences(
    store: Store, configs: Mapping[str, RunConfig], records: Mapping[str, RunRecords]
) -> dict[str, tuple[str, ...]]:
    """What is not the same in all runs, with each one's value as JSON: settings that change results or how they are
    computed by dotted key, what trained, and what was read, by the setting that names it: equal letters for equal
    content."""
    all_trained = all(one.epochs for one in records.values())  # else one without epochs would differ in everything
    flat = [
        {
            **_settings(cfg),
            **_retired(kept_config(store, name)),
            **(_trained_with(records[name]) if all_trained else {}),
        }
        for name, cfg in configs.items()
    ]
    read = [read_started(store, name).inputs for name in configs]
    content = {f"{key} (content)": _letters([one.get(key) for one in read]) for one in read for key in one}
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = {**{key: tuple(one.get(key, "-") for one in flat) for key in keys}, **content}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _trained_with(records: RunRecords) -> dict[str, str]:
    """Versions and machines that have made a run's epochs, in words: the last digits depend on them."""
    found = joined_machines([{**epoch.versions, **epoch.machine} for epoch in records.epochs.values()])
    return {f"{name} (trained with)": value for name, value in found.items()}


def _letters(digests: Sequence[str | None]) -> tuple[str, ...]:
    """A letter for each content; a dash where there is none."""
    known = list(dict.fromkeys(digest for digest in digests if digest is not None))
    return tuple("-" if digest is None else chr(ord("A") + known.index(digest)) for digest in digests)


def _settings(cfg: RunConfig) -> dict[str, str]:
    """Of a fork its name says what it took over; the keys of those records would say nothing to a reader."""
    shown = (leaf for leaf in leaves(cfg) if leaf.mark is not Mark.PLACEMENT and not is_within(leaf.path, _UNSAID))
    found = {leaf.path: json.dumps(leaf.value, ensure_ascii=False) for leaf in shown}
    return found if cfg.fork is None else {**found, "fork": cfg.fork.words}


def _retired(kept: Mapping[str, JsonValue]) -> dict[str, str]:
    """What a run of an earlier version used that is no setting any more."""
    return {f"{key} (retired)": json.dumps(value, ensure_ascii=False) for key, value in retired_in(kept).items()}
