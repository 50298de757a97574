"""Attention that knows where a packed row's rollouts begin and end, instead of masking a square of the row's width.

On CUDA torch's own variable-length kernels (Flash Attention) do it; elsewhere one rollout is computed after another.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from cures_core.training.packing import Ints

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_NAME = "cures_bounded"


def bounds(positions: Ints, device: torch.device) -> dict[str, torch.Tensor | int]:
    """What attention has to be told about rows in which every rollout's positions (R, W) start at 0 again: by the names
    that `transformers` passes on to flash attention."""
    import numpy as np
    import torch

    starts = np.append(np.flatnonzero(positions.reshape(-1) == 0), positions.size)
    at = torch.from_numpy(starts.astype(np.int32)).to(device)
    longest = int(np.diff(starts).max())
    return {"cu_seq_lens_q": at, "cu_seq_lens_k": at, "max_length_q": longest, "max_length_k": longest}


@contextmanager
def bounded_attention(model: PreTrainedModel, *, on: bool = True) -> Iterator[None]:
    """Within, also in backward passes, layers of `model` attend within the bounds that its calls are given."""
    cfg = model.config.get_text_config(decoder=True)
    before = cfg._attn_implementation
    if on:
        _register()
        cfg._attn_implementation = _NAME
    try:
        yield
    finally:
        cfg._attn_implementation = before


def could_be_bounded(model: PreTrainedModel) -> bool:
    """Is there nothing in the model's attention that bounds would drop: windows, or an attention of its own?"""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers = DynamicCache(config=model.config).layers
    plain = model.config.get_text_config(decoder=True)._attn_implementation == "sdpa"
    return plain and all(type(layer) is DynamicLayer for layer in layers)


def _register() -> None:
    from transformers import AttentionInterface

    AttentionInterface.register(_NAME, _forward)


def _forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int = 0,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """query (R, heads, W, size), key and value (R, heads / group, W, size) to (R, W, heads, size)."""
    if cu_seq_lens_q is None or kwargs.get("position_bias") is not None or kwargs.get("dropout"):
        raise ValueError("bounded attention needs the rollouts' bounds, and knows no bias and no dropout")
    rows, _, width, _ = query.shape
    q, k, v = (states.transpose(1, 2).flatten(0, 1) for states in (query, key, value))
    attend = _kernel if query.is_cuda else _one_by_one
    return attend(q, k, v, cu_seq_lens_q, max_length_q, scaling).unflatten(0, (rows, width)), None


def _one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, starts: torch.Tensor, _: int, scaling: float | None
) -> torch.Tensor:
    """The same as the kernels: query (T, heads, size), key and value (T, heads / group, size)."""
    import torch

    def attend(begin: int, end: int) -> torch.Tensor:
        q, k, v = (states[begin:end].transpose(0, 1).unsqueeze(0) for states in (query, key, value))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)

    parts = [attend(*ends).squeeze(0).transpose(0, 1) for ends in pairwise(starts.tolist())]
    return torch.cat(parts)


def _kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    options, key, value = _options(varlen_attn, query, key, value, scaling)
    attend: Callable[..., Any] = varlen_attn  # its signature is another one in every version
    found: torch.Tensor = attend(query, key, value, starts, starts, longest, longest, **options)
    return found


def _options(
    kernel: Callable[..., object],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
) -> tuple[dict[str, object], torch.Tensor, torch.Tensor]:
    """How this version of torch wants to be told: causal, scaled, heads that share keys. (options, key, value)."""
    known = inspect.signature(kernel).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "scale" in known:
        options["scale"] = scaling
    elif scaling is not None and not math.isclose(scaling, query.shape[-1] ** -0.5):
        raise ValueError("this version of torch knows one scale of attention only")
    group = query.shape[1] // key.shape[1]
    if "enable_gqa" in known:
        options["enable_gqa"] = group > 1
    elif group > 1:
        key, value = (states.repeat_interleave(group, dim=1) for states in (key, value))
    return options, key, value
