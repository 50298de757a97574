"""Supervised training of the small policy on a fallible tutor's demonstrations, resumable at a step."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cures_core.builtin.chains import SYMBOLS, Tutor
from cures_core.config.device import DeviceConfig
from cures_core.config.policy import WarmStartPolicy
from cures_core.policy.characters import (
    INITIAL_DEVIATION,
    POSITIONS,
    character_model,
    character_tokenizer,
    word_pattern,
)
from cures_core.policy.loading import Policy, save_policy, setup_torch
from cures_core.training.optimizer_state import load_optimizer, optimizer_tensors
from cures_core.training.supervised import OnStep, Row, teach

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

RECIPE = 2
"""Counts up when the same settings come to teach another policy: part of what names one."""
_WARMUP = 50
_CUT = 8
"""Batches that are drawn together and cut by length, so that little is padded."""

Demonstrate = Callable[[np.random.Generator, int], Sequence[tuple[str, str]]]
"""So many (problem, completion) pairs, all of their randomness from the generator."""


@dataclass(frozen=True)
class Lesson:
    """What a warm start teaches, and what it takes to hold it."""

    tutor: Callable[[int], Demonstrate]
    """The tutor of a seed."""
    symbols: str
    """Characters that occur; each is a token."""
    words: tuple[str, ...] = ()
    """Words that are tokens of their own."""
    positions: int = POSITIONS
    """Most tokens of problem and completion together."""
    initial_deviation: float = INITIAL_DEVIATION
    """Standard deviation of the initial weights."""

    def length(self, text: str) -> int:
        """Tokens of a text."""
        return len(re.sub(word_pattern(self.words), "w", text)) if self.words else len(text)


def _chains(seed: int) -> Demonstrate:
    tutor = Tutor(seed)

    def demonstrate(rng: np.random.Generator, num: int) -> list[tuple[str, str]]:
        chains, pads = tutor.demonstrate(rng, num)
        return [(chains.problem(i), "".join(str(v) for v in pads[i, : chains.steps[i]])) for i in range(num)]

    return demonstrate


CHAINS = Lesson(_chains, SYMBOLS)
"""The built-in task."""


def warm_start(
    cfg: WarmStartPolicy,
    device_cfg: DeviceConfig,
    scratch: Path,
    out: Path,
    on_step: OnStep,
    lesson: Lesson = CHAINS,
) -> list[Row]:
    """Train, checkpointing into `scratch`, and write the policy to `out`; returns the figures of every step.

    Demonstrations come from a generator seeded by (seed, number of the draw): a resumed warm start sees the same.
    """
    import torch

    device = setup_torch(device_cfg, cfg.seed)
    tokenizer = character_tokenizer(lesson.symbols, lesson.words)
    made: Any = character_model(cfg, tokenizer, lesson.positions, lesson.initial_deviation)
    model = made.to(device)
    policy = Policy(model, tokenizer, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.learning_rate, weight_decay=0.01)
    model.train()
    learner = _Learner(policy, optimizer, _Batches(lesson, cfg.seed, cfg.batch), cfg)
    rows = teach(learner, cfg.steps, cfg.checkpoint_every, scratch, on_step)
    save_policy(policy, out)
    return rows


class _Learner:
    """See `Learner`: the small policy under its tutor."""

    def __init__(
        self, policy: Policy, optimizer: torch.optim.Optimizer, batches: _Batches, cfg: WarmStartPolicy
    ) -> None:
        self._policy, self._optimizer, self._batches, self._cfg = policy, optimizer, batches, cfg

    def step(self, number: int) -> Row:
        for group in self._optimizer.param_groups:
            group["lr"] = self._cfg.learning_rate * _schedule(number, self._cfg.steps)
        return {"loss": _update(self._policy, self._optimizer, *self._batches.at(number))}

    def tensors(self) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        return dict(self._policy.trainable()), optimizer_tensors(self._optimizer)

    def load(self, weights: dict[str, torch.Tensor], optimizer: dict[str, torch.Tensor]) -> None:
        self._policy.load_trainable(weights)
        load_optimizer(self._optimizer, optimizer)


def _schedule(step: int, steps: int) -> float:
    if step < _WARMUP:
        return (step + 1) / _WARMUP
    return 1.0 - 0.9 * (step - _WARMUP) / max(1, steps - _WARMUP)


class _Batches:
    """The demonstrations of each step, and what their loss weighs: their tokens over those of a mean batch, since short
    completions would otherwise count for more where batches are cut by length."""

    def __init__(self, lesson: Lesson, seed: int, batch: int) -> None:
        self._demonstrate, self._length = lesson.tutor(seed), lesson.length
        self._seed, self._batch = seed, batch
        self._draw = -1
        self._drawn: list[tuple[Sequence[tuple[str, str]], float]] = []

    def at(self, step: int) -> tuple[Sequence[tuple[str, str]], float]:
        draw, place = divmod(step, _CUT)
        if draw != self._draw:
            self._draw, self._drawn = draw, self._batches(np.random.default_rng([self._seed, 4, draw]))
        return self._drawn[place]

    def _batches(self, rng: np.random.Generator) -> list[tuple[Sequence[tuple[str, str]], float]]:
        pairs = self._demonstrate(rng, self._batch * _CUT)
        ordered = sorted(pairs, key=lambda pair: self._length(pair[0] + pair[1]))
        parts = [ordered[i * self._batch : (i + 1) * self._batch] for i in rng.permutation(_CUT)]
        tokens = [sum(self._length(answer) + 1 for _, answer in part) for part in parts]
        return [(part, num * _CUT / sum(tokens)) for part, num in zip(parts, tokens, strict=True)]


def _update(policy: Policy, optimizer: torch.optim.Optimizer, pairs: Sequence[tuple[str, str]], weight: float) -> float:
    """One AdamW step on the completions' tokens (and the end token) of the demonstrations; returns the mean loss."""
    import torch

    ids, is_answer = _encode(policy.tokenizer, pairs)
    tokens = torch.from_numpy(ids).to(policy.device)
    targets = torch.where(torch.from_numpy(is_answer).to(policy.device), tokens, -100)
    logits = policy.model(input_ids=tokens, attention_mask=(tokens != policy.tokenizer.pad_token_id).long()).logits
    loss: Any = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=True)
    (weight * loss).backward()
    torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _encode(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (num, length), padded on the right, and the mask of answer positions, the end token included."""
    problems, answers = (tokenizer(list(texts))["input_ids"] for texts in zip(*pairs, strict=True))
    rows = [[*problem, *answer, tokenizer.eos_token_id] for problem, answer in zip(problems, answers, strict=True)]
    ids = np.full((len(rows), max(map(len, rows))), tokenizer.pad_token_id, dtype=np.int64)
    is_answer = np.zeros_like(ids, dtype=bool)
    for i, (row, problem) in enumerate(zip(rows, problems, strict=True)):
        ids[i, : len(row)] = row
        is_answer[i, len(problem) : len(row)] = True
    return ids, is_answer
