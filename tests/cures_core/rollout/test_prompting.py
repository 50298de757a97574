"""Prompts become token ids whole, with each special token once."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from cures_core.config.rollout import PromptFormat
from cures_core.errors import ConfigError, DataRejected
from cures_core.rollout.prompting import encode_prompts, opens_thinking, prompt_lengths, render, require_format
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


def test_earlier_turns_stand_before_the_problem_and_their_system_message_before_the_configured_one() -> None:
    tokenizer, fmt = (
        character_tokenizer(chat_template=CHAT),
        PromptFormat(chat=True, system="add", template="say {problem}"),
    )
    earlier = (("user", "2"), ("assistant", "3"))
    said = Prompt("p", "1+1", "?", turns=earlier)
    assert render(said, tokenizer, fmt) == "<s>system=add\nuser=2\nassistant=3\nuser=say 1+1\nassistant="
    own = Prompt("p", "1+1", "?", turns=(("system", "base 7"), *earlier))
    assert render(own, tokenizer, fmt) == "<s>system=base 7\nuser=2\nassistant=3\nuser=say 1+1\nassistant="


def test_earlier_turns_are_never_left_out_of_a_single_message() -> None:
    said = Prompt("p", "1+1", "?", turns=(("user", "2"),))
    with pytest.raises(DataRejected, match=r"prompt p: has earlier turns.*prompt_format\.chat = true"):
        encode_prompts([said], character_tokenizer(), PromptFormat())


def test_a_template_that_refuses_a_prompt_is_told_with_the_prompt() -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    tokenizer = character_tokenizer(chat_template=refusing)
    with pytest.raises(DataRejected, match=r"prompt p: the policy's chat template refuses it \(no system\)"):
        render(Prompt("p", "1", "?", turns=(("system", "x"),)), tokenizer, PromptFormat(chat=True))


THINKS = (
    CHAT + "{% generation %}{% if enable_thinking is defined and not enable_thinking %}"
    "<think></think>{% else %}<think>\n{% endif %}{% endgeneration %}"
)


def test_arguments_reach_the_chat_template() -> None:
    tokenizer = character_tokenizer(chat_template=THINKS)
    for value, end in ((True, "<think>\n"), (False, "<think></think>")):
        fmt = PromptFormat(chat=True, chat_template_kwargs={"enable_thinking": value})
        assert render(prompt("1"), tokenizer, fmt).endswith(f"assistant={end}")
        assert opens_thinking(tokenizer, fmt) is value


def test_an_argument_that_the_template_does_not_read_is_refused() -> None:
    fmt = PromptFormat(chat=True, chat_template_kwargs={"enable_thinking": False, "enable_thinkin": False})
    with pytest.raises(
        ConfigError, match=r"chat_template_kwargs\.enable_thinkin: the tokenizer's chat template does not"
    ):
        render(prompt("1"), character_tokenizer(chat_template=THINKS), fmt)


def test_thinking_tags_must_be_seen_in_completions() -> None:
    with pytest.raises(ConfigError, match="<s> is a special token"):
        require_format(character_tokenizer(), PromptFormat(thinking=("<s>", "</s>")))


def test_a_template_may_open_the_thinking_without_a_chat() -> None:
    thinking = ("<think>", "</think>")
    opened, plain = (PromptFormat(template=t, thinking=thinking) for t in ("{problem} <think>", "{problem}"))
    assert opens_thinking(character_tokenizer(), opened)
    assert not opens_thinking(character_tokenizer(), plain)
    assert not opens_thinking(character_tokenizer(), PromptFormat(template="{problem} <think>"))


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


def test_lengths_are_those_of_what_is_encoded_and_refusals_stand_in_their_place() -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    tokenizer, fmt = character_tokenizer(chat_template=refusing), PromptFormat(chat=True, template="say {problem}")
    good = [prompt("1" * n) for n in range(1, 6)]
    encoded = [len(ids) for ids in encode_prompts(good, tokenizer, fmt)]
    assert prompt_lengths(good, tokenizer, fmt) == encoded
    bad = Prompt("bad", "1", "?", turns=(("system", "x"),))
    for at in range(len(good) + 1):
        mixed = [*good[:at], bad, *good[at:]]
        assert prompt_lengths(mixed, tokenizer, fmt) == [*encoded[:at], "no system", *encoded[at:]]
    assert prompt_lengths([], tokenizer, fmt) == []
