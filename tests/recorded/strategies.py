"""What every strategy asks for and says of its steps, against prompts whose verdicts follow from their place."""

from __future__ import annotations

from typing import Any

import numpy as np

from cures_core.config.curriculum import (
    ArcConfig,
    CuresConfig,
    CurriculumConfig,
    DapoConfig,
    EssWeighting,
    GvmConfig,
    MoppsConfig,
    NeymanAllocation,
    OfficialConfig,
    PaperConfig,
    PosteriorConfig,
    ScreenAllocation,
    SoftmaxWeighting,
    SpeedConfig,
    UniformConfig,
)
from cures_core.curriculum import Posterior, make_curriculum
from cures_core.terms import Group, Moments, Outcome, Request
from cures_core.testing.curriculum import answered, prompt_set

_STEPS = 7
_SHAPE: dict[str, Any] = {"prompts_per_step": 6, "rollouts_per_step": 30}

CONFIGS: dict[str, CurriculumConfig] = {
    "uniform": UniformConfig(**_SHAPE),
    "cures": CuresConfig(**_SHAPE),
    "cures, screening": CuresConfig(**_SHAPE, allocation=ScreenAllocation(max_rollouts=4)),
    "cures, by the spread": CuresConfig(
        **_SHAPE,
        signal="expected_spread",
        weighting=SoftmaxWeighting(temperature=0.1),
        allocation=NeymanAllocation(max_rollouts=9),
    ),
    "cures, by measured gradients": CuresConfig(
        **_SHAPE, signal="plugin_spread", allocation=NeymanAllocation(sigma="gradient", max_rollouts=9)
    ),
    "cures, informative groups": CuresConfig(**_SHAPE, signal="informative", weighting=EssWeighting(share=0.3)),
    "cures, by the variance": CuresConfig(**_SHAPE, signal="expected_variance", explore=0.3),
    "cures, fitted": CuresConfig(**_SHAPE, posterior=PosteriorConfig(fading="fitted", strength="fitted", drift=0.3)),
    "dapo": DapoConfig(**_SHAPE, group_size=3),
    "speed": SpeedConfig(**_SHAPE, screen=2, group_size=6),
    "gvm": GvmConfig(**_SHAPE),
    "mopps": MoppsConfig(**_SHAPE, candidates=3),
    "arc": ArcConfig(**_SHAPE),
    "paper": PaperConfig(**_SHAPE, subsets=5, steps_per_subset=2, probe=3),
    "cures-official": OfficialConfig(**_SHAPE, subsets=3, steps_per_subset=2, probe=2, processes=2, repeats=2),
}


def traces() -> dict[str, Any]:
    """A row for each step of each strategy."""
    return {name: trace(cfg) for name, cfg in CONFIGS.items()}


def trace(cfg: CurriculumConfig) -> list[dict[str, Any]]:
    """Steps: what was asked for in each round (row of the prompt x rollouts), the batch, the figures."""
    prompts = prompt_set(40)
    curriculum = make_curriculum(cfg, prompts, Posterior.fresh(prompts, cfg.posterior), seed=11)
    rows = {name: i for i, name in enumerate(prompts.ids)}
    steps = []
    for number in range(_STEPS):
        budget, asked = curriculum.rollouts_per_step, []
        while (batch := curriculum.ready()) is None:
            requests = curriculum.ask(budget)
            budget -= sum(q.n for q in requests)
            asked.append(_shown([(rows[q.prompt.id], q.n) for q in requests]))
            curriculum.tell([_judged(q, rows[q.prompt.id], number) for q in requests])
        curriculum.learn({g.request.prompt.id: _moments(rows[g.request.prompt.id]) for g in batch.groups[:2]})
        trained = _shown([(rows[g.request.prompt.id], len(g.verdicts)) for g in batch.groups])
        steps.append({"asked": asked, "trained": trained, "reason": batch.reason, **batch.figures})
    return steps


def _judged(request: Request, row: int, step: int) -> Group:
    """Rates from 0 to 1 over the rows, and now and then no verdict."""
    rng = np.random.default_rng([row, step, request.n])
    right = rng.random(request.n) < row / 39
    outcomes = [Outcome.CORRECT if one else Outcome.WRONG for one in right]
    if (row + step) % 7 == 0:
        outcomes[0] = Outcome.UNKNOWN
    return answered(request, outcomes)


def _moments(row: int) -> Moments:
    return Moments(right=1.0 + row / 10, wrong=2.0, gap=0.5)


def _shown(pairs: list[tuple[int, int]]) -> str:
    return " ".join(f"{row}x{n}" for row, n in pairs)
