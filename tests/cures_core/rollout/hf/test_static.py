"""Decoding in fixed shapes gives what decoding in any shapes gives, and goes through the few shapes that it says."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from cures_core.config.rollout import PromptFormat
from cures_core.errors import ConfigError
from cures_core.rollout.hf import kv_rows, static_rows
from cures_core.rollout.hf.grouped_attention import _grouped, grouped_attention
from cures_core.rollout.hf.static_rows import StaticRows, _columns, _rows
from cures_core.terms import Prompt, Request
from cures_core.testing.rollout_engine import disturb, flat, requests_of, tokens_of
from tests.cures_core.rollout.hf.test_engine import LLAMA, OTHER_MODELS, engine_of
from tests.cures_core.rollout.tiny import tiny_llama


@contextmanager
def masks_of_steps(model: Any) -> Iterator[list[tuple[int, ...] | None]]:
    """Shape of the attention mask of every forward pass over one column."""
    seen: list[tuple[int, ...] | None] = []

    def note(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[1] == 1:
            mask = kwargs["attention_mask"]
            seen.append(None if mask is None else tuple(mask.shape))

    hook = model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize(("decoding", "dimensions"), [("static", {4}), ("eager", {2}), ("auto", {2})])
def test_the_setting_says_how_a_step_is_computed(decoding: Any, dimensions: set[int]) -> None:
    engine = engine_of(decoding=decoding, max_new_tokens=6)
    with masks_of_steps(LLAMA) as masks:
        engine.generate(requests_of(n=2))
    assert {len(mask) for mask in masks[-3:] if mask} == dimensions


def test_steps_have_few_shapes_which_shrink_as_rows_end() -> None:
    engine = engine_of(decoding="static", max_new_tokens=150)
    with masks_of_steps(LLAMA) as masks:
        engine.generate(requests_of(n=20))
    shapes = [(mask[0], mask[3]) for mask in masks if mask and mask[0] > 2]  # two rows: the model is asked
    assert {rows for rows, _ in shapes} == {120, 64, 32, 16}
    assert {columns for _, columns in shapes} <= {32, 48, 64, 96, 128, 192}
    assert [rows for rows, _ in shapes] == sorted((rows for rows, _ in shapes), reverse=True)


def test_memory_is_kept_for_the_next_call_and_grows_only_where_it_must() -> None:
    engine = engine_of(decoding="static", max_new_tokens=6)
    engine.generate(requests_of(n=4))
    kept = engine.static
    assert kept is not None
    engine.generate(requests_of(n=2))
    assert engine.static is kept
    buffers = [layer.buffers[0].data_ptr() for layer in kept.layers]
    engine.retune(engine.cfg.model_copy(update={"temperature": 0.3, "max_new_tokens": 3}))
    engine.generate(requests_of(n=4))
    assert [layer.buffers[0].data_ptr() for layer in kept.layers] == buffers
    engine.generate(requests_of(n=50))
    assert engine.static is not kept
    engine.sleep()  # where the device's memory is not known, none is kept
    assert engine.static is None


@pytest.mark.parametrize("decoding", ["static", "eager"])
def test_memory_that_is_given_back_is_free_at_once(decoding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a garbage collection: a trainer may need that memory before there is one."""
    held: list[weakref.ref[torch.Tensor]] = []
    for layer in (static_rows._StaticLayer, kv_rows._RowLayer):

        def noting(self: Any, owner: Any, buffers: Any, made: Any = layer.__init__) -> None:
            held.extend(map(weakref.ref, buffers))
            made(self, owner, buffers)

        monkeypatch.setattr(layer, "__init__", noting)
    engine = engine_of(decoding=decoding, max_new_tokens=6)
    gc.collect()
    gc.disable()
    try:
        engine.generate(requests_of(n=4))
        engine.sleep()
        assert held
        assert all(buffer() is None for buffer in held)
    finally:
        gc.enable()


