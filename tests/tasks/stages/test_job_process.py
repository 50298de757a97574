from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cures_core.config.loading import load_config
from cures_core.errors import ChildFailed, ConfigError, InjectedFault, Preempted
from cures_core.events import PartDone
from cures_core.faults import arm
from cures_core.files import digest_folder
from cures_core.jobs.spec import Job
from tasks.progress import listening
from tasks.stages.job_process import allow_jobs, run_job, stop_jobs
from tests.cures_core.policy.test_supervised import base as base
from tests.cures_core.policy.test_supervised import job_in as supervised
from tests.end_to_end.pipeline import write_profile


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A warm start of twelve steps."""
    config = load_config(write_profile(tmp_path), ["policy.steps=12", "policy.checkpoint_every=3"])
    return Job(name="warm_start", config=config, scratch=tmp_path / "scratch", out=tmp_path / "out")


def test_events_arrive_and_results_are_there(job: Job) -> None:
    events: list[Any] = []
    with listening(events.append):
        run_job(job)
    assert events[-1] == PartDone(part="warm_start", done=12, total=12)
    assert (job.out / "policy" / "model.safetensors").exists()


def test_a_failed_job_is_the_error_it_was_and_can_go_on(job: Job, tmp_path: Path) -> None:
    arm(["warm_start.step:5=raise"], tmp_path / "faults")
    try:
        with pytest.raises(InjectedFault, match=r"warm_start\.step:5"):
            run_job(job)
        run_job(job)
    finally:
        arm([], tmp_path)
    assert (job.out / "policy" / "config.json").exists()


def test_a_supervised_warm_start_that_was_killed_ends_with_the_same_bytes(base: Path, tmp_path: Path) -> None:
    whole, killed = supervised(tmp_path / "whole", base), supervised(tmp_path / "killed", base)
    run_job(whole)
    arm(["warm_start.step:5=kill"], tmp_path / "faults")
    try:
        with pytest.raises(ChildFailed, match="was ended by SIGKILL"):
            run_job(killed)
        assert list(killed.scratch.glob("step-*"))
        run_job(killed)
    finally:
        arm([], tmp_path)
    assert digest_folder(killed.out / "policy") == digest_folder(whole.out / "policy")


def test_a_job_without_its_inputs_says_which(job: Job) -> None:
    with pytest.raises(ConfigError, match="the folder of the suites"):
        run_job(job.model_copy(update={"name": "evaluate"}))


def test_a_strategy_that_does_not_take_its_settings_is_told_before_any_work(job: Job, tmp_path: Path) -> None:
    """By the first job of a run, though the epoch is what needs the strategy; an evaluation does not."""
    strategy = "tests.cures_core.curriculum.example_strategy:LongestAgo"
    own = f'type = "custom", strategy = "{strategy}", prompts_per_step = 4, rollouts_per_step = 16, options = {{x = 1}}'
    config = load_config(tmp_path / "tiny.toml", [f"curriculum={{{own}}}"])
    bad = job.model_copy(update={"config": config})
    with pytest.raises(ConfigError, match=r"curriculum\.options\.x: LongestAgo has no such option"):
        run_job(bad)
    assert not list(job.out.iterdir())
    with pytest.raises(ConfigError, match="the folder of the suites"):
        run_job(bad.model_copy(update={"name": "evaluate"}))


def test_jobs_of_other_threads_save_and_end_when_asked_and_none_begins_meanwhile(job: Job) -> None:
    long = job.model_copy(update={"config": load_config(job.scratch.parent / "tiny.toml", ["policy.steps=100000"])})
    asked = threading.Event()

    def stop_once_at_work(_: Any) -> None:
        if not asked.is_set():
            asked.set()
            stop_jobs()

    try:
        with ThreadPoolExecutor(1) as pool, pytest.raises(Preempted, match="saved"):
            pool.submit(run_job, long, stop_once_at_work).result()
        with pytest.raises(Preempted, match="before the job began"):
            run_job(job)
    finally:
        allow_jobs()
