"""What a job that went on elsewhere says of where its numbers were computed: every machine that had a part in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
import torch

from cures_core.errors import Preempted
from cures_core.files import digest_folder
from cures_core.jobs import epoch, evaluate, prior
from cures_core.jobs.chunks import made_on
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.machine import machine_of
from cures_core.policy.loading import save_policy
from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from tests.cures_core.jobs.epochs import make_job
from tests.cures_core.jobs.test_evaluate import Listener, config, tiny_policy
from tests.cures_core.jobs.test_kept_rollouts import Listener as Stepwise

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def another_machine_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each job that is started finds itself on a machine of its own."""
    for module in (epoch, evaluate, prior):
        on(module, iter("ABCDEFGH"), monkeypatch)


def on(module: ModuleType, names: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def here(*arguments: Any) -> dict[str, str]:
        return {**machine_of(*arguments), "processor": next(names)}

    monkeypatch.setattr(module, "machine_of", here)


def machine(job: Job) -> dict[str, str]:
    found: dict[str, str] = json.loads((job.out / "figures.json").read_bytes())["machine"]
    return found


def made(job: Job) -> Job:
    job.out.mkdir(parents=True, exist_ok=True)
    job.scratch.mkdir(parents=True, exist_ok=True)
    return job


def test_an_epoch_names_every_machine_that_made_steps_of_it(tmp_path: Path) -> None:
    job, whole = made(make_job(tmp_path / "broken", {}, steps=3)), made(make_job(tmp_path / "whole", {}, steps=3))
    for _ in range(2):
        with pytest.raises(Preempted):
            epoch.run(job, cast(Parent, Stepwise(0)))
    epoch.run(job, cast(Parent, Stepwise()))
    epoch.run(whole, cast(Parent, Stepwise()))
    assert machine(job) == {"processor": "A and B and C", "device": "cpu", "threads": "1", "dtype": "float32"}
    assert machine(whole)["processor"] == "D"
    assert digest_folder(job.out / "checkpoint") == digest_folder(whole.out / "checkpoint")


def test_a_checkpoint_of_an_earlier_version_names_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = made(make_job(tmp_path, {}, steps=2))
    monkeypatch.setattr(epoch, "MACHINES", "what earlier versions did not keep")
    with pytest.raises(Preempted):
        epoch.run(job, cast(Parent, Stepwise(0)))
    monkeypatch.undo()
    on(epoch, iter("Z"), monkeypatch)
    epoch.run(job, cast(Parent, Stepwise()))
    assert machine(job)["processor"] == "Z"


def test_chunks_name_theirs(tmp_path: Path) -> None:
    prompts = PromptSet.of([make_prompt(f"{i}+1=", str(i + 1)) for i in range(8)])
    (tmp_path / "suites").mkdir()
    for file in ("prompts", "suites/exam"):
        prompts.write_parquet(tmp_path / f"{file}.parquet")
    save_policy(tiny_policy(), tmp_path / "policy")
    sample = {"type": "sample", "budget": 16, "rollouts_per_prompt": 2, "chunk_prompts": 4}
    cfg = config([{"name": "exam", "path": "exam.jsonl"}], prior=sample)
    for name, module in (("evaluate", evaluate), ("prior", prior)):
        job = made(
            Job(
                name=name,
                config=cfg,
                scratch=tmp_path / name / "scratch",
                out=tmp_path / name / "out",
                policy=str(tmp_path / "policy"),
                prompts=tmp_path / "prompts.parquet",
                suites=tmp_path / "suites",
            )
        )
        with pytest.raises(Preempted):
            module.run(job, cast(Parent, Listener(patience=0)))
        module.run(job, cast(Parent, Listener()))
        assert machine(job)["processor"] == "A and B", name


def test_rows_of_earlier_versions_count_as_made_here() -> None:
    assert made_on([{"id": "a"}, {"id": "b"}], {"processor": "here"}) == {"processor": "here"}
    rows = [{"id": "a"}, {"id": "b", "machine": {"processor": "there"}}]
    assert made_on(rows, {"processor": "here"}) == {"processor": "there"}


def test_ranks_are_told_where_there_can_be_several() -> None:
    assert "ranks" not in machine_of(CPU, "float32")
    assert machine_of(CPU, "float32", 4)["ranks"] == "4"
