"""Killed anywhere and resumed, a run ends with the same bytes as one that nobody disturbed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.pipeline import cures, results, run_to_the_end, write_profile

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
