"""The one-process trainer: AdamW on one device, packed micro-batches by a token budget, full or adapter weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from cures_core.config.training import TorchTrainerConfig
from cures_core.errors import ConfigError, OutOfMemory, TrainingDiverged
from cures_core.optimizer_state import load_optimizer, optimizer_tensors
from cures_core.policy.loading import Policy
from cures_core.terms import Group, Moments
from cures_core.training.advantages import Sample, batch_samples
from cures_core.training.forward import Observer, completion_logprobs, keeps_rollouts_apart
from cures_core.training.losses import kl_penalty, surrogate
from cures_core.training.memory import MAX_HALVINGS, is_out_of_memory, release
from cures_core.training.moments import Sketcher, by_prompt
from cures_core.training.packing import MicroBatch, micro_batches

_log = logging.getLogger(__name__)


@dataclass
class _Sums:
    """Sums over the tokens of a step, for its figures."""

    loss: float = 0.0
    tokens: int = 0
    entropy: float = 0.0
    clipped: int = 0
    truncated: int = 0
    gap: float = 0.0
    gap_max: float = 0.0
    kl: float = 0.0
    real: int = 0
    columns: int = 0


class TorchTrainer:
    """See `PolicyTrainer`. `temperature` is the sampling temperature: log-probabilities are compared under it.

    `reference` is the base policy's model, needed only for a KL penalty on full weights; adapters are switched off
    to get it. Raises `ConfigError` where it is missing. With `measure`, updates leave `moments` of scores.
    """

    def __init__(
        self,
        policy: Policy,
        cfg: TorchTrainerConfig,
        temperature: float,
        reference: Any = None,
        *,
        measure: bool = False,
    ) -> None:
        import torch

        if cfg.kl_coef and reference is None and not hasattr(policy.model, "disable_adapter"):
            raise ConfigError("training.kl_coef is above 0, which needs the base policy beside the trained one")
        self._policy, self._cfg, self._temperature, self._reference = policy, cfg, temperature, reference
        if cfg.gradient_checkpointing:
            policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._parameters = list(policy.trainable().values())
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=cfg.learning_rate, betas=cfg.betas, weight_decay=cfg.weight_decay
        )
        self._step = 0
        self._bad_steps = 0
        self._micro_batch_tokens = cfg.micro_batch_tokens
        self._share_rows: bool | None = None
        self._sketcher: Sketcher | None = None
        self._measure = measure
        self._sketched: list[tuple[Sample, Any]] = []
        self.moments: Mapping[str, Moments] = {}

    @property
    def model(self) -> Any:
        return self._policy.model

    def update(self, groups: Sequence[Group]) -> Mapping[str, float]:
        cfg = self._cfg
        samples = batch_samples(groups, cfg.advantage, cfg.loss_weight, cfg.solved_advantage, keep_all=cfg.kl_coef > 0)
        rate = cfg.learning_rate * min(1.0, (self._step + 1) / max(1, cfg.warmup_steps))
        self._step += 1
        self.moments, self._sketched = {}, []
        if not any(sample.advantage for sample in samples):
            return {"updated": 0.0, "learning_rate": rate, "tokens_trained": 0.0}
        sums = self._gradients(samples)
        norm = self._clip_gradients()
        updated = math.isfinite(norm) and math.isfinite(sums.loss)
        if updated:
            self._bad_steps = 0
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if not updated:
            self._count_bad_step(sums.loss, norm)
        elif self._measure:
            self.moments = self._moments_of(groups)
        return {"updated": float(updated), "learning_rate": rate, **self._figures(sums, norm, updated)}

    def _gradients(self, samples: Sequence[Sample]) -> _Sums:
        """Gradients of the whole batch. Where memory runs out: again from the start, with smaller micro-batches."""
        self._policy.model.train()
        if self._share_rows is None:
            self._share_rows = keeps_rollouts_apart(self._policy.model, self._policy.device)
            if not self._share_rows:
                _log.warning("this model mixes rollouts that share a row: they are padded instead of packed")
        for halvings in range(MAX_HALVINGS + 1):
            if halvings:
                self._micro_batch_tokens = max(1, self._micro_batch_tokens // 2)
                _log.warning(
                    "step %d: out of memory; micro-batches are halved to %d tokens, the batch stays the same",
                    self._step,
                    self._micro_batch_tokens,
                )
                release()
            if (sums := self._attempt(samples)) is not None:
                return sums
        self._optimizer.zero_grad(set_to_none=True)
        raise OutOfMemory(
            f"step {self._step} does not fit into memory, not even with micro-batches of {self._micro_batch_tokens} "
            "tokens: set training.gradient_checkpointing = true, lower rollout.max_new_tokens, or train adapters"
        )

    def _attempt(self, samples: Sequence[Sample]) -> _Sums | None:
        """None where memory ran out. Returns before the next attempt starts, so that the error's frames are gone."""
        sums, self._sketched = _Sums(), []
        self._optimizer.zero_grad(set_to_none=True)
        pad, share = self._policy.tokenizer.pad_token_id, bool(self._share_rows)
        try:
            for batch in micro_batches(samples, self._micro_batch_tokens, pad, share_rows=share):
                self._backward(batch, sums)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return sums

    def _backward(self, batch: MicroBatch, sums: _Sums) -> None:
        import torch

        cfg, device = self._cfg, self._policy.device
        watch = self._watcher(batch) if self._measure else None
        logp_N, entropy_N = completion_logprobs(self._policy.model, batch, self._temperature, device, watch)
        sampler_N, rollout_N = (torch.from_numpy(a).to(device) for a in (batch.sampler_logprobs, batch.rollout))
        advantage_S, weight_S = (
            torch.tensor(values, dtype=torch.float32, device=device)
            for values in ([s.advantage for s in batch.samples], [self._token_weight(s) for s in batch.samples])
        )
        advantage_N = advantage_S[rollout_N]
        loss_N, clipped_N, truncated_N = surrogate(
            logp_N, sampler_N, advantage_N, cfg.clip_low, cfg.clip_high, cfg.ratio, rollout_N, cfg.importance_bound
        )
        if cfg.kl_coef:
            kl_N = kl_penalty(logp_N, self._reference_logprobs(batch), cfg.kl_estimator)
            loss_N = loss_N + cfg.kl_coef * kl_N
            sums.kl += float(kl_N.detach().sum())
        loss = (loss_N * weight_S[rollout_N]).sum()
        loss.backward()
        with torch.no_grad():
            gap_N = (logp_N - sampler_N).abs()
            sums.loss += float(loss)
            sums.tokens += len(batch.targets)
            sums.entropy += float(entropy_N.sum())
            sums.clipped += int(clipped_N.sum())
            sums.truncated += int(truncated_N.sum())
            sums.gap += float(gap_N.sum())
            sums.gap_max = max(sums.gap_max, float(gap_N.max()))
            sums.real += batch.tokens
            sums.columns += batch.ids.size

    def _watcher(self, batch: MicroBatch) -> Observer:
        """Projects the scores of a micro-batch while its forward pass has them at hand."""
        import torch

        def watch(logits_NV: Any, hidden_ND: Any) -> None:
            if self._sketcher is None:
                self._sketcher = Sketcher(logits_NV.shape[-1], hidden_ND.shape[-1])
            targets, rollout = (torch.from_numpy(a).to(logits_NV.device) for a in (batch.targets, batch.rollout))
            sketches = self._sketcher.sketch(logits_NV, hidden_ND, targets, rollout, len(batch.samples))
            self._sketched += zip(batch.samples, sketches, strict=True)

        return watch

    def _moments_of(self, groups: Sequence[Group]) -> Mapping[str, Moments]:
        prompt_of = {r.request_id: g.request.prompt.id for g in groups for r in g.rollouts}
        prompts = [prompt_of[sample.rollout.request_id] for sample, _ in self._sketched]
        right = np.array([sample.right for sample, _ in self._sketched])
        return by_prompt(prompts, np.stack([sketch for _, sketch in self._sketched]), right)

    def _reference_logprobs(self, batch: MicroBatch) -> Any:
        """Log-probabilities (N,) of the completion tokens under the base policy."""
        import torch

        adapted = self._reference is None
        model = self._policy.model if adapted else self._reference
        with torch.no_grad(), model.disable_adapter() if adapted else nullcontext():
            return completion_logprobs(model, batch, self._temperature, self._policy.device)[0]

    def _token_weight(self, sample: Sample) -> float:
        length = len(sample.rollout.token_ids)
        if self._cfg.loss_weight == "token" or self._cfg.length_norm is None:
            return sample.weight / length
        return sample.weight / self._cfg.length_norm

    def _figures(self, sums: _Sums, norm: float, updated: bool) -> dict[str, float]:
        return {
            "loss": sums.loss if math.isfinite(sums.loss) else 0.0,
            "grad_norm": norm if math.isfinite(norm) else 0.0,
            "non_finite": float(not updated),
            "tokens_trained": float(sums.tokens),
            "entropy": _finite(sums.entropy / sums.tokens),
            "clipped_share": sums.clipped / sums.tokens,
            "importance_bound": self._cfg.importance_bound,
            "importance_truncated_share": sums.truncated / sums.tokens,
            "logprob_gap_mean": _finite(sums.gap / sums.tokens),
            "logprob_gap_max": _finite(sums.gap_max),
            "packing": sums.real / sums.columns,
            "micro_batch_tokens": float(self._micro_batch_tokens),
            **({"kl": _finite(sums.kl / sums.tokens)} if self._cfg.kl_coef else {}),
        }

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
        state = {
            "step": self._step,
            "bad_steps": self._bad_steps,
            "micro_batch_tokens": self._micro_batch_tokens,
        }
        return self._policy.trainable(), optimizer_tensors(self._optimizer), state

    def load_state_dict(self, weights: dict[str, Any], optimizer: dict[str, Any], state: Mapping[str, Any]) -> None:
        self._policy.load_trainable(weights)
        load_optimizer(self._optimizer, optimizer)
        self._step, self._bad_steps = int(state["step"]), int(state["bad_steps"])
        # What once did not fit stays halved: a resumed epoch sums in the same order as an uninterrupted one.
        halved = int(state.get("micro_batch_tokens", self._cfg.micro_batch_tokens))
        self._micro_batch_tokens = min(halved, self._cfg.micro_batch_tokens)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
