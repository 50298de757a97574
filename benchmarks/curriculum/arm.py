"""One arm: real training of a world's base policy with one method and one seed, and what it has cost.

`python -m benchmarks.curriculum.arm ARM.json OUT.json`. OUT is written anew at every measurement, so that an arm that
is ended early leaves its curve; `limit_s` ends it by itself. The accounts hold all rollouts, those of probing, of
screening and those that a method discards included, and their tokens.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from benchmarks.curriculum import rivals
from benchmarks.curriculum.aborting import AbortingEngine
from benchmarks.curriculum.exams import PASS_AT, ExactExam, Exam, SampledExam
from benchmarks.curriculum.oracle import OracleConfig, OracleCurriculum, exact_rates, sampled_rates
from benchmarks.curriculum.worlds import world_of
from benchmarks.curriculum.worlds.world import Pool, Sizes, World
from cures_core.config.base import Strict
from cures_core.config.curriculum import CurriculumConfig
from cures_core.config.device import DeviceConfig
from cures_core.config.training import TorchTrainerConfig
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.curriculum.ask_tell import Batch
from cures_core.epoch import Progress, run_epoch
from cures_core.files import canonical_json, write_atomic
from cures_core.policy.loading import Policy, load_policy, setup_torch
from cures_core.rewards import make_verifier
from cures_core.rewards.verifier import Verifier
from cures_core.rollout import RolloutEngine, build_engine
from cures_core.terms import Group, Request
from cures_core.training.torch_trainer import TorchTrainer

T = TypeVar("T")


class Arm(Strict):
    """What an arm needs to know."""

    world: str
    method: str
    """Name in tables."""
    pool: str
    pool_seed: int
    base: int = 0
    """Seed of the base policy."""
    seed: int
    budget: int
    """Rollouts, of all kinds."""
    policy: str
    """Folder of the base policy."""
    curriculum: Annotated[OracleConfig | CurriculumConfig, Field(discriminator="type")]
    training: TorchTrainerConfig
    evaluate_every: int = Field(default=2048, ge=1)
    """Rollouts between evaluations."""
    train: int = Field(ge=10)
    """Prompts of the pool."""
    heldout: int = Field(ge=1)
    frontier: int = Field(ge=1)
    samples: int = Field(default=PASS_AT, ge=1)
    """Completions of a held-out prompt, where they are sampled; pass@k is for k of them."""
    max_new_tokens: int = Field(ge=1)
    abort: float | None = Field(default=None, gt=0, lt=1)
    """Quantile of the lengths of right completions beyond which rollouts are cut; None: they have the whole limit."""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    limit_s: float = Field(default=1e9, gt=0)
    """Seconds after which no further step is begun; not part of what the arm is."""
    version: Literal[6] = 6
    """Of what an arm's result holds: finished arms of another version are run again."""


class Timed:
    """A curriculum that adds up the processor seconds spent in it."""

    def __init__(self, inner: Strategy) -> None:
        self._inner = inner
        self.seconds = 0.0
        self.rollouts_per_step = inner.rollouts_per_step

    def ask(self, budget: int) -> list[Request]:
        return self._clocked(self._inner.ask, budget)

    def tell(self, groups: Sequence[Group]) -> None:
        self._clocked(self._inner.tell, groups)

    def ready(self) -> Batch | None:
        return self._clocked(self._inner.ready)

    def state_dict(self) -> dict[str, Any]:
        return self._inner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._inner.load_state_dict(state)

    def _clocked(self, call: Callable[..., T], *arguments: Any) -> T:
        started = time.thread_time()
        try:
            return call(*arguments)
        finally:
            self.seconds += time.thread_time() - started


class _Recorder:
    """Points of the curve: scores against the accounts. The clocks stand still while the policy is scored.

    `seconds` are the wall's; `processor_seconds` those of this process, which other work on the machine does not touch.
    """

    def __init__(self, arm: Arm, exam: Exam, write: Callable[[], None]) -> None:
        self._arm, self._exam, self._write = arm, exam, write
        self.points: list[dict[str, float]] = []
        self.steps: list[Mapping[str, float | str]] = []
        self.updates = 0
        self.seconds = self.processor_seconds = 0.0
        self._clock = (0.0, 0.0)

    def measure(self, progress: Progress) -> None:
        scores = {name: round(value, 6) for name, value in self._exam.measure().items()}
        recent = self.steps[self._seen() :]
        accounts = {
            "step": progress.step,
            "rollouts": progress.rollouts,
            "tokens": progress.tokens,
            "updates": self.updates,
            "seconds": round(self.seconds, 3),
            "processor_seconds": round(self.processor_seconds, 3),
        }
        since = {
            name: round(sum(values) / len(values), 6)
            for name in ("informative_share", "truncated_share", "reward_mean")
            if (values := [float(step[name]) for step in recent if name in step])
        }
        self.points.append({**accounts, **scores, **since})
        self._write()
        self.start_clock()

    def start_clock(self) -> None:
        self._clock = time.monotonic(), time.process_time()

    def commit(self, progress: Progress, _: Sequence[Group], metrics: Mapping[str, float | str], __: float) -> None:
        wall, processor = self._clock
        self.start_clock()
        self.seconds += self._clock[0] - wall
        self.processor_seconds += self._clock[1] - processor
        self.updates += int(float(metrics.get("updated", 0.0)) > 0)
        self.steps.append(metrics)
        done = progress.rollouts >= self._arm.budget
        if done or progress.rollouts >= self.points[-1]["rollouts"] + self._arm.evaluate_every:
            self.measure(progress)

    def _seen(self) -> int:
        return int(self.points[-1]["step"]) if self.points else 0


