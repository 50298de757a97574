"""Gold answers of public sets: each equals itself and its own solution's box, and not its neighbour's answer."""

from __future__ import annotations

import itertools
import json

import pytest

from cures_core.config.rewards import MathConfig, NumericConfig
from cures_core.rewards import make_verifier
from cures_core.terms import Outcome
from tests.shared_data import shared_file

MATH_SETS = {"math500_test": 0, "math_train": 0, "aime24": 0, "amc23": 0, "minerva_math": 7, "olympiadbench": 3}
"""Most golds of a set that may be unreadable (they were looked at: program text, derivatives, conditions in words)."""
NUMBER_SETS = ("gsm8k_train", "gsm8k_test", "svamp")


def rows(name: str, step: int) -> list[dict[str, str]]:
    lines = shared_file(f"{name}.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
    return [json.loads(line) for line in lines[::step]]


def check_math_set(name: str, step: int) -> None:
    golds = [row["answer"] for row in rows(name, step)]
    with make_verifier(MathConfig(timeout_s=10, workers=1)) as verifier:
        refused = [(gold, reason) for gold in golds if (reason := verifier.check_gold(gold))]
        assert len(refused) <= MATH_SETS[name], refused
        respelt = ["\\boxed{ " + gold.replace("\\frac", "\\dfrac") + " }." for gold in golds]
        verdicts = verifier.judge_pairs(list(zip(respelt, golds, strict=True)))
        assert [gold for gold, v in zip(golds, verdicts, strict=True) if v.outcome is not Outcome.CORRECT] == []


@pytest.mark.parametrize("name", MATH_SETS)
def test_sampled_golds_equal_themselves(name: str) -> None:
    check_math_set(name, step=150)


@pytest.mark.slow
@pytest.mark.parametrize("name", MATH_SETS)
def test_all_golds_equal_themselves(name: str) -> None:
    check_math_set(name, step=1)


@pytest.mark.parametrize("name", NUMBER_SETS)
def test_all_number_golds_equal_themselves(name: str) -> None:
    golds = [row["answer"] for row in rows(name, 1)]
    with make_verifier(NumericConfig()) as verifier:
        assert [gold for gold in golds if verifier.check_gold(gold)] == []
        assert {v.outcome for v in verifier.judge_pairs([(f"#### {gold}", gold) for gold in golds])} == {
            Outcome.CORRECT
        }


@pytest.mark.slow
def test_solutions_are_judged_correct_and_neighbours_wrong() -> None:
    """The worked solution of a problem reaches its gold; the next problem's solution does not, unless golds agree."""
    found = rows("math500_test", 1)
    with make_verifier(MathConfig(timeout_s=10, workers=1)) as verifier:
        own = verifier.judge_pairs([(row["solution"], row["answer"]) for row in found])
        assert {v.outcome for v in own} == {Outcome.CORRECT}
        pairs = [(a["solution"], b["answer"]) for a, b in itertools.pairwise(found) if a["answer"] not in b["answer"]]
        matched = [
            pair for pair, v in zip(pairs, verifier.judge_pairs(pairs), strict=True) if v.outcome is Outcome.CORRECT
        ]
        assert matched == []
