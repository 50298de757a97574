"""What strategies ask for is pinned: a change that draws other prompts is seen, and has to say so."""

from __future__ import annotations

from tests.recorded.recording import assert_as_recorded, recorded
from tests.recorded.strategies import CONFIGS, RIVALS, traces


def test_strategies_ask_for_what_was_recorded() -> None:
    assert_as_recorded("strategies", traces(CONFIGS))


def test_rivals_ask_for_what_was_recorded_when_they_were_part_of_the_product() -> None:
    assert_as_recorded("rivals", traces(RIVALS))


def test_the_traces_meet_second_rounds_and_missing_verdicts() -> None:
    every = {**recorded("strategies"), **recorded("rivals")}
    for name, steps in every.items():
        assert any(step.get("unknown_share") for step in steps), name
    rounds = {name: max(len(step["asked"]) for step in steps) for name, steps in every.items()}
    assert min(rounds[name] for name in ("cures, screening", "dapo", "speed")) > 1
