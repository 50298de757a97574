"""Knows how a prompt becomes token ids: template, chat template, special tokens. Nothing is ever truncated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    if not prompts:
        return []
    texts = [render(prompt, tokenizer, fmt) for prompt in prompts]
    encoded = tokenizer(texts, add_special_tokens=not fmt.chat, return_attention_mask=False)["input_ids"]
    eos = tokenizer.eos_token_id
    result = []
    for prompt, ids in zip(prompts, encoded, strict=True):
        # Some tokenizers close every text with EOS: a prompt is to be continued.
        ids = ids[:-1] if not fmt.chat and ids and ids[-1] == eos else ids
        _check_length(prompt, len(ids), max_tokens)
        result.append(tuple(ids))
    return result


def render(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat) -> str:
    """The text of a prompt as the policy sees it, without the special tokens that the tokenizer adds itself."""
    text = fmt.template.replace(PLACEHOLDER, prompt.problem)
    if not fmt.chat:
        return text
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "prompt_format.chat is true, but the tokenizer has no chat template. "
            "Set chat = false and write the whole prompt into template, or use an instruction-tuned model."
        )
    system = [{"role": "system", "content": fmt.system}] if fmt.system else []
    messages = [*system, {"role": "user", "content": text}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _check_length(prompt: Prompt, length: int, max_tokens: int | None) -> None:
    if length == 0:
        raise DataRejected(f"prompt {prompt.id}: no tokens after formatting. Fill in the problem or drop the row.")
    if max_tokens is not None and length > max_tokens:
        raise DataRejected(
            f"prompt {prompt.id}: {length} tokens, but the model's context leaves room for {max_tokens} beside the "
            "completion. Drop the prompt, lower max_new_tokens or use a model with a longer context."
        )
