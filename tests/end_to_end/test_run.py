"""The pipeline as its users run it: once, again, changed, twice at a time, stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from cures_core.errors import LeaseHeld
from tasks.storage.lease import Lease
from tasks.storage.local import LocalStore
from tests.end_to_end.pipeline import PROJECT, cures, results, run_to_the_end, write_profile


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder where the tiny profile has run, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    outcome = cures("run", "--config", write_profile(folder), "--json", cwd=folder)
    assert outcome.code == 0, outcome.err
    return folder, outcome.summary


def test_it_ends_with_everything_that_was_promised(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    assert set(summary) == {
        "run",
        "stages",
        "prompts",
        "scores",
        "rollouts",
        "seconds",
        "snapshot",
        "promoted",
        "report",
    }
    assert summary["rollouts"] == {"prior": 32, "train": 2 * 4 * 32, "eval": 2 * 24 * 3}
    assert [(s["suite"], s["measure"], s["n"], s["k"]) for s in summary["scores"]] == [
        ("heldout", "avg@2", 24, 2),
        ("heldout", "greedy", 24, 1),
    ]
    for score in summary["scores"]:
        assert score["before"]["low"] <= score["before"]["value"] <= score["before"]["high"]
        assert score["gain"]["low"] <= score["gain"]["value"] <= score["gain"]["high"]
    assert summary["promoted"]["promoted"] is (summary["scores"][0]["gain"]["low"] > 0)
    assert "<h1>" in Path(summary["report"]).read_text()
    tags = subprocess.run(
        ["git", "--git-dir", str(folder / ".cures" / "snapshots.git"), "tag"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert tags.stdout.split() == [f"posterior/{summary['run']}/{k}" for k in range(3)]


def test_again_it_does_no_work_and_says_so(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    before = results(folder, summary["run"])
    assert len(list((folder / ".cures" / "evaluations").iterdir())) == 2
    kept = _written(folder)
    outcome = cures("run", "--config", folder / "tiny.toml", cwd=folder)
    assert outcome.out.startswith(f"nothing to do: all {len(summary['stages'])} stages of run {summary['run']}")
    assert outcome.out.splitlines()[-1] == summary["report"]
    assert _written(folder) == kept
    resumed = cures("run", "--resume", summary["run"], "--json", cwd=folder)
    assert {s["name"]: s["key"] for s in resumed.summary["stages"]} == {s["name"]: s["key"] for s in summary["stages"]}
    assert all(s["cached"] for s in resumed.summary["stages"])
    assert results(folder, summary["run"]) == before


@pytest.mark.end_to_end
def test_killed_in_a_job_and_in_the_flow_it_ends_with_the_same_bytes(
    done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    whole, summary = done
    folder = without(whole, tmp_path / "copy", "train_epoch", "evaluate_checkpoint")
    faults = ["checkpoint.before_rename:3=kill", "stage.before_record:train_epoch-2=kill"]
    outcome, kills = run_to_the_end(folder, write_profile(folder, faults), 1)
    assert (outcome.code, kills) == (0, 1), outcome.err
    assert outcome.summary["run"] == summary["run"]
    met = {path.name for path in (folder / ".cures" / "faults" / summary["run"]).iterdir()}
    assert met == {"checkpoint.before_rename_3.kill", "stage.before_record_train_epoch-2.kill"}
    assert results(folder, summary["run"]) == results(whole, summary["run"])
    done_before = [s["name"] for s in outcome.summary["stages"] if s["cached"]]
    assert {"validate_dataset", "prepare_policy", "estimate_prior", "train_epoch 1"} <= set(done_before)


def without(whole: Path, folder: Path, *stages: str) -> Path:
    """A copy of a run's folder in which these stages have not been done."""
    shutil.copytree(whole, folder)
    made = ["evaluations"] if "evaluate_checkpoint" in stages else []
    for name in [*made, *(f"{kind}/{stage}" for kind in ("stages", "artifacts") for stage in stages)]:
        shutil.rmtree(folder / ".cures" / name)
    return folder


def _written(folder: Path) -> dict[Path, int]:
    """When each file of the store was written, but for the stamps that say which were read and found whole."""
    files = (path for path in (folder / ".cures").rglob("*") if path.is_file() and ".stamps" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("setting", "redone"),
    [
        ("training.learning_rate=5e-4", {"train_epoch 1", "train_epoch 2", "evaluate_checkpoint 2"}),
        ("epochs=1", {"evaluate_checkpoint 1"}),
        ("evaluation.resamples=300", {"evaluate_checkpoint 0", "evaluate_checkpoint 2"}),
    ],
)
def test_a_changed_setting_redoes_what_reads_it(
    setting: str, redone: set[str], done: tuple[Path, dict[str, Any]]
) -> None:
    folder, summary = done
    outcome = cures("run", "--config", folder / "tiny.toml", "--set", setting, "--json", cwd=folder)
    assert outcome.code == 0, outcome.err
    assert outcome.summary["run"] != summary["run"]
    # Snapshots, promotion and report belong to a run: they are made for every new one.
    own = {
        s["name"]
        for s in outcome.summary["stages"]
        if s["name"].split()[0] in ("snapshot_posterior", "promote", "report")
    }
    assert {s["name"] for s in outcome.summary["stages"] if not s["cached"]} - own == redone
    if setting.startswith("evaluation"):  # other intervals of the same completions
        shown = json.loads(cures("runs", "show", outcome.summary["run"], "--json", cwd=folder).out)
        scored = [s["figures"] for s in shown["stages"] if s["stage"] == "evaluate_checkpoint"]
        assert [figures["reused"] for figures in scored] == [["heldout"], ["heldout"]]


