"""Which posterior a retraining starts from: that of a run of the same policy, by content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cures_core.config.loading import load_config
from cures_core.config.marks import changes
from cures_core.config.run import RunConfig
from cures_core.config.training import TorchrunTrainerConfig
from cures_core.errors import ConfigError
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


RANKS = {"type": "torchrun", "learning_rate": 1e-3}
SERVERS = {"type": "vllm_server", "max_new_tokens": 4}
JUDGE = {"type": "judge", "url": "http://127.0.0.1:1/v1", "model": "m"}


def configured(**sections: Any) -> RunConfig:
    base = {"data": {"path": "set.jsonl"}, "rollout": {"max_new_tokens": 4}, "training": {"learning_rate": 1e-3}}
    return RunConfig.model_validate({**base, **sections})


def test_every_placement_that_the_deployment_names_is_its_own() -> None:
    """But what is read, and what is made of it is called, which is part of what was judged."""
    suites = [{"name": "exam", "path": "exam.jsonl"}]

    def side(host: str) -> RunConfig:
        return configured(
            name=host,
            data={"path": f"{host}.jsonl", "flags": f"{host}.flags"},
            policy={"type": "pretrained", "path": host, "base": host, "revision": "b" * 40},
            training={**RANKS, "processes": len(host), "nodes": len(host), "address": f"{host}:1"},
            rollout={**SERVERS, "endpoints": [f"http://{host}:8000"], "weights_folder": f"/{host}"},
            reward={**JUDGE, "cache": host},
            evaluation={"suites": suites, "sharding": {"runner": "ray", "ray_address": f"ray://{host}:1"}},
            promotion={"model": host, "suites": ["exam"]},
            store={"url": host},
            snapshot={"repository": host},
            tracking={"wandb": host},
            device={"threads": len(host)},
        )

    deployed, judged = side("cluster"), side("ci")
    found = {change.path for change in changes(judged, in_places_of(deployed, judged))}
    of_the_run = {"name", "data.path", "data.flags", "policy.path", "policy.base", "promotion.model"}
    assert found == {change.path for change in changes(judged, deployed)} - of_the_run


def test_what_the_deployment_says_nothing_of_is_as_judged() -> None:
    sharding = {"shards": 2, "runner": "ray", "ray_address": "ray://head:1"}
    judged = configured(training={**RANKS, "processes": 4}, rollout=SERVERS, evaluation={"sharding": sharding})
    found = in_places_of(configured(training=RANKS, store={"url": "there"}), judged)
    assert [change.path for change in changes(judged, found)] == ["store.url"]


def test_places_that_belong_together_come_together() -> None:
    """CI's second node would meet nobody at the deployment's one."""
    judged = configured(training={**RANKS, "nodes": 2, "address": "ci:1"})
    found = in_places_of(configured(training={**RANKS, "processes": 8}), judged).training
    assert isinstance(found, TorchrunTrainerConfig)
    assert (found.processes, found.nodes, found.address) == (8, 1, "")


def test_places_that_do_not_go_with_what_was_judged_are_told() -> None:
    deployed = configured(rollout={**SERVERS, "endpoints": ["http://127.0.0.1:8000"]})
    with pytest.raises(ConfigError, match=r"in the places of the deployment: 1 bad field\n  rollout.*kv_cache_gib"):
        in_places_of(deployed, configured(rollout={**SERVERS, "kv_cache_gib": 2}))
