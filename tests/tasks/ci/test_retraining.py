"""Which posterior a retraining starts from: that of a run of the same policy, by content."""

from __future__ import annotations

from pathlib import Path

import pytest

from cures_core.config.loading import load_config
from cures_core.config.run import RunConfig
from tasks.ci.retraining import in_places_of, with_earlier_posterior
from tasks.runs.notes import note_stage
from tasks.runs.opening import open_run
from tasks.runs.records import Record, record_bytes, record_place
from tasks.storage import open_store
from tests.cures_core.prompts.files import jsonl
from tests.tasks.stages.figures import figures_of

PROFILE = """
name = "nightly"
[data]
path = "set.jsonl"
[policy]
type = "pretrained"
path = "model"
[rollout]
max_new_tokens = 4
[training]
learning_rate = 1e-3
"""


def profile(*settings: str) -> RunConfig:
    return load_config(Path("profile.toml"), settings)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A completed run with a prior, on a policy in `model`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profile.toml").write_text(PROFILE)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("weights")
    jsonl(tmp_path / "set.jsonl", [{"problem": "1+1=", "answer": "2"}])
    config = profile()
    with open_run(config) as ref:
        store = open_store(config.store)
        prior = Record(stage="estimate_prior", key="0" * 32, inputs={}, figures=figures_of("estimate_prior"))
        store.put(record_place(prior.stage, prior.key), record_bytes(prior))
        note_stage(store, ref, "", prior, cached=False)
    return ref.name


def test_a_run_of_the_same_policy_under_another_path_counts(run: str, tmp_path: Path) -> None:
    (tmp_path / "model").rename(tmp_path / "moved")
    jsonl(tmp_path / "set.jsonl", [{"problem": "1+2=", "answer": "3"}])
    assert with_earlier_posterior(profile("policy.path=moved"), "latest").prior.start_from == f"posterior/{run}/0"


@pytest.mark.parametrize("file", ["run.json", "status.json", "stages/estimate_prior.json", "gone"])
def test_a_damaged_run_is_passed_over(run: str, tmp_path: Path, file: str) -> None:
    with open_run(profile("name=other")) as other:
        store = open_store(other.config.store)
        store.put(f"runs/{other.name}/stages/estimate_prior.json", store.get(f"runs/{run}/stages/estimate_prior.json"))
    assert with_earlier_posterior(profile("seed=4"), "latest").prior.start_from == f"posterior/{run}/0"
    store.delete(f"runs/{other.name}/run.json") if file == "gone" else store.put(f"runs/{other.name}/{file}", b"{")
    assert with_earlier_posterior(profile("seed=5"), "latest").prior.start_from == f"posterior/{run}/0"


def test_another_policy_under_the_same_path_does_not(run: str, tmp_path: Path) -> None:
    (tmp_path / "model" / "model.safetensors").write_text("other weights")
    assert with_earlier_posterior(profile(), "latest").prior.start_from is None


def test_nor_does_another_precision(run: str) -> None:
    assert with_earlier_posterior(profile("policy.dtype=bfloat16"), "latest").prior.start_from is None
    assert with_earlier_posterior(profile(), "latest").prior.start_from == f"posterior/{run}/0"


def test_what_was_judged_trains_where_the_deployment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profile.toml").write_text(PROFILE)
    judged = profile("training.learning_rate=3e-5", "seed=5", "store.url=ci", "data.path=new.jsonl")
    deployed = profile("store.url=s3://cures/runs", "snapshot.repository=/r.git", "device.type=cuda", "epochs=9")
    found = in_places_of(deployed, judged)
    assert found.training.learning_rate == 3e-5
    assert (found.seed, found.epochs, found.data.path) == (5, 1, "new.jsonl")
    assert (found.store, found.snapshot, found.device) == (deployed.store, deployed.snapshot, deployed.device)
