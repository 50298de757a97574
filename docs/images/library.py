"""Draws library.png: `python docs/images/library.py`; the draws of a simulated run, uniform and by the curriculum."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from cures_core.curriculum import CuresConfig, Curriculum, UniformConfig

mpl.use("agg")
from matplotlib import pyplot as plt

LEVELS = ("solved", "easy", "middling", "hard", "never solved")
STEPS = 240
_NUM = 1600
_HARDNESS = np.array([-4.0, -0.5, 1.5, 3.5, 40.0])
_LEARNT = (
    0.004  # in nats of logit, by a group with right and wrong in it, for its level; half as much for its neighbours
)

Shares = npt.NDArray[np.float64]


def simulate(config: CuresConfig | UniformConfig) -> tuple[Shares, Shares]:
    """(share of the draws by level, pass rate by level), each of shape (steps, levels).

    A prompt's logit is the level's skill minus its own hardness; skill grows with groups that hold right and wrong.
    """
    rng = np.random.default_rng(0)
    level = rng.permutation(np.repeat(np.arange(5), [640, 240, 240, 240, 240]))
    hardness = _HARDNESS[level] + 0.7 * rng.standard_normal(_NUM)
    skill = np.zeros(5)
    curriculum = Curriculum.from_ids(range(_NUM), levels=level, config=config)
    drawn, rates = np.zeros((STEPS, 5)), np.zeros((STEPS, 5))
    for t in range(STEPS):
        rate = 1 / (1 + np.exp(hardness - skill[level]))
        rates[t] = [rate[level == k].mean() for k in range(5)]
        while curriculum.ready() is None:
            for ask in curriculum.ask():
                right = int(rng.binomial(ask.n, rate[ask.row]))
                curriculum.tell(ask.request_id, correct=right, wrong=ask.n - right)
                drawn[t, level[ask.row]] += 1
                if 0 < right < ask.n:
                    near = np.abs(np.arange(5) - level[ask.row])
                    skill += _LEARNT * np.where(near == 0, 1.0, np.where(near == 1, 0.5, 0.0))
        drawn[t] /= drawn[t].sum()
    return drawn, rates


def main() -> None:
    figure, grid = plt.subplots(2, 2, figsize=(9, 5), sharex=True, height_ratios=[3, 2])
    sizes: dict[str, Any] = {"prompts_per_step": 32, "rollouts_per_step": 256}
    for column, (name, config) in enumerate(
        {"uniform draws": UniformConfig(**sizes), "the curriculum": CuresConfig(**sizes)}.items()
    ):
        drawn, rates = simulate(config)
        smooth = np.stack([np.convolve(np.pad(x, 4, mode="edge"), np.ones(9) / 9, "valid") for x in drawn.T])
        grid[0, column].stackplot(range(STEPS), smooth, labels=LEVELS, colors=plt.cm.viridis(np.linspace(0.95, 0.1, 5)))
        grid[0, column].set(ylim=(0, 1), xlim=(0, STEPS - 1), title=name)
        for k, colour in enumerate(plt.cm.viridis(np.linspace(0.95, 0.1, 5))):
            grid[1, column].plot(rates[:, k], color=colour)
        grid[1, column].set(xlabel="step", ylim=(0, 1.02))
        print(f"{name}: pass rates at the end {np.round(rates[-1], 2).tolist()}")
    grid[0, 0].set(ylabel="share of the draws")
    grid[1, 0].set(ylabel="true pass rate")
    grid[0, 1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, reverse=True)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    main()