@settings(max_examples=25, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 30), st.integers(0, 6)), max_size=6),
    batch_rows=st.integers(1, 40),
    limit=st.integers(1, 40),
    look=st.integers(1, 7),
    stop=st.sampled_from([(), ("1",), ("a", "7")]),
)
def test_fixed_shapes_change_no_token(
    shapes: list[tuple[int, int]], batch_rows: int, limit: int, look: int, stop: tuple[str, ...]
) -> None:
    problems = [("1234567890+"[i:] * length)[: 6 * length] for i, (length, _) in enumerate(shapes)]
    wanted = [Request(f"r{i}", Prompt(f"p{i}", problems[i], "?"), n, 0) for i, (_, n) in enumerate(shapes)]
    options = {"max_new_tokens": limit, "temperature": 0.8, "prompt_format": PromptFormat(stop=stop)}
    expected = engine_of(decoding="eager", **options).generate(wanted)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static_rows, "STEPS_PER_LOOK", look)
        found = engine_of(decoding="static", batch_rows=batch_rows, **options).generate(wanted)
    assert tokens_of(found) == tokens_of(expected)
    for one, other in zip(flat(found), flat(expected), strict=True):
        assert (one.text, one.finish_reason) == (other.text, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


@pytest.mark.parametrize("name", ["learned positions", "eager attention"])
def test_other_models_decode_alike(name: str) -> None:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(OTHER_MODELS[name], trust_remote_code=False).eval()
    options = {"max_new_tokens": 20, "batch_rows": 9}
    static, eager = (engine_of(model, decoding=how, **options) for how in ("static", "eager"))
    assert tokens_of(static.generate(requests_of(n=5))) == tokens_of(eager.generate(requests_of(n=5)))


def test_adapters_decode_alike() -> None:
    import peft

    torch.manual_seed(0)
    adapters = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(copy.deepcopy(LLAMA), adapters)
    static, eager = (engine_of(model, decoding=how, max_new_tokens=12) for how in ("static", "eager"))
    assert tokens_of(static.generate(requests_of(n=3))) == tokens_of(eager.generate(requests_of(n=3)))


@pytest.mark.parametrize("name", ["sliding window", "sliding and full", "no position ids"])
def test_a_model_that_fixed_shapes_would_change_is_refused_or_decoded_otherwise(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers.AutoModelForCausalLM.from_config(OTHER_MODELS[name], trust_remote_code=False).eval()
    with pytest.raises(ConfigError, match=r"rollout\.decoding"):
        engine_of(model, decoding="static", max_new_tokens=4).generate(requests_of(n=1))
    engine = engine_of(model, max_new_tokens=4)
    with engine.lm.evaluating():
        monkeypatch.setattr(engine, "device", torch.device("cuda"))  # asks what `auto` means there; nothing is moved
        assert not engine._is_static()
        engine.sync(model)


def test_auto_is_static_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()
    monkeypatch.setattr(engine, "device", torch.device("cuda"))
    with engine.lm.evaluating():
        assert engine._is_static()


def test_what_diverged_weights_left_in_the_cache_reaches_nobody() -> None:
    model = copy.deepcopy(LLAMA)
    engine = engine_of(model, decoding="static", max_new_tokens=8)
    before = tokens_of(engine.generate(requests_of(n=3)))
    assert engine.static is not None
    with torch.inference_mode():
        for layer in engine.static.layers:
            for buffer in layer.buffers:
                buffer.fill_(torch.nan)
    assert tokens_of(engine.generate(requests_of(n=3))) == before


def test_weights_that_moved_are_noticed() -> None:
    model = copy.deepcopy(LLAMA)
    engine = engine_of(model, decoding="static", max_new_tokens=4)
    engine.generate(requests_of(n=1))
    assert engine.static is not None
    addresses = engine.static.graphs._inputs
    disturb(model)  # in place: an optimizer's update
    engine.generate(requests_of(n=1))
    assert engine.static.graphs._inputs == addresses
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    engine.generate(requests_of(n=1))
    assert engine.static.graphs._inputs != addresses


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.sampled_from([1, 2, 3]), st.sampled_from([1, 3]), st.integers(1, 40), st.integers(0, 99))
def test_grouped_attention_is_attention_with_repeated_keys(
    rows: int, shared: int, group: int, columns: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, shared * group, 1, 8, generator=generator)
    key, value = (torch.randn(rows, shared, columns, 8, generator=generator) for _ in range(2))
    mask = torch.rand(rows, 1, 1, columns, generator=generator).round() * -1e4
    mask[..., 0] = 0.0
    module = torch.nn.Module()
    module.num_key_value_groups = group  # type: ignore[assignment]
    ours, _ = _grouped(module, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_grouped_attention_is_put_in_place_and_taken_away() -> None:
    with grouped_attention(LLAMA):
        assert LLAMA.config._attn_implementation == "cures_grouped"
    assert LLAMA.config._attn_implementation == "sdpa"
    eager = tiny_llama(attn_implementation="eager")
    with grouped_attention(eager):
        assert eager.config._attn_implementation == "eager"


@given(st.integers(1, 5000))
def test_shapes_hold_what_they_must_and_not_much_more(number: int) -> None:
    assert number <= _columns(number) <= max(32, number * 3 / 2)
    assert number <= _rows(number) < max(17, 2 * number)


def test_an_engine_asks_for_room_once() -> None:
    rows = StaticRows(100, 50, 20, torch.device("cpu"))
    assert rows.serves(100, 64, 20)
    assert not rows.serves(101, 64, 20)
    assert not rows.serves(100, 65, 20)
    assert not rows.serves(100, 64, 21)
