"""Stages that a person asks to do again are done again, and what they made before stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cures_core.errors import ConfigError, CorruptArtifact, LeaseHeld
from tasks.runs.again import ask_again, stages_in_order, times_again
from tasks.runs.figures import FIGURES
from tasks.runs.notes import stage_notes
from tasks.runs.opening import open_run
from tasks.runs.records import Record, RunRef, files_of
from tasks.runs.verify import verify
from tasks.stages.stage import Made, run_stage
from tasks.storage import open_store
from tests.end_to_end.pipeline import cures, results, write_profile
from tests.tasks.stages.figures import made, mark_of
from tests.tasks.stages.starts import config_in

STAGES = [("prepare_policy", ""), ("train_epoch", "1"), ("snapshot_posterior", "1")]


def play(run: RunRef, text: str) -> list[Record[Any]]:
    """Three stages, each writing `text` and reading what the one before has written."""
    records: list[Record[Any]] = []
    for stage, label in STAGES:

        def work(space: object, stage: str = stage) -> Made[Any]:
            (space.out / "made.txt").write_text(text)  # type: ignore[attr-defined]
            return made(stage, text)

        before = mark_of(records[-1]) if records else ""
        records.append(run_stage(run, FIGURES[stage], 1, {"before": before}, records[-1:], work, label=label))
    return records


def test_the_named_stage_and_those_after_it_are_done_again_and_nothing_is_lost(tmp_path: Path) -> None:
    config = config_in(tmp_path, 1e-4)
    store = open_store(config.store)
    with open_run(config) as run:
        first = play(run, "a")
        with pytest.raises(LeaseHeld):
            ask_again(store, run.name, config, "train_epoch 1")
    assert ask_again(store, run.name, config, "train_epoch") == [
        "train_epoch-1",
        "snapshot_posterior-1",
        "evaluate_checkpoint-1",
        "report",
    ]
    for _ in range(2):  # a run that is resumed goes on with what was asked, and asks for nothing more
        with open_run(config) as run:
            second = play(run, "b")
    assert [mark_of(r) for r in second] == ["a", "b", "b"]
    assert [n["cached"] for n in stage_notes(store, run.name)] == [True, True, True]
    assert {r.id for r in first} & {r.id for r in second} == {first[0].id}
    assert [(files_of(store, r) / "made.txt").read_text() for r in (*first, *second)] == [*"aaa", *"abb"]
    ask_again(store, run.name, config, "snapshot_posterior 1")
    with open_run(config) as run:
        assert [mark_of(r) for r in play(run, "c")] == ["a", "b", "c"]
    times = times_again(store, run.name)
    assert (times["train_epoch-1"], times["snapshot_posterior-1"], times["report"]) == (1, 2, 2)


def test_another_run_with_the_same_stages_is_not_concerned(tmp_path: Path) -> None:
    configs = [config_in(tmp_path, rate) for rate in (1e-4, 2e-4)]
    store = open_store(configs[0].store)
    with open_run(configs[0]) as run:
        first = play(run, "a")
    ask_again(store, run.name, configs[0], "prepare_policy")
    with open_run(configs[1]) as other:
        assert play(other, "b") == first


def test_an_unknown_stage_is_told_with_those_there_are(tmp_path: Path) -> None:
    config = config_in(tmp_path, 1e-4)
    with open_run(config) as run:
        pass
    with pytest.raises(ConfigError, match=r"its stages: validate_dataset, .*train_epoch 1, snapshot_posterior 1"):
        ask_again(open_store(config.store), run.name, config, "train_epoch 2")


def test_what_was_asked_is_checked_when_it_is_read(tmp_path: Path) -> None:
    config = config_in(tmp_path, 1e-4)
    store = open_store(config.store)
    with open_run(config) as run:
        pass
    ask_again(store, run.name, config, "report")
    place = f"runs/{run.name}/again.json"
    store.put(place, (store.get(place) or b"").replace(b":1", b":2", 1))
    with pytest.raises(CorruptArtifact, match=r"again\.json"), open_run(config):
        pass
    (finding,) = verify(config.store, [run.name]).damaged
    assert (finding.place, "--from STAGE" in finding.remedy) == (place, True)


@pytest.mark.end_to_end
def test_a_run_is_done_again_from_an_epoch_by_command(tmp_path: Path) -> None:
    profile = write_profile(tmp_path)
    first = cures("run", "--config", profile, "--json", cwd=tmp_path)
    assert first.code == 0, first.err
    name, before = first.summary["run"], results(tmp_path, first.summary["run"])
    again = cures("run", "--resume", name, "--from", "train_epoch 2", "--json", cwd=tmp_path)
    assert again.code == 0, again.err
    from cures_core.config.loading import load_config

    order = [n.replace("-", " ") for n in stages_in_order(load_config(profile))]
    assert [stage["name"] for stage in again.summary["stages"]] == order
    redone = [stage["name"] for stage in again.summary["stages"] if not stage["cached"]]
    assert redone == order[order.index("train_epoch 2") :]
    assert results(tmp_path, name) == before  # on a CPU: the same bytes, made once more
    assert again.summary["snapshot"] == f"posterior/{name}/2.1"
    assert cures("runs", "verify", name, cwd=tmp_path).code == 0
    resumed = cures("run", "--resume", name, "--json", cwd=tmp_path)
    assert all(stage["cached"] for stage in resumed.summary["stages"])
    assert cures("run", "--resume", name, "--from", "nothing", cwd=tmp_path).code == 2
