"""Knows how requests become calls of vLLM, in this machine or over HTTP, and how what it samples becomes rollouts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cures_core.config.rollout import AnyVllmConfig
from cures_core.errors import TrainingDiverged
from cures_core.rollout.prompting import encode_prompts
from cures_core.rollout.room import prompt_room
from cures_core.rollout.stopping import StopRule
from cures_core.rollout.thoughts import Thoughts
from cures_core.terms import FinishReason, Request, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Sampled:
    """One completion as an engine gives it: `logprobs[t]` belongs to `token_ids[t]`."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str


@dataclass(frozen=True, slots=True)
class Call:
    """`n` rollouts from index `first` of request number `number`. `fields`: those of vLLM's sampling parameters."""

    name: str
    number: int
    first: int
    n: int
    prompt_ids: tuple[int, ...]
    fields: dict[str, Any]


class Generation:
    """The calls of one generation and the rollouts so far. What has been recorded outlives the engine that made it."""

    def __init__(
        self,
        requests: Sequence[Request],
        tokenizer: PreTrainedTokenizerBase,
        cfg: AnyVllmConfig,
        stop: StopRule,
        context: int,
        call_rollouts: int,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        """A call takes up to `call_rollouts`: vLLM seeds rollout i of a call with seed + i, so it may be cut anywhere.

        `context`: most tokens of prompt and completion. Raises `DataRejected` for a prompt that does not fit.
        """
        self._requests, self._cfg, self._stop, self._progress = requests, cfg, stop, progress
        limit = prompt_room(cfg, context)
        self._prompts = encode_prompts([r.prompt for r in requests], tokenizer, cfg.prompt_format, limit)
        self._thoughts = Thoughts(tokenizer, cfg.prompt_format)
        self.open = {call.name: call for call in self._calls(call_rollouts)}
        self.total, self.done = sum(r.n for r in requests), 0
        self._rollouts: list[list[Rollout]] = [[] for _ in requests]

    @property
    def rollouts(self) -> list[list[Rollout]]:
        """Those of each request, by index."""
        return [sorted(group, key=lambda r: r.index) for group in self._rollouts]

    def record(self, name: str, sampled: Sequence[Sampled]) -> None:
        """Close a call. Raises `TrainingDiverged` for log-probabilities that are not finite."""
        call = self.open.pop(name)
        copies = call.n if self._cfg.greedy else 1
        made = [self._rollout(call, i, one) for i, one in enumerate(list(sampled) * copies)]
        self._rollouts[call.number] += made
        self.done += len(made)
        if self._progress is not None:
            self._progress(self.done, self.total)

    def _calls(self, call_rollouts: int) -> list[Call]:
        calls = []
        for number, request in enumerate(self._requests):
            # A greedy group is generated once and copied.
            size = request.n if self._cfg.greedy else call_rollouts
            for first in range(0, request.n, size or 1):
                n = min(size, request.n - first)
                fields = self._fields(request, first, n)
                calls.append(Call(f"{number}-{first}", number, first, n, self._prompts[number], fields))
        return calls

    def _fields(self, request: Request, first: int, n: int) -> dict[str, object]:
        """The engine's own end tokens and defaults play no part."""
        return {
            "n": 1 if self._cfg.greedy else n,
            "seed": _seed(request) + first,
            "temperature": self._cfg.temperature,
            "top_p": self._cfg.top_p,
            "max_tokens": self._cfg.max_new_tokens,
            "logprobs": 0,
            "ignore_eos": True,
            "stop_token_ids": self._stop.end_ids,
            "stop": list(self._stop.strings) or None,
        }

    def _rollout(self, call: Call, at: int, sampled: Sampled) -> Rollout:
        if not all(map(math.isfinite, sampled.logprobs)):
            raise TrainingDiverged(
                "rollout: the policy gives log-probabilities that are not finite. "
                "Its weights have diverged. Go on from a healthy checkpoint with a lower rate: "
                "cures run --resume RUN --set training.learning_rate=..."
            )
        known = self._cfg.logprobs_known
        stopped = self._stop.cut(sampled.token_ids) if self._stop.strings else None
        made = Rollout(
            request_id=self._requests[call.number].id,
            index=call.first + at,
            prompt_ids=call.prompt_ids,
            token_ids=sampled.token_ids,
            logprobs=sampled.logprobs if known else (math.nan,) * len(sampled.token_ids),
            text=self._stop.text([sampled.token_ids])[0] if stopped is None else stopped,
            finish_reason=FinishReason(sampled.finish_reason),
        )
        return self._thoughts.marked(made)


def _seed(request: Request) -> int:
    """Seed of rollout 0 of a request: 62 bits, which leave room for the index in vLLM's 63."""
    digest = hashlib.blake2b(f"{request.seed}\0{request.prompt.id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 2
