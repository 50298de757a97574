"""A policy without a network: pass rates p = sigmoid(b + x . theta) that move as REINFORCE moves theta.

It asks the real strategies and trains on what they choose, thousands of steps of pools of a million prompts in minutes.
What is learnt on one prompt carries over to others by shared features; prompts with a wrong gold answer are never
rewarded; the policy may drift by itself. It is a test of robustness: what it says about speed is not evidence.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import special

from benchmarks.curriculum.worlds.digits import SHARES, PoolName
from benchmarks.pretend import answered, pretend_prompts
from cures_core.config.base import Strict
from cures_core.config.curriculum import CurriculumConfig
from cures_core.curriculum import Posterior, Strategy, make_curriculum
from cures_core.terms import Group

Floats = npt.NDArray[np.float64]
LEVELS = 5
_SKILLS = 6
_OWN = 10  # features that say what a prompt has of its own


class World(Strict):
    """What is simulated. Logits in nats."""

    pool: PoolName = "waste"
    """Shares of solved and wrongly labelled prompts, as in the pools of the curriculum benchmark."""
    prompts: int = Field(default=1600, ge=10)
    """Size of the training pool."""
    heldout: int = Field(default=2000, ge=200)
    """Prompts that are scored, rightly labelled; never trained on."""
    frontier_logit: float = -3.1
    """Mean logit of the pass rate of frontier prompts at the start."""
    frontier_deviation: float = Field(default=1.5, ge=0)
    """Its standard deviation; most of it is explained by the level."""
    solved_logit: float = 4.8
    """Mean logit of solved prompts at the start."""
    learning_rate: float = Field(default=0.0126, gt=0)
    """Step of Adam on theta."""
    wrong_gold: float = Field(default=0.0, ge=0, le=1)
    """Share of prompts whose gold answer is wrong, beside those of the pool, wherever they lie."""
    drift: float = Field(default=0.0, ge=0)
    """Standard deviation of what a step adds to theta by chance: a policy that is not stationary by itself."""


@dataclass
class _Prompts:
    """`num` prompts: logit at the start (num,), features (num, K), skill and level (num,), right label? (num,)."""

    start: Floats
    features: npt.NDArray[np.float32]
    skill: npt.NDArray[np.int64]
    level: npt.NDArray[np.int64]
    labelled: npt.NDArray[np.bool_]

    def rates(self, theta: Floats, rows: npt.NDArray[np.int64] | slice = slice(None)) -> Floats:
        logits = self.start[rows] + self.features[rows].astype(np.float64) @ theta
        return np.asarray(special.expit(logits) * self.labelled[rows])


def simulate(
    world: World, strategy: CurriculumConfig, steps: int, seed: int, every: int = 20
) -> tuple[Strategy, dict[str, Any]]:
    """Train for `steps` steps. Returns the strategy as it ended, and what happened.

    The dictionary: `points`, `calibration`, `posterior_error` (mean absolute error of the posterior's means over all
    prompts at the end), `seconds` of the steps. A point each `every` steps: step, rollouts, heldout, frontier
    (mean pass rates), and the share of informative groups since the last point.
    """
    rng = np.random.default_rng([seed, 0x53494D])
    train = _draw(world, world.prompts, rng, SHARES[world.pool], world.wrong_gold)
    easy, hopeless = SHARES[world.pool]
    heldout = _draw(world, world.heldout, rng, (easy / max(1e-9, 1 - hopeless), 0.0), 0.0)
    labelled = int(world.pool != "unlabelled")
    prompts = pretend_prompts(labelled * train.skill, labelled * train.level)
    curriculum: Strategy = make_curriculum(strategy, prompts, Posterior.fresh(prompts, strategy.posterior), seed)
    theta, adam = np.zeros(_SKILLS + _OWN), _Adam(_SKILLS + _OWN, world.learning_rate)
    points = [{"step": 0, "rollouts": 0, **_scores(heldout, theta), "informative_share": 0.0}]
    rollouts, shares, started = 0, [], time.monotonic()
    for step in range(1, steps + 1):
        budget = curriculum.rollouts_per_step
        while (batch := curriculum.ready()) is None:
            requests = curriculum.ask(budget)
            rows = np.array([int(q.prompt.id, 16) for q in requests], dtype=np.int64)
            rates = train.rates(theta, rows)
            groups = [answered(q, rng.random(q.n) < p) for q, p in zip(requests, rates.tolist(), strict=True)]
            curriculum.tell(groups)
            budget -= sum(q.n for q in requests)
            rollouts += sum(q.n for q in requests)
        theta = theta + adam.step(_gradient(batch.groups, train, theta)) + world.drift * rng.normal(size=len(theta))
        shares.append(batch.figures.get("informative_share", 0.0))
        if step % every == 0 or step == steps:
            points.append(
                {
                    "step": step,
                    "rollouts": rollouts,
                    **_scores(heldout, theta),
                    "informative_share": float(np.mean(shares)),
                }
            )
            shares = []
    seconds = time.monotonic() - started
    error = float(np.abs(curriculum.posterior.mean() - train.rates(theta)).mean())
    figures = {"calibration": curriculum.calibration.figures(), "posterior_error": error, "seconds": seconds}
    return curriculum, {"points": points, **figures}


def _draw(world: World, num: int, rng: np.random.Generator, shares: tuple[float, float], wrong_gold: float) -> _Prompts:
    """Skills 0 and 1 are solved, 2 to 5 the frontier, harder by level and skill; the wrongly labelled look solved."""
    easy, hopeless = shares
    kind = rng.choice(3, size=num, p=[easy, hopeless, 1 - easy - hopeless])
    frontier = kind == 2
    skill = np.where(frontier, rng.integers(2, _SKILLS, num), rng.integers(0, 2, num))
    level = rng.integers(0, LEVELS, num)
    spread = world.frontier_deviation
    explained = 0.8 * spread * (2 - level + (3.5 - skill)) / np.sqrt(2 + 1.25)
    hard = world.frontier_logit + explained + 0.6 * spread * rng.normal(size=num)
    start = np.where(frontier, hard, world.solved_logit + rng.normal(size=num))
    own = rng.normal(size=(num, _OWN)).astype(np.float32) * np.float32(0.3)
    features = np.concatenate([np.eye(_SKILLS, dtype=np.float32)[skill], own], axis=1)
    features[:, 2:_SKILLS] += np.float32(0.2) * frontier[:, None]  # one skill helps the next
    labelled = (kind != 1) & (rng.random(num) >= wrong_gold)
    return _Prompts(start, features, skill.astype(np.int64), level, labelled)


def _gradient(groups: Sequence[Group], train: _Prompts, theta: Floats) -> Floats:
    """Ascent direction of GRPO: group-normalised advantages, every group counts equally. Shape of theta."""
    total, known = np.zeros_like(theta), max(1, len(groups))
    for group in groups:
        s, f = group.successes, group.failures
        if s == 0 or f == 0:
            continue
        n = s + f
        mean = s / n
        # d log pi / d logit is 1 - p for a right rollout, -p for a wrong one; advantages are (r - mean) / deviation.
        row = int(group.request.prompt.id, 16)
        total += np.sqrt(mean * (1 - mean)) * train.features[row].astype(np.float64)
    return np.asarray(total / known)


def _scores(heldout: _Prompts, theta: Floats) -> dict[str, float]:
    rates = heldout.rates(theta)
    return {"heldout": float(rates.mean()), "frontier": float(rates[heldout.skill >= 2].mean())}


class _Adam:
    """Adam without weight decay."""

    def __init__(self, size: int, learning_rate: float) -> None:
        self._m, self._v, self._t, self._rate = np.zeros(size), np.zeros(size), 0, learning_rate

    def step(self, gradient: Floats) -> Floats:
        self._t += 1
        self._m = 0.9 * self._m + 0.1 * gradient
        self._v = 0.999 * self._v + 0.001 * gradient**2
        m, v = self._m / (1 - 0.9**self._t), self._v / (1 - 0.999**self._t)
        return np.asarray(self._rate * m / (np.sqrt(v) + 1e-8))


def misfit(real: Mapping[str, Any], simulated: Mapping[str, Any], score: str) -> float:
    """Root mean squared difference of two curves of one score, over the real one's points, by rollouts."""
    x = np.array([p["rollouts"] for p in real["points"]], dtype=np.float64)
    y = np.array([p[f"{score}_sampled"] for p in real["points"]], dtype=np.float64)
    ours = np.interp(x, [p["rollouts"] for p in simulated["points"]], [p[score] for p in simulated["points"]])
    return float(np.sqrt(np.mean((ours - y) ** 2)))


