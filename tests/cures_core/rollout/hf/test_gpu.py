"""The engines on a CUDA device: the exam, weights that arrive in bfloat16, sleep. `infra/gpu_smoke.sh` runs these."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from cures_core.config.rollout import HfRolloutConfig, VllmRolloutConfig, VllmServerRolloutConfig
from cures_core.rollout import RolloutEngine, build_engine
from cures_core.testing.rollout_engine import RolloutEngineExam, disturb, requests_of
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama

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


@pytest.mark.parametrize("sleep_level", [0, 1, 2])
@pytest.mark.parametrize("kind", [VllmRolloutConfig, VllmServerRolloutConfig])
def test_new_weights_arrive_in_bfloat16_on_a_shared_gpu(kind: Any, sleep_level: int) -> None:
    """A sleeping engine gives back at least its cache, and goes on as if it had not slept."""
    pytest.importorskip("vllm")
    model = llama(torch.bfloat16)
    cfg = kind(max_new_tokens=16, max_model_len=256, kv_cache_gib=2, sleep_level=sleep_level)
    engine = build_engine(cfg, model, TOKENIZER)
    try:
        before = engine.generate(requests_of(n=4))
        awake = torch.cuda.mem_get_info()[0]
        engine.rest()
        freed = torch.cuda.mem_get_info()[0] - awake
        assert (freed > 1 << 30) == (sleep_level > 0), freed
        moved = copy.deepcopy(model)
        disturb(moved)
        engine.sync(moved)  # raises where the fingerprints differ
        after = engine.generate(requests_of(n=4))
    finally:
        engine.close()
    assert [[r.token_ids for r in g] for g in before] != [[r.token_ids for r in g] for g in after]
