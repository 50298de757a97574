"""Knows what every verifier must do: subclass `VerifierExam` in a test module and give it your verifier."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import ClassVar

from cures_core.rewards.verifier import Verifier
from cures_core.terms import Outcome, Verdict

HOSTILE = (
    "",
    "\x00",
    "\ud800",
    "\u202e5\u202c",
    "\\boxed{",
    "\\boxed{" * 2000,
    "{" * 5000,
    "}" * 5000,
    "\\",
    "$" * 999,
    "9" * 20_000,
    "1e999999999",
    "\\boxed{9^{9^{9^{9}}}}",
    "\\boxed{" + "(" * 400 + "1" + ")" * 400 + "}",
    "\\boxed{__import__('os').getpid()}",
    "The answer is " * 2000,
)


class VerifierExam:
    """The promises of `Verifier`, as tests. A subclass (named `Test...`) defines `make`, `right` and `wrong`."""

    right: ClassVar[Sequence[tuple[str, str]]]
    """(completion, gold) pairs that are `correct`: at least two, with different golds."""
    wrong: ClassVar[Sequence[tuple[str, str]]]
    """(completion, gold) pairs that are `wrong`: at least two."""
    seconds_per_hostile: float = 2.0
    """Longest time for one hostile completion, once the verifier has started."""

    def make(self) -> Verifier:
        """A fresh verifier."""
        raise NotImplementedError

    def test_right_and_wrong(self) -> None:
        with self.make() as verifier:
            assert {v.outcome for v in verifier.judge_pairs(self.right)} == {Outcome.CORRECT}
            assert {v.outcome for v in verifier.judge_pairs(self.wrong)} == {Outcome.WRONG}

    def test_verdicts_come_in_order_and_do_not_depend_on_the_batch(self) -> None:
        items = [pair for both in zip(self.right, self.wrong, strict=False) for pair in both]
        with self.make() as verifier:
            together = verifier.judge_pairs(items)
            assert (
                together
                == verifier.judge_pairs(items[::-1])[::-1]
                == [verifier.judge_pairs([item])[0] for item in items]
            )
        assert [v.outcome for v in together[:4]] == [Outcome.CORRECT, Outcome.WRONG] * 2

    def test_no_items_give_no_verdicts(self) -> None:
        with self.make() as verifier:
            assert verifier.judge_pairs([]) == []

    def test_a_fresh_verifier_says_the_same(self) -> None:
        items = [*self.right, *self.wrong]
        with self.make() as first, self.make() as second:
            assert first.judge_pairs(items) == second.judge_pairs(items)

    def test_empty_gold_is_never_right_nor_wrong(self) -> None:
        with self.make() as verifier:
            assert verifier.check_gold("")
            outcomes = {verifier.judge_pairs([(completion, "")])[0].outcome for completion, _ in self.right}
        assert outcomes == {Outcome.UNKNOWN}

    def test_golds_pass_the_check(self) -> None:
        with self.make() as verifier:
            assert [verifier.check_gold(gold) for _, gold in self.right] == [None] * len(self.right)

    def test_a_gold_is_the_same_answer_as_itself_and_not_as_none(self) -> None:
        with self.make() as verifier:
            for _, gold in self.right:
                assert verifier.same_answer(gold, gold)
                assert not verifier.same_answer(gold, "")

    def test_hostile_completions_neither_raise_nor_win_nor_hang(self) -> None:
        with self.make() as verifier:
            verifier.judge_pairs(self.right)
            for completion in HOSTILE:
                start = time.monotonic()
                [verdict] = verifier.judge_pairs([(completion, self.right[0][1])])
                assert time.monotonic() - start < self.seconds_per_hostile, repr(completion[:40])
                assert verdict.outcome is not Outcome.CORRECT, repr(completion[:40])
            assert {v.outcome for v in verifier.judge_pairs(self.right)} == {Outcome.CORRECT}

    def test_works_from_several_threads(self) -> None:
        verdicts: list[list[Verdict]] = []
        items = [*self.right, *self.wrong]
        with self.make() as verifier:
            threads = [threading.Thread(target=lambda: verdicts.append(verifier.judge_pairs(items))) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert verdicts == [verifier.judge_pairs(items)] * 3

    def test_closing_twice_is_safe(self) -> None:
        verifier = self.make()
        verifier.judge_pairs(self.right)
        verifier.close()
        verifier.close()
