"""One arm of the curriculum benchmark: real training of the quickstart's policy with one strategy and one seed.

`python -m benchmarks.curriculum.arena ARM.json OUT.json`. Every arm starts from the same weights; its budget counts all
rollouts, those of probing and those that a strategy discards included. Evaluation is exact and free.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from benchmarks.curriculum import rivals
from benchmarks.curriculum.exact import ExactRates
from benchmarks.curriculum.pools import PoolName, make_pool
from cures_core.config.base import Strict
from cures_core.config.curriculum import CuresConfig, CurriculumConfig
from cures_core.config.device import DeviceConfig
from cures_core.config.rewards import ExactConfig
from cures_core.config.rollout import HfRolloutConfig
from cures_core.config.training import TorchTrainerConfig
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.curriculum.ask_tell import Batch
from cures_core.curriculum.beta import Floats
from cures_core.curriculum.posterior import Ints
from cures_core.curriculum.strategies.cures import CuresCurriculum
from cures_core.curriculum.strategies.strategy import spread_of
from cures_core.epoch import Progress, run_epoch
from cures_core.files import canonical_json, write_atomic
from cures_core.policy.loading import load_policy, setup_torch
from cures_core.rewards import make_verifier
from cures_core.rollout import build_engine
from cures_core.terms import Group, Request
from cures_core.training.torch_trainer import TorchTrainer

T = TypeVar("T")


class OracleConfig(CuresConfig):
    """Draws by the true pass rates, measured on the side and not paid for: the ceiling of any sampling."""

    type: Literal["oracle"] = "oracle"  # type: ignore[assignment]


class Arm(Strict):
    """What an arm needs to know."""

    method: str
    """Name in tables."""
    pool: PoolName
    pool_seed: int = 11
    seed: int
    budget: int
    """Rollouts, of all kinds."""
    policy: str
    """Folder of the base policy."""
    curriculum: Annotated[OracleConfig | CurriculumConfig, Field(discriminator="type")]
    training: TorchTrainerConfig
    evaluate_every: int = Field(default=4, ge=1)
    """Steps between evaluations."""
    version: Literal[4] = 4
    """Of what an arm's result holds: finished arms of another version are run again."""


class OracleCurriculum(CuresCurriculum):
    """What `cures` does, with true pass rates, at most three steps old, for a posterior, and so without exploration."""

    cfg: OracleConfig
    rates: ExactRates

    def choose(self, budget: int, round_: int) -> tuple[Ints, Ints]:
        if round_ == 0 and self.step % 4 == 1:
            self._known, _ = self.rates.measure()
        return super().choose(budget, round_)

    def signal(self, rows: Ints | slice = slice(None)) -> Floats:
        return np.maximum(spread_of(self._known[rows]), 3e-3)  # a floor, for pools that are solved through and through

    def _to_continue(self, told: Sequence[Group]) -> Ints:
        rows = super()._to_continue(told)
        return rows[self._known[rows] > 1e-2]


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
    """Curve of an arm: exact scores against rollouts, tokens and seconds of training.

    Seconds are the processor's, so that other work on the machine does not count; an arm computes in this one thread.
    """

    def __init__(self, arm: Arm, heldout: ExactRates, frontier: ExactRates) -> None:
        self._arm, self._heldout, self._frontier = arm, heldout, frontier
        self.points: list[dict[str, float]] = []
        self.steps: list[Mapping[str, Any]] = []
        self.seconds = 0.0
        self._clock = 0.0
        self.measure(Progress())

    def measure(self, progress: Progress) -> None:
        scores: dict[str, float] = {}
        for name, suite in (("heldout", self._heldout), ("frontier", self._frontier)):
            rates, greedy = suite.measure()
            scores |= {f"{name}_sampled": float(rates.mean()), f"{name}_greedy": float(greedy.mean())}
        counters = {"step": progress.step, "rollouts": progress.rollouts, "tokens": progress.tokens}
        self.points.append({**counters, "seconds": round(self.seconds, 3), **scores})
        self._clock = time.thread_time()

    def commit(self, progress: Progress, _: Sequence[Group], metrics: Mapping[str, Any], __: float) -> None:
        now = time.thread_time()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        self.steps.append(metrics)
        if progress.rollouts >= self._arm.budget or progress.step % self._arm.evaluate_every == 0:
            self.measure(progress)


def run_arm(arm: Arm) -> dict[str, Any]:
    """Train until the budget is spent; returns the curve and what the curriculum did, as JSON values."""
    device = setup_torch(DeviceConfig(), arm.seed)
    policy = load_policy(arm.policy, device)
    pool = make_pool(arm.pool, arm.pool_seed)
    posterior = Posterior.fresh(pool.train, arm.curriculum.posterior)
    if isinstance(arm.curriculum, OracleConfig):
        curriculum: Strategy = OracleCurriculum(arm.curriculum, pool.train, posterior, arm.seed)
        curriculum.rates = ExactRates(policy, list(pool.train))  # type: ignore[attr-defined]
    else:
        curriculum = make_curriculum(arm.curriculum, pool.train, posterior, arm.seed)
    recorder = _Recorder(arm, ExactRates(policy, list(pool.heldout)), ExactRates(policy, list(pool.frontier)))
    engine = build_engine(HfRolloutConfig(max_new_tokens=6), policy.model, policy.tokenizer, device)
    trainer = TorchTrainer(policy, arm.training, 1.0)
    timed = Timed(curriculum)
    with make_verifier(ExactConfig()) as verifier:
        progress = Progress()
        while progress.rollouts < arm.budget:
            one_more = progress.step + 1
            progress = run_epoch(progress, one_more, timed, engine, verifier, trainer, recorder.commit)
    shares = [float(m.get("informative_share", 0.0)) for m in recorder.steps]
    return {
        "arm": arm.model_dump(mode="json"),
        "points": recorder.points,
        "informative_share": sum(shares) / max(1, len(shares)),
        "calibration": curriculum.calibration.figures(),
        "seconds": round(recorder.seconds, 3),
        "curriculum_seconds": round(timed.seconds, 3),
    }


def main() -> None:
    rivals.allow()
    started = time.monotonic()
    arm = Arm.model_validate_json(Path(sys.argv[1]).read_bytes())
    result = run_arm(arm)
    write_atomic(Path(sys.argv[2]), canonical_json({**result, "wall": round(time.monotonic() - started, 3)}))


if __name__ == "__main__":
    main()
