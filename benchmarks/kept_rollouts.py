"""What it costs to keep rollouts: processor time of a step, and room on disk. No policy is involved."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from cures_core.config.kept_rollouts import KeptRolloutsConfig
from cures_core.files import digest_file
from cures_core.kept_rollouts.keeper import RolloutKeeper
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.kept_rollouts.table import write_rollouts
from cures_core.tally import Tally
from cures_core.terms import Credit, FinishReason, Group, Outcome, Prompt, Request, Rollout, Verdict

T = TypeVar("T")
_WORDS = ("so", "the", "answer", "is", "then", "we", "have", "of", "by", "and", "x", "1", "2", "3", "4", "+", "-", "=")


def measure(prompts: int, rollouts: int, characters: int, steps: int = 100, every: int = 1) -> dict[str, float]:
    """Milliseconds of processor time a step with the default settings, over an epoch: to choose and encode (`keep_ms`),
    to write what is kept so far into a checkpoint every so many steps and read it for its digest (`checkpoint_ms`), and
    the table at the end (`table_ms`); KiB of a step in that table. `characters`: length of a completion."""
    keeper, tally = RolloutKeeper(KeptRolloutsConfig(), 0, 1, Redactor()), Tally()
    spent = {"keep": 0.0, "checkpoint": 0.0, "table": 0.0}

    def timed(name: str, work: Callable[[], T]) -> T:
        started = time.process_time()
        result = work()
        spent[name] += time.process_time() - started
        return result

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollouts"
        write_rollouts([], path)  # an epoch has written its posterior, and so started what Parquet needs
        for step in range(1, steps + 1):
            groups = [_group(step, i, (rollouts + i) // prompts, characters) for i in range(prompts)]
            credits = {(r.request_id, r.index): Credit(0.5, 1e-6) for group in groups for r in group.rollouts}
            tally.observe(groups)
            timed("keep", lambda: keeper.observe(step, groups, credits, tally))  # noqa: B023
            if step % every == 0:
                timed("checkpoint", lambda: _save(keeper.lines, path))
        timed("table", lambda: write_rollouts(keeper.rows(), path))
        size = path.stat().st_size
    return {
        "rollouts": rollouts,
        "characters": characters,
        "kept": keeper.counts()["kept"],
        "left_out": keeper.left_out,
        **{f"{name}_ms": round(1000 * seconds / steps, 3) for name, seconds in spent.items()},
        "step_ms": round(1000 * sum(spent.values()) / steps, 3),
        "kib": round(size / steps / 1024, 2),
    }


def _save(lines: list[bytes], path: Path) -> None:
    path.write_bytes(b"".join(lines))
    digest_file(path)


def _group(step: int, number: int, num: int, characters: int) -> Group:
    rng = np.random.default_rng([step, number])
    text = " ".join(rng.choice(_WORDS, characters // 3 + 1))[:characters]
    prompt = Prompt(f"{int(rng.integers(2000)):032x}", f"{number} + {step} = ?", str(number + step))
    request = Request(f"{step}-{number}", prompt, num, 1)
    rollouts = [Rollout(request.id, i, (), (1,), (-0.1,), f"{i} {text}", FinishReason.STOP) for i in range(num)]
    right = [Outcome.CORRECT if rng.random() < 0.5 else Outcome.WRONG for _ in range(num)]
    return Group(request, rollouts, [Verdict(outcome, str(rng.integers(9)), "box") for outcome in right])
