"""Knows how much of a completion is thinking: the same for every engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cures_core.config.rollout import PromptFormat
from cures_core.rollout.prompting import opens_thinking
from cures_core.terms import Rollout
from cures_core.thinking import answer_start

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Thoughts:
    """The thinking tags of a prompt format, looked for in completions of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, fmt: PromptFormat) -> None:
        self._tokenizer, self._tags = tokenizer, fmt.thinking
        self._opened = fmt.thinking[0] if opens_thinking(tokenizer, fmt) else ""

    def marked(self, rollout: Rollout) -> Rollout:
        """The rollout with its thinking tokens counted, and the tag that its prompt has opened in front of its text."""
        if not self._tags:
            return rollout
        text = self._opened + rollout.text
        start = answer_start(text, self._tags)
        if start == 0:
            return rollout
        tokens = self._tokens_of(rollout.token_ids, start - len(self._opened))
        return replace(rollout, text=text, thinking_tokens=tokens)

    def _tokens_of(self, token_ids: Sequence[int], chars: int) -> int:
        """The fewest leading tokens whose text has so many characters."""
        low, high = 0, len(token_ids)
        while low < high:
            middle = (low + high) // 2
            head = list(token_ids[:middle])
            text = self._tokenizer.decode(head, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            if len(text) >= chars:
                high = middle
            else:
                low = middle + 1
        return low
