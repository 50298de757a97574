"""The limit of tokens follows the right completions, and a cut one is a truncated one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from benchmarks.curriculum.aborting import AbortingEngine
from cures_core.config.rollout import HfRolloutConfig
from cures_core.prompts import make_prompt
from cures_core.terms import FinishReason, Group, Outcome, Request, Rollout, Verdict

REQUEST = Request("r", make_prompt("1+1=", "2"), 100, 0)


class Engine:
    """Notes the limit of every call."""

    def __init__(self) -> None:
        self.cfg = HfRolloutConfig(max_new_tokens=50)
        self.limits: list[int] = []

    def generate(self, requests: Sequence[Request], *, progress: Any = None) -> list[list[Rollout]]:
        self.limits.append(self.cfg.max_new_tokens)
        return [[] for _ in requests]

    def retune(self, cfg: Any) -> None:
        self.cfg = cfg


def group(lengths: Sequence[int], outcome: Outcome) -> Group:
    rollouts = [Rollout("r", i, (1,), (2,) * n, (0.0,) * n, "", FinishReason.STOP) for i, n in enumerate(lengths)]
    return Group(REQUEST, rollouts, [Verdict(outcome)] * len(lengths))


def test_the_limit_is_a_quantile_of_right_lengths_and_a_margin() -> None:
    inner = Engine()
    engine = AbortingEngine(inner, 0.9)  # type: ignore[arg-type]
    engine.generate([REQUEST])
    engine.learn([group([49] * 200, Outcome.WRONG), group([20] * 63, Outcome.CORRECT)])
    engine.generate([REQUEST])
    assert inner.limits == [50, 50]  # wrong ones say nothing, and 63 right ones too little
    engine.learn([group([20], Outcome.CORRECT)])
    engine.generate([REQUEST])
    assert inner.limits[-1] == 25
    assert inner.cfg.max_new_tokens == 50  # whoever else uses the engine has the whole limit


@pytest.mark.parametrize(("length", "limit"), [(39, 49), (45, 50)])
def test_the_limit_is_never_above_the_worlds(length: int, limit: int) -> None:
    inner = Engine()
    engine = AbortingEngine(inner, 0.5)  # type: ignore[arg-type]
    engine.learn([group([length] * 100, Outcome.CORRECT)])
    assert engine.limit == limit


def test_old_lengths_are_forgotten() -> None:
    engine = AbortingEngine(Engine(), 0.5)  # type: ignore[arg-type]
    engine.learn([group([40] * 100, Outcome.CORRECT)] * 6)
    engine.learn([group([8] * 100, Outcome.CORRECT)] * 6)
    assert engine.limit == 10
