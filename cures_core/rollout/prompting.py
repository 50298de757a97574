"""Knows how a prompt becomes token ids: template, chat template, special tokens. Nothing is ever truncated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cures_core.config.rollout import PLACEHOLDER, PromptFormat
from cures_core.errors import ConfigError, DataRejected
from cures_core.terms import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_prompts(
    prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat, max_tokens: int | None = None
) -> list[tuple[int, ...]]:
    """Token ids of every prompt, in order.

    `max_tokens` is the longest prompt that leaves room for a completion (None: no limit). Raises `DataRejected` naming
    the prompt that is longer or empty, `ConfigError` where `fmt.chat` asks for a chat template that is not there.
    """
    encoded = _encoded(prompts, tokenizer, fmt)
    for prompt, ids in zip(prompts, encoded, strict=True):
        _check_length(prompt, len(ids), max_tokens)
    return encoded


def prompt_lengths(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat) -> list[int | str]:
    """Tokens of every prompt as `encode_prompts` makes them, in order; for one that `render` refuses, why."""
    try:
        return [len(ids) for ids in _encoded(prompts, tokenizer, fmt)]
    except DataRejected as error:
        if len(prompts) == 1:
            return [str(error.__cause__ or error)]
    half = len(prompts) // 2
    return [found for part in (prompts[:half], prompts[half:]) for found in prompt_lengths(part, tokenizer, fmt)]


def _encoded(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat) -> list[tuple[int, ...]]:
    if not prompts:
        return []
    texts = [render(prompt, tokenizer, fmt) for prompt in prompts]
    encoded = tokenizer(texts, add_special_tokens=not fmt.chat, return_attention_mask=False)["input_ids"]
    eos = tokenizer.eos_token_id
    # Some tokenizers close every text with EOS: a prompt is to be continued.
    return [tuple(ids[:-1] if not fmt.chat and ids and ids[-1] == eos else ids) for ids in encoded]


def render(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat) -> str:
    """The text of a prompt as the policy sees it, without the special tokens that the tokenizer adds itself.

    Raises `ConfigError` where the format cannot be had of this tokenizer, `DataRejected` naming a prompt that is not
    for this format: earlier turns without a chat, or turns that the chat template refuses.
    """
    text = fmt.template.replace(PLACEHOLDER, prompt.problem)
    if not fmt.chat:
        if prompt.turns:
            raise DataRejected(
                f"prompt {prompt.id}: has earlier turns, which a single message would leave out. Set "
                'prompt_format.chat = true, or data.problem_rule = "last_user"'
            )
        return text
    require_format(tokenizer, fmt)
    from jinja2 import TemplateError

    given = bool(prompt.turns) and prompt.turns[0][0] == "system"
    system = [("system", fmt.system)] if fmt.system and not given else []
    messages = [{"role": role, "content": said} for role, said in (*system, *prompt.turns, ("user", text))]
    arguments: dict[str, Any] = fmt.chat_template_kwargs
    try:
        shown = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **arguments)
    except TemplateError as error:
        raise DataRejected(
            f"prompt {prompt.id}: the policy's chat template refuses it ({error}). Leave out what it refuses: "
            'prompt_format.system, or earlier turns with problem_rule = "last_user"'
        ) from error
    return str(shown)


def require_format(tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat) -> None:
    """Raises `ConfigError` for a chat without a chat template, for arguments that the template does not read, and for
    thinking tags that completions are shown without."""
    special = {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
    if hidden := [tag for tag in fmt.thinking if tag in special]:
        raise ConfigError(
            f"prompt_format.thinking: {hidden[0]} is a special token of this tokenizer, which completions are shown "
            "without. Set thinking = []"
        )
    if not fmt.chat:
        return
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "prompt_format.chat is true, but the tokenizer has no chat template. "
            "Set chat = false and write the whole prompt into template, or use an instruction-tuned model."
        )
    read = _names_read(str(tokenizer.get_chat_template())) if fmt.chat_template_kwargs else frozenset()
    if unread := sorted(set(fmt.chat_template_kwargs) - read):
        raise ConfigError(
            f"prompt_format.chat_template_kwargs.{unread[0]}: the tokenizer's chat template does not read it, so it "
            "would change nothing. Leave it out, or correct its spelling"
        )


def opens_thinking(tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat) -> bool:
    """Do prompts of this format end in an opened thinking tag?"""
    if not fmt.thinking:
        return False
    return render(Prompt("", "?", ""), tokenizer, fmt).rstrip().endswith(fmt.thinking[0])


@lru_cache(maxsize=8)
def _names_read(template: str) -> frozenset[str]:
    """Names of variables that occur in a chat template."""
    from jinja2 import Environment, nodes

    # A tag of transformers' own, which marks what the assistant says.
    plain = re.sub(r"\{%-?\s*(?:end)?generation\s*-?%\}", "", template)
    parsed = Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True).parse(plain)
    return frozenset(name.name for name in parsed.find_all(nodes.Name) if name.ctx == "load")


def _check_length(prompt: Prompt, length: int, max_tokens: int | None) -> None:
    if length == 0:
        raise DataRejected(f"prompt {prompt.id}: no tokens after formatting. Fill in the problem or drop the row.")
    if max_tokens is not None and length > max_tokens:
        raise DataRejected(
            f"prompt {prompt.id}: {length} tokens, but the model's context leaves room for {max_tokens} beside the "
            "completion. Leave such prompts out by data.max_problem_tokens (in a new run), lower "
            "rollout.max_new_tokens, or use a model with a longer context."
        )
