"""The whole pipeline with the engines that are not this process: weights go out, rollouts come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cures_core.policy.characters import character_tokenizer
from tests.cures_core.rollout.tiny import tiny_llama
from tests.cures_core.rollout.vllm.fake_vllm import fake_servers
from tests.end_to_end.pipeline import Outcome, cures, write_profile

pytestmark = pytest.mark.end_to_end


def assert_trained_with_agreement(outcome: Outcome, folder: Path, bound: float) -> None:
    """It is done, every step has updated, and engine and trainer agreed on the log-probabilities they both took."""
    assert outcome.code == 0, outcome.err
    assert outcome.summary["rollouts"] == {"prior": 32, "train": 2 * 4 * 32, "eval": 2 * 24 * 3}
    metrics = sorted((folder / ".cures").rglob("checkpoint/metrics.jsonl"))
    steps = [json.loads(line) for path in metrics for line in path.read_text().splitlines()]
    assert {step["step"] for step in steps} == set(range(1, 9))
    assert max(step.get("logprob_gap_max", 0.0) for step in steps) < bound
    assert any(step["updated"] for step in steps)


def test_a_run_on_two_servers(tmp_path: Path) -> None:
    """They speak vLLM's protocol, and are not vLLM; a second run on servers elsewhere has nothing to do."""
    tokenizer = character_tokenizer()
    with fake_servers(2, tiny_llama(), tokenizer, context=64) as servers:
        urls = [server.url for server in servers]
        settings = ["--set", 'rollout.type="vllm_server"', "--set", f"rollout.endpoints={json.dumps(urls)}"]
        outcome = cures("run", "--config", write_profile(tmp_path), *settings, "--json", cwd=tmp_path)
        assert_trained_with_agreement(outcome, tmp_path, 1e-4)
        assert all(server.answered for server in servers)
    elsewhere = [settings[0], settings[1], "--set", 'rollout.endpoints=["http://127.0.0.1:9"]']
    again = cures("run", "--config", tmp_path / "tiny.toml", *elsewhere, "--json", cwd=tmp_path)
    assert again.code == 0, again.err
    assert again.summary["run"] == outcome.summary["run"]
    assert all(stage["cached"] for stage in again.summary["stages"])


@pytest.mark.slow
def test_a_run_with_vllm(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    # The CPU build computes heads of at least 32.
    settings = ["rollout.type=vllm", "rollout.max_model_len=64", "policy.hidden_size=64", "policy.heads=2"]
    words = [word for setting in settings for word in ("--set", setting)]
    outcome = cures("run", "--config", write_profile(tmp_path), *words, "--json", cwd=tmp_path, timeout=1800)
    assert_trained_with_agreement(outcome, tmp_path, 1e-3)