@pytest.mark.end_to_end
def test_a_run_that_failed_goes_on_as_a_fork_with_a_lower_learning_rate(tmp_path: Path) -> None:
    profile = write_profile(tmp_path, faults=["train.step:2=raise"])
    broken = cures("run", "--config", profile, "--set", "epochs=1", cwd=tmp_path)
    assert broken.code == 1
    (run,) = (one["run"] for one in json.loads(cures("runs", "list", "--json", cwd=tmp_path).out))
    lower = ("--set", "training.learning_rate=5e-4")
    forked = cures("run", "--resume", run, *lower, "--json", cwd=tmp_path)
    assert forked.code == 0, forked.err
    assert f"goes on as a fork of {run} from step 2 (epoch 1, checkpoint " in forked.err
    summary = forked.summary
    assert {s["name"] for s in summary["stages"] if s["cached"]} == {
        "validate_dataset",
        "prepare_policy",
        "estimate_prior",
        "evaluate_checkpoint 0",
    }
    name = summary["run"]
    shown = json.loads(cures("runs", "show", name, "--json", cwd=tmp_path).out)
    assert shown["fork"]["run"] == run
    assert f"fork of {run}" in Path(summary["report"]).read_text()
    lineage = subprocess.run(
        ["git", "--git-dir", ".cures/snapshots.git", "show", f"posterior/{name}/1:posterior/{name}/lineage.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(lineage.stdout)["fork"] == shown["fork"]
    again = cures("run", "--resume", summary["run"], "--set", "training.micro_batch_tokens=512", cwd=tmp_path)
    assert again.out.startswith("nothing to do"), again.err
    told = cures("runs", "show", summary["run"], cwd=tmp_path).out
    assert "training.micro_batch_tokens 16384 -> 512" in told
    assert shown["fork"]["run"] in told


def test_runs_and_posterior_are_told(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    runs = json.loads(cures("runs", "list", "--json", cwd=folder).out)
    mine = next(r for r in runs if r["run"] == summary["run"])
    assert mine["status"] == "completed"
    listed = json.loads(
        cures("curriculum", "hopeless", "--run", summary["run"], "--least", 0, "--json", cwd=folder).out
    )
    assert all({"id", "reason", "dead"} <= set(one) for one in listed)
    assert listed
    shown = json.loads(cures("posterior", "show", "--run", summary["run"], "--json", cwd=folder).out)
    assert (shown["prompts"], shown["epoch"], sum(shown["histogram"])) == (1600, 2, 1600)
    assert set(shown["calibration"]) == {"mae", "pearson", "brier"}
    assert 0 <= shown["frontier_share"] <= 1
    prior = json.loads(cures("posterior", "show", "--run", summary["run"], "--epoch", 0, "--json", cwd=folder).out)
    assert prior["prompts_with_evidence"] == 16
    assert prior["calibration"] is None
    told = json.loads(cures("runs", "show", summary["run"], "--json", cwd=folder).out)
    assert [s["stage"] for s in told["stages"]].count("train_epoch") == 2


@pytest.mark.end_to_end
def test_a_model_is_promoted_by_hand_and_exported(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    asked = cures("promote", summary["run"], "--model", "by-hand", "--json", cwd=folder)
    answer = json.loads(asked.out)
    assert (asked.code == 0) is answer["promoted"] is summary["promoted"]["promoted"]
    assert answer["reasons"] == summary["promoted"]["reasons"]
    assert cures("promote", summary["run"], "--model", "forced", "--override", cwd=folder).code == 2
    forced = cures("promote", summary["run"], "--model", "forced", "--override", "--why", "a try", cwd=folder)
    assert forced.code == 0, forced.err
    (entry,) = json.loads(cures("models", "show", "forced", "--json", cwd=folder).out)["history"]
    assert (entry["run"], entry["why"]) == (summary["run"], "a try")
    assert entry["action"] == ("promoted" if answer["promoted"] else "override")
    exported = cures("models", "export", "forced", "--out", "out/forced", cwd=folder)
    assert exported.code == 0, exported.err
    card = (folder / "out/forced/README.md").read_text()
    assert summary["run"] in card
    assert "| heldout | avg@2 |" in card
    assert (folder / "out/forced/model.safetensors").exists()
    assert cures("models", "export", "forced", "--out", "out/forced", cwd=folder).code == 2


@pytest.mark.end_to_end
def test_runs_are_compared_and_scores_handed_on(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    changed = cures("run", "--config", folder / "tiny.toml", "--set", "epochs=1", "--json", cwd=folder)
    assert changed.code == 0, changed.err
    other = changed.summary["run"]
    compared = cures("runs", "compare", other, summary["run"], "--json", "--out", "out/compared.html", cwd=folder)
    assert compared.code == 0, compared.err
    told = json.loads(compared.out)
    first, second = told["runs"]
    assert (first["against"], second["against"][0]["suite"]) == ([], "heldout")
    gain = second["against"][0]["gain"]
    before, after = (run["scores"][-1]["suites"][0]["avg"]["value"] for run in (first, second))
    assert gain["value"] == pytest.approx(after - before)
    assert told["settings"] == {"epochs": ["1", "2"]}
    assert other in (folder / "out/compared.html").read_text()
    unlike = cures(
        "run", "--config", folder / "tiny.toml", "--set", "evaluation.suites.0.samples=1", "--json", cwd=folder
    )
    assert unlike.code == 0, unlike.err
    text = cures("runs", "compare", summary["run"], unlike.summary["run"], cwd=folder).out
    assert "not paired: suite heldout: the scores do not compare" in text
    assert "k: candidate 1, incumbent 2" in text
    assert cures("runs", "compare", summary["run"], cwd=folder).code == 2
    made = json.loads(cures("runs", "scores", summary["run"], "--format", "lm-eval", cwd=folder).out)
    assert made["results"]["heldout"]["exact_match,none"] == pytest.approx(after)
    rows = json.loads(cures("runs", "scores", summary["run"], "--epoch", 0, "--format", "json", cwd=folder).out)
    assert rows[0]["avg"] == summary["scores"][0]["before"]


def test_a_finished_run_is_watched_and_reported_as_its_report_says(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    watched = cures("watch", summary["run"], cwd=folder)
    assert watched.code == 0, watched.err
    assert f"{summary['run']}: completed" in watched.out
    assert "step 8: reward" in watched.out
    told = cures("report", summary["run"], "--out", "live.html", cwd=folder)
    assert told.code == 0, told.err
    assert (folder / "live.html").read_text() == Path(summary["report"]).read_text()


@pytest.mark.end_to_end
@pytest.mark.parametrize("runner", ["threads", "ray"])
def test_in_shards_the_figures_are_the_same_and_a_killed_shard_is_done_again(
    runner: str, done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    if runner == "ray" and find_spec("prefect_ray") is None:
        pytest.skip("Ray is not installed: pip install 'cures[ray]'")
    whole, summary = done
    folder = without(whole, tmp_path / "copy", "evaluate_checkpoint")
    sharding = f'evaluation.sharding={{shards = 3, runner = "{runner}"}}'
    faults = 'faults=["eval.chunk:0=kill"]'
    again = cures("run", "--config", folder / "tiny.toml", "--set", sharding, "--set", faults, "--json", cwd=folder)
    assert again.code == 0, again.err
    assert again.summary["run"] == summary["run"]
    assert [s["name"] for s in again.summary["stages"] if not s["cached"]] == [
        "evaluate_checkpoint 0",
        "evaluate_checkpoint 2",
    ]
    assert results(folder, summary["run"]) == results(whole, summary["run"])
    assert (folder / ".cures" / "faults" / summary["run"] / "eval.chunk_0.kill").exists()
    assert not list((folder / ".cures" / "evaluations").glob("parts/*"))
    assert "  shard " in again.err


def test_a_second_process_is_refused_and_told_who_holds_the_run(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    lease = Lease(LocalStore(folder / ".cures"), summary["run"], 60)
    try:
        outcome = cures("run", "--resume", summary["run"], cwd=folder)
        assert outcome.code == 75
        assert "held by" in outcome.err
        assert f"process {os.getpid()}" in outcome.err
    finally:
        lease.close()
    assert issubclass(LeaseHeld, Exception)


@pytest.mark.end_to_end
def test_a_damaged_file_is_found_and_its_stage_done_again(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    before = results(folder, summary["run"])
    note = json.loads((folder / ".cures" / "runs" / summary["run"] / "stages" / "train_epoch-2.json").read_bytes())
    (files,) = (folder / ".cures" / "artifacts" / "train_epoch" / note["key"]).iterdir()
    (files / "posterior.parquet").unlink()
    outcome = cures("run", "--resume", summary["run"], "--json", cwd=folder)
    assert outcome.code == 0, outcome.err
    assert [s["name"] for s in outcome.summary["stages"] if not s["cached"]] == ["train_epoch 2"]
    assert results(folder, summary["run"]) == before


@pytest.mark.end_to_end
def test_sigterm_saves_the_step_and_a_second_run_goes_on(tmp_path: Path) -> None:
    profile = write_profile(tmp_path)
    command = [sys.executable, "-m", "flows.cli.main", "run", "--config", str(profile), "--set", "steps_per_epoch=4000"]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob(".cures/scratch/train_epoch/*/*/scratch/step-*")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)  # asking twice does no harm
        _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    (scratch,) = tmp_path.glob(".cures/scratch/train_epoch/*/*/scratch")
    assert len(list(scratch.glob("step-*"))) >= 1
    assert json.loads((scratch / "error.json").read_bytes())["class"] == "Preempted"
    assert b"asked to stop" in err
    assert b"Traceback" not in err
