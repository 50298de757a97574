"""The math verifier: the table of equivalences, three-valued verdicts, cache, counts, threads, options."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from cures_core.config.rewards import MathConfig
from cures_core.rewards import make_verifier
from cures_core.rewards.math import MathVerifier
from cures_core.rewards.tidy import formulas, key, tidy
from cures_core.terms import Outcome
from tests.cures_core.rewards.processes import limited, workers
from tests.cures_core.rewards.table import rows

TOWER = r"\boxed{9^{9^{9^{9}}}}"


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with make_verifier(MathConfig(workers=1)) as made:
        assert isinstance(made, MathVerifier)
        yield made


def test_table_of_equivalences(verifier: MathVerifier) -> None:
    table = rows()
    assert len(table) >= 300
    verdicts = verifier.judge_pairs([(rf"so \boxed{{{row.answer}}}", row.gold) for row in table])
    wrong = [(row, v) for row, v in zip(table, verdicts, strict=True) if v.outcome is not row.outcome]
    assert wrong == []


def test_rows_with_a_reason_hold_both_ways_round(verifier: MathVerifier) -> None:
    table = [row for row in rows() if row.reason]
    assert len(table) >= 200
    verdicts = verifier.judge_pairs([(rf"so \boxed{{{row.gold}}}", row.answer) for row in table])
    wrong = [(row, v) for row, v in zip(table, verdicts, strict=True) if v.outcome is not row.outcome]
    assert wrong == []


def test_correct_rows_are_golds_that_equal_themselves(verifier: MathVerifier) -> None:
    golds = {row.gold for row in rows() if row.outcome is Outcome.CORRECT}
    assert {gold: reason for gold in golds if (reason := verifier.check_gold(gold))} == {}


def test_unreadable_gold_is_reported_and_unknown(verifier: MathVerifier) -> None:
    for gold in ("", "  ", r"\frac{", "t(0,4]", "x+" * 600):
        assert verifier.check_gold(gold)
        assert verifier.judge_pairs([(r"\boxed{5}", gold)])[0].outcome is Outcome.UNKNOWN


def test_missing_or_malformed_answer_is_wrong_even_for_gold_nobody_can_read(verifier: MathVerifier) -> None:
    for completion in ("", "no idea", r"\boxed{5", r"\boxed{}"):
        assert verifier.judge_pairs([(completion, "5")])[0].outcome is Outcome.WRONG


def test_verdict_says_what_was_read_and_by_which_rule(verifier: MathVerifier) -> None:
    [verdict] = verifier.judge_pairs([(r"so $x=2$ and #### \frac{1}{2}", "0.5")])
    assert (verdict.outcome, verdict.extracted, verdict.rule) == (Outcome.CORRECT, r"\frac{1}{2}", "hashes")


def test_case_of_letters_matters_although_the_parser_folds_it() -> None:
    assert formulas("R^2-r^2", "(R-r)(R+r)") == (r"\xi ^2-r^2", r"(\xi -r)(\xi +r)")
    assert formulas("AB", "BA") == ("AB", "BA")
    assert formulas(r"\begin{pmatrix}A\\a\end{pmatrix}", r"\Alpha")[0] == r"\begin{pmatrix}\xi \\a\end{pmatrix}"


def test_tidy_drops_layout_only() -> None:
    assert tidy(r"$\left( 3 ,\ \dfrac\pi2 \right).$") == r"( 3 , \frac{\pi}{2} )"
    assert tidy(r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}") == r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"
    assert key("1 1/2") != key("11/2")
    assert key("( 3 , 4 )") == key("(3,4)")


def test_a_part_that_parses_does_not_pass_for_the_whole(verifier: MathVerifier) -> None:
    for gold, answer in (
        (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{2}{3} E_{1}+\frac{2}{3} E_{2}"),
        (r"\frac{dM}{dt}=2x", r"\frac{dM}{dt}=3x"),
    ):
        wrong, same = verifier.judge_pairs([(rf"\boxed{{{answer}}}", gold), (rf"\boxed{{{gold}}}", gold)])
        assert (wrong.outcome, same.outcome) == (Outcome.UNKNOWN, Outcome.CORRECT)


def test_repeated_comparisons_come_from_the_cache() -> None:
    with make_verifier(MathConfig(workers=1)) as verifier:
        assert isinstance(verifier, MathVerifier)
        pair = (r"\boxed{1+x^2}", "x^2+1")
        verifier.judge_pairs([pair, pair])
        assert verifier.stats()["jobs"] == 1
        verifier.judge_pairs([pair])
        stats = verifier.stats()
        assert (stats["jobs"], stats["cached"], stats["correct"]) == (1, 1, 3)


def test_easy_verdicts_start_no_process() -> None:
    with make_verifier(MathConfig()) as verifier:
        assert isinstance(verifier, MathVerifier)
        verdicts = verifier.judge_pairs(
            [(r"\boxed{5}", "5"), (r"\boxed{6}", "5"), ("no", "5"), (r"\boxed{odd}", r"\text{even}")]
        )
        assert [v.outcome for v in verdicts] == [Outcome.CORRECT, Outcome.WRONG, Outcome.WRONG, Outcome.WRONG]
        assert verifier.stats()["children"] == 0


def test_cache_forgets_the_least_recently_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cures_core.rewards.math.CACHE_ENTRIES", 2)
    with make_verifier(MathConfig(workers=1)) as verifier:
        assert isinstance(verifier, MathVerifier)
        one, two, three = ((rf"\boxed{{{n}+x}}", f"x+{n}") for n in range(1, 4))
        for pair in (one, two, one, three, one, two):
            verifier.judge_pairs([pair])
        assert (verifier.stats()["jobs"], verifier.stats()["cached"]) == (4, 2)


def test_workers_and_memory_reach_the_processes() -> None:
    pairs = [(rf"\boxed{{{n}+x}}", f"x+{n}") for n in range(1, 9)]
    with make_verifier(MathConfig(workers=2, memory_mb=300)) as verifier:
        assert isinstance(verifier, MathVerifier)
        before = workers()  # the shared verifier's
        verifier.judge_pairs(pairs)
        ours = [pid for pid in workers() if pid not in before]
        assert verifier.stats()["children"] == len(ours) == 2
        assert all(limited(pid, megabytes=300) for pid in ours)


def test_timeout_is_unknown_and_the_option_decides_when() -> None:
    with make_verifier(MathConfig(workers=1, timeout_s=0.3)) as verifier:
        assert isinstance(verifier, MathVerifier)
        [verdict] = verifier.judge_pairs([(TOWER, r"\sqrt{5}")])
        assert (verdict.outcome, verdict.reason) == (Outcome.UNKNOWN, "timeout")
        assert verifier.stats()["timeouts"] == 1
        assert verifier.judge_pairs([(r"\boxed{1+x}", "x+1")])[0].outcome is Outcome.CORRECT


def test_rules_decide_what_is_read() -> None:
    with make_verifier(MathConfig(rules=("box",))) as boxed_only, make_verifier(MathConfig()) as any_rule:
        assert boxed_only.judge_pairs([("The answer is 5.", "5")])[0].outcome is Outcome.WRONG
        assert any_rule.judge_pairs([("The answer is 5.", "5")])[0].outcome is Outcome.CORRECT


def test_one_warning_above_one_percent_unknown(caplog: pytest.LogCaptureFixture) -> None:
    with make_verifier(MathConfig()) as verifier, caplog.at_level(logging.WARNING):
        verifier.judge_pairs([("5", "5")] * 297 + [("5", "")] * 3)
        assert caplog.records == []
        verifier.judge_pairs([("5", "")] * 3)
        verifier.judge_pairs([("5", "")] * 3)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "unknown" in caplog.text


def test_works_from_several_threads(verifier: MathVerifier) -> None:
    outcomes: list[Outcome] = []

    def judge(n: int) -> None:
        pairs = [(rf"\boxed{{{n}{i}+y}}", f"y+{n}{i}") for i in range(20)]
        outcomes.extend(v.outcome for v in verifier.judge_pairs(pairs))

    threads = [threading.Thread(target=judge, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == [Outcome.CORRECT] * 80
