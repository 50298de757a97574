"""Prompts become token ids whole, with each special token once."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from cures_core.config.rollout import PromptFormat
from cures_core.errors import ConfigError, DataRejected
from cures_core.rollout.prompting import encode_prompts, render
from cures_core.terms import Prompt
from tests.cures_core.rollout.tiny import character_tokenizer

CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ m['role'] }}={{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant={% endif %}"
)


def prompt(problem: str, name: str = "p") -> Prompt:
    return Prompt(name, problem, "?")


def with_special_tokens(single: str) -> Any:
    tokenizer = character_tokenizer(chat_template=CHAT)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=single, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


def test_template_wraps_the_problem_and_leaves_other_braces_alone() -> None:
    fmt = PromptFormat(template="a{problem}b \\boxed{}")
    assert render(prompt(r"\frac{1}{2} {problem}"), None, fmt) == r"a\frac{1}{2} {problem}b \boxed{}"


def test_plain_prompt_gets_the_begin_token_once() -> None:
    tokenizer = with_special_tokens("<s> $A")
    [ids] = encode_prompts([prompt("1+1=")], tokenizer, PromptFormat())
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids[1:]) == "1+1="


def test_chat_prompt_gets_the_begin_token_once() -> None:
    tokenizer = with_special_tokens("<s> $A")
    [ids] = encode_prompts([prompt("1+1")], tokenizer, PromptFormat(chat=True, template="say {problem}"))
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids[1:]) == "user=say 1+1\nassistant="


def test_system_message_comes_first() -> None:
    tokenizer = character_tokenizer(chat_template=CHAT)
    text = render(prompt("1+1"), tokenizer, PromptFormat(chat=True, system="add"))
    assert text == "<s>system=add\nuser=1+1\nassistant="


def test_end_token_added_by_the_tokenizer_is_taken_off() -> None:
    [ids] = encode_prompts([prompt("1+1=")], with_special_tokens("<s> $A </s>"), PromptFormat())
    assert ids == (1, *character_tokenizer()("1+1=")["input_ids"])


def test_prompts_keep_their_order() -> None:
    tokenizer = character_tokenizer()
    problems = ["12", "3+4=", "5"]
    encoded = encode_prompts([prompt(p) for p in problems], tokenizer, PromptFormat())
    assert [tokenizer.decode(ids) for ids in encoded] == problems
    assert encode_prompts([], tokenizer, PromptFormat()) == []


def test_too_long_prompt_is_an_error_that_names_it() -> None:
    prompts = [prompt("1+1=", "short"), prompt("1+1+1=", "long")]
    with pytest.raises(DataRejected, match=r"prompt long: 6 tokens.* room for 5"):
        encode_prompts(prompts, character_tokenizer(), PromptFormat(), max_tokens=5)
    assert len(encode_prompts(prompts, character_tokenizer(), PromptFormat(), max_tokens=6)) == 2


def test_empty_prompt_is_an_error_that_names_it() -> None:
    with pytest.raises(DataRejected, match="prompt void: no tokens"):
        encode_prompts([prompt("", "void")], character_tokenizer(), PromptFormat())


def test_chat_needs_a_chat_template() -> None:
    with pytest.raises(ConfigError, match="no chat template"):
        encode_prompts([prompt("1")], character_tokenizer(), PromptFormat(chat=True))
