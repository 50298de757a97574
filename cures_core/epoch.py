"""The training loop: the one place that joins curriculum, rollouts, verdicts and updates. Read this page first.

One step is one policy update:
ask -> generate -> verify -> tell -> (ready?) -> advantage -> update -> sync -> commit.
The loop does not know which curriculum it runs. Departures from the paper: evidence fades instead of being reset;
groups without signal stay in the loss's denominator; every rollout asked for is paid from the step's budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from cures_core.curriculum.ask_tell import AskTell, Batch
from cures_core.means import ratio, valued
from cures_core.rewards.length import AS_JUDGED, LengthRule
from cures_core.rewards.verifier import Verifier
from cures_core.rollout.engine import RolloutEngine
from cures_core.terms import FinishReason, Group, Outcome, Request, Rollout
from cures_core.training.trainer import PolicyTrainer


@dataclass(frozen=True)
class Progress:
    """Counters of a run: `step` optimizer steps done, rollouts and completion tokens paid for."""

    step: int = 0
    rollouts: int = 0
    tokens: int = 0


Commit = Callable[[Progress, Sequence[Group], Mapping[str, float | str], float], None]


def run_epoch(
    progress: Progress,
    last_step: int,
    curriculum: AskTell,
    engine: RolloutEngine,
    verifier: Verifier,
    trainer: PolicyTrainer,
    commit: Commit,
    lengths: LengthRule = AS_JUDGED,
) -> Progress:
    """Step until `last_step`; `commit(progress, groups, metrics, seconds)` after each. A spent budget ends a step."""
    while progress.step < last_step:
        started, told = time.monotonic(), []
        budget = curriculum.rollouts_per_step
        while (batch := curriculum.ready()) is None:
            requests = curriculum.ask(budget)
            groups = roll_out(requests, engine, verifier, lengths)
            curriculum.tell(groups)
            told += groups
            budget -= sum(request.n for request in requests)
        engine.sleep()
        figures = {**verifier.figures(), **trainer.update(batch.groups), **lengths.figures(told)}
        engine.sync(trainer.model)
        progress = advance(progress, told)
        commit(progress, told, step_metrics(progress, batch, told, figures), time.monotonic() - started)
    return progress


def roll_out(
    requests: Sequence[Request], engine: RolloutEngine, verifier: Verifier, lengths: LengthRule = AS_JUDGED
) -> list[Group]:
    """Generate and judge: one group for each request, in order."""
    made = list(zip(requests, engine.generate(requests), strict=True))
    verdicts = iter(verifier.judge([(r.text, q.prompt) for q, rs in made for r in rs]))
    return [Group(q, rs, [lengths.applied(r, next(verdicts)) for r in rs]) for q, rs in made]


def advance(progress: Progress, told: Sequence[Group]) -> Progress:
    """Count one step and what it paid for."""
    return replace(
        progress,
        step=progress.step + 1,
        rollouts=progress.rollouts + sum(len(g.rollouts) for g in told),
        tokens=progress.tokens + sum(len(r.token_ids) for g in told for r in g.rollouts),
    )


def thinking_means(rollouts: Sequence[Rollout]) -> dict[str, float | None]:
    """Mean tokens of thinking and of what follows it; nothing for a policy that does not think."""
    thinking = sum(r.thinking_tokens for r in rollouts)
    if not thinking:
        return {}
    answers = sum(len(r.token_ids) for r in rollouts) - thinking
    return {
        "thinking_tokens_mean": ratio(thinking, len(rollouts)),
        "answer_tokens_mean": ratio(answers, len(rollouts)),
    }


def step_metrics(
    progress: Progress, batch: Batch, told: Sequence[Group], figures: Mapping[str, float]
) -> dict[str, float | str]:
    """One line of metrics.jsonl: counters, rewards, stop reasons, the curriculum's and the trainer's figures.

    Rewards are means over the known verdicts, the other means are over all rollouts; a mean over nothing is left out.
    `taught_share` is the share of the drawn prompts that moved the policy, as far as the trainer tells.
    `sampled_entropy` is the mean of -log p of the tokens drawn, nats a token: the policy's entropy at the sampling
    temperature, unbiased where top_p is 1. Groups that all agree are in it; the trainer's `entropy` is of what it
    trained on, and a policy that always says the same has nothing to train on.
    """
    judged = [pair for g in told for pair in zip(g.rollouts, g.verdicts, strict=True)]
    rollouts = [r for r, _ in judged]
    cut = [v for r, v in judged if r.finish_reason is FinishReason.LENGTH]
    known = [v for g in told for v in g.verdicts if v.outcome is not Outcome.UNKNOWN]
    right = sum(v.outcome is Outcome.CORRECT for v in known)
    drawn = {g.request.prompt.id for g in told}
    weighted = any(v.reward is not None for v in known)
    return {
        "schema": 1.0,
        "step": progress.step,
        "rollouts_total": progress.rollouts,
        "tokens_total": progress.tokens,
        **valued(
            reward_mean=ratio(sum(v.paid for v in known), len(known)),
            correct_share=ratio(right, len(known)) if weighted else None,
            truncated_share=ratio(len(cut), len(rollouts)),
            truncated_wrong_share=ratio(sum(v.outcome is Outcome.WRONG for v in cut), len(rollouts)),
            completion_tokens_mean=ratio(sum(len(r.token_ids) for r in rollouts), len(rollouts)),
            sampled_entropy=ratio(
                sum(-p for r in rollouts for p in r.logprobs), sum(len(r.logprobs) for r in rollouts)
            ),
            **thinking_means(rollouts),
            taught_share=ratio(figures["prompts_taught"], len(drawn)) if "prompts_taught" in figures else None,
        ),
        "reason": batch.reason,
        **{k: float(v) for k, v in batch.figures.items()},
        **figures,
    }
