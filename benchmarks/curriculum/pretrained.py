"""One arm of the comparison on a pretrained model: all its weights trained on graded arithmetic with one strategy.

`python -m benchmarks.curriculum.pretrained ARM.json OUT.json`. OUT is written anew at every measurement, so that an arm
that is ended early leaves its curve; `limit_s` ends it by itself.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from benchmarks.curriculum import rivals
from benchmarks.curriculum.arena import Timed
from benchmarks.curriculum.arithmetic import PoolName, make_pool
from benchmarks.curriculum.methods import settings
from cures_core.config.base import Strict
from cures_core.config.curriculum import CurriculumConfig
from cures_core.config.device import DeviceConfig
from cures_core.config.rewards import NumericConfig
from cures_core.config.rollout import HfRolloutConfig, PromptFormat
from cures_core.config.training import TorchTrainerConfig
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.epoch import Progress, roll_out, run_epoch
from cures_core.files import canonical_json, write_atomic
from cures_core.policy.loading import load_policy, setup_torch
from cures_core.prompts import PromptSet
from cures_core.rewards import make_verifier
from cures_core.rewards.verifier import Verifier
from cures_core.rollout import RolloutEngine, build_engine
from cures_core.terms import Group, Outcome, Request
from cures_core.training.torch_trainer import TorchTrainer

_RATE, _RATE_OF_SMALL_STEPS = 3e-5, 2e-5
"""Found best of four on a seed that is not reported on; adapters at 2e-4 and 5e-4 collapsed."""


class PretrainedArm(Strict):
    """What an arm needs to know."""

    method: str
    """Name in tables."""
    pool: PoolName
    pool_seed: int
    seed: int
    budget: int
    """Rollouts, of all kinds."""
    model: str
    """Folder of the pretrained policy."""
    curriculum: CurriculumConfig = Field(discriminator="type")
    training: TorchTrainerConfig
    device: Literal["cpu", "cuda"] = "cuda"
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    prompts: int = Field(default=1600, ge=10)
    heldout: int = Field(default=280, ge=1)
    samples: int = Field(default=8, ge=1)
    """Completions of a held-out problem; pass@k is for k of them."""
    evaluate_every: int = Field(default=2560, ge=1)
    """Rollouts between measurements."""
    max_new_tokens: int = Field(default=14, ge=1)
    limit_s: float = Field(default=1e9, gt=0)
    """Seconds after which no further step is begun."""


def make_arm(method: str, pool: PoolName, seed: int, **fields: Any) -> PretrainedArm:
    """The arm of a method of `benchmarks.curriculum.methods`, at the learning rates of this model: those found there,
    over the one they were found beside, times what was best here for large and for small steps."""
    curriculum, there = settings(method)
    rate = _RATE if curriculum["rollouts_per_step"] > 64 else _RATE_OF_SMALL_STEPS
    own = there.model_dump(exclude={"learning_rate", "length_norm", "micro_batch_tokens"}, exclude_defaults=True)
    training = {
        "type": "torch",
        **own,
        "learning_rate": rate * there.learning_rate / 5e-4,
        "micro_batch_tokens": 32_768,
    }
    values = {"method": method, "pool": pool, "seed": seed, "pool_seed": 1000 + 10 * seed}
    return PretrainedArm.model_validate({**values, "curriculum": curriculum, "training": training, **fields})


class _Score:
    """Held-out problems and how they are scored, with the engine of the arm."""

    def __init__(self, prompts: PromptSet, samples: int, engine: RolloutEngine, verifier: Verifier) -> None:
        self._prompts, self._samples, self._engine, self._verifier = prompts, samples, engine, verifier
        self._sampled = engine.cfg

    def measure(self) -> dict[str, float]:
        """avg@1 over all samples, pass@k of k of them, greedy, and entropy: nats a token, as -log p of those drawn."""
        groups = self._groups(self._samples)
        right = [[v.outcome is Outcome.CORRECT for v in group.verdicts] for group in groups]
        logprobs = [p for group in groups for r in group.rollouts for p in r.logprobs]
        self._engine.retune(self._sampled.model_copy(update={"temperature": 0.0}))
        try:
            greedy = [group.verdicts[0].outcome is Outcome.CORRECT for group in self._groups(1)]
        finally:
            self._engine.retune(self._sampled)
        return {
            "avg_at_1": _mean([_mean(row) for row in right]),
            f"pass_at_{self._samples}": _mean([any(row) for row in right]),
            "greedy": _mean(greedy),
            "entropy": -_mean(logprobs),
        }

    def _groups(self, n: int) -> list[Group]:
        requests = [Request(f"score-{i}", prompt, n, 999) for i, prompt in enumerate(self._prompts)]
        return roll_out(requests, self._engine, self._verifier)


def run_arm(arm: PretrainedArm, out: Path) -> None:
    """Train until the budget or the time is spent, and write the curve to `out`."""
    started = time.monotonic()
    device = setup_torch(DeviceConfig(type=arm.device), arm.seed)
    policy = load_policy(arm.model, device, dtype=arm.dtype)
    pool = make_pool(arm.pool, arm.pool_seed, arm.prompts, arm.heldout)
    curriculum: Strategy = make_curriculum(
        arm.curriculum, pool.train, Posterior.fresh(pool.train, arm.curriculum.posterior), arm.seed
    )
    timed = Timed(curriculum)
    rollout = HfRolloutConfig(
        max_new_tokens=arm.max_new_tokens,
        batch_rows=1024,
        prompt_format=PromptFormat(template="Question: {problem}\nAnswer:", stop=("\n",)),
    )
    engine = build_engine(rollout, policy.model, policy.tokenizer, device)
    trainer = TorchTrainer(policy, arm.training, 1.0)
    points: list[dict[str, float]] = []
    steps: list[Mapping[str, float | str]] = []
    spent, progress = 0.0, Progress()

    def measure() -> None:
        counters = {"rollouts": progress.rollouts, "tokens": progress.tokens, "updates": progress.step}
        points.append({**counters, "seconds": round(spent, 3), **score.measure()})
        write(done=False)

    def commit(_: Progress, __: Sequence[Group], metrics: Mapping[str, float | str], ___: float) -> None:
        steps.append(metrics)

    def write(*, done: bool) -> None:
        informative = [float(step["informative_share"]) for step in steps if "informative_share" in step]
        result = {
            "arm": arm.model_dump(mode="json", exclude={"limit_s"}),
            "points": points,
            "informative_share": _mean(informative),
            "calibration": curriculum.calibration.figures(),
            "seconds": round(spent, 3),
            "curriculum_seconds": round(timed.seconds, 3),
            "wall": round(time.monotonic() - started, 3),
            "budget_spent": progress.rollouts >= arm.budget,
            "done": done,
        }
        write_atomic(out, canonical_json(result))

    with make_verifier(NumericConfig(rules=("last",))) as verifier:
        score = _Score(pool.heldout, arm.samples, engine, verifier)
        measure()
        while progress.rollouts < arm.budget and time.monotonic() - started < arm.limit_s:
            at = time.monotonic()
            progress = run_epoch(progress, progress.step + 1, timed, engine, verifier, trainer, commit)
            spent += time.monotonic() - at
            if progress.rollouts >= points[-1]["rollouts"] + arm.evaluate_every:
                measure()
        if progress.rollouts > points[-1]["rollouts"]:
            measure()
        write(done=True)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def main() -> None:
    rivals.allow()
    spec, out = map(Path, sys.argv[1:])
    run_arm(PretrainedArm.model_validate_json(spec.read_bytes()), out)


if __name__ == "__main__":
    main()
