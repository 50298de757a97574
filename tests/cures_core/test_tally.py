"""What rollouts have said of a prompt, counted."""

from __future__ import annotations

import json

from cures_core.prompts.identity import make_prompt
from cures_core.tally import MOST_ANSWERS, Tally, Votes
from cures_core.terms import FinishReason, Group, Outcome, Request, Rollout, Verdict

PROMPT = make_prompt("1 + 1 =", "2")


def group(*said: tuple[str, Outcome]) -> Group:
    rollouts = [Rollout("r", i, (1,), (2,), (0.0,), text, FinishReason.STOP) for i, (text, _) in enumerate(said)]
    verdicts = [Verdict(outcome, text) for text, outcome in said]
    return Group(Request("r", PROMPT, len(said), 0), rollouts, verdicts)


def votes(tally: Tally) -> Votes:
    return tally.prompts[PROMPT.id]


def test_verdicts_are_counted_and_spellings_of_one_wrong_answer_are_one() -> None:
    tally = Tally()
    tally.observe([group(("2", Outcome.CORRECT), ("3", Outcome.WRONG), ("3.0", Outcome.WRONG), ("", Outcome.WRONG))])
    tally.observe([group(("?", Outcome.UNKNOWN), ("4", Outcome.WRONG))])
    assert votes(tally) == Votes(rollouts=6, correct=1, unknown=1, wrong={"3": 2, "4": 1})
    assert votes(tally).rival() == ("3", 2)
    assert Votes().rival() == ("", 0)


def test_the_state_goes_through_json_and_on() -> None:
    whole, first = Tally(), Tally()
    steps = [[group(("3", Outcome.WRONG))], [group(("3", Outcome.WRONG), ("2", Outcome.CORRECT))]]
    for step in steps:
        whole.observe(step)
    first.observe(steps[0])
    second = Tally(json.loads(json.dumps(first.state_dict())))
    second.observe(steps[1])
    assert second.state_dict() == whole.state_dict()


def test_what_most_say_is_kept_among_many_answers() -> None:
    tally = Tally()
    for i in range(200):
        tally.observe([group((f"w{i}", Outcome.WRONG), ("77", Outcome.WRONG), ("77", Outcome.WRONG))])
    assert votes(tally).rival() == ("77", 400)
    assert len(votes(tally).wrong) == MOST_ANSWERS
