"""The built-in mixture: the same for a seed, no problem twice, and tests that tell a function from a near one."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from cures_core.builtin.mixture import SOURCES, build, write_builtin
from cures_core.config.rewards import CodeConfig
from cures_core.rewards import make_verifier
from cures_core.rewards.sandbox.confinement import why_not
from cures_core.terms import Outcome


def test_the_built_in_sets_never_change(tmp_path: Path) -> None:
    write_builtin(tmp_path)
    digests = {p.name: hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in sorted(tmp_path.iterdir())}
    assert digests == {"heldout.jsonl": "9f0deb55332b08af", "train.jsonl": "998a51d493709b1b"}


def test_a_set_follows_from_its_seed_and_has_every_source_alike() -> None:
    rows = build(20, 5, set())
    assert rows == build(20, 5, set())
    assert rows != build(20, 6, set())
    assert Counter(row["source"] for row in rows) == dict.fromkeys(SOURCES, 20)
    assert {row["answer"] for row in rows if row["source"] == "choices"} == {"A", "B", "C"}


def test_no_problem_is_another_in_another_order() -> None:
    seen: set[tuple[str, ...]] = set()
    rows = [*build(40, 31, seen), *build(16, 32, seen)]
    assert len({tuple(sorted(row["problem"].split())) for row in rows}) == len(rows) == len(seen)


@pytest.mark.skipif(why_not() != "", reason=why_not())
def test_no_function_passes_that_answers_always_the_same_or_gives_back_what_it_is_given() -> None:
    golds = {row["answer"] for row in build(40, 31, set()) if row["source"] == "code"}
    pairs = []
    for gold in golds:
        tests = json.loads(gold)
        for result in (repr(tests["outputs"][0]), repr(tests["outputs"][-1]), "given[0]"):
            pairs.append((f"```python\ndef {tests['fn_name']}(*given):\n    return {result}\n```", gold))
    with make_verifier(CodeConfig(timeout_s=60)) as verifier:
        verdicts = verifier.judge_pairs(pairs)
    assert [pair for pair, v in zip(pairs, verdicts, strict=True) if v.outcome is not Outcome.WRONG] == []
