"""Knows what every curriculum must do: subclass `CurriculumExam` in a test module and give it your curriculum."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from cures_core.curriculum.ask_tell import AskTell, Batch
from cures_core.errors import ConfigError, CurriculumMisuse
from cures_core.prompts import PromptSet, make_prompt
from cures_core.terms import FinishReason, Group, Outcome, Request, Rollout, Verdict


def prompt_set(num: int, offset: int = 0) -> PromptSet:
    """`num` prompts of four groups."""
    return PromptSet.of(
        make_prompt(f"What is {i} plus 1?", str(i + 1), source="ab"[i % 2], level=str(i // 2 % 2))
        for i in range(offset, offset + num)
    )


def answered(request: Request, outcomes: Sequence[Outcome]) -> Group:
    """A group with these verdicts and empty completions."""
    rollouts = [Rollout(request.id, i, (1,), (2,), (-0.5,), "", FinishReason.STOP) for i in range(len(outcomes))]
    return Group(request, rollouts, [Verdict(outcome) for outcome in outcomes])


def answer(requests: Sequence[Request], rate: float, rng: np.random.Generator) -> list[Group]:
    """Right with probability `rate`, else wrong."""
    pair = (Outcome.WRONG, Outcome.CORRECT)
    return [answered(q, [pair[int(rng.random() < rate)] for _ in range(q.n)]) for q in requests]


def step(curriculum: AskTell, rate: float, rng: np.random.Generator) -> tuple[list[Request], Batch]:
    """Play one step; returns what was asked for and the batch. Fails if the step does not end."""
    asked: list[Request] = []
    budget = curriculum.rollouts_per_step
    for _ in range(curriculum.rollouts_per_step + 2):
        if (batch := curriculum.ready()) is not None:
            return asked, batch
        requests = curriculum.ask(budget)
        asked += requests
        budget -= sum(q.n for q in requests)
        curriculum.tell(answer(requests, rate, rng))
    raise AssertionError("the step did not end: ready() has to close it when the budget is spent or nothing is asked")


class CurriculumExam:
    """The promises of `AskTell`, as tests. A subclass (named `Test...`) defines `make`."""

    def make(self, prompts: PromptSet, seed: int) -> AskTell:
        """A fresh curriculum over at least 8 prompts."""
        raise NotImplementedError

    @pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
    def test_steps_end_within_their_budget(self, rate: float) -> None:
        curriculum, rng = self.make(prompt_set(24), 0), np.random.default_rng(0)
        seen: set[str] = set()
        for _ in range(6):
            asked, batch = step(curriculum, rate, rng)
            assert sum(q.n for q in asked) <= curriculum.rollouts_per_step
            assert all(q.n >= 1 for q in asked)
            assert len({q.id for q in asked} | seen) == len(asked) + len(seen), "a request id occurs twice in a run"
            seen |= {q.id for q in asked}
            assert batch.reason
            assert all(isinstance(v, float | int) and np.isfinite(v) for v in batch.figures.values())
            assert {q.prompt.id for q in asked} <= set(prompt_set(24).ids)
            ids = [g.request.prompt.id for g in batch.groups]
            assert len(set(ids)) == len(ids), "a prompt has two groups in one batch"

    def test_unknown_verdicts_end_the_step_too(self) -> None:
        curriculum = self.make(prompt_set(24), 0)
        requests = curriculum.ask(curriculum.rollouts_per_step)
        for _ in range(curriculum.rollouts_per_step):
            curriculum.tell([answered(q, [Outcome.UNKNOWN] * q.n) for q in requests])
            if curriculum.ready() is not None:
                return
            requests = curriculum.ask(curriculum.rollouts_per_step)
        raise AssertionError("the step did not end")

    def test_a_request_is_told_exactly_once(self) -> None:
        curriculum, twin = self.make(prompt_set(24), 0), self.make(prompt_set(24), 0)
        rng = np.random.default_rng(1)
        requests = curriculum.ask(curriculum.rollouts_per_step)
        groups = answer(requests, 0.5, rng)
        stranger = Request("stranger", requests[0].prompt, 2, 0)
        for bad in (
            [*groups, answered(stranger, [Outcome.CORRECT] * 2)],
            [*groups, groups[0]],
            [answered(requests[0], [Outcome.CORRECT] * (requests[0].n + 1))],
        ):
            with pytest.raises(CurriculumMisuse):
                curriculum.tell(bad)
        curriculum.tell(groups)
        with pytest.raises(CurriculumMisuse):
            curriculum.tell(groups[:1])
        twin.ask(twin.rollouts_per_step)
        twin.tell(groups)
        self._finish(curriculum)
        self._finish(twin)
        assert _plain(curriculum.state_dict()) == _plain(twin.state_dict()), "a refused tell left a trace"

    def test_the_seed_decides(self) -> None:
        asks = [self.make(prompt_set(40), seed).ask(10_000) for seed in (5, 5, 6)]
        assert asks[0] == asks[1]
        assert asks[0] != asks[2]

    def test_a_saved_state_goes_on_in_the_same_way(self) -> None:
        first, rng = self.make(prompt_set(40), 3), np.random.default_rng(2)
        for _ in range(3):
            step(first, 0.5, rng)
        state = _through_disk(first.state_dict())
        second = self.make(prompt_set(40), 99)
        second.load_state_dict(state)
        for seed in range(3):
            one = step(first, 0.5, np.random.default_rng(seed))
            two = step(second, 0.5, np.random.default_rng(seed))
            assert one[0] == two[0]
            assert one[1].figures == two[1].figures
        assert _plain(first.state_dict()) == _plain(second.state_dict())

    def test_a_foreign_state_is_refused(self) -> None:
        curriculum = self.make(prompt_set(24), 0)
        state = curriculum.state_dict()
        with pytest.raises(ConfigError):
            self.make(prompt_set(24, offset=7), 0).load_state_dict(state)
        with pytest.raises(ConfigError):
            curriculum.load_state_dict({**state, "type": "something else"})

    def _finish(self, curriculum: AskTell) -> None:
        rng = np.random.default_rng(8)
        while curriculum.ready() is None:
            curriculum.tell(answer(curriculum.ask(curriculum.rollouts_per_step), 0.5, rng))


def _through_disk(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint does to a state: plain values through JSON, arrays as they are."""
    found: dict[str, Any] = {}
    for key, value in state.items():
        if isinstance(value, dict):
            found[key] = _through_disk(value)
        else:
            found[key] = value.copy() if isinstance(value, np.ndarray) else json.loads(json.dumps(value))
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
