"""The one-process trainer: AdamW on one device, micro-batches by a token budget, full or adapter weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cures_core.config.training import TorchTrainerConfig
from cures_core.errors import TrainingDiverged
from cures_core.optimizer_state import load_optimizer, optimizer_tensors
from cures_core.policy.loading import Policy
from cures_core.terms import Group
from cures_core.training.advantages import Sample, batch_samples
from cures_core.training.losses import clipped_surrogate, token_logprobs

_log = logging.getLogger(__name__)


@dataclass
class _Sums:
    """Sums over the tokens of a step, for its figures."""

    loss: float = 0.0
    tokens: int = 0
    entropy: float = 0.0
    clipped: int = 0
    gap: float = 0.0
    gap_max: float = 0.0


class TorchTrainer:
    """See `PolicyTrainer`. `temperature` is the sampling temperature: log-probabilities are compared under it."""

    def __init__(self, policy: Policy, cfg: TorchTrainerConfig, temperature: float) -> None:
        import torch

        self._policy, self._cfg, self._temperature = policy, cfg, temperature
        self._parameters = list(policy.trainable().values())
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=cfg.learning_rate, betas=cfg.betas, weight_decay=cfg.weight_decay
        )
        self._step = 0
        self._bad_steps = 0

    @property
    def model(self) -> Any:
        return self._policy.model

    def update(self, groups: Sequence[Group]) -> Mapping[str, float]:
        samples = batch_samples(groups, self._cfg.advantage, self._cfg.loss_weight, self._cfg.solved_advantage)
        rate = self._cfg.learning_rate * min(1.0, (self._step + 1) / max(1, self._cfg.warmup_steps))
        self._step += 1
        if not samples:
            return {"updated": 0.0, "learning_rate": rate, "tokens_trained": 0.0}
        self._policy.model.train()
        self._optimizer.zero_grad(set_to_none=True)
        sums = _Sums()
        for rows in micro_batches(samples, self._cfg.micro_batch_tokens):
            self._backward(rows, sums)
        norm = self._clip_gradients()
        updated = math.isfinite(norm) and math.isfinite(sums.loss)
        if updated:
            self._bad_steps = 0
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
        else:
            self._count_bad_step(sums.loss, norm)
        self._optimizer.zero_grad(set_to_none=True)
        return {
            "updated": float(updated),
            "learning_rate": rate,
            "loss": sums.loss if math.isfinite(sums.loss) else 0.0,
            "grad_norm": norm if math.isfinite(norm) else 0.0,
            "non_finite": float(not updated),
            "tokens_trained": float(sums.tokens),
            "entropy": sums.entropy / sums.tokens,
            "clipped_share": sums.clipped / sums.tokens,
            "logprob_gap_mean": sums.gap / sums.tokens,
            "logprob_gap_max": sums.gap_max,
        }

    def _backward(self, rows: Sequence[Sample], sums: _Sums) -> None:
        import torch

        ids, attention, mask, sampler_logp, width = _pad(rows, self._policy.tokenizer.pad_token_id)
        device = self._policy.device
        ids_RL, attention_RL = torch.from_numpy(ids).to(device), torch.from_numpy(attention).to(device)
        mask_RT, sampler_RT = torch.from_numpy(mask).to(device), torch.from_numpy(sampler_logp).to(device)
        positions_RL = (attention_RL.cumsum(-1) - 1).clamp(min=0)
        logits_RTV = self._policy.model(
            input_ids=ids_RL,
            attention_mask=attention_RL,
            position_ids=positions_RL,
            logits_to_keep=width + 1,
            use_cache=False,
        ).logits[:, :-1]
        logp_RT, entropy_RT = token_logprobs(logits_RTV, ids_RL[:, -width:], self._temperature)
        advantage_R = torch.tensor([s.advantage for s in rows], dtype=torch.float32, device=device)
        loss_RT, clipped_RT = clipped_surrogate(
            logp_RT, sampler_RT, advantage_R, mask_RT, self._cfg.clip_low, self._cfg.clip_high
        )
        weight_R = torch.tensor([self._token_weight(s) for s in rows], dtype=torch.float32, device=device)
        loss = (loss_RT.sum(1) * weight_R).sum()
        loss.backward()
        with torch.no_grad():
            gap_RT = torch.where(mask_RT, (logp_RT - sampler_RT).abs(), 0.0)
            sums.loss += float(loss)
            sums.tokens += int(mask_RT.sum())
            sums.entropy += float(torch.where(mask_RT, entropy_RT, 0.0).sum())
            sums.clipped += int(clipped_RT.sum())
            sums.gap += float(gap_RT.sum())
            sums.gap_max = max(sums.gap_max, float(gap_RT.max()))

    def _token_weight(self, sample: Sample) -> float:
        length = len(sample.rollout.token_ids)
        if self._cfg.loss_weight == "token" or self._cfg.length_norm is None:
            return sample.weight / length
        return sample.weight / self._cfg.length_norm

    def _clip_gradients(self) -> float:
        import torch

        limit = math.inf if self._cfg.grad_clip == 0 else self._cfg.grad_clip
        return float(torch.nn.utils.clip_grad_norm_(self._parameters, limit))

    def _count_bad_step(self, loss: float, norm: float) -> None:
        self._bad_steps += 1
        _log.warning("step %d: loss %s, gradient norm %s; no update", self._step, loss, norm)
        if self._bad_steps >= self._cfg.max_bad_steps:
            raise TrainingDiverged(
                f"{self._bad_steps} steps in a row had a non-finite loss or gradient; the last checkpoint is healthy: "
                "lower training.learning_rate and resume"
            )

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        state = {"step": self._step, "bad_steps": self._bad_steps}
        return self._policy.trainable(), optimizer_tensors(self._optimizer), state

    def load_state_dict(self, weights: dict[str, Any], optimizer: dict[str, Any], state: Mapping[str, Any]) -> None:
        self._policy.load_trainable(weights)
        load_optimizer(self._optimizer, optimizer)
        self._step, self._bad_steps = int(state["step"]), int(state["bad_steps"])


def micro_batches(samples: Sequence[Sample], max_tokens: int) -> list[list[Sample]]:
    """Split into batches of at most `max_tokens` padded tokens (one rollout may exceed it alone), longest first."""
    order = sorted(range(len(samples)), key=lambda i: (-_length(samples[i]), i))
    batches: list[list[Sample]] = []
    prompt = completion = 0
    for i in order:
        p, c = len(samples[i].rollout.prompt_ids), len(samples[i].rollout.token_ids)
        grown = (max(prompt, p) + max(completion, c)) * (len(batches[-1]) + 1 if batches else 1)
        if not batches or grown > max_tokens:
            batches.append([])
            prompt = completion = 0
        batches[-1].append(samples[i])
        prompt, completion = max(prompt, p), max(completion, c)
    return batches


def _length(sample: Sample) -> int:
    return len(sample.rollout.prompt_ids) + len(sample.rollout.token_ids)


def _pad(rows: Sequence[Sample], pad: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Prompts padded on the left, completions on the right, so that all completions start in one column.

    Returns ids (R, P+T), attention (R, P+T), completion mask (R, T), sampler log-probabilities (R, T), T.
    """
    prompt = max(len(s.rollout.prompt_ids) for s in rows)
    width = max(len(s.rollout.token_ids) for s in rows)
    ids = np.full((len(rows), prompt + width), pad, dtype=np.int64)
    attention = np.zeros_like(ids)
    mask = np.zeros((len(rows), width), dtype=bool)
    logp = np.zeros((len(rows), width), dtype=np.float32)
    for i, sample in enumerate(rows):
        r = sample.rollout
        start, end = prompt - len(r.prompt_ids), prompt + len(r.token_ids)
        ids[i, start:end] = r.prompt_ids + r.token_ids
        attention[i, start:end] = 1
        mask[i, : len(r.token_ids)] = True
        logp[i, : len(r.token_ids)] = r.logprobs
    return ids, attention, mask, logp, width
