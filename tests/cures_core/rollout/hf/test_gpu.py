"""The engines on a CUDA device: the exam, weights that arrive in bfloat16, sleep. `infra/gpu_smoke.sh` runs these."""

from __future__ import annotations

import copy
import time
from typing import Any, Literal

import pytest
import torch

from cures_core.config.rollout import HfRolloutConfig, VllmRolloutConfig, VllmServerRolloutConfig
from cures_core.rollout import RolloutEngine, build_engine
from cures_core.rollout.hf.engine import HfEngine
from cures_core.testing.rollout_engine import RolloutEngineExam, disturb, requests_of, tokens_of
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

TOKENIZER = character_tokenizer()


def llama(dtype: torch.dtype = torch.float32) -> Any:
    return tiny_llama(hidden_size=128, num_attention_heads=2, num_key_value_heads=1).to("cuda", dtype)


class TestHfEngineOnGpu(RolloutEngineExam):
    """Captured steps: what `decoding = "auto"` means here."""

    logprob_tolerance = 1e-3
    decoding: Literal["eager", "static"] = "static"

    def policy(self) -> tuple[Any, Any]:
        return llama(), TOKENIZER

    def make(self, model: Any, tokenizer: Any, **options: Any) -> RolloutEngine:
        return build_engine(HfRolloutConfig(decoding=self.decoding, **options), model, tokenizer)


class TestEagerHfEngineOnGpu(TestHfEngineOnGpu):
    decoding = "eager"


def test_captured_steps_give_the_eager_tokens_and_are_faster(capsys: pytest.CaptureFixture[str]) -> None:
    """With 30 layers of a small model launching kernels is what takes the time. Prints tokens a second."""
    model = tiny_llama(hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                       num_key_value_heads=3, initializer_range=0.05).to("cuda")  # fmt: skip
    wanted = requests_of(n=40)
    tokens: dict[str, Any] = {}
    rates: dict[str, float] = {}
    for decoding in ("eager", "auto"):
        engine = build_engine(HfRolloutConfig(decoding=decoding, max_new_tokens=64), model, TOKENIZER)
        assert isinstance(engine, HfEngine)
        for _ in range(3):  # the first runs, the second captures what is left to capture
            started = time.perf_counter()
            tokens[decoding] = tokens_of(engine.generate(wanted))
            made = sum(len(ids) for group in tokens[decoding] for ids in group)
            rates[decoding] = made / (time.perf_counter() - started)
        captured = engine.static.graphs.captured if engine.static is not None else 0
        assert (captured > 0) == (decoding == "auto")
        engine.close()
    same = [a == b for x, y in zip(tokens["eager"], tokens["auto"], strict=True) for a, b in zip(x, y, strict=True)]
    with capsys.disabled():
        print(
            f"\neager {rates['eager']:,.0f} tokens/s, captured {rates['auto']:,.0f}; equal {sum(same)} of {len(same)}"
        )
    assert sum(same) > 0.9 * len(same)  # float noise moves a token that lies on a border
    assert rates["auto"] > 3 * rates["eager"]


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
        engine.sleep()
        freed = torch.cuda.mem_get_info()[0] - awake
        assert (freed > 1 << 30) == (sleep_level > 0), freed
        moved = copy.deepcopy(model)
        disturb(moved)
        engine.sync(moved)  # raises where the fingerprints differ
        after = engine.generate(requests_of(n=4))
    finally:
        engine.close()
    assert [[r.token_ids for r in g] for g in before] != [[r.token_ids for r in g] for g in after]
