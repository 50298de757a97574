"""What a judge's verdicts have cost is told by prior and evaluation, also by one that was stopped in between."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from cures_core.errors import Preempted
from cures_core.jobs import evaluate, prior
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.policy.loading import save_policy
from cures_core.prompts import PromptSet
from cures_core.prompts.identity import make_prompt
from tests.cures_core.jobs.test_evaluate import Listener, config, tiny_policy
from tests.cures_core.rewards.test_judge import Stub, says

COST = {"judge_prompt_tokens": 70.0, "judge_completion_tokens": 5.0}


@pytest.fixture
def stub() -> Iterator[Stub]:
    made = Stub(lambda content, handler: says("Verdict: yes", handler))
    yield made
    made.close()


def job(name: Any, stub: Stub, folder: Path, **changes: Any) -> Job:
    prompts = PromptSet.of([make_prompt(f"{i}+1=", str(i + 1)) for i in range(6)])
    (folder / "suites").mkdir()
    for file in ("prompts", "suites/exam"):
        prompts.write_parquet(folder / f"{file}.parquet")
    save_policy(tiny_policy(), folder / "policy")
    judge = {"type": "judge", "url": stub.url, "model": "m", "cache": str(folder / "judge")}
    cfg = config([{"name": "exam", "path": "exam.jsonl", "samples": 2}], reward=judge, **changes)
    (folder / "scratch").mkdir()
    (folder / "out").mkdir()
    return Job(
        name=name,
        config=cfg,
        scratch=folder / "scratch",
        out=folder / "out",
        policy=str(folder / "policy"),
        prompts=folder / "prompts.parquet",
        suites=folder / "suites",
    )


def figures(of: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((of.out / "figures.json").read_bytes())
    return found


def test_of_an_evaluation_that_was_stopped_after_its_first_chunk(stub: Stub, tmp_path: Path) -> None:
    exam = job("evaluate", stub, tmp_path)
    with pytest.raises(Preempted):
        evaluate.run(exam, cast("Parent", Listener(patience=0)))
    evaluate.run(exam, cast("Parent", Listener()))
    said = figures(exam)
    judged = said["rollouts"] - _empty(exam)
    assert said["judging"] == {name: judged * tokens for name, tokens in COST.items()}


def test_of_a_prior(stub: Stub, tmp_path: Path) -> None:
    sample = {"type": "sample", "budget": 8, "rollouts_per_prompt": 2, "chunk_prompts": 2}
    exam = job("prior", stub, tmp_path, prior=sample)
    prior.run(exam, cast("Parent", Listener()))
    said = figures(exam)
    assert said["rollouts"] == 8
    assert 0 < said["judging"]["judge_prompt_tokens"] <= 8 * 70


def _empty(of: Job) -> int:
    """Completions that are empty, of which no judge is asked: they are the wrong ones here."""
    (scores,) = json.loads((of.out / "scores.json").read_bytes())
    return round((1 - scores["avg"]["value"]) * 12)