def run_arm(arm: Arm, out: Path) -> dict[str, Any]:
    """Train until the budget or the time is spent; writes and returns curve and accounts as JSON values."""
    started = time.monotonic()
    rivals.allow()
    world = world_of(arm.world)
    device = setup_torch(DeviceConfig(type=arm.device), arm.seed)
    policy = load_policy(arm.policy, device, dtype=arm.dtype)
    pool = world.make_pool(arm.pool, arm.pool_seed, Sizes(arm.train, arm.heldout, arm.frontier))
    rollout = world.rollout.model_copy(update={"max_new_tokens": arm.max_new_tokens})
    engine = build_engine(rollout, policy.model, policy.tokenizer, device)
    aborting = None if arm.abort is None else AbortingEngine(engine, arm.abort)
    trainer = TorchTrainer(policy, arm.training, 1.0)
    with make_verifier(world.reward) as verifier:
        curriculum = _curriculum(arm, world, pool, policy, engine, verifier)
        timed = Timed(curriculum)
        exam = _exam(arm, world, pool, policy, engine, verifier)
        progress, done = Progress(), False

        def result() -> dict[str, Any]:
            informative = [float(s["informative_share"]) for s in recorder.steps if "informative_share" in s]
            return {
                "arm": arm.model_dump(mode="json", exclude={"limit_s"}),
                "points": recorder.points,
                "informative_share": sum(informative) / max(1, len(informative)),
                "calibration": curriculum.calibration.figures(),
                "seconds": round(recorder.seconds, 3),
                "processor_seconds": round(recorder.processor_seconds, 3),
                "curriculum_seconds": round(timed.seconds, 3),
                "wall": round(time.monotonic() - started, 3),
                "budget_spent": progress.rollouts >= arm.budget,
                "done": done,
            }

        def commit(
            progress: Progress, told: Sequence[Group], metrics: Mapping[str, float | str], seconds: float
        ) -> None:
            if aborting is not None:
                aborting.learn(told)
            recorder.commit(progress, told, metrics, seconds)

        recorder = _Recorder(arm, exam, lambda: write_atomic(out, canonical_json(result())))
        recorder.measure(progress)
        while progress.rollouts < arm.budget and time.monotonic() - started < arm.limit_s:
            one_more = progress.step + 1
            progress = run_epoch(progress, one_more, timed, aborting or engine, verifier, trainer, commit)
        if progress.rollouts > recorder.points[-1]["rollouts"]:
            recorder.measure(progress)
        done = progress.rollouts >= arm.budget  # what its time has cut off is run again, not compared
        write_atomic(out, canonical_json(result()))
    engine.close()
    return result()


def _curriculum(
    arm: Arm, world: World, pool: Pool, policy: Policy, engine: RolloutEngine, verifier: Verifier
) -> Strategy:
    posterior = Posterior.fresh(pool.train, arm.curriculum.posterior)
    if not isinstance(arm.curriculum, OracleConfig):
        return make_curriculum(arm.curriculum, pool.train, posterior, arm.seed)
    oracle = OracleCurriculum(arm.curriculum, pool.train, posterior, arm.seed)
    exact = world.exact
    oracle.rates = exact_rates(policy, pool.train) if exact else sampled_rates(pool.train, engine, verifier)
    return oracle


def _exam(arm: Arm, world: World, pool: Pool, policy: Policy, engine: RolloutEngine, verifier: Verifier) -> Exam:
    if world.exact:
        return ExactExam(pool, policy, engine)
    return SampledExam(pool.frontier, arm.samples, engine, verifier)


def main() -> None:
    spec, out = map(Path, sys.argv[1:])
    run_arm(Arm.model_validate_json(spec.read_bytes()), out)


if __name__ == "__main__":
    main()
