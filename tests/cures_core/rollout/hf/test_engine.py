"""The embedded engine's own promises: each prompt prefilled once, bounded rows, the model left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from cures_core.config.rollout import HfRolloutConfig, PromptFormat
from cures_core.errors import ConfigError, DataRejected, TrainingDiverged
from cures_core.rollout import build_engine
from cures_core.rollout.hf import decoding
from cures_core.rollout.hf.engine import HfEngine
from cures_core.rollout.vllm.probe import probe_ids, probe_logprobs
from cures_core.terms import FinishReason, Prompt, Request
from cures_core.testing.rollout_engine import disturb, flat, reference_logprobs, requests_of, tokens_of
from tests.cures_core.rollout.tiny import character_tokenizer, tiny_llama

TOKENIZER = character_tokenizer()
LLAMA = tiny_llama()
SIZE = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2_SIZE = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": len(TOKENIZER), "initializer_range": 0.3}
OTHER_MODELS = {
    "learned positions": transformers.GPT2Config(**GPT2_SIZE, pad_token_id=0, bos_token_id=1, eos_token_id=2),
    "sliding window": transformers.MistralConfig(**SIZE, sliding_window=5),
    "sliding and full": transformers.Gemma3TextConfig(
        **SIZE, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
    "no position ids": transformers.BloomConfig(
        vocab_size=len(TOKENIZER), hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, eos_token_id=2
    ),
    "eager attention": transformers.LlamaConfig(**SIZE, attn_implementation="eager"),
}


def engine_of(model: Any = LLAMA, **options: Any) -> HfEngine:
    return HfEngine(model, TOKENIZER, HfRolloutConfig(**options))


@contextmanager
def forward_shapes(model: Any) -> Iterator[list[tuple[int, int]]]:
    """(rows, columns) of the ids of every forward pass."""
    shapes: list[tuple[int, int]] = []
    hook = model.register_forward_pre_hook(
        lambda _module, _args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        hook.remove()


def prefills(shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [shape for shape in shapes if shape[1] > 1]


@pytest.mark.parametrize("batch_rows", [3, 8, 100])
def test_each_prompt_is_prefilled_once_and_rows_are_bounded(batch_rows: int) -> None:
    with forward_shapes(LLAMA) as shapes:
        engine_of(batch_rows=batch_rows, max_new_tokens=6).generate(requests_of(n=5))
    assert sum(rows for rows, _ in prefills(shapes)) == len(requests_of(n=5))
    assert max(rows for rows, columns in shapes if columns == 1) <= batch_rows


def test_finished_rows_leave_the_batch() -> None:
    with forward_shapes(LLAMA) as shapes:
        rollouts = flat(engine_of(max_new_tokens=60).generate(requests_of(n=8)))
    steps = [rows for rows, columns in shapes if columns == 1]
    assert steps == sorted(steps, reverse=True)
    needed = sum(len(r.token_ids) - 1 for r in rollouts)
    assert needed <= sum(steps) < 1.25 * needed


def test_waiting_prompts_take_the_slots_of_finished_rows() -> None:
    with forward_shapes(LLAMA) as shapes:
        rollouts = flat(engine_of(batch_rows=8, max_new_tokens=60).generate(requests_of(n=8)))
    steps = [rows for rows, columns in shapes if columns == 1]
    assert sum(steps) < 1.25 * sum(len(r.token_ids) - 1 for r in rollouts)
    assert len(prefills(shapes)) > 2


def test_prefills_are_bounded_in_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = tokens_of(engine_of(max_new_tokens=6).generate(requests_of(n=3)))
    monkeypatch.setattr(decoding, "_PREFILL_TOKENS", 12)
    with forward_shapes(LLAMA) as shapes:
        in_parts = tokens_of(engine_of(max_new_tokens=6).generate(requests_of(n=3)))
    assert at_once == in_parts
    assert all(rows == 1 or rows * columns <= 12 for rows, columns in prefills(shapes))
    assert len(prefills(shapes)) > 2


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), max_size=8),
    st.integers(1, 12),
    st.integers(1, 40),
)
def test_batching_changes_no_token(shapes: list[tuple[int, int]], batch_rows: int, limit: int) -> None:
    problems = [("1234567890+"[i:] * length)[: 6 * length] for i, (length, _) in enumerate(shapes)]
    wanted = [Request(f"r{i}", Prompt(f"p{i}", problems[i], "?"), n, 0) for i, (_, n) in enumerate(shapes)]
    small = engine_of(batch_rows=batch_rows, max_new_tokens=limit, temperature=0.8).generate(wanted)
    large = engine_of(batch_rows=500, max_new_tokens=limit, temperature=0.8).generate(wanted)
    assert tokens_of(small) == tokens_of(large)
    assert [len(group) for group in small] == [n for _, n in shapes]
    for one, other in zip(flat(small), flat(large), strict=True):  # float noise, which docs/engines.md gives
        assert one.logprobs == pytest.approx(other.logprobs, abs=5e-5)


def test_no_uninitialised_memory_is_read() -> None:
    """Deterministic mode fills new memory with NaN, which even a masked column would pass on."""
    plain = engine_of(batch_rows=9, max_new_tokens=60).generate(requests_of(n=8))
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        checked = engine_of(batch_rows=9, max_new_tokens=60).generate(requests_of(n=8))
    finally:
        torch.use_deterministic_algorithms(False)
    assert tokens_of(checked) == tokens_of(plain)


@pytest.mark.parametrize("name", OTHER_MODELS)
@pytest.mark.parametrize("batch_rows", [5, 100])
def test_other_architectures_give_their_own_logprobs(name: str, batch_rows: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(OTHER_MODELS[name], trust_remote_code=False).eval()
    rollouts = flat(engine_of(model, batch_rows=batch_rows, max_new_tokens=20).generate(requests_of(n=4)))
    for rollout in rollouts:
        own = reference_logprobs(model, rollout, 1.0)[np.arange(len(rollout.token_ids)), rollout.token_ids]
        assert np.abs(own - np.array(rollout.logprobs)).max() < 1e-4
    assert max(len(r.token_ids) for r in rollouts) > 10


@pytest.mark.parametrize("batch_rows", [4, 100])
def test_greedy_equals_generate(batch_rows: int) -> None:
    requests = requests_of(n=1)
    engine = engine_of(temperature=0, max_new_tokens=40, batch_rows=batch_rows)
    for rollout in flat(engine.generate(requests)):
        ids = torch.tensor([rollout.prompt_ids])
        whole = LLAMA.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=40)
        assert rollout.token_ids == tuple(whole[0, ids.shape[1] :].tolist())


def test_every_end_token_of_the_generation_config_ends() -> None:
    model = tiny_llama()
    model.generation_config.eos_token_id = [2, *range(20, 40)]
    rollouts = flat(engine_of(model, max_new_tokens=40).generate(requests_of(n=8)))
    assert all(r.finish_reason is FinishReason.STOP for r in rollouts)
    assert {r.token_ids[-1] for r in rollouts} > {2}
    assert not any(set(r.token_ids[:-1]) & {2, *range(20, 40)} for r in rollouts)


def test_stop_on_the_last_allowed_token_is_not_truncation() -> None:
    whole = flat(engine_of(max_new_tokens=1).generate(requests_of(n=8)))
    stop = tuple({r.text for r in whole if r.text})
    fmt = PromptFormat(stop=stop)
    stopped = flat(engine_of(max_new_tokens=1, prompt_format=fmt).generate(requests_of(n=8)))
    ended = [r for r, w in zip(stopped, whole, strict=True) if w.text]
    assert len(ended) > len(whole) / 2
    assert all(r.finish_reason is FinishReason.STOP and r.text == "" and len(r.token_ids) == 1 for r in ended)


def test_mode_of_every_submodule_and_gradients_are_left_as_they_were() -> None:
    model = tiny_llama()
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    engine = engine_of(model, max_new_tokens=5)
    rollouts = engine.generate(requests_of(n=2))
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    ids = torch.tensor([flat(rollouts)[0].prompt_ids])
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None for p in model.parameters())


def test_dropout_is_off_while_generating() -> None:
    model = tiny_llama(attention_dropout=0.9)
    quiet = tokens_of(engine_of(model, max_new_tokens=8).generate(requests_of(n=3)))
    model.train()
    assert tokens_of(engine_of(model, max_new_tokens=8).generate(requests_of(n=3))) == quiet


def test_mode_is_restored_after_an_error() -> None:
    model = tiny_llama().train()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="not finite"):
        engine_of(model, max_new_tokens=5).generate(requests_of(n=2))
    assert model.training


def test_prompt_that_does_not_fit_is_refused_before_generation() -> None:
    model = tiny_llama(max_position_embeddings=16)
    wanted = [*requests_of(n=(1, 1)), Request("long", Prompt("too-long", "1" * 12, "?"), 1, 0)]
    with forward_shapes(model) as shapes, pytest.raises(DataRejected, match="prompt too-long: 12 tokens"):
        engine_of(model, max_new_tokens=5).generate(wanted)
    assert shapes == []


def test_completion_may_fill_the_context() -> None:
    model = tiny_llama(max_position_embeddings=16)
    [[rollout]] = engine_of(model, max_new_tokens=11).generate([Request("r", Prompt("p", "1+2+3", "?"), 1, 1)])
    assert len(rollout.prompt_ids) + 11 == 16


def test_limit_as_long_as_the_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens = 16 leaves no room"):
        engine_of(tiny_llama(max_position_embeddings=16), max_new_tokens=16).generate(requests_of(n=1))


def test_state_space_model_is_refused() -> None:
    model = transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=47, hidden_size=16, num_hidden_layers=1))
    with pytest.raises(ConfigError, match="other state than keys and values"):
        engine_of(model)


def test_build_engine_makes_the_engine_of_the_type() -> None:
    assert isinstance(build_engine(HfRolloutConfig(), LLAMA, TOKENIZER), HfEngine)


def test_probe_tells_changed_weights() -> None:
    model = tiny_llama().train()
    ids = probe_ids(len(TOKENIZER))
    before = probe_logprobs(model, ids)
    assert before.shape == (len(ids) - 1,)
    assert np.array_equal(probe_logprobs(model, ids), before)
    assert model.training
    disturb(model)
    assert np.abs(probe_logprobs(model, ids) - before).max() > 0.1
