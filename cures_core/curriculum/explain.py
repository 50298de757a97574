"""Why a prompt gets its probability and its rollouts: numbers, and the same in words."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from cures_core.config.curriculum import CuresConfig, NeymanAllocation, ScreenAllocation, SingleAllocation
from cures_core.curriculum.beta import Floats, expected_spread
from cures_core.curriculum.posterior import NEVER, Posterior
from cures_core.curriculum.sampling import probabilities, weights
from cures_core.curriculum.strategies.cures import CuresCurriculum
from cures_core.prompts import PromptSet
from cures_core.prompts.chats import transcript

_DRAWS = 64
_DEAD = 0.5  # more likely dead than not
_NO_DIFFERENCE = 0.05  # points, which would not show in a figure of one decimal


class GroupRate(TypedDict):
    """The group of a prompt, with the pass rate that it has shown."""

    source: str
    level: str
    rate: float


class PromptFigures(TypedDict):
    """What is believed of one prompt, and what follows from it for the next step."""

    id: str
    problem: str
    group: GroupRate
    evidence: float
    """Rollouts of its own that still count."""
    last_step: int
    a: float
    b: float
    """Beta(a, b) of its pass rate."""
    mean: float
    """Of that Beta: a / (a + b), the expected pass rate if it is alive."""
    dead: float
    """Probability that it is dead."""
    expected_pass_rate: float
    """(1 - dead) mean."""
    expected_spread: float
    probability: float
    """Of being the first prompt drawn."""
    times_uniform: float
    rank: int
    rollouts: str


class Explanation(PromptFigures):
    """The figures, and the same in words."""

    words: list[str]


class HopelessPrompt(TypedDict):
    """A prompt that looks dead. `reason` is the evidence in words, for the list of flagged prompts."""

    id: str
    reason: str
    problem: str
    answer: str
    dead: float


def draw_probabilities(cfg: CuresConfig, prompts: PromptSet, posterior: Posterior) -> Floats:
    """Probability that each prompt is the first one drawn in the next step; its mean over 64 draws of the posterior."""
    curriculum = CuresCurriculum(cfg, prompts, posterior, seed=0)
    num = _DRAWS if cfg.signal.startswith("thompson") else 1
    total = np.zeros(len(prompts))
    for _ in range(num):
        total += probabilities(weights(curriculum.signal(), cfg.weighting), cfg.explore)
    return curriculum.bounded(total / num)


def explain_prompt(cfg: CuresConfig, prompts: PromptSet, posterior: Posterior, prompt_id: str) -> Explanation:
    """Figures of one prompt and sentences on them. Raises `ConfigError` for an unknown id."""
    (row,) = posterior.rows([prompt_id]).tolist()
    one = np.array([row])
    p = draw_probabilities(cfg, prompts, posterior)
    a, b = (float(x[0]) for x in posterior.parameters(one))
    group = posterior.group_names[posterior.groups[row]]
    figures: PromptFigures = {
        "id": prompt_id,
        "problem": transcript(prompts[row])[:500],
        "group": {"source": group[0], "level": group[1], "rate": float(posterior.group_rates()[posterior.groups[row]])},
        "evidence": float(posterior.evidence()[row]),
        "last_step": int(posterior.touched[row]),
        "a": a,
        "b": b,
        "mean": a / (a + b),
        "dead": float(posterior.dead(one)[0]),
        "expected_pass_rate": float(posterior.mean(one)[0]),
        "expected_spread": float(expected_spread(np.array([a]), np.array([b]))[0]),
        "probability": float(p[row]),
        "times_uniform": float(p[row] * len(p)),
        "rank": int((p > p[row]).sum()) + 1,
        "rollouts": _rollouts(cfg),
    }
    return {**figures, "words": _words(cfg, figures, posterior.step, len(p))}


def hopeless(prompts: PromptSet, posterior: Posterior, least: float) -> list[HopelessPrompt]:
    """Prompts that are dead with at least this probability, the surest first."""
    dead, evidence, rates = posterior.dead(), posterior.evidence(), posterior.group_rates()
    rows = np.flatnonzero((dead >= least) & (posterior.touched != NEVER))
    found: list[HopelessPrompt] = []
    for row in rows[np.argsort(-dead[rows], kind="stable")].tolist():
        prompt, group = prompts[row], posterior.groups[row]
        found.append(
            {
                "id": prompt.id,
                "reason": f"dead with {100 * dead[row]:.1f} %: no success so far, last tried in step "
                f"{int(posterior.touched[row])} with {evidence[row]:.1f} rollouts still counting, while its group "
                f"succeeds in {100 * rates[group]:.0f} %",
                "problem": transcript(prompt)[:500],
                "answer": prompt.answer[:200],
                "dead": float(dead[row]),
            }
        )
    return found


def _rollouts(cfg: CuresConfig) -> str:
    if isinstance(cfg.allocation, ScreenAllocation):
        return f"1, and up to {cfg.allocation.max_rollouts - 1} more if it fails that and is not taken for dead"
    if isinstance(cfg.allocation, SingleAllocation):
        return "1"
    if isinstance(cfg.allocation, NeymanAllocation):
        low, high = cfg.allocation.min_rollouts, cfg.allocation.max_rollouts
        return f"{low} to {high}, by its spread against that of the others in the step"
    return f"{cfg.rollouts_per_step / cfg.prompts_per_step:g}, as every prompt that is drawn"


def _on_death(f: PromptFigures) -> list[str]:
    """What the chance that a prompt is dead makes of the Beta's mean; nothing where it makes no difference."""
    if 100 * (f["mean"] - f["expected_pass_rate"]) < _NO_DIFFERENCE:
        return []
    why = " It keeps failing where its group succeeds: its gold answer may be wrong." if f["dead"] > _DEAD else ""
    return [
        f"It is dead, never to be solved, with a probability of {100 * f['dead']:.1f} %: that leaves an expected pass "
        f"rate of {100 * f['expected_pass_rate']:.1f} %.{why}"
    ]


def _words(cfg: CuresConfig, f: PromptFigures, step: int, num: int) -> list[str]:
    if f["last_step"] == NEVER:
        seen = "It has never been rolled out: what is believed of it is what its group has shown."
    else:
        ago = step - f["last_step"]
        seen = f"It was last rolled out {ago} steps ago; {f['evidence']:.1f} rollouts of its own still count."
    lines = [
        seen,
        f"Its group (source {f['group']['source'] or '-'}, level {f['group']['level'] or '-'}) succeeds in "
        f"{100 * f['group']['rate']:.0f} % of its rollouts; together that gives Beta({f['a']:.2f}, {f['b']:.2f}), "
        f"with a mean of {100 * f['mean']:.1f} %.",
        *_on_death(f),
    ]
    times = f["times_uniform"]
    why = "more" if times > 1.2 else "less" if times < 0.8 else "about as"
    lines.append(
        f"It is drawn {times:.2f} times as often as by uniform drawing ({why} often; rank {f['rank']:,} of {num:,}): "
        f"by its signal ({cfg.signal.replace('_', ' ')}), mixed with {100 * cfg.explore:.0f} % of uniform drawing"
        f"{', within the quotas of sources' if cfg.quotas else ''}."
    )
    lines.append(f"When it is drawn it gets this many rollouts: {f['rollouts']}.")
    return lines
