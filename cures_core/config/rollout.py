"""Knows how rollouts are asked for: prompt format, sampling, lengths, and which engine makes them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from cures_core.config.base import Strict

PLACEHOLDER = "{problem}"


class PromptFormat(Strict):
    """How a problem becomes the text that the policy continues, and where its answer ends."""

    template: str = PLACEHOLDER
    """Text with one `{problem}`, which is replaced by the problem. Other braces stand for themselves."""

    chat: bool = False
    """True: the filled template is the user's message, wrapped by the tokenizer's chat template, which adds its own
    special tokens. False: the filled template is the prompt, and the tokenizer adds its own (such as BOS)."""

    system: str = ""
    """System message in front of the user's message (`chat` only). Empty: none is given."""

    stop: tuple[str, ...] = ()
    """Strings that end a completion; the text is returned without them. End-of-sequence tokens always end it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (found := self.template.count(PLACEHOLDER)) != 1:
            raise ValueError(f"template holds {PLACEHOLDER} {found} times: write it exactly once")
        if self.system and not self.chat:
            raise ValueError("system is set but chat is false: set chat = true or write the system text into template")
        if "" in self.stop:
            raise ValueError("stop holds an empty string, which would end every completion at once: remove it")
        return self


class Sampling(Strict):
    """What all rollout engines have in common."""

    max_new_tokens: int = Field(default=512, ge=1)
    """Most tokens of one completion; a completion cut there is marked as truncated."""

    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it. 0: greedy (the most likely token; log-probabilities are those at temperature 1)."""

    top_p: float = Field(default=1.0, gt=0, le=1)
    """Sample among the most likely tokens whose probabilities add up to it. Below 1 the recorded log-probabilities,
    which are taken before the cut, are not those of the sampling distribution."""

    prompt_format: PromptFormat = PromptFormat()
    """How prompts are written and where completions stop."""

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


class HfRolloutConfig(Sampling):
    """Generation with the `transformers` model itself, in the process that trains or evaluates it."""

    type: Literal["hf"] = "hf"
    """Engine name."""

    batch_rows: int = Field(default=256, ge=1)
    """Rollouts decoded at once; bounds the memory of the key-value cache."""


# A union chosen by `type` as soon as there is a second engine.
RolloutConfig = HfRolloutConfig
