"""The rollouts that a run has kept, committed or not yet, and those of them that somebody asks for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from cures_core.checkpoints.checkpoint import ROLLOUTS
from cures_core.config.run import RunConfig
from cures_core.errors import ConfigError
from cures_core.files import found_below
from cures_core.kept_rollouts.table import KeptRollout, from_line
from cures_core.report.run_data import Example
from tasks.runs.figures import EpochFigures, EvaluateFigures
from tasks.runs.live import unfinished_folders
from tasks.runs.opening import started_config
from tasks.runs.reading import by_epoch
from tasks.runs.records import Record, RunRef, files_of
from tasks.runs.training import kept_in
from tasks.storage import Store


def rollouts_of(store: Store, run: str) -> list[KeptRollout]:
    """All that a run has kept, in order of its steps; those of an epoch that is not over as they were last saved, where
    the run is on this machine.

    Raises `ConfigError` where there are none, with the reason, and `CorruptArtifact`.
    """
    cfg, epochs = started_config(store, run), by_epoch(store, run, EpochFigures)
    committed = {k: kept_in(store, cfg, record) for k, record in epochs.items()}
    rows = [row for found in committed.values() for row in found or ()]
    rows += _unfinished(
        RunRef(name=run, config=cfg, token=0), max((record.figures.step for record in epochs.values()), default=0)
    )
    if not rows:
        raise ConfigError(f"run {run} has kept no rollouts: {_why(cfg, committed)}")
    return rows


def _unfinished(run: RunRef, done: int) -> list[KeptRollout]:
    rows: dict[tuple[str, int], KeptRollout] = {}
    for folder in unfinished_folders(run):
        for path in found_below(folder, f"step-*/{ROLLOUTS}"):
            try:
                saved = [from_line(line) for line in path.read_bytes().splitlines()]
            except (FileNotFoundError, ValueError):  # the epoch has just moved on, or finds the damage when it goes on
                continue
            rows |= {(row.request, row.index): row for row in saved}
    return [row for row in rows.values() if row.step > done]


def _why(cfg: RunConfig, committed: dict[int, tuple[KeptRollout, ...] | None]) -> str:
    if not committed:
        return "no epoch of it is trained, nor a step saved on this machine"
    if all(found is None for found in committed.values()):
        return (
            "a version that kept none has trained it. To train it again: cures run --resume RUN --from 'train_epoch 1'"
        )
    kept = cfg.kept_rollouts
    if not kept.per_step:
        return "kept_rollouts.per_step was 0. Start another run with more"
    return f"with kept_rollouts.share = {kept.share:g} there were none to keep. Start another run with a larger share"


def chosen(
    rows: Sequence[KeptRollout], prompt: str | None = None, step: int | None = None, verdict: str | None = None
) -> list[KeptRollout]:
    """Those of a prompt (its id, or a beginning that only it has), of a step, with a verdict; None asks for all.

    Raises `ConfigError` where there are none, with what there is.
    """
    ids = sorted({row.prompt for row in rows})
    if prompt is not None:
        name = find_prompt(ids, prompt)
        rows = [row for row in rows if row.prompt == name]
    if step is not None:
        steps = sorted({row.step for row in rows})
        rows = [row for row in rows if row.step == step]
        if not rows:
            raise ConfigError(f"no rollout of step {step} was kept; kept are {_shown(steps)}")
    if verdict is not None:
        verdicts = sorted({row.outcome for row in rows})
        rows = [row for row in rows if row.outcome == verdict]
        if not rows:
            raise ConfigError(f"no rollout judged {verdict} was kept; kept are {_shown(verdicts)}")
    return list(rows)


def find_prompt(ids: Sequence[str], typed: str) -> str:
    """The id that `typed` is, or is the beginning of. Raises `ConfigError` where there is none, or are several."""
    found = [name for name in ids if typed and name.startswith(typed)]
    if len(found) == 1 or typed in found:
        return typed if typed in found else found[0]
    if found:
        raise ConfigError(f"{typed!r} is the beginning of {len(found)} prompts; say which: {_shown(found)}")
    raise ConfigError(
        f"no rollout of a prompt {typed!r} was kept; kept are {_shown(ids)}. To keep all of a prompt in the next run: "
        "--set 'kept_rollouts.prompts=[\"ID\"]'"
    )


def _shown(values: Sequence[object], most: int = 8) -> str:
    words = ", ".join(map(str, values[:most]))
    return words if len(values) <= most else f"{words} and {len(values) - most:,} more"


def examples_of(store: Store, run: str, suite: str) -> list[tuple[int, str, Example]]:
    """(epoch, content id, completion) of what evaluations of a suite have kept: the first sampled completion of a few
    items, the same ones each time. Raises `ConfigError` where there are none."""
    cfg, found = started_config(store, run), list[tuple[int, str, Example]]()
    for k, record in by_epoch(store, run, EvaluateFigures).items():
        if cfg.redact is None or record.inputs.get("redact") == cfg.redact:
            found += [(k, row.pop("id"), Example.model_validate(row)) for row in _rows(store, record)]
    suites = sorted({example.suite for _, _, example in found})
    if suite not in suites:
        raise ConfigError(
            f"run {run} has kept no completion of a suite {suite}; suites with some: {_shown(suites) or 'none'}"
        )
    return [(k, name, example) for k, name, example in found if example.suite == suite]


def _rows(store: Store, record: Record[EvaluateFigures]) -> Iterable[dict[str, str]]:
    path = files_of(store, record) / "examples.jsonl"
    return (json.loads(line) for line in path.read_bytes().splitlines()) if path.exists() else ()
