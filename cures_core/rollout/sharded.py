"""Knows how ranks share out the rollouts of a step: one engine each, whole groups, equal tokens wherever they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from cures_core.config.rollout import RolloutConfig
from cures_core.distributed import Handler, World
from cures_core.rollout.engine import RolloutEngine
from cures_core.terms import FinishReason, Prompt, Request, Rollout

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ShardedEngine:
    """See `RolloutEngine`. Rank 0 calls it; the other ranks, with engines of the same kind, follow by `handlers`.

    `model` is what this rank's engine generates with after a `sync` (on rank 0 the caller gives it).
    """

    def __init__(self, engine: RolloutEngine, world: World, model: Callable[[], PreTrainedModel]) -> None:
        self._engine, self._world, self._model = engine, world, model

    @property
    def cfg(self) -> RolloutConfig:
        return self._engine.cfg

    @property
    def handlers(self) -> dict[str, Handler]:
        """What followers do when rank 0 calls for it."""
        return {
            "generate": lambda rows: self._share(_requests(rows), None),
            "sync": lambda _: self._engine.sync(self._model()),
            "sleep": lambda _: self._engine.sleep(),
            "retune": lambda cfg: self._engine.retune(TypeAdapter(RolloutConfig).validate_python(cfg)),
        }

    def generate(
        self, requests: Sequence[Request], *, progress: Callable[[int, int], None] | None = None
    ) -> list[list[Rollout]]:
        """As promised by `RolloutEngine`; `progress` hears of the other ranks' rollouts when all are there."""
        if not requests:
            return []
        total = sum(request.n for request in requests)
        self._world.call("generate", _rows(requests))
        own = None if progress is None else lambda done, _: progress(done, total)
        parts = self._share(requests, own)
        shares = deal([r.n for r in requests], self._world.size)
        groups: list[list[Rollout]] = [[] for _ in requests]
        for rank, share in enumerate(shares):
            for number, rows in zip(share, parts[rank], strict=True):
                groups[number] = [_rollout(requests[number], row) for row in rows]
        if progress is not None:
            progress(total, total)
        return groups

    def sync(self, model: PreTrainedModel) -> None:
        self._world.call("sync")
        self._engine.sync(model)

    def sleep(self) -> None:
        self._world.call("sleep")
        self._engine.sleep()

    def retune(self, cfg: RolloutConfig) -> None:
        self._world.call("retune", cfg.model_dump(mode="json"))
        self._engine.retune(cfg)

    def close(self) -> None:
        """Close this rank's engine; the others close theirs when they are told that the job ends."""
        self._engine.close()

    def _share(self, requests: Sequence[Request], progress: Callable[[int, int], None] | None) -> list[Any]:
        """Generate this rank's share and hand it to rank 0, which gets those of all ranks."""
        mine = deal([r.n for r in requests], self._world.size)[self._world.rank]
        try:
            groups = self._engine.generate([requests[i] for i in mine], progress=progress) if mine else []
        except BaseException:
            if self._world.rank == 0:  # cancelled by `progress`, say: the others finish what they were asked for
                self._hand_over([])
            raise
        return self._hand_over(groups)

    def _hand_over(self, groups: Sequence[Sequence[Rollout]]) -> list[Any]:
        return self._world.gather([[_row(r) for r in group] for group in groups], "the rollouts of the step")


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Indices of `sizes` dealt out: largest first, each to the hand with the smallest sum so far; ascending."""
    sums = [0] * hands
    dealt: list[list[int]] = [[] for _ in sums]
    for i in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        hand = sums.index(min(sums))
        sums[hand] += sizes[i]
        dealt[hand].append(i)
    return [sorted(hand) for hand in dealt]


def _rows(requests: Sequence[Request]) -> list[Any]:
    return [[r.id, r.n, r.seed, r.prompt.id, r.prompt.problem, r.prompt.turns] for r in requests]


def _requests(rows: Sequence[Any]) -> list[Request]:
    return [
        Request(name, Prompt(prompt, problem, "", turns=tuple((role, said) for role, said in turns)), n, seed)
        for name, n, seed, prompt, problem, turns in rows
    ]


def _row(r: Rollout) -> list[Any]:
    return [r.index, r.prompt_ids, r.token_ids, r.logprobs, r.text, r.finish_reason, r.thinking_tokens]


def _rollout(request: Request, row: Any) -> Rollout:
    index, prompt, tokens, logprobs, text, reason, thinking = row
    reason = FinishReason(reason)
    return Rollout(request.id, index, tuple(prompt), tuple(tokens), tuple(logprobs), text, reason, thinking)
