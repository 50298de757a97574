"""Knows attention of one new token a row over heads that share keys, without copying the keys for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_NAME = "cures_grouped"


def _grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """As `transformers`' own "sdpa", which under a mask repeats keys and values for every query head.

    query (rows, heads, 1, head size), key and value (rows, heads / group, columns, head size): the queries of a group
    are taken for consecutive tokens of one head, all under the same mask.
    """
    rows, heads, tokens, size = query.shape
    if tokens != 1 or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    shared = key.shape[1]
    folded = query.reshape(rows, shared, heads // shared, size)
    mask = attention_mask if attention_mask is None else attention_mask.expand(-1, shared, heads // shared, -1)
    output = torch.nn.functional.scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(rows, 1, heads, value.shape[-1]), None


AttentionInterface.register(_NAME, _grouped)


@contextmanager
def grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within, layers of `model` that attend by "sdpa" do it so; others as they do."""
    cfg = model.config.get_text_config(decoder=True)
    before = cfg._attn_implementation
    if before == "sdpa":
        cfg._attn_implementation = _NAME
    try:
        yield
    finally:
        cfg._attn_implementation = before
