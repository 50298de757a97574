"""A store that version 0.1.0 has written (`kept/README.md`) is listed, verified, gone on with and trained from."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cures_core.checkpoints.checkpoint import load_checkpoint
from cures_core.config.storage import StoreConfig
from cures_core.curriculum import load_posterior
from cures_core.jobs import epoch
from cures_core.jobs.assemble import assemble_policy
from cures_core.jobs.spec import Job
from flows.cli.main import app
from tasks.runs.figures import EpochFigures, Figures, PolicyFigures, ValidateFigures
from tasks.runs.notes import stage_record
from tasks.runs.opening import snapshot_places, started_config
from tasks.runs.records import Record, files_of
from tasks.runs.resume import resumed_config
from tasks.snapshots import list_snapshots, read_snapshot
from tasks.storage import LocalStore
from tests.recorded.run import NoParent

KEPT, RUN, PLACE = Path(__file__).parent / "kept" / "0.1.0.tar.gz", "old-a7e58126", StoreConfig(url="store")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A copy, in the folder that the test works in."""
    with tarfile.open(KEPT) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return LocalStore(Path("store"))


def said(*words: str) -> str:
    outcome = CliRunner().invoke(app, [*words, "--store", "store"], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def used(store: LocalStore, kind: type[Figures], label: str = "") -> Record[Figures]:
    """The record that the run has used for a stage."""
    record = stage_record(store, RUN, kind, label)
    assert record is not None
    return record


def test_commands_that_read_know_what_it_holds(store: LocalStore) -> None:
    (row,) = json.loads(said("runs", "list", "--json"))
    assert (row["run"], row["status"]) == (RUN, "completed")
    (model,) = json.loads(said("models", "list", "--json"))
    assert (model["run"], model["who"], model["version"]) == (RUN, "kept", 1)
    assert said("runs", "verify", "--all").splitlines() == [
        "checked: 12 values, 10 records, 7 files, 2 snapshots, 1 pointers, 1 versions, 2 evaluations, 1 leases",
        "all as it was written",
    ]


def test_its_snapshots_are_read_back(store: LocalStore) -> None:
    places = snapshot_places(PLACE, RUN)
    assert [snapshot.tag for snapshot in list_snapshots(places)] == [f"posterior/{RUN}/{k}" for k in (0, 1)]
    assert (
        read_snapshot(f"posterior/{RUN}/1", places)
        == (files_of(store, used(store, EpochFigures, "1")) / "posterior.parquet").read_bytes()
    )
    assert f"{RUN}, epoch 1: 24 prompts, 20 with evidence" in said("posterior", "show", "--run", RUN)


def test_it_is_gone_on_with_after_its_last_epoch(store: LocalStore) -> None:
    forked = resumed_config(PLACE, RUN, ["epochs=2"])
    assert forked.fork is not None
    assert (forked.fork.run, forked.fork.epoch, forked.fork.step) == (RUN, 1, 2)


def test_the_next_epoch_begins_at_its_checkpoint(store: LocalStore, tmp_path: Path) -> None:
    first, policy, data = (
        files_of(store, used(store, kind, label)).absolute()
        for kind, label in ((EpochFigures, "1"), (PolicyFigures, ""), (ValidateFigures, ""))
    )
    job = Job(
        name="epoch",
        config=started_config(store, RUN),
        scratch=tmp_path / "steps",
        out=tmp_path / "out",
        epoch=2,
        policy=str(policy / "policy"),
        checkpoint=first / "checkpoint",
        prompts=data / "prompts.parquet",
        posterior=first / "posterior.parquet",
    )
    before = load_checkpoint(first / "checkpoint")
    weights = dict(assemble_policy(job, before).model.named_parameters())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in before.weights.items())
    for folder in (job.scratch, job.out):
        folder.mkdir()
    epoch.run(job, NoParent())
    after = load_checkpoint(job.out / "checkpoint")
    assert (before.step, after.step) == (2, 4)
    assert [row["step"] for row in after.metrics] == [3, 4]
    assert after.state["progress"]["rollouts"] == before.state["progress"]["rollouts"] + 64
    known = [list(load_posterior(folder / "posterior.parquet").ids) for folder in (first, job.out)]
    assert known[0] == known[1]
