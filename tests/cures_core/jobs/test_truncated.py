"""Both jobs that feed the posterior treat truncated completions alike; an evaluation judges them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cures_core.jobs import epoch, prior
from cures_core.rewards.length import LengthRule
from cures_core.terms import Group, Outcome, Request, Verdict
from tests.cures_core.jobs.epochs import make_job

RULE = LengthRule("wrong", max_tokens=4)


class Seen(Exception):
    """Ends a job where its loop would begin."""


def test_the_prior_and_the_epoch_take_the_rule_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_job(tmp_path, {"truncated": "wrong"})
    seen: list[Any] = []

    def rolled_out(requests: Sequence[Request], engine: object, verifier: object, lengths: LengthRule) -> list[Group]:
        seen.append(lengths)
        return [Group(q, (), [Verdict(Outcome.WRONG)] * q.n) for q in requests]

    def run_epoch(*given: Any) -> None:
        seen.append(given[-1])
        raise Seen

    parent: Any = SimpleNamespace(emit=lambda _: None, stop_requested=False, stop_if_asked=lambda _: None)
    monkeypatch.setattr(epoch, "run_epoch", run_epoch)
    with pytest.raises(Seen):
        epoch.run(job, parent)
    monkeypatch.setattr(prior, "roll_out", rolled_out)
    monkeypatch.setattr(prior, "assemble_engine", lambda *_: SimpleNamespace(close=lambda: None))
    (tmp_path / "out").mkdir(exist_ok=True)
    prior.run(job.model_copy(update={"posterior": None}), parent)
    assert seen
    assert set(seen) == {RULE}
