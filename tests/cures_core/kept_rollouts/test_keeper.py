"""Which rollouts are kept, and how much of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cures_core.config.kept_rollouts import KeptRolloutsConfig
from cures_core.kept_rollouts.keeper import RolloutKeeper, shorten
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.kept_rollouts.table import KeptRollout
from cures_core.tally import Tally
from cures_core.terms import Credit, Group
from tests.cures_core.kept_rollouts import hooks
from tests.cures_core.kept_rollouts.rollouts import group

MANY = [group(f"{i:032x}", "cwcw") for i in range(1000)]


def keeper(seed: int = 0, redactor: Redactor | None = None, **options: Any) -> RolloutKeeper:
    return RolloutKeeper(KeptRolloutsConfig(**options), seed, 2, redactor or Redactor())


def kept(groups: list[Group], *, step: int = 1, seed: int = 0, **options: Any) -> list[KeptRollout]:
    """What one step keeps."""
    return observed(keeper(seed, **options), groups, step).rows()


def observed(of: RolloutKeeper, groups: list[Group], step: int = 1, tally: Tally | None = None) -> RolloutKeeper:
    tally = tally or Tally()
    tally.observe(groups)
    of.observe(step, groups, {}, tally)
    return of


def test_a_share_of_whole_groups_is_kept_half_of_it_the_same_prompts_at_every_step() -> None:
    steps = [{row.prompt for row in kept(MANY, step=step, share=0.1, per_step=4000)} for step in range(20)]
    always = set.intersection(*steps)
    assert 40 <= len(always) <= 60  # 5 %; a prompt is there by chance 20 times once in 10^26 runs
    assert 85 <= sum(map(len, steps)) / len(steps) <= 115
    assert 1500 * 0.4 <= len(set.union(*steps)) <= 1000
    rows = kept(MANY, share=0.1, per_step=4000)
    assert [row.index for row in rows] == [0, 1, 2, 3] * (len(rows) // 4)
    assert {row.kept_for for row in rows} == {"share"}


def test_the_choice_follows_from_seed_prompt_and_step_alone() -> None:
    def chosen(groups: list[Group], **options: Any) -> set[str]:
        return {row.prompt for row in kept(groups, share=0.2, per_step=4000, **options)}

    assert chosen(MANY) == chosen(MANY[::-1])
    assert chosen(MANY[:500]) == {name for name in chosen(MANY) if int(name, 16) < 500}
    assert len({frozenset(chosen(MANY, seed=s, step=t)) for s in (0, 1) for t in (1, 2)}) == 4


def test_what_is_asked_for_by_id_what_is_unknown_and_what_is_suspicious_is_kept() -> None:
    disputed = group("d" * 32, "wwww", extracted="8")
    unknown = group("e" * 32, "cwuw")
    asked = group("f" * 32, "cccu")
    groups = [disputed, unknown, asked, group("a" * 32)]
    rows = kept(groups, share=0, prompts=["ffffffff"])
    assert [(row.kept_for, row.prompt[0], row.index) for row in rows] == [
        *(("suspicious", "d", i) for i in range(4)),
        ("unknown", "e", 2),
        *(("prompt", "f", i) for i in range(4)),
    ]
    tight = observed(keeper(share=0, prompts=["ffffffff"], per_step=2), groups)
    assert [row.kept_for for row in tight.rows()] == ["suspicious", "unknown", *["prompt"] * 4]
    assert tight.counts() == {"kept": 6, "withheld": 0, "cut": 0, "left_out": 3}


def large_step(outcomes: str = "cwcwcwcw", num: int = 128) -> list[Group]:
    """128 groups of 8: what the defaults' share, 51 rollouts, does not fit into their `per_step`, 32."""
    return [group(f"{i:032x}", outcomes) for i in range(num)]


def test_a_large_share_pushes_out_nothing_that_looks_wrong() -> None:
    groups = large_step()
    groups[3] = group(f"{3:032x}", "cwcwcwcu")
    groups[5] = group(f"{5:032x}", "wwwwwwww", extracted="8")
    for step in range(1, 9):
        rows = kept(groups, step=step)
        assert len(rows) == 32
        unknown = [row for row in rows if row.outcome == "unknown"]
        assert [(int(row.prompt, 16), row.index) for row in unknown] == [(3, 7)]
        assert len([row for row in rows if row.prompt == f"{5:032x}"]) == 8
        assert len([row for row in rows if row.kept_for == "share"]) >= 20


def test_a_large_share_pushes_out_the_lasting_prompts_last() -> None:
    steps = [kept(large_step(num=1024), step=step) for step in range(1, 9)]
    assert {len(rows) for rows in steps} == {32}
    seen = [{row.prompt for row in rows} for rows in steps]
    assert seen == [seen[0]] * 8  # 2.5 % of 1,024 prompts would be more than fit: the first of them, by their hash
    few = [{row.prompt for row in kept(large_step(), step=step, per_step=40)} for step in range(1, 9)]
    assert set.intersection(*few)  # those of 128 prompts fit, and others beside them
    assert len(set.union(*few)) > len(few[0])


@pytest.mark.parametrize("outcomes", ["uuuuuuuu", "cuuuuuuu"])
def test_a_step_without_verdicts_does_not_push_out_the_share(outcomes: str) -> None:
    rows = kept(large_step(outcomes, num=1024))
    assert len(rows) == 32
    assert len([row for row in rows if row.kept_for == "share"]) >= 16
    assert len([row for row in rows if row.outcome == "unknown"]) >= 16
    assert len(kept(large_step(outcomes, num=1024), share=0)) == 32  # the room that the share leaves is used


