"""What every strategy asks for and says of its steps, against prompts whose verdicts follow from their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.curriculum.rivals import mopps, official
from cures_core.config.curriculum import (
    CuresConfig,
    CurriculumConfig,
    CustomConfig,
    DapoConfig,
    NeymanAllocation,
    PaperConfig,
    PosteriorConfig,
    ScreenAllocation,
    SoftmaxWeighting,
    UniformConfig,
)
from cures_core.curriculum import Posterior, make_curriculum
from cures_core.terms import Group, Outcome, Request
from cures_core.testing.curriculum import answered, prompt_set

_STEPS = 7
_SHAPE: dict[str, Any] = {"prompts_per_step": 6, "rollouts_per_step": 30}

CONFIGS: dict[str, CurriculumConfig] = {
    "uniform": UniformConfig(**_SHAPE),
    "cures": CuresConfig(**_SHAPE),
    "cures, screening": CuresConfig(**_SHAPE, allocation=ScreenAllocation(max_rollouts=4)),
    "cures, by the spread": CuresConfig(
        **_SHAPE,
        signal="plugin_spread",
        weighting=SoftmaxWeighting(temperature=0.1),
        allocation=NeymanAllocation(max_rollouts=9),
    ),
    "cures, by the variance": CuresConfig(**_SHAPE, signal="expected_variance", explore=0.3),
    "cures, by failures": CuresConfig(**_SHAPE, signal="thompson_failure"),
    "cures, fitted": CuresConfig(**_SHAPE, posterior=PosteriorConfig(fading="fitted", strength="fitted")),
    "dapo": DapoConfig(**_SHAPE, group_size=3),
    "paper": PaperConfig(**_SHAPE, subsets=5, steps_per_subset=2, probe=3),
}


def _rival(path: str, posterior: PosteriorConfig | None = None, **options: float) -> CustomConfig:
    believed = {} if posterior is None else {"posterior": posterior}
    return CustomConfig(**_SHAPE, **believed, strategy=f"benchmarks.curriculum.rivals.{path}", options=options)


RIVALS: dict[str, CurriculumConfig] = {
    "speed": _rival("speed:Speed", screen=2, group_size=6),
    "gvm": _rival("gvm:Gvm"),
    "mopps": _rival("mopps:Mopps", mopps.POSTERIOR, candidates=3),
    "arc": _rival("arc:Arc"),
    "cures-official": _rival(
        "official:Official", official.POSTERIOR, subsets=3, steps_per_subset=2, probe=2, processes=2, repeats=2
    ),
}


def traces(configs: Mapping[str, CurriculumConfig]) -> dict[str, Any]:
    """A row for each step of each strategy."""
    return {name: trace(cfg) for name, cfg in configs.items()}


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


def _shown(pairs: list[tuple[int, int]]) -> str:
    return " ".join(f"{row}x{n}" for row, n in pairs)
