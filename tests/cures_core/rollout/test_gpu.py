"""Both engines on a CUDA device: the exam, and weights that arrive in bfloat16. `infra/gpu_smoke.sh` runs these."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from cures_core.config.rollout import HfRolloutConfig, VllmRolloutConfig
from cures_core.rollout import RolloutEngine, build_engine
from cures_core.testing.rollout_engine import RolloutEngineExam, disturb, requests_of

from .tiny import character_tokenizer, tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TOKENIZER = character_tokenizer()


def llama(dtype: torch.dtype = torch.float32) -> Any:
    return tiny_llama(hidden_size=128, num_attention_heads=2, num_key_value_heads=1).to("cuda", dtype)


class TestHfEngineOnGpu(RolloutEngineExam):
    logprob_tolerance = 1e-3

    def policy(self) -> tuple[Any, Any]:
        return llama(), TOKENIZER

    def make(self, model: Any, tokenizer: Any, **options: Any) -> RolloutEngine:
        return build_engine(HfRolloutConfig(**options), model, tokenizer)


def test_new_weights_arrive_in_bfloat16_on_a_shared_gpu() -> None:
    pytest.importorskip("vllm")
    model = llama(torch.bfloat16)
    engine = build_engine(VllmRolloutConfig(max_new_tokens=16, max_model_len=256), model, TOKENIZER)
    try:
        before = engine.generate(requests_of(n=4))
        moved = copy.deepcopy(model)
        disturb(moved)
        engine.sync(moved)  # raises where the fingerprints differ
        after = engine.generate(requests_of(n=4))
    finally:
        engine.close()
    assert [[r.token_ids for r in g] for g in before] != [[r.token_ids for r in g] for g in after]
