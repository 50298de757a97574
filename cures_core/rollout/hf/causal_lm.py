"""Knows how to call a `transformers` causal LM: prefill, one decoding step, context length, mode and back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from cures_core.errors import ConfigError
from cures_core.rollout.hf.kv_rows import KeysValues, Prefix
from cures_core.rollout.room import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class CausalLM:
    """A model as the decoder sees it. `device` is where the model's inputs live; the model itself is not moved.

    Raises `ConfigError` for a model that keeps more than keys and values between tokens.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        planned = DynamicCache(config=model.config).layers
        if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in planned):
            raise _other_state(model)
        self.model = model
        self.device = device
        names = inspect.signature(model.forward).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in names.values())
        self._positions = open_ended or "position_ids" in names
        self.full_attention = all(type(layer) is DynamicLayer for layer in planned)
        """False where layers see a window only."""
        self._last_only = {"logits_to_keep": 1} if open_ended or "logits_to_keep" in names else {}

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and completion together; None where the model has no limit."""
        context = context_of(self.model.config)
        return None if context is None else context.tokens

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        return int(self.model.config.get_text_config(decoder=True).vocab_size)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode without gradients; every submodule's own mode is restored."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            for module in training:
                module.training = True

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefix:
        """Run prompts, left-padded to the longest, through the model once."""
        lengths = np.array([len(p) for p in prompts])
        columns = int(lengths.max())
        ids = np.zeros((len(prompts), columns), np.int64)
        for row, prompt in zip(ids, prompts, strict=True):
            row[columns - len(prompt) :] = prompt
        first = columns - lengths[:, None]
        real = np.arange(columns) >= first
        # A cache without a config keeps all columns of sliding-window layers too; their masks do the sliding.
        cache = DynamicCache()
        mask = self._tensor(real)
        positions = self._tensor(np.maximum(np.arange(columns) - first, 0))
        logits = self._forward(self._tensor(ids), None if real.all() else mask, positions, cache)
        return Prefix(_keys_values(cache, self.model), mask, logits)

    def step(self, tokens: torch.Tensor, lengths: torch.Tensor, mask: torch.Tensor | None, cache: Any) -> torch.Tensor:
        """Logits (rows, vocabulary) after feeding one token a row; `lengths` (rows,) counts the tokens fed before."""
        return self._forward(tokens.unsqueeze(1), mask, lengths.unsqueeze(1), cache)

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        where = {"position_ids": positions} if self._positions else {}
        output = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **where, **self._last_only
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)


def _keys_values(cache: Any, model: PreTrainedModel) -> list[KeysValues]:
    if not cache.layers:
        raise _other_state(model)
    return [(layer.keys, layer.values) for layer in cache.layers]


def _other_state(model: PreTrainedModel) -> ConfigError:
    return ConfigError(
        f"rollout engine hf: {type(model).__name__} keeps other state than keys and values between tokens, as "
        "state-space models do; this engine cannot hold it. Use another engine, or a model of full or sliding-window "
        "attention."
    )
