"""A pretrained policy learns worked solutions: what `SupervisedWarmStart` says, resumable at a step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cures_core.config.policy import SupervisedWarmStart
from cures_core.config.training import TorchTrainerConfig
from cures_core.distributed import World
from cures_core.policy.loading import Policy
from cures_core.policy.solutions import Lesson
from cures_core.terms import FinishReason, Rollout
from cures_core.training.advantages import Sample
from cures_core.training.forward import completion_logprobs, keeps_rollouts_apart
from cures_core.training.packing import micro_batches
from cures_core.training.supervised import OnStep, Row, rate_at, require_finite, teach
from cures_core.training.updaters import build_updater

if TYPE_CHECKING:
    import torch


def supervised_warm_start(
    cfg: SupervisedWarmStart, policy: Policy, lessons: Sequence[Lesson], scratch: Path, on_step: OnStep
) -> list[Row]:
    """Teach `policy` all lessons, in place; the figures of every step: loss (nats a token), tokens, learning_rate,
    grad_norm."""
    learner = _Solutions(cfg, policy, lessons)
    return teach(learner, len(learner.steps), cfg.checkpoint_every, scratch, on_step)


def planned_steps(cfg: SupervisedWarmStart, lessons: Sequence[Lesson]) -> list[list[int]]:
    """Indices of the lessons of every step: in each epoch all of them, in another order."""
    steps: list[list[int]] = []
    for epoch in range(cfg.epochs):
        batch: list[int] = []
        room = cfg.batch_tokens
        for i in np.random.default_rng([cfg.seed, 0x534F4C56, epoch]).permutation(len(lessons)).tolist():
            size = len(lessons[i].prompt_ids) + len(lessons[i].token_ids)
            if batch and size > room:
                steps.append(batch)
                batch, room = [], cfg.batch_tokens
            batch.append(i)
            room -= size
        steps.append(batch)
    return steps


class _Solutions:
    """See `Learner`: the mean negative log-probability of a step's completion tokens is made smaller."""

    def __init__(self, cfg: SupervisedWarmStart, policy: Policy, lessons: Sequence[Lesson]) -> None:
        self._cfg, self._policy, self._lessons = cfg, policy, lessons
        self.steps = planned_steps(cfg, lessons)
        trainer = TorchTrainerConfig(learning_rate=cfg.learning_rate, weight_decay=cfg.weight_decay)
        self._updater = build_updater(policy, trainer, World())
        self._share_rows = keeps_rollouts_apart(policy.model, policy.device)

    def step(self, number: int) -> Row:
        self._policy.model.train()
        self._updater.reset()
        samples = [_sample(self._lessons[i]) for i in self.steps[number]]
        tokens = sum(len(sample.rollout.token_ids) for sample in samples)
        pad = self._policy.tokenizer.pad_token_id
        batches = micro_batches(samples, self._cfg.micro_batch_tokens, pad, share_rows=self._share_rows)
        loss = 0.0
        for i, batch in enumerate(batches):
            self._updater.prepare(last=i + 1 == len(batches))
            logprobs, _ = completion_logprobs(self._updater.forward, batch, 1.0, self._policy.device)
            part = -logprobs.sum() / tokens
            self._updater.backward(part)
            loss += float(part.detach())
        rate = rate_at(number, len(self.steps), self._cfg.learning_rate)
        norm, updated = self._updater.step(rate, loss)
        require_finite(number, loss, norm, updated)
        return {"loss": loss, "tokens": tokens, "learning_rate": rate, "grad_norm": norm}

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return self._updater.weights(), self._updater.tensors()

    def load(self, weights: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        self._updater.load(weights.items(), optimizer.items())


def _sample(lesson: Lesson) -> Sample:
    """A lesson in the shape that micro-batches are packed from: nobody has sampled it."""
    nothing = (0.0,) * len(lesson.token_ids)
    rollout = Rollout("lesson", 0, lesson.prompt_ids, lesson.token_ids, nothing, "", FinishReason.STOP)
    return Sample(rollout, 1.0, 1.0)
