"""Runs beside each other: their last scores, paired where they compare, their curves, costs and settings."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cures_core.config.marks import Mark, leaves
from cures_core.config.retired import retired_in
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from cures_core.evaluation.lm_eval import lm_eval_results
from cures_core.evaluation.paired import Evaluated, compare
from cures_core.evaluation.scores import SuiteScore
from cures_core.report.comparison_page import Comparison
from tasks.runs.notes import Started, read_started, run_names, run_overview, stage_notes, stage_record
from tasks.runs.opening import kept_config, started_config
from tasks.runs.records import Record, files_of
from tasks.runs.scores import read_evaluation, read_scores
from tasks.storage import Store


def evaluations(store: Store, run: str) -> dict[int, Record]:
    """The committed evaluations of a run by epoch, 0 being the base policy. Raises `ConfigError` for no such run."""
    if run not in run_names(store):
        raise ConfigError(f"no run {run} in this store; runs there: {', '.join(run_names(store)) or 'none'}")
    labels = [int(n["label"]) for n in stage_notes(store, run) if n["stage"] == "evaluate_checkpoint"]
    found = {k: stage_record(store, run, "evaluate_checkpoint", str(k)) for k in sorted(labels)}
    return {k: record for k, record in found.items() if record is not None}


def evaluation_of(store: Store, run: str, epoch: int | None) -> tuple[int, Record]:
    """(epoch, record) of one evaluation, the last where `epoch` is None. Raises `ConfigError` where there is none."""
    found = evaluations(store, run)
    k = max(found, default=0) if epoch is None else epoch
    if k not in found:
        raise ConfigError(f"run {run} has no evaluation of epoch {k}; scored epochs: {sorted(found) or 'none'}")
    return k, found[k]


def scores_of(store: Store, run: str, epoch: int | None) -> list[SuiteScore]:
    """The scores of one evaluation. Raises `ConfigError` where there is none."""
    return read_scores(store, evaluation_of(store, run, epoch)[1])


def lm_eval_of(store: Store, run: str, epoch: int | None) -> dict[str, Any]:
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
    for name, cfg in configs.items():
        scored = evaluations(store, name)
        last = read_evaluation(store, scored[max(scored)]) if scored else {}
        first = last if name == names[0] else first
        against = [] if name == names[0] else [_against(last[s], first[s], cfg) for s in last if s in first]
        rows.append({**_about(store, name, scored), "against": against})
    return Comparison.model_validate({"runs": rows, "settings": _differences(store, configs)})


def _against(ours: Evaluated, theirs: Evaluated, cfg: RunConfig) -> dict[str, Any]:
    try:
        pair = compare(ours, theirs, cfg.evaluation)
    except ConfigError as error:
        return {"suite": ours.score.suite, "why_not": str(error)}
    gain = {"value": pair.gain, "low": pair.low, "high": pair.high, "p_value": pair.p_value}
    return {"suite": pair.suite, "gain": gain, "unlike": pair.unlike}


def _about(store: Store, name: str, scored: dict[int, Record]) -> dict[str, Any]:
    epochs = sorted(int(n["label"]) for n in stage_notes(store, name) if n["stage"] == "train_epoch")
    states = {k: stage_record(store, name, "train_epoch", str(k)) for k in epochs}
    trained = {k: record for k, record in states.items() if record is not None}
    prior = stage_record(store, name, "estimate_prior")
    parts = {
        "prior": [] if prior is None else [prior.figures],
        "train": [trained[max(trained)].figures] if trained else [],
        "eval": [record.figures for record in scored.values()],
    }
    return {
        "run": name,
        "status": run_overview(store, name)["status"],
        "scores": [_scored(store, k, record, trained) for k, record in scored.items()],
        "cost": {
            part: {key: sum(f[key] for f in figures) for key in ("rollouts", "tokens")}
            for part, figures in parts.items()
        },
        "seconds": sum(record.seconds for record in trained.values()),
        "rewards": [
            (row["rollouts_total"], row.get("correct_share", row["reward_mean"]))
            for row in _steps(store, trained.values())
            if "reward_mean" in row  # not where no verdict is known
        ],
    }


def _scored(store: Store, k: int, record: Record, trained: dict[int, Record]) -> dict[str, Any]:
    state = trained.get(k)
    return {
        "label": f"after epoch {k}" if k else "before training",
        "rollouts": state.figures["rollouts"] if state else 0,
        "tokens": state.figures["tokens"] if state else 0,
        "seconds": sum(one.seconds for epoch, one in trained.items() if epoch <= k),
        "suites": read_scores(store, record),
    }


def _steps(store: Store, trained: Any) -> Iterator[dict[str, Any]]:
    for record in trained:
        lines = (files_of(store, record) / "checkpoint" / "metrics.jsonl").read_bytes().splitlines()
        yield from (json.loads(line) for line in lines)


def _differences(store: Store, configs: Mapping[str, RunConfig]) -> dict[str, tuple[str, ...]]:
    """What is not the same in all runs, with each one's value as JSON: settings that change results or how they are
    computed by dotted key, and what was read, by the setting that names it."""
    flat = [
        {**_settings(cfg), **_retired(kept_config(store, name)), **_content(read_started(store, name))}
        for name, cfg in configs.items()
    ]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = {key: tuple(one.get(key, "-") for one in flat) for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _settings(cfg: RunConfig) -> dict[str, str]:
    shown = (leaf for leaf in leaves(cfg) if leaf.mark is not Mark.PLACEMENT and leaf.path != "faults")
    return {leaf.path: json.dumps(leaf.value, ensure_ascii=False) for leaf in shown}


def _retired(kept: Mapping[str, Any]) -> dict[str, str]:
    """What a run of an earlier version used that is no setting any more."""
    return {f"{key} (retired)": json.dumps(value, ensure_ascii=False) for key, value in retired_in(kept).items()}


def _content(first: Started) -> dict[str, str]:
    return {f"{setting} (content)": digest[:12] for setting, digest in first.inputs.items()}
