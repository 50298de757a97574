"""Killed anywhere and resumed, a run ends with the same bytes as one that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.pipeline import Outcome, cures, results, write_profile

IN_JOBS = (
    "warm_start.step:25",
    "prior.chunk:2",
    "train.before_checkpoint:2",
    "checkpoint.half_written:3",
    "checkpoint.before_manifest:6",
    "checkpoint.before_rename:7",
    "eval.chunk:1",
)
IN_FLOW = (
    "stage.start:validate_dataset",
    "stage.before_files:prepare_policy",
    "stage.before_record:estimate_prior",
    "snapshot.after_push",
    "stage.before_record:train_epoch-1",
    "stage.after_record:train_epoch-2",
    "snapshot.before_pointer",
    "commit.noted",
    "stage.start:report",
)


def run_to_the_end(folder: Path, profile: Path, most_kills: int) -> tuple[Outcome, int]:
    """Start the run again until it ends by itself; returns the last outcome and how often it was killed."""
    for kills in range(most_kills + 2):
        outcome = cures("run", "--config", profile, "--json", cwd=folder)
        if outcome.code != -9:
            return outcome, kills
    raise AssertionError(f"still killed after {most_kills + 2} starts")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    outcome = cures("run", "--config", write_profile(folder), "--json", cwd=folder)
    assert outcome.code == 0, outcome.err
    assert not any(stage["cached"] for stage in outcome.summary["stages"])
    return results(folder, outcome.summary["run"])


@pytest.mark.end_to_end
def test_killed_at_sixteen_points_the_results_are_the_same_bytes(undisturbed: dict[str, str], tmp_path: Path) -> None:
    faults = [f"{point}=kill" for point in (*IN_JOBS, *IN_FLOW)]
    outcome, kills = run_to_the_end(tmp_path, write_profile(tmp_path, faults), len(IN_FLOW))
    assert outcome.code == 0, outcome.err
    assert kills == len(IN_FLOW)
    fired = {p.name for p in (tmp_path / ".cures" / "faults" / outcome.summary["run"]).iterdir()}
    assert fired == {f"{fault.split('=')[0].replace(':', '_')}.kill" for fault in faults}
    assert results(tmp_path, outcome.summary["run"]) == undisturbed
    assert len(undisturbed) >= 12


def test_one_kill_in_a_job_and_one_in_the_flow(undisturbed: dict[str, str], tmp_path: Path) -> None:
    faults = ["checkpoint.before_rename:3=kill", "stage.before_record:train_epoch-2=kill"]
    outcome, kills = run_to_the_end(tmp_path, write_profile(tmp_path, faults), 1)
    assert (outcome.code, kills) == (0, 1), outcome.err
    assert results(tmp_path, outcome.summary["run"]) == undisturbed
    done_before = [s["name"] for s in outcome.summary["stages"] if s["cached"]]
    assert {"validate_dataset", "prepare_policy", "estimate_prior", "train_epoch 1"} <= set(done_before)
