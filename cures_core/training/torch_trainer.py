"""The trainer of all kinds: packed micro-batches by a token budget, on one rank or shared out over several."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cures_core.config.training import TrainingConfig
from cures_core.distributed import Handler, World
from cures_core.errors import ConfigError, OutOfMemory, TrainingDiverged
from cures_core.failures import is_out_of_memory
from cures_core.faults import fault_point
from cures_core.means import finite, valued
from cures_core.policy.loading import Policy, is_adapted
from cures_core.terms import Credit, FinishReason, Group, Rollout
from cures_core.training.advantages import Sample, batch_samples, taught
from cures_core.training.bounded_attention import bounded_attention
from cures_core.training.forward import attends_in_bounds, completion_logprobs, keeps_rollouts_apart
from cures_core.training.losses import kl_penalty, surrogate
from cures_core.training.optimizer_state import Shape, empty_tensor, shapes_of
from cures_core.training.out_of_memory import MAX_HALVINGS, release
from cures_core.training.packing import MicroBatch, length, micro_batches, shard
from cures_core.training.updaters import build_updater

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

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
    gaps: dict[tuple[str, int], float] = field(default_factory=dict)
    """Mean gap of every rollout, by request and index."""


class TorchTrainer:
    """See `PolicyTrainer`. `temperature` is the sampling temperature: log-probabilities are compared under it.

    `reference` is the base policy's model, needed only for a KL penalty on full weights; adapters are switched off
    to get it. Raises `ConfigError` where it is missing.

    In a `world` of several ranks rank 0 calls the methods of `PolicyTrainer` and the others follow by `handlers`.
    """

    def __init__(
        self,
        policy: Policy,
        cfg: TrainingConfig,
        temperature: float,
        reference: PreTrainedModel | None = None,
        *,
        world: World | None = None,
    ) -> None:
        if cfg.kl_coef and reference is None and not hasattr(policy.model, "disable_adapter"):
            raise ConfigError("training.kl_coef is above 0, which needs the base policy beside the trained one")
        self._policy, self._cfg, self._temperature, self._reference = policy, cfg, temperature, reference
        self._world = world or World()
        # Asked before the weights are shared out: from then on every pass concerns all ranks.
        self._bounded = attends_in_bounds(policy.model, policy.device, cfg.attention)
        self._share_rows = self._bounded or keeps_rollouts_apart(policy.model, policy.device)
        if not self._share_rows:
            _log.warning("this model mixes rollouts that share a row: they are padded instead of packed")
        if cfg.gradient_checkpointing:
            policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._updater = build_updater(policy, cfg, self._world)
        self._step = 0
        self._bad_steps = 0
        self._micro_batch_tokens = cfg.micro_batch_tokens
        self._credits: dict[tuple[str, int], Credit] = {}

    @property
    def model(self) -> PreTrainedModel:
        return self._updater.model

    @property
    def kernels(self) -> dict[str, int]:
        """What the settings came to for this model on this device, 0 or 1: is attention `bounded`, do rollouts
        `share_rows`?"""
        return {"bounded": int(self._bounded), "share_rows": int(self._share_rows)}

    @property
    def bad_steps(self) -> int:
        """Steps in a row, the last one included, that changed nothing because loss or gradient was not finite."""
        return self._bad_steps

    @property
    def credits(self) -> Mapping[tuple[str, int], Credit]:
        """What the last update made of its rollouts, by request and index. Rollouts that it left out are not there."""
        return self._credits

    @property
    def handlers(self) -> dict[str, Handler]:
        """What followers do when rank 0 calls for it."""
        return {
            "update": self._follow_update,
            "state": lambda _: self._tensors(),
            "load": self._load,
        }

    def update(self, groups: Sequence[Group]) -> Mapping[str, float]:
        cfg = self._cfg
        samples = batch_samples(groups, cfg.advantage, cfg.loss_weight, cfg.solved_advantage, keep_all=cfg.kl_coef > 0)
        prompts_taught = taught(groups, samples)
        if not prompts_taught:
            self._step += 1
            self._credits = {}
            nothing = {"tokens_trained": 0.0, "rollouts_trained": 0.0, "prompts_taught": 0.0}
            return {"updated": 0.0, "learning_rate": self._rate(), **nothing}
        self._world.call("update", {"samples": [_packed(s) for s in samples], "step": self._step})
        told = {"rollouts_trained": float(len(samples)), "prompts_taught": float(prompts_taught)}
        return {**self._update_with(samples, self._step), **told}

    def _follow_update(self, call: Mapping[str, Any]) -> None:
        fault_point("rank.update", str(call["step"] + 1))
        self._update_with([_unpacked(row) for row in call["samples"]], call["step"])

    def _update_with(self, samples: Sequence[Sample], steps_done: int) -> dict[str, float]:
        """One step on samples that all ranks have alike."""
        self._step = steps_done + 1
        rate = self._rate()
        sums = self._sum_up(self._gradients(samples), samples)
        self._credits = {_name(s): Credit(s.advantage, sums.gaps[_name(s)]) for s in samples}
        norm, updated = self._updater.step(rate, sums.loss)
        if updated:
            self._bad_steps = 0
        else:
            self._count_bad_step(sums.loss, norm)
        return {"updated": float(updated), "learning_rate": rate, **self._figures(sums, norm, updated)}

    def _rate(self) -> float:
        return self._cfg.learning_rate * min(1.0, self._step / max(1, self._cfg.warmup_steps))

    def _gradients(self, samples: Sequence[Sample]) -> _Sums:
        """Gradients of this rank's share. Where memory runs out: again from the start, with smaller micro-batches."""
        self._policy.model.train()
        for halvings in range(1 if self._updater.lockstep else MAX_HALVINGS + 1):
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
        self._updater.reset()
        raise OutOfMemory(
            f"step {self._step} does not fit into memory, not even with micro-batches of {self._micro_batch_tokens} "
            f"tokens; the last checkpoint is kept. {self._less_memory()}"
        )

    def _less_memory(self) -> str:
        smaller, wanted = max(64, self._micro_batch_tokens // 2), []
        if smaller < self._cfg.micro_batch_tokens:
            wanted.append(f"--set training.micro_batch_tokens={smaller}")
        if not self._cfg.gradient_checkpointing:
            wanted.append("--set training.gradient_checkpointing=true")
        if wanted:
            return f"Go on from it with: cures run --resume RUN {' or '.join(wanted)}"
        return "Go on from it where there is more, or start a run with a smaller model or rollout.max_new_tokens"

    def _attempt(self, samples: Sequence[Sample]) -> _Sums | None:
        """None where memory ran out. Returns before the next attempt starts, so that the error's frames are gone."""
        sums = _Sums()
        self._updater.reset()
        batches = self._my_batches(samples)
        try:
            with bounded_attention(self._policy.model, on=self._bounded):
                for i, (batch, counts) in enumerate(batches):
                    self._backward(batch, sums if counts else _Sums(), last=i + 1 == len(batches))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return sums

    def _my_batches(self, samples: Sequence[Sample]) -> list[tuple[MicroBatch, bool]]:
        """This rank's micro-batches. In lockstep ranks with fewer of them fill up with ones of no weight (False)."""
        import torch

        pad, world = self._policy.tokenizer.pad_token_id, self._world
        mine = shard(samples, world.rank, world.size)
        batches = micro_batches(mine, self._micro_batch_tokens, pad, share_rows=self._share_rows)
        if not self._updater.lockstep:
            return [(batch, True) for batch in batches]
        most = int(world.max_(torch.tensor([len(batches)]), "the number of micro-batches"))
        idle = [replace(min(samples, key=length), weight=0.0)]
        filling = micro_batches(idle, self._micro_batch_tokens, pad) * (most - len(batches))
        return [*((batch, True) for batch in batches), *((batch, False) for batch in filling)]

    def _backward(self, batch: MicroBatch, sums: _Sums, *, last: bool) -> None:
        import torch

        cfg, device = self._cfg, self._policy.device
        self._updater.prepare(last=last)
        forward, bounded = self._updater.forward, self._bounded
        logp_N, entropy_N = completion_logprobs(forward, batch, self._temperature, device, bounded=bounded)
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
        self._updater.backward(loss)
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
            sums.gaps |= _mean_gaps(batch, gap_N)

    def _sum_up(self, mine: _Sums, samples: Sequence[Sample]) -> _Sums:
        """Sums over all ranks; from now on every rank's micro-batches are as small as the smallest."""
        import torch

        if self._world.size == 1:
            return mine
        values = asdict(replace(mine, gaps={}))
        del values["gaps"]
        largest = torch.tensor([values.pop("gap_max"), -self._micro_batch_tokens], dtype=torch.float64)
        gaps = [mine.gaps.get(_name(sample), 0.0) for sample in samples]  # each rollout is in one rank's share
        total = torch.tensor([*values.values(), *gaps], dtype=torch.float64)
        self._world.sum_(total, "the sums of the step")
        self._world.max_(largest, "the sums of the step")
        self._micro_batch_tokens = -int(largest[1])
        sums, of_rollouts = total[: len(values)].tolist(), total[len(values) :].tolist()
        return _Sums(
            **dict(zip(values, sums, strict=True)),
            gap_max=float(largest[0]),
            gaps={_name(sample): gap for sample, gap in zip(samples, of_rollouts, strict=True)},
        )

    def _reference_logprobs(self, batch: MicroBatch) -> torch.Tensor:
        """Log-probabilities (N,) of the completion tokens under the base policy."""
        import torch

        model, bounded = self._policy.model if self._reference is None else self._reference, self._bounded
        # Attends as the policy does: rollouts may share a row only because bounds keep them apart.
        with (
            torch.no_grad(),
            bounded_attention(model, on=bounded),
            model.disable_adapter() if is_adapted(model) else nullcontext(),
        ):
            return completion_logprobs(model, batch, self._temperature, self._policy.device, bounded=bounded)[0]

    def _token_weight(self, sample: Sample) -> float:
        length = len(sample.rollout.token_ids)
        if self._cfg.loss_weight == "token" or self._cfg.length_norm is None:
            return sample.weight / length
        return sample.weight / self._cfg.length_norm

    def _figures(self, sums: _Sums, norm: float, updated: bool) -> dict[str, float]:
        """What is not finite is left out: an entropy of 0 would be one that has collapsed."""
        return valued(
            loss=finite(sums.loss),
            grad_norm=finite(norm),
            non_finite=float(not updated),
            tokens_trained=float(sums.tokens),
            entropy=finite(sums.entropy / sums.tokens),
            clipped_share=sums.clipped / sums.tokens,
            importance_bound=self._cfg.importance_bound,
            importance_truncated_share=sums.truncated / sums.tokens,
            logprob_gap_mean=finite(sums.gap / sums.tokens),
            logprob_gap_max=finite(sums.gap_max) if math.isfinite(sums.gap) else None,  # NaN is no maximum
            packing=sums.real / sums.columns,
            micro_batch_tokens=float(self._micro_batch_tokens),
            kl=finite(sums.kl / sums.tokens) if self._cfg.kl_coef else None,
        )

    def _count_bad_step(self, loss: float, norm: float) -> None:
        self._bad_steps += 1
        _log.warning("step %d: loss %s, gradient norm %s; no update", self._step, loss, norm)
        if self._bad_steps >= self._cfg.max_bad_steps:
            raise TrainingDiverged(
                f"{self._bad_steps} steps in a row had a non-finite loss or gradient; the last checkpoint is healthy. "
                "Go on from it with a lower rate: cures run --resume RUN --set "
                f"training.learning_rate={self._cfg.learning_rate / 2:g}"
            )

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, int]]:
        self._world.call("state")
        state = {
            "step": self._step,
            "bad_steps": self._bad_steps,
            "micro_batch_tokens": self._micro_batch_tokens,
            "micro_batch_tokens_configured": self._cfg.micro_batch_tokens,
        }
        return *self._tensors(), state

    def _tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return self._updater.weights(), self._updater.tensors()

    def load_state_dict(
        self, weights: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor], state: Mapping[str, int]
    ) -> None:
        configured = self._cfg.micro_batch_tokens
        saved = int(state.get("micro_batch_tokens", configured))
        # What once did not fit stays halved: a resumed epoch sums in the same order as an uninterrupted one. Another
        # setting than it was halved from is taken at its word; earlier versions did not keep that one.
        before = int(state.get("micro_batch_tokens_configured", max(saved, configured)))
        counters = {
            "bad_steps": int(state["bad_steps"]),
            "micro_batch_tokens": saved if before == configured else configured,
        }
        self._step = int(state["step"])
        call = {"counters": counters, "tensors": [shapes_of(weights), shapes_of(optimizer)]}
        self._world.call("load", call)
        self._load(call, weights, optimizer)

    def _load(
        self,
        call: Mapping[str, Any],
        weights: dict[str, torch.Tensor] | None = None,
        optimizer: dict[str, torch.Tensor] | None = None,
    ) -> None:
        self._bad_steps = call["counters"]["bad_steps"]
        self._micro_batch_tokens = call["counters"]["micro_batch_tokens"]
        of_weights, of_optimizer = call["tensors"]
        self._updater.load(self._arriving(of_weights, weights), self._arriving(of_optimizer, optimizer))

    def _arriving(
        self, shapes: Mapping[str, Shape], tensors: dict[str, torch.Tensor] | None
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Rank 0's tensors one after another, so that no other rank ever holds them all."""
        for name, shape in shapes.items():
            tensor = empty_tensor(shape) if tensors is None else tensors[name].detach()
            yield name, self._world.broadcast_(tensor, "the checkpoint")


def _name(sample: Sample) -> tuple[str, int]:
    return sample.rollout.request_id, sample.rollout.index


def _mean_gaps(batch: MicroBatch, gap_N: torch.Tensor) -> dict[tuple[str, int], float]:
    """Of every rollout of a micro-batch."""
    import torch

    rollout_N = torch.from_numpy(batch.rollout).to(gap_N.device)
    sums_S = torch.zeros(len(batch.samples), dtype=gap_N.dtype, device=gap_N.device).index_add(0, rollout_N, gap_N)
    pairs = zip(batch.samples, sums_S.tolist(), strict=True)
    return {_name(sample): total / len(sample.rollout.token_ids) for sample, total in pairs}


def _packed(sample: Sample) -> list[Any]:
    """A sample as a JSON value, without what only the verifier needs."""
    r = sample.rollout
    return [r.request_id, r.index, r.prompt_ids, r.token_ids, r.logprobs, sample.advantage, sample.weight]


def _unpacked(row: Sequence[Any]) -> Sample:
    request, index, prompt, tokens, logprobs, *values = row
    rollout = Rollout(request, index, tuple(prompt), tuple(tokens), tuple(logprobs), "", FinishReason.STOP)
    return Sample(rollout, *values)
