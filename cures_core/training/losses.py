"""Policy-gradient losses on the completion tokens of a micro-batch, flat: _N tokens, _V vocabulary, _S rollouts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

RatioName = Literal["token", "sequence"]
KlName = Literal["k2", "k3"]
_LARGEST_LOG_RATIO = 80.0
"""Float32 ends at e^88."""
_CHUNK_ELEMENTS = 1 << 24  # logits in float32 at once: 64 MiB


def token_logprobs(
    logits_NV: torch.Tensor, ids_N: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probability of each id, entropy of each distribution) under softmax(logits / temperature), in float32.

    Leading axes may be more than one. The entropy carries no gradient. Works through the rows in pieces and recomputes
    the softmax in the backward pass, so that beside the logits no second array of their size is kept.
    """
    width = logits_NV.shape[-1]
    logp_N, entropy_N = _function().apply(logits_NV.reshape(-1, width), ids_N.reshape(-1), temperature)
    return logp_N.view(ids_N.shape), entropy_N.view(ids_N.shape)


def surrogate(
    logp_N: torch.Tensor,
    old_N: torch.Tensor,
    advantage_N: torch.Tensor,
    clip_low: float,
    clip_high: float,
    ratio: RatioName = "token",
    rollout_N: torch.Tensor | None = None,
    bound: float = math.inf,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Clipped loss -min(rho A, clip(rho, 1 - low, 1 + high) A) (Schulman et al. 2017, eq. 7).

    Returns (loss_N, clipped_N, truncated_N): what the clip and the bound have cut.

    rho = pi / pi_old of a token, or with `ratio = "sequence"` of the whole completion: `rollout_N` numbers the rollouts
    from 0, and a rollout's loss is spread evenly over its tokens. `low != high` is DAPO's asymmetric clip.
    The clip leaves rho free where A < 0, and there an engine that disagrees with the trainer can make it huge: `bound`
    truncates it (Ionides 2008), so that the token's score keeps the weight `bound` instead of rho.
    """
    import torch

    log_ratio_N = logp_N - old_N
    if ratio == "sequence":
        assert rollout_N is not None
        log_ratio_S, length_S = _per_rollout(log_ratio_N, rollout_N)
        log_ratio_N, share_N = log_ratio_S[rollout_N], 1.0 / length_S[rollout_N]
    else:
        share_N = torch.ones_like(logp_N)
    # Cut before the exponential, which overflows for long completions; what is taken off carries no gradient.
    truncated_N = log_ratio_N.detach() > math.log(bound)
    excess_N = (log_ratio_N.detach() - min(math.log(bound), _LARGEST_LOG_RATIO)).clamp(min=0.0)
    ratio_N = torch.exp(log_ratio_N - excess_N)
    free_N = ratio_N * advantage_N
    clipped_N = ratio_N.clamp(1.0 - clip_low, 1.0 + clip_high) * advantage_N
    return -torch.minimum(free_N, clipped_N) * share_N, clipped_N < free_N, truncated_N


def kl_penalty(logp_N: torch.Tensor, reference_N: torch.Tensor, estimator: KlName) -> torch.Tensor:
    """Estimate of KL(pi || reference) from a token drawn from pi, with r = reference / pi (Schulman 2020).

    `k2` = (log r)^2 / 2: biased as a value, its gradient on the policy's own tokens is that of the KL. `k3` = r - 1 -
    log r: unbiased, never negative, low variance (GRPO's). Schulman's `k1` = -log r is no loss: its gradient is the
    score, whose expectation is zero.
    """
    import torch

    log_r_N = reference_N - logp_N
    if estimator == "k2":
        return 0.5 * log_r_N**2
    return torch.exp(log_r_N) - 1.0 - log_r_N


def _per_rollout(values_N: torch.Tensor, rollout_N: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of the values and numbers of tokens, one for each rollout."""
    import torch

    num = int(rollout_N.max()) + 1
    sums_S = torch.zeros(num, dtype=values_N.dtype, device=values_N.device).index_add(0, rollout_N, values_N)
    ones_N = torch.ones_like(values_N)
    return sums_S, torch.zeros_like(sums_S).index_add(0, rollout_N, ones_N)


def _function() -> type[torch.autograd.Function]:
    """The autograd function of `token_logprobs`, made once: torch is imported late."""
    global _FUNCTION
    if _FUNCTION is None:
        _FUNCTION = _make_function()
    return _FUNCTION


_FUNCTION: type[torch.autograd.Function] | None = None


def _make_function() -> type[torch.autograd.Function]:
    import torch

    def pieces(rows: int, width: int) -> list[slice]:
        step = max(1, _CHUNK_ELEMENTS // max(1, width))
        return [slice(i, i + step) for i in range(0, rows, step)]

    def scaled(logits: torch.Tensor, temperature: float) -> torch.Tensor:
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return wide if temperature == 1.0 else wide / temperature

    class TokenLogprobs(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any, logits_NV: torch.Tensor, ids_N: torch.Tensor, temperature: float
        ) -> tuple[torch.Tensor, torch.Tensor]:
            wide = torch.float64 if logits_NV.dtype == torch.float64 else torch.float32
            total_N, logp_N, entropy_N = (torch.empty(len(ids_N), dtype=wide, device=ids_N.device) for _ in range(3))
            for piece in pieces(*logits_NV.shape):
                z_CV = scaled(logits_NV[piece], temperature)
                total_N[piece] = torch.logsumexp(z_CV, -1)
                logp_N[piece] = z_CV.gather(-1, ids_N[piece].unsqueeze(-1)).squeeze(-1) - total_N[piece]
                p_CV = torch.exp(z_CV - total_N[piece].unsqueeze(-1))
                # A token that cannot occur has z = -inf and p = 0: it adds nothing to the entropy.
                entropy_N[piece] = total_N[piece] - torch.nan_to_num(p_CV.mul_(z_CV)).sum(-1)
            ctx.save_for_backward(logits_NV, ids_N, total_N)
            ctx.temperature = temperature
            ctx.mark_non_differentiable(entropy_N)
            return logp_N, entropy_N

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad_N: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, None, None]:
            logits_NV, ids_N, total_N = ctx.saved_tensors
            result_NV = torch.empty_like(logits_NV)
            for piece in pieces(*logits_NV.shape):
                z_CV = scaled(logits_NV[piece], ctx.temperature)
                g_C1 = grad_N[piece].unsqueeze(-1) / ctx.temperature
                grad_CV = torch.exp(z_CV - total_N[piece].unsqueeze(-1)).mul_(-g_C1)
                grad_CV.scatter_add_(-1, ids_N[piece].unsqueeze(-1), g_C1)
                result_NV[piece] = grad_CV
            return result_NV, None, None

    return TokenLogprobs