def fitted(world: World, real: Mapping[str, Any], strategy: CurriculumConfig, seed: int) -> tuple[World, float]:
    """The world whose start and learning rate come closest to one real arm of that strategy, and its misfit.

    How hard solved and frontier prompts are is read off the start of the real curve; the learning rate is searched on
    a grid of ratio 1.26. `misfit` is that of the frontier's curve.
    """
    first, steps = real["points"][0], int(real["points"][-1]["step"])
    easy, hopeless = SHARES[world.pool]
    solved_share = easy / max(1e-9, 1 - hopeless)
    frontier = float(first["frontier_sampled"])
    solved = (float(first["heldout_sampled"]) - (1 - solved_share) * frontier) / max(1e-9, solved_share)
    starts = {
        "frontier_logit": _logit_of_mean(frontier, world.frontier_deviation),
        "solved_logit": _logit_of_mean(min(0.999, solved), 1.0) if solved_share else world.solved_logit,
    }
    best, least = world.model_copy(update=starts), float("inf")
    for rate in np.geomspace(0.002, 0.2, 21).tolist():
        tried = world.model_copy(update={**starts, "learning_rate": rate})
        error = misfit(real, simulate(tried, strategy, steps, seed)[1], "frontier")
        if error < least:
            best, least = tried, error
    return best, least


def _logit_of_mean(rate: float, deviation: float) -> float:
    """m with E[sigmoid(m + deviation z)] = rate, z standard normal."""
    z = special.ndtri((np.arange(200) + 0.5) / 200)
    grid = np.linspace(-12.0, 12.0, 481)
    return float(np.interp(rate, [special.expit(m + deviation * z).mean() for m in grid], grid))
