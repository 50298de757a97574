"""Shards of an evaluation: who makes which items, how they come together, and what is done again after a failure."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from cures_core.config.evaluation import Sharding
from cures_core.config.loading import load_config
from cures_core.errors import ChildFailed, ConfigError
from cures_core.jobs.evaluate import joined, rows_file
from cures_core.jobs.kept import keep, kept
from cures_core.jobs.spec import Job
from tasks.progress import listening
from tasks.runs.opening import identify
from tasks.runs.records import RunRef
from tasks.stages import evaluation_shards
from tasks.stages.evaluation_cache import delete_parts, part_key
from tasks.stages.evaluation_shards import Shards, generate_in_shards
from tasks.stages.workspace import Workspace
from tasks.storage.local import LocalStore
from tests.end_to_end.pipeline import write_profile

ITEMS = 8
HERE = {"device": "cpu"}


class Threads(ThreadPoolExecutor):
    """A task runner without Prefect's engine, so without its retries."""

    def submit(self, task: Any, parameters: Mapping[str, Any]) -> Future[Any]:  # type: ignore[override]
        return super().submit(task.fn, **parameters)


class Jobs:
    """Stands in for the job: one row for each item of the shard; shards in `failing` die."""

    def __init__(self, failing: set[int]) -> None:
        self.failing, self.done = failing, list[int]()

    def __call__(self, job: Job, on_event: Any) -> None:
        assert job.shard is not None
        first, step = job.shard
        if first in self.failing:
            raise ChildFailed(f"shard {first} was ended by SIGKILL")
        self.done.append(first)
        for suite in job.config.evaluation.suites:
            rows = [f"{suite.name} {i}" for i in range(first, ITEMS, step)]
            path = rows_file(job.scratch, suite.name)
            keep(path, {"machine": HERE, "sampled": rows, "greedy": []})


@pytest.fixture
def what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shards:
    sharding = ["evaluation.sharding.shards=3", f"store.url={tmp_path / 'store'}"]
    run = RunRef(name="demo", config=load_config(write_profile(tmp_path), sharding), token=1)

    def job(run: RunRef, *rest: Any) -> Job:
        return Job(name="evaluate", config=run.config, scratch=rest[-2], out=rest[-1])

    monkeypatch.setattr(evaluation_shards, "evaluation_job", job)
    monkeypatch.setattr(evaluation_shards, "_task_runner", lambda cfg: Threads(cfg.shards))
    nothing: Any = SimpleNamespace()
    return Shards(run, 0, nothing, nothing, None, {"heldout": "k1"})


def test_a_failed_shard_is_made_again_alone(what: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, events = LocalStore(tmp_path / "store"), list[Any]()
    space = Workspace(tmp_path / "scratch", tmp_path / "out", store, "unfinished")
    broken, whole = Jobs({1}), Jobs(set())
    monkeypatch.setattr(evaluation_shards, "run_job", broken)
    with listening(events.append), pytest.raises(ChildFailed, match="shard 1"):
        generate_in_shards(what, space)
    assert sorted(broken.done) == [0, 2]
    assert not rows_file(space.scratch, "heldout").exists()
    assert [event.done for event in events] == [1, 2, 3]
    monkeypatch.setattr(evaluation_shards, "run_job", whole)
    generate_in_shards(what, space)
    assert whole.done == [1]
    left = [path for path in (space.scratch / "shards").rglob("*") if path.is_file()]
    assert left == []
    rows = {"machine": HERE, "sampled": [f"heldout {i}" for i in range(ITEMS)], "greedy": []}
    assert kept(rows_file(space.scratch, "heldout")) == rows
    assert store.get(f"evaluations/{part_key('k1', 0, 3)}") is not None
    delete_parts(store, "k1")
    assert list(store.list("evaluations")) == []


def test_broken_off_the_jobs_are_asked_to_stop(what: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    asked: list[str] = []
    monkeypatch.setattr(evaluation_shards, "run_job", Jobs(set()))
    monkeypatch.setattr(evaluation_shards, "stop_jobs", lambda: asked.append("stop"))
    monkeypatch.setattr(evaluation_shards, "allow_jobs", lambda: asked.append("allow"))
    space = Workspace(tmp_path / "scratch", tmp_path / "out", LocalStore(tmp_path / "store"), "unfinished")
    with listening(interrupt), pytest.raises(KeyboardInterrupt):
        generate_in_shards(what, space)
    assert asked == ["stop", "allow"]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 9])
def test_joined_rows_are_in_the_order_of_the_items(n: int) -> None:
    parts = [
        {"machine": HERE, "sampled": [*range(i, 7, n)], "greedy": [*range(i, 7, n)] if n > 1 else []} for i in range(n)
    ]
    assert joined(parts) == {
        "machine": {"device": "cpu"},
        "sampled": [*range(7)],
        "greedy": [*range(7)] if n > 1 else [],
    }


def test_shards_of_two_kinds_of_device_are_refused() -> None:
    parts: list[Any] = [{"machine": {"device": kind}, "sampled": [], "greedy": []} for kind in ("cuda", "cpu")]
    with pytest.raises(ConfigError, match="ran on cpu and cuda"):
        joined(parts)


def test_a_run_keeps_its_name_however_it_is_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    profile = write_profile(tmp_path)
    names = {identify(load_config(profile, [f"evaluation.sharding.shards={shards}"])).name for shards in (1, 4)}
    assert len(names) == 1


def test_settings_of_ray_need_ray() -> None:
    with pytest.raises(ValidationError, match='need runner = "ray"'):
        Sharding(ray_gpus=1)


def test_ray_gets_its_address_and_keeps_gpus_free() -> None:
    context: Any = pytest.importorskip("prefect_ray.context", reason="pip install 'cures[ray]'")
    cfg = Sharding(shards=2, runner="ray", ray_address="ray://head:10001", ray_gpus=0.5)
    assert evaluation_shards._task_runner(cfg).address == "ray://head:10001"  # type: ignore[attr-defined]
    with evaluation_shards._resources(cfg):
        assert context.RemoteOptionsContext.get().current_remote_options == {"num_gpus": 0.5}


def test_paths_hold_in_another_folder(what: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "small").mkdir(parents=True)
    cfg = load_config(tmp_path / "tiny.toml", [])
    pretrained = cfg.model_copy(
        update={
            "policy": type(cfg)
            .model_validate({**cfg.model_dump(), "policy": {"type": "pretrained", "path": "models/small"}})
            .policy
        }
    )
    run = evaluation_shards._portable(what.run.model_copy(update={"config": pretrained}))
    assert run.config.store.url == str(tmp_path / ".cures")
    assert run.config.policy.type == "pretrained"
    assert run.config.policy.path == str(tmp_path / "models" / "small")
    s3 = cfg.model_copy(update={"store": cfg.store.model_copy(update={"url": "s3://bucket/runs"})})
    away = evaluation_shards._portable(what.run.model_copy(update={"config": s3})).config.store
    assert (away.url, away.scratch) == ("s3://bucket/runs", str(tmp_path / ".cures"))
