"""Policy-gradient losses on padded tensors. Shapes: _R rollouts of a micro-batch, _T completion positions."""

from __future__ import annotations

from typing import Any


def token_logprobs(logits_RTV: Any, ids_RT: Any, temperature: float) -> tuple[Any, Any]:
    """(log-probability of each id, entropy of each distribution) under softmax(logits / temperature), float32.

    logits_RTV (R, T, V), ids_RT (R, T); both results (R, T). The entropy carries no gradient.
    """
    import torch

    logp_RTV = torch.log_softmax(logits_RTV.float() / temperature, dim=-1)
    chosen_RT = logp_RTV.gather(-1, ids_RT.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy_RT = -(logp_RTV.exp() * logp_RTV).sum(-1)
    return chosen_RT, entropy_RT


def clipped_surrogate(
    logp_RT: Any, sampler_logp_RT: Any, advantage_R: Any, mask_RT: Any, clip_low: float, clip_high: float
) -> tuple[Any, Any]:
    """Per-token loss -min(rho A, clip(rho, 1 - low, 1 + high) A), rho = pi / pi_sampler (Schulman et al. 2017, eq. 7).

    `low != high` is DAPO's asymmetric clip. Returns (loss_RT, clipped_RT), both zero outside the mask.
    """
    import torch

    ratio_RT = torch.exp(torch.where(mask_RT, logp_RT - sampler_logp_RT, 0.0))
    advantage_R1 = advantage_R.unsqueeze(1)
    free_RT = ratio_RT * advantage_R1
    clipped_RT = ratio_RT.clamp(1.0 - clip_low, 1.0 + clip_high) * advantage_R1
    loss_RT = torch.where(mask_RT, -torch.minimum(free_RT, clipped_RT), 0.0)
    return loss_RT, mask_RT & (clipped_RT < free_RT)
