"""A policy written to a folder is a normal one: transformers and vLLM load it and compute what the policy computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cures_core.config.training import LoraConfig
from cures_core.policy.loading import Policy, load_policy, save_policy
from cures_core.rollout.vllm.probe import probe_ids, probe_logprobs
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama


@pytest.fixture(scope="module", params=["full weights", "adapters"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder written from a checkpoint of a policy that has moved, and its log-probabilities of the probe."""
    folder = tmp_path_factory.mktemp("export")
    cpu = torch.device("cpu")
    # vLLM's CPU build computes heads of at least 32.
    model = tiny_llama(hidden_size=64, num_attention_heads=2, num_key_value_heads=1)
    save_policy(Policy(model, character_tokenizer(), cpu), folder / "base")
    lora = LoraConfig(rank=2, alpha=8, targets=("q_proj", "down_proj")) if request.param == "adapters" else None
    trained = load_policy(folder / "base", cpu, lora=lora)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained.trainable().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_checkpoint(Checkpoint(trained.trainable(), {}, {}, {"step": 1}), folder / "checkpoint", shard_bytes=2_000)
    assert len(list((folder / "checkpoint").glob("weights-*"))) > 1
    again = load_policy(folder / "base", cpu, lora=lora)
    again.load_trainable(load_checkpoint(folder / "checkpoint").weights)
    save_policy(again, folder / "out")
    return folder, probe_logprobs(trained.model, probe_ids(model.config.vocab_size))


def test_transformers_loads_it(exported: tuple[Path, Any]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, wanted = exported
    loaded = AutoModelForCausalLM.from_pretrained(folder / "out", trust_remote_code=False)
    found = probe_logprobs(loaded, probe_ids(loaded.config.vocab_size))
    assert np.abs(found - wanted).max() < 1e-4
    base = AutoModelForCausalLM.from_pretrained(folder / "base", trust_remote_code=False)
    assert np.abs(probe_logprobs(base, probe_ids(base.config.vocab_size)) - wanted).max() > 0.01
    tokenizer = AutoTokenizer.from_pretrained(folder / "out", trust_remote_code=False)
    assert tokenizer("1+2=").input_ids == character_tokenizer()("1+2=").input_ids


@pytest.mark.slow
def test_vllm_loads_it(exported: tuple[Path, Any]) -> None:
    pytest.importorskip("vllm")
    from cures_core.config.rollout import VllmRolloutConfig
    from cures_core.rollout.vllm.core import VllmCore

    folder, wanted = exported
    core = VllmCore(VllmRolloutConfig(max_new_tokens=4), folder / "out", "float32", torch.cuda.is_available())
    try:
        found = core.probe(probe_ids(len(character_tokenizer())))
    finally:
        core.stop()
    assert np.abs(found - wanted).max() < 1e-3
