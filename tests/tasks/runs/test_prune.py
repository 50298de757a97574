"""Pruned epochs keep what reports read; what a pointer refers to, where a run stands and the last healthy one stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cures_core.config.fork import Fork
from cures_core.config.loading import load_config
from cures_core.errors import ConfigError, LeaseHeld
from tasks.registry.history import by_a_person, move
from tasks.runs.figures import EpochFigures
from tasks.runs.opening import open_run
from tasks.runs.prune import checkpoint_of, prune
from tasks.runs.records import Record, RunRef, committed, files_of
from tasks.stages.stage import Made, Work, run_stage
from tasks.stages.unfinished import keep
from tasks.storage import LocalStore, Store, open_store
from tests.end_to_end.pipeline import write_profile
from tests.tasks.stages.figures import made as made_by


def epoch(run: RunRef, k: int, *, bad: bool = False) -> Record:
    return run_stage(run, EpochFigures, 2, {"epoch": k}, [], epoch_files(k, bad=bad), label=str(k))


def epoch_files(k: int, *, bad: bool = False) -> Work[Any]:
    def work(space: Any) -> Made[Any]:
        state = {"step": k, "trainer": {"bad_steps": int(bad)}}
        weights = {"w": torch.full((100,), float(k))}
        save_checkpoint(Checkpoint(weights, weights, {}, state, [{"step": k}]), space.out / "checkpoint")
        for name in ("posterior.parquet", "timings.jsonl"):
            (space.out / name).write_text(name)
        return made_by("train_epoch", step=k)

    return work


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, str, list[Record]]:
    """Four epochs of a run that has ended; the last two after steps that were not finite."""
    monkeypatch.chdir(tmp_path)
    config = load_config(write_profile(tmp_path))
    with open_run(config) as run:
        records = [epoch(run, k, bad=k > 2) for k in (1, 2, 3, 4)]
        with pytest.raises(LeaseHeld):
            prune(open_store(config.store), run.name, 1)
    return open_store(config.store), run.name, records


def again(store: Store, record: Record) -> Record:
    found = committed(store, EpochFigures, record.key)
    assert found is not None
    return found


def whole(store: Store, record: Record) -> bool:
    found = again(store, record)
    files = files_of(store, found)
    assert (files / "posterior.parquet").read_text() == "posterior.parquet"
    assert json.loads((files / "checkpoint" / "metrics.jsonl").read_bytes()) == {"step": record.figures.step}
    if found.figures.pruned:
        with pytest.raises(ConfigError, match="cures runs prune"):
            checkpoint_of(found, files)
        return False
    assert load_checkpoint(checkpoint_of(found, files)).step == record.figures.step
    return True


def test_the_newest_and_the_last_healthy_one_stay(made: tuple[Store, str, list[Record]]) -> None:
    store, run, records = made
    assert prune(store, run, 1) == [1, 3]
    assert [whole(store, record) for record in records] == [False, True, False, True]
    assert not any(key for record in (records[0], records[2]) for key in store.list(str(record.files)))
    assert prune(store, run, 1) == []


def test_killed_before_the_old_files_were_deleted_it_deletes_them_when_it_is_repeated(
    made: tuple[Store, str, list[Record]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run, records = made

    delete = LocalStore.delete

    def killed(there: LocalStore, prefix: str) -> None:
        if prefix == records[0].files:
            raise KeyboardInterrupt(prefix)
        delete(there, prefix)

    monkeypatch.setattr(LocalStore, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        prune(store, run, 1)
    monkeypatch.setattr(LocalStore, "delete", delete)
    assert list(store.list(str(records[0].files)))
    assert prune(store, run, 1) == [3]
    assert not any(key for record in (records[0], records[2]) for key in store.list(str(record.files)))
    assert [whole(store, record) for record in records] == [False, True, False, True]


def test_what_a_model_name_points_to_or_has_pointed_to_stays(made: tuple[Store, str, list[Record]]) -> None:
    store, run, records = made
    entry = {"run": run, "policy": "p/1", "evaluation": "e/1"}
    assert move(by_a_person(store), "m", None, {**entry, "state": records[0].id}) is not None
    assert move(by_a_person(store), "m", store.get("models/m.json"), {**entry, "state": records[2].id}) is not None
    assert prune(store, run, 1) == []
    assert all(whole(store, record) for record in records)


def test_a_run_goes_on_after_pruning(made: tuple[Store, str, list[Record]], tmp_path: Path) -> None:
    store, run, records = made
    prune(store, run, 2)
    with open_run(load_config(tmp_path / "tiny.toml")) as ref:
        assert ref.name == run
        assert [epoch(ref, k, bad=k > 2).id for k in (1, 2, 3, 4)] == [r.id for r in records]
        assert again(store, records[0]).figures.pruned


def test_the_checkpoint_that_a_fork_begins_at_goes_with_the_epoch_that_began_there(
    made: tuple[Store, str, list[Record]], tmp_path: Path
) -> None:
    store, run, records = made
    digest = keep(store, files_of(store, records[0]) / "checkpoint")
    config = load_config(tmp_path / "tiny.toml")
    fork = Fork(run=run, epoch=0, step=1, records={}, checkpoint=digest)
    names = []
    for seed in (5, 6):
        with open_run(config.model_copy(update={"fork": fork, "seed": seed})) as ref:
            names.append(ref.name)
            for k in (1, 2):
                run_stage(ref, EpochFigures, 2, {"epoch": k, "seed": seed}, [], epoch_files(k), label=str(k))
    assert prune(store, names[0], 2) == []
    assert prune(store, names[0], 1) == [1]
    assert list(store.list("forks"))  # the other one may have to begin there again
    assert prune(store, names[1], 1) == [1]
    assert list(store.list("forks")) == []


def test_the_command_says_what_it_has_deleted(made: tuple[Store, str, list[Record]]) -> None:
    from typer.testing import CliRunner

    from flows.cli.main import app

    _, run, _ = made
    outcome = CliRunner().invoke(app, ["runs", "prune", run, "--keep-last", "2", "--json"])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.output) == {"run": run, "pruned": [1]}
    assert "nothing to delete" in CliRunner().invoke(app, ["runs", "prune", run, "--keep-last", "2"]).output


def test_a_run_without_epochs_is_told(made: tuple[Store, str, list[Record]]) -> None:
    with pytest.raises(ConfigError, match="no epochs"):
        prune(made[0], "unknown", 1)