def test_prompts_that_are_named_are_kept_beyond_the_most_of_a_step() -> None:
    groups = large_step()
    rows = kept(groups, prompts=[f"{i:032x}" for i in range(20)])
    assert len([row for row in rows if row.kept_for == "prompt"]) == 160
    assert len([row for row in rows if row.kept_for == "share"]) == 32
    of = observed(keeper(prompts=[f"{i:032x}" for i in range(64, 84)], max_epoch_mib=0.02), groups)
    assert {row.kept_for for row in of.rows()} == {"prompt"}  # the first to be written where an epoch has no room
    assert 0 < len(of.rows()) < 160
    assert of.left_out > 32


def test_the_whole_conversation_is_kept_and_redacted() -> None:
    turns = (("system", "Answer in base 7."), ("user", f"I am {hooks.CANARY}"), ("assistant", "Hello."))
    plain = group("a" * 32, "c")
    asked = replace(plain.request, prompt=replace(plain.request.prompt, turns=turns))
    of = observed(keeper(redactor=Redactor(hooks.without_canary), share=1), [replace(plain, request=asked)])
    problem = of.rows()[0].problem
    assert problem.startswith("system: Answer in base 7.\nuser: I am ")
    assert problem.endswith("\nassistant: Hello.\nuser: 3+4=")
    assert hooks.CANARY not in problem


def test_a_prompt_is_suspicious_from_the_step_on_in_which_it_becomes_so() -> None:
    tally, of, disputed = Tally(), keeper(share=0), group("d" * 32, "www", extracted="8")
    observed(of, [disputed], 1, tally)
    observed(of, [disputed], 2, tally)
    assert [row.step for row in of.rows()] == [2, 2, 2]


def test_bounds_hold_and_what_was_left_out_is_counted() -> None:
    of = keeper(share=1, per_step=10, max_epoch_mib=0.01)
    for step in range(1, 9):
        observed(of, MANY[:5], step)
    assert sum(map(len, of.lines)) <= 0.01 * 2**20
    assert 0 < of.counts()["kept"] < 80
    assert of.counts()["kept"] + of.left_out == 8 * 20
    assert observed(keeper(share=1, per_step=0, prompts=["0" * 8]), MANY).rows() == []


def test_a_resumed_epoch_goes_on_as_if_nothing_had_been() -> None:
    options: dict[str, Any] = {"share": 1, "per_step": 10, "max_epoch_mib": 0.01}
    whole, first, second = keeper(**options), keeper(**options), keeper(**options)
    for step in range(1, 9):
        observed(whole, MANY[:5], step)
        observed(first if step < 4 else second, MANY[:5], step)
        if step == 3:
            second.go_on(first.lines, first.left_out)
    assert (second.lines, second.left_out) == (whole.lines, whole.left_out)


def test_a_row_says_what_became_of_the_rollout() -> None:
    of, one = keeper(share=1), group("a" * 32, "cu")
    tally = Tally()
    tally.observe([one])
    of.observe(7, [one], {("r-" + "a" * 32, 0): Credit(0.5, 1e-6)}, tally)
    right, unknown = of.rows()
    assert (right.epoch, right.step, right.reward, right.advantage, right.logprob_gap) == (2, 7, 1.0, 0.5, 1e-6)
    assert (right.problem, right.answer, right.completion, right.source) == ("3+4=", "7", "It is 7.", "sums")
    assert (right.outcome, right.rule, right.reason, right.tokens, right.finish_reason) == (
        *("correct", "box", "same"),
        *(3, "stop"),
    )
    assert (unknown.outcome, unknown.reward, unknown.advantage, unknown.logprob_gap) == ("unknown", None, None, None)


def test_a_gap_that_is_no_number_is_none() -> None:
    of, one = keeper(share=1), group("a" * 32, "c")
    tally = Tally()
    tally.observe([one])
    of.observe(1, [one], {("r-" + "a" * 32, 0): Credit(0.5, float("nan"))}, tally)
    assert (of.rows()[0].advantage, of.rows()[0].logprob_gap) == (0.5, None)


@pytest.mark.parametrize("hook", [hooks.without_canary, hooks.failing_on_canary])
def test_no_text_of_a_row_is_kept_unredacted(hook: Any) -> None:
    secret = hooks.CANARY
    texts = [{"text": secret}, {"problem": secret}, {"extracted": secret}, {"reason": secret}, {"text": "fine"}]
    of = keeper(redactor=Redactor(hook), share=1)
    observed(of, [group(f"{i:032x}", "w", **text) for i, text in enumerate(texts)])
    assert secret not in b"".join(of.lines).decode()
    failed = hook is hooks.failing_on_canary
    assert [row.withheld for row in of.rows()] == [*[failed] * 4, False]
    assert of.counts()["withheld"] == 4 * failed
    assert [row.completion for row in of.rows()][-1] == "fine"


def test_a_secret_over_the_edge_of_a_cut_is_redacted_first() -> None:
    of = keeper(redactor=Redactor(hooks.without_canary), share=1, max_text_bytes=64)
    for before in range(8, 40):
        observed(of, [group(f"{before:032x}", "w", text="x" * before + hooks.CANARY + "y" * 100)])
    assert not any(part in b"".join(of.lines).decode() for part in ("hunter", "Jane", "example"))


@given(st.text(max_size=300), st.integers(64, 300))
def test_a_long_text_keeps_its_beginning_and_its_end(text: str, most: int) -> None:
    short, cut = shorten(text, most)
    whole = text.encode("utf-8", "backslashreplace").decode()
    if not cut:
        assert short == whole
        assert len(whole.encode()) <= most
    else:
        first, _, last = short.partition(f"\n[... {cut:,} characters left out ...]\n")
        assert len((first + last).encode()) <= most
        assert len(first) + cut + len(last) == len(whole)
        assert whole.startswith(first)
        assert whole.endswith(last)
