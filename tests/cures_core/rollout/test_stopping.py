"""Stop strings are found at the token that completes them, whatever the tokenizer does with bytes and spaces."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cures_core.rollout.stopping import StopRule, end_token_ids
from tests.cures_core.rollout.tiny import character_tokenizer


def byte_tokenizer() -> Any:
    """One token a byte of UTF-8: a character such as é takes two."""
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def word_tokenizer() -> Any:
    """Words, which decoding joins by spaces that no token holds."""
    core = Tokenizer(models.WordLevel({"a": 0, "b": 1, "end": 2}, unk_token="a"))
    return PreTrainedTokenizerFast(tokenizer_object=core)


def first_stop(rule: StopRule, token_ids: list[int]) -> tuple[int, str] | None:
    """Number of tokens and text where step-by-step detection stops."""
    for length in range(1, len(token_ids) + 1):
        if rule.suspects(np.array(token_ids[length - 1 : length]))[0]:
            text = rule.cut(token_ids[:length])
            if text is not None:
                return length, text
    return None


def brute_force(rule: StopRule, token_ids: list[int]) -> tuple[int, str] | None:
    for length in range(1, len(token_ids) + 1):
        text = rule.text([token_ids[:length]])[0]
        places = [text.find(s) for s in rule.strings if s in text]
        if places:
            return length, text[: min(places)]
    return None


@settings(max_examples=80, deadline=None)
@given(st.text("aé\n:€", max_size=12), st.sampled_from([("é",), ("\n",), ("a:", "€"), (":\né",)]))
def test_byte_tokens_stop_where_the_text_first_holds_the_string(text: str, stop: tuple[str, ...]) -> None:
    tokenizer = byte_tokenizer()
    rule = StopRule(tokenizer, [], stop, 256)
    token_ids = tokenizer(text)["input_ids"]
    assert first_stop(rule, token_ids) == brute_force(rule, token_ids)


@pytest.mark.parametrize("stop", ["a ", " b", "b a", "end"])
def test_spaces_between_tokens_count(stop: str) -> None:
    rule = StopRule(word_tokenizer(), [], (stop,), 3)
    for token_ids in ([0, 1, 2], [1, 0, 0], [2, 2], [1, 1, 0]):
        assert first_stop(rule, token_ids) == brute_force(rule, token_ids)


def test_tokens_that_cannot_complete_a_stop_string_are_not_suspected() -> None:
    tokenizer = character_tokenizer()
    rule = StopRule(tokenizer, [2], ("ab",), len(tokenizer))
    assert rule.suspects(np.array(tokenizer("abc1")["input_ids"])).tolist() == [False, True, False, False]


def test_end_tokens_are_recognised_and_left_out_of_the_text() -> None:
    rule = StopRule(character_tokenizer(), [2], (), 47)
    assert rule.is_end(np.array([1, 2, 3])).tolist() == [False, True, False]
    assert rule.text([[5, 6, 2], [5, 6]]) == ["12", "12"]
    assert rule.text([]) == []


def test_stop_string_that_is_an_added_token_is_an_end_token() -> None:
    tokenizer = character_tokenizer(extra_special_tokens=["<|im_end|>"])
    added = tokenizer.convert_tokens_to_ids("<|im_end|>")
    rule = StopRule(tokenizer, [2], ("<|im_end|>", "\n"), len(tokenizer))
    assert rule.is_end(np.array([added, 2, 5])).tolist() == [True, True, False]
    assert rule.strings == ("\n",)


@pytest.mark.parametrize(("configured", "expected"), [(5, [2, 5]), ([7, 5], [2, 5, 7]), (None, [2])])
def test_end_tokens_of_model_and_tokenizer_are_joined(configured: Any, expected: list[int]) -> None:
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=configured))
    assert end_token_ids(model, SimpleNamespace(eos_token_id=2)) == expected
