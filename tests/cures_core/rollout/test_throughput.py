"""The throughput benchmark counts what it says, and the engine is faster than `model.generate`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from cures_core.config.rollout import HfRolloutConfig
from cures_core.rollout.throughput import _until_end, mixed_requests, throughput
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama


def test_tokens_are_counted_up_to_the_first_end_token() -> None:
    assert _until_end(np.array([[5, 2, 2, 2], [2, 0, 0, 0], [5, 6, 7, 8]]), [2]) == 2 + 1 + 4


def test_figures_are_rates_of_the_same_requests() -> None:
    cfg = HfRolloutConfig(max_new_tokens=8, batch_rows=16)
    figures = throughput(tiny_llama(), character_tokenizer(), cfg, mixed_requests(4, 3), repeats=1)
    assert all(math.isfinite(value) and value > 0 for value in figures.values())
    assert figures["rollouts"] == 12
    grouped, batched = figures["generate_grouped_tokens_per_s"], figures["generate_batched_tokens_per_s"]
    assert figures["speedup"] == pytest.approx(figures["engine_tokens_per_s"] / max(grouped, batched))


@pytest.mark.slow
def test_engine_doubles_the_rate_of_generate_on_mixed_lengths() -> None:
    model = tiny_llama(hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_key_value_heads=4)
    model.lm_head.bias = torch.nn.Parameter(torch.zeros(model.config.vocab_size))
    with torch.no_grad():
        model.lm_head.bias[2] = 1.0
    cfg = HfRolloutConfig(max_new_tokens=128, batch_rows=64)
    assert throughput(model, character_tokenizer(), cfg, mixed_requests(32, 8), repeats=1)["speedup"] > 2
