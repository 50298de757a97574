"""Attention within bounds gives what a mask gives, and is used where it can be."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.config.training import TorchTrainerConfig
from cures_core.errors import ConfigError
from cures_core.policy.loading import Policy
from cures_core.training import bounded_attention as module
from cures_core.training.advantages import batch_samples
from cures_core.training.bounded_attention import _options, bounded_attention, bounds
from cures_core.training.forward import attends_in_bounds, completion_logprobs, keeps_rollouts_apart
from cures_core.training.packing import micro_batches
from cures_core.training.torch_trainer import TorchTrainer
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama
from tests.cures_core.training.test_torch_trainer import groups

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from more, and lose much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def llama_policy(**options: Any) -> Policy:
    return Policy(tiny_llama(**options), character_tokenizer(), CPU)


def test_bounds_are_where_positions_start_again() -> None:
    samples = batch_samples(groups(llama_policy(), 5, 6), "grpo", "prompt")
    (batch,) = micro_batches(samples, 1 << 20, 0)
    found = bounds(batch.positions, CPU)
    starts = found["cu_seq_lens_q"].tolist()
    assert starts[0] == 0
    assert starts[-1] == batch.ids.size
    assert len(starts) == len(samples) + 1
    assert starts == sorted(starts)
    assert found["max_length_q"] == max(b - a for a, b in pairwise(starts))
    assert found["cu_seq_lens_q"].dtype is torch.int32


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([64, 256, 1 << 20]))
def test_logprobs_and_gradients_are_those_of_the_masked_square(seed: int, num: int, budget: int) -> None:
    p = llama_policy()
    samples = batch_samples(groups(p, seed, num), "grpo", "prompt")
    gradients: list[dict[str, Any]] = []
    logprobs: list[list[float]] = []
    for on in (False, True):
        p.model.zero_grad()
        logprobs.append([])
        for batch in micro_batches(samples, budget, 0):
            with bounded_attention(p.model, on=on):
                logp, entropy = completion_logprobs(p.model, batch, 1.0, CPU, bounded=on)
                (logp * torch.arange(len(logp))).sum().backward()
            assert entropy.isfinite().all()
            logprobs[-1] += logp.tolist()
        gradients.append({name: w.grad.clone() for name, w in p.model.named_parameters()})
    assert logprobs[0] == pytest.approx(logprobs[1], abs=1e-4)
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-3, atol=1e-3 * float(gradient.abs().max())), name


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_setting_decides_what_a_step_attends_by(checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the second forward pass, which gradient checkpointing makes in the backward pass."""
    calls: list[str] = []
    once = module._one_by_one
    monkeypatch.setattr(module, "_one_by_one", lambda *a: calls.append("bounded") or once(*a))
    weights: dict[str, Any] = {}
    for attention in ("model", "auto", "bounded"):
        p, calls[:] = llama_policy(), []
        cfg = TorchTrainerConfig(learning_rate=1e-3, attention=attention, gradient_checkpointing=checkpointing)
        trainer = TorchTrainer(p, cfg, 1.0)
        asked = len(calls)
        assert trainer.update(groups(p, 3, 4))["updated"]
        passes = (len(calls) - asked) / p.model.config.num_hidden_layers
        assert passes == (0 if attention != "bounded" else 2 if checkpointing else 1)
        assert p.model.config._attn_implementation == "sdpa"
        weights[attention] = p.model.lm_head.weight.detach().clone()
    assert torch.equal(weights["model"], weights["auto"])  # on CPU nothing changes
    assert torch.allclose(weights["model"], weights["bounded"], atol=1e-5)


def test_the_base_policy_attends_in_bounds_as_well() -> None:
    """Of a model that mixes rollouts of a row where nothing bounds them: none of its divergence is from itself."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 47, "hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64, "num_hidden_layers": 2}
    cfg = transformers.OPTConfig(**sizes, num_attention_heads=4, init_std=0.3, dropout=0.0)
    p = Policy(transformers.OPTForCausalLM(cfg).eval(), character_tokenizer(), CPU)
    assert not keeps_rollouts_apart(p.model, CPU)
    training = TorchTrainerConfig(learning_rate=1e-3, kl_coef=0.1, attention="bounded")
    trainer = TorchTrainer(p, training, 1.0, copy.deepcopy(p.model).eval())
    figures = trainer.update(groups(p, 3, 4))
    assert figures["packing"] > 0.7
    assert figures["kl"] == pytest.approx(0.0, abs=1e-6)


def test_models_that_bounds_would_change_are_refused_or_trained_otherwise() -> None:
    sizes = {"vocab_size": 47, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    window = transformers.MistralForCausalLM(transformers.MistralConfig(**sizes, **heads, sliding_window=5))
    own = tiny_llama(attn_implementation="eager")
    for model in (window, own):
        assert not attends_in_bounds(model, torch.device("cuda"), "auto")
        with pytest.raises(ConfigError, match=r"training\.attention"):
            attends_in_bounds(model, CPU, "bounded")
    assert attends_in_bounds(tiny_llama(), CPU, "bounded")
    assert not attends_in_bounds(tiny_llama(), CPU, "auto")


def test_kernels_that_are_not_there_leave_the_model_its_own_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise RuntimeError("FlashAttention only supports fp16 and bf16")

    monkeypatch.setattr(module, "_one_by_one", missing)
    model = tiny_llama()
    assert not keeps_rollouts_apart(model, CPU, bounded=True)
    assert keeps_rollouts_apart(model, CPU)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_without_bounds_is_not_attended_over_the_whole_row() -> None:
    model = tiny_llama()
    with bounded_attention(model), pytest.raises(ValueError, match="bounds"):
        model(input_ids=torch.tensor([[1, 2, 3]]), use_cache=False)


def newest(q: Any, k: Any, v: Any, a: Any, b: Any, m: int, n: int, *, scale: Any = None, window_size: Any = (-1, -1),
           enable_gqa: bool = False) -> None: ...  # fmt: skip


def older(q: Any, k: Any, v: Any, a: Any, b: Any, m: int, n: int, is_causal: bool = False) -> None: ...


def test_every_version_of_the_kernels_is_told_the_same() -> None:
    query, key, value = torch.zeros(7, 6, 4), torch.ones(7, 2, 4), torch.ones(7, 2, 4)
    options, k, _ = _options(newest, query, key, value, 0.5)
    assert options == {"window_size": (-1, 0), "scale": 0.5, "enable_gqa": True}
    assert k is key
    options, k, v = _options(older, query, key, value, 0.5)
    assert options == {"is_causal": True}
    assert k.shape == v.shape == query.shape
    with pytest.raises(ValueError, match="scale"):
        _options(older, query, key, value, 0.3)
