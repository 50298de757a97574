"""Rollouts that an epoch keeps are part of its record, and of nothing that a result depends on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from cures_core.errors import Preempted
from cures_core.events import JobEvent
from cures_core.files import digest_file, digest_folder
from cures_core.jobs import epoch
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.kept_rollouts.redaction import mark_of
from cures_core.kept_rollouts.table import KeptRollouts, read_rollouts
from tests.cures_core.jobs.epochs import make_job, outcome

ALL: dict[str, Any] = {"kept_rollouts": {"share": 1.0, "per_step": 8}}


class Listener:
    """Stands in for the process that started the job; asks to stop after some steps."""

    def __init__(self, patience: int = 1000) -> None:
        self._left = patience

    @property
    def stop_requested(self) -> bool:
        return self._left <= 0

    def emit(self, event: JobEvent) -> None:
        self._left -= 1

    def stop_if_asked(self, done: str) -> None:
        if self.stop_requested:
            raise Preempted(f"saved {done}")


def trained(folder: Path, stops: int = 0, **options: Any) -> Job:
    job = make_job(folder, {}, steps=3, **options)
    job.out.mkdir(parents=True)
    job.scratch.mkdir(parents=True)
    if stops:
        with pytest.raises(Preempted):
            epoch.run(job, cast(Parent, Listener(stops)))
    epoch.run(job, cast(Parent, Listener()))
    return job


def kept(job: Job) -> KeptRollouts:
    return read_rollouts(job.out / "rollouts.parquet")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return trained(tmp_path_factory.mktemp("whole") / "job", **ALL)


def test_every_step_leaves_rollouts_with_what_the_update_made_of_them(job: Job) -> None:
    rows = kept(job).rows
    assert [row.step for row in rows] == [1] * 8 + [2] * 8 + [3] * 8
    assert outcome(job)[1]["kept_rollouts"] == {"kept": 24, "withheld": 0, "cut": 0, "left_out": 3 * (36 - 8)}
    learned = [row for row in rows if row.advantage is not None]
    assert learned
    metrics = {row["step"]: row for row in outcome(job)[0].metrics}
    for row in learned:
        assert row.reward is not None
        assert row.advantage is not None
        assert (row.advantage > 0) is (row.reward > 0)
        assert row.logprob_gap is not None
        assert 0 <= row.logprob_gap <= metrics[row.step]["logprob_gap_max"]
    assert {row.outcome for row in rows} == {"correct", "wrong"}
    assert {row.epoch for row in rows} == {1}


def test_a_stopped_epoch_ends_with_the_same_rollouts(job: Job, tmp_path: Path) -> None:
    resumed = trained(tmp_path / "job", stops=1, **ALL)
    assert (resumed.scratch / "step-000002" / "rollouts.jsonl").read_bytes().count(b"\n") == 16
    for name in ("rollouts.parquet", "tally.json", "figures.json"):
        assert digest_file(resumed.out / name) == digest_file(job.out / name), name


@pytest.mark.parametrize("options", [{"kept_rollouts": {"per_step": 0}}, {"kept_rollouts": {"share": 0.1}}])
def test_nothing_else_depends_on_how_much_is_kept(job: Job, options: dict[str, Any], tmp_path: Path) -> None:
    other = trained(tmp_path / "job", **options)
    assert digest_folder(other.out / "checkpoint") == digest_folder(job.out / "checkpoint")
    assert digest_file(other.out / "posterior.parquet") == digest_file(job.out / "posterior.parquet")
    assert len(kept(other).rows) < len(kept(job).rows)


def test_nothing_unredacted_is_written(tmp_path: Path) -> None:
    redacted = trained(tmp_path / "job", redact="tests.cures_core.kept_rollouts.hooks:without_digits", **ALL)
    found = kept(redacted)
    assert found.redaction == mark_of(redacted.config)
    texts = [text for row in found.rows for text in (row.problem, row.completion, row.extracted)]
    assert not any(c.isdigit() for text in texts for c in text)
    assert any("#" in row.completion for row in found.rows)
    saved = [json.loads(line) for line in (redacted.scratch / "step-000003/rollouts.jsonl").read_bytes().splitlines()]
    assert not any(c.isdigit() for row in saved for c in row["problem"] + row["completion"])
