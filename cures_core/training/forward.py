"""One forward pass over a micro-batch: log-probabilities and entropies of its completion tokens, and of no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from cures_core.errors import ConfigError
from cures_core.training.bounded_attention import bounded_attention, bounds, could_be_bounded
from cures_core.training.losses import token_logprobs
from cures_core.training.packing import MicroBatch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def completion_logprobs(
    model: torch.nn.Module,
    batch: MicroBatch,
    temperature: float,
    device: torch.device,
    *,
    bounded: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probability (N,), entropy (N,)) of the completion tokens under softmax(logits / temperature), float32.

    `bounded`: within `bounded_attention`, which is told where rollouts begin.
    """
    import torch

    ids, positions = (torch.from_numpy(a).to(device) for a in (batch.ids, batch.positions))
    predictors, targets = (torch.from_numpy(a).to(device) for a in (batch.predictors, batch.targets))
    where = bounds(batch.positions, device) if bounded else {}
    with _head_on(model, predictors):
        logits_1NV = model(input_ids=ids, position_ids=positions, use_cache=False, **where).logits
    return token_logprobs(logits_1NV[0], targets, temperature)


@contextmanager
def _head_on(model: torch.nn.Module, columns: torch.Tensor) -> Iterator[None]:
    """Let the output head see the given columns alone: logits of prompts and padding are never made.

    A hook, so that whatever the model does to its logits (a scale, a soft cap) stays the model's affair.
    """
    causal: Any = model

    def choose(_: object, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].flatten(0, 1)[columns].unsqueeze(0),)

    handle = causal.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()


def attends_in_bounds(
    model: PreTrainedModel, device: torch.device, wanted: Literal["auto", "model", "bounded"]
) -> bool:
    """What `training.attention` means for this model on this device. `auto`: bounds where CUDA has kernels for them.

    Raises `ConfigError` where bounds are wanted of a model that they would change.
    """
    if wanted == "model" or (wanted == "auto" and device.type != "cuda"):
        return False
    able = could_be_bounded(model) and keeps_rollouts_apart(model, device, bounded=True)
    if wanted == "bounded" and not able:
        raise ConfigError(
            f"training.attention = 'bounded': {type(model).__name__} cannot be trained so on {device.type} (its layers "
            "see a window, carry a state along the row or attend in their own way, or the kernels do not take its type "
            "of weights). Use 'auto' or 'model'"
        )
    return able


def keeps_rollouts_apart(model: PreTrainedModel, device: torch.device, *, bounded: bool = False) -> bool:
    """Does attention stay inside a rollout where several share a row? Asked of the model itself, with six tokens.

    Models that carry a state along the row (state-space layers), or that do not read `position_ids`, do not. `bounded`:
    asked of bounded attention, which may not be there for this device or type.
    """
    import numpy as np
    import torch

    vocabulary = int(model.config.get_text_config(decoder=True).vocab_size)
    first, second = [1 % vocabulary, 2 % vocabulary, 3 % vocabulary], [2 % vocabulary, 4 % vocabulary, 1 % vocabulary]

    def last(ids: list[int], positions: list[int], where: Mapping[str, object] = MappingProxyType({})) -> torch.Tensor:
        with torch.no_grad():
            logits_1WV: torch.Tensor = model(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([positions], device=device),
                use_cache=False,
                **where,
            ).logits
            return logits_1WV[0, -1].float()

    alone = last(second, [0, 1, 2])
    packed = [0, 1, 2, 0, 1, 2]
    try:
        with bounded_attention(model, on=bounded):
            shared = last(first + second, packed, bounds(np.array([packed]), device) if bounded else {})
    except (ImportError, RuntimeError, TypeError, ValueError) as error:
        if not bounded or isinstance(error, torch.OutOfMemoryError):
            raise
        return False
    joined = last(first + second, [0, 1, 2, 3, 4, 5])
    return bool((shared - alone).abs().max() <= max(1e-5, 0.05 * float((joined - alone).abs().max())))
