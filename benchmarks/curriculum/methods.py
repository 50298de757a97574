"""The methods of the curriculum benchmark, each with the settings that were found best for it on tuning seeds."""

from __future__ import annotations

from typing import Any

from pydantic import JsonValue

from benchmarks.curriculum.rivals import mopps, official
from cures_core.config.curriculum import PosteriorConfig
from cures_core.config.training import TorchTrainerConfig


def _rival(path: str, posterior: PosteriorConfig | None = None, **shape: JsonValue) -> dict[str, Any]:
    """A plug-in in `benchmarks.curriculum.rivals`."""
    believed = {} if posterior is None else {"posterior": posterior.model_dump(mode="json")}
    return {"type": "custom", "strategy": f"benchmarks.curriculum.rivals.{path}", **believed, **shape}


_MOPPS = _rival("mopps:Mopps", mopps.POSTERIOR)
_GVM, _ARC = _rival("gvm:Gvm"), _rival("arc:Arc")
_SHAPE: dict[str, Any] = {"prompts_per_step": 32, "rollouts_per_step": 256}
_HELD: dict[str, Any] = {"solved_advantage": 1.0}
_NEYMAN: dict[str, Any] = {"type": "cures", "prompts_per_step": 16, "rollouts_per_step": 64}
_SCREENED: dict[str, Any] = {
    "type": "cures", "prompts_per_step": 40, "rollouts_per_step": 64, "allocation": {"type": "screen"},
}  # fmt: skip
_SQUARED: dict[str, Any] = {"type": "proportional", "power": 2.0}
_SINGLE: dict[str, Any] = {
    "type": "cures", "prompts_per_step": 64, "rollouts_per_step": 64, "allocation": {"type": "single"},
    "posterior": {"dead_prior": "fitted"},
}  # fmt: skip
_AGAINST_POSTERIOR: dict[str, Any] = {"advantage": "posterior", "loss_weight": "rollout"}
_GRPO: dict[str, Any] = {"learning_rate": 5e-4, "length_norm": 4.0}
_FASTER: dict[str, Any] = {"learning_rate": 1e-3}
_SLOWER: dict[str, Any] = {"learning_rate": 2.5e-4}

METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "uniform": ({"type": "uniform"}, {}),
    "uniform-small": ({"type": "uniform", "rollouts_per_step": 128}, {}),
    "raft": (
        {
            "type": "cures",
            "explore": 1.0,
            "prompts_per_step": 64,
            "rollouts_per_step": 64,
            "allocation": {"type": "screen"},
        },
        _HELD,
    ),
    "uniform-held": ({"type": "uniform", "rollouts_per_step": 64}, _HELD),
    "reinforce++": ({"type": "uniform"}, {"advantage": "reinforce++", "loss_weight": "rollout"}),
    "cures": (_SCREENED, _HELD),
    "uniform-screened": ({**_SCREENED, "explore": 1.0}, _HELD),
    "cures-equal": ({"type": "cures", "rollouts_per_step": 64}, _HELD),
    "cures-equal-abort": ({"type": "cures", "rollouts_per_step": 64}, _HELD),
    "uniform-abort": ({"type": "uniform"}, {}),
    "cures-unheld": (_SCREENED, {}),
    "cures-undead": ({**_SCREENED, "posterior": {"dead_prior": 0.0}}, _HELD),
    "cures-flatter": ({**_SCREENED, "weighting": _SQUARED}, _HELD),
    "cures-failure": ({**_SCREENED, "signal": "thompson_failure", "weighting": _SQUARED}, _HELD),
    "cures-single": ({**_SINGLE, "signal": "thompson_failure", "weighting": _SQUARED}, _AGAINST_POSTERIOR),
    "uniform-single": ({**_SINGLE, "explore": 1.0}, _AGAINST_POSTERIOR),
    "spo": (
        {**_SINGLE, "signal": "plugin_spread", "weighting": {"type": "proportional", "power": 1.0}},
        _AGAINST_POSTERIOR,
    ),
    "cures-failure-fitted": (
        {
            **_SCREENED,
            "signal": "thompson_failure",
            "weighting": _SQUARED,
            "posterior": {"dead_prior": "fitted"},
        },
        _HELD,
    ),
    "cures-certain": ({**_SCREENED, "signal": "expected_variance"}, _HELD),
    "cures-slower": (_SCREENED, {**_HELD, **_SLOWER}),
    "cures-grpo": ({"type": "cures", "rollouts_per_step": 128}, {}),
    "cures-neyman": ({**_NEYMAN, "allocation": {"type": "neyman"}}, _HELD),
    "paper": ({"type": "paper", "subsets": 1, "steps_per_subset": 1000}, {}),
    "cures-official": (_rival("official:Official", official.POSTERIOR), _SLOWER),
    "maxrl": (_rival("maxrl:MaxRl"), {"advantage": "dr-grpo"}),
    "reinforce-ada": (_rival("reinforce_ada:ReinforceAda"), {}),
    "knapsack": (_rival("knapsack:Knapsack"), {}),
    "dapo": ({"type": "dapo", "prompts_per_step": 16, "rollouts_per_step": 512}, _FASTER),
    "speed": (_rival("speed:Speed"), {}),
    "gvm": (_GVM, _FASTER),
    "mopps": (_MOPPS, {}),
    "arc": (_ARC, {}),
    "gvm-held": ({**_GVM, "rollouts_per_step": 64}, _HELD),
    "mopps-held": ({**_MOPPS, "rollouts_per_step": 64}, _HELD),
    "arc-held": ({**_ARC, "rollouts_per_step": 64}, _HELD),
    "oracle": ({**_SCREENED, "type": "oracle", "explore": 0.0}, _HELD),
}
"""Name: (curriculum, changes of the training), on top of 32 prompts x 8 rollouts and GRPO at 5e-4, which of
half, once and twice that rate is best for nearly all (docs/benchmarks.md).

`uniform` is the shape that is common in the field; `uniform-small` the best one for uniform prompts and plain GRPO;
`uniform-held` takes small steps and holds solved groups; `uniform-screened` is everything that `cures` has but the
sampling; `cures-grpo` the sampling alone, on plain GRPO; `cures-equal` the sampling with two rollouts for every prompt,
`cures-neyman` with a budget split by spread; `gvm-held`, `mopps-held` and `arc-held` are those rivals with small steps
and held solved groups. `-abort`: the same, with rollouts that are cut where right ones hardly ever are that long.
`cures-unheld` (solved groups not held), `cures-undead` (no prompt is suspected dead) and `cures-slower` (half the rate)
change one thing of `cures` each: what stops its learning?
`cures-flatter` weighs by s^2 instead of s^4, `cures-failure` by (1 - p)^2 of a draw, `cures-certain` by E[p(1 - p)]
without drawing: how much should the draws be concentrated?
`cures-failure-fitted` with the share of dead prompts fitted.
`cures-single` draws as `cures-failure`, one rollout a prompt, against the pass rate that the posterior expects;
`uniform-single` is that without the draws, `spo` with the draws of Single-stream Policy Optimization (arXiv 2509.13232:
by the spread at the mean), but our posterior, and without its normalisation over the batch.
"""

ABORTING = {"uniform-abort": 0.98, "cures-equal-abort": 0.98}
"""Methods that cut rollouts early, and the quantile of right lengths at which (`benchmarks.curriculum.aborting`)."""
BASELINES = ("uniform", "uniform-small", "raft", "reinforce++", "maxrl", "dapo", "reinforce-ada", "knapsack")
"""What is known and easy to have: the best of them, tuned, is what a curriculum has to beat. `raft` is single rollouts
with uniform draws of which the right ones are trained on (arXiv 2504.11343)."""


def settings(method: str) -> tuple[dict[str, Any], TorchTrainerConfig]:
    """Curriculum settings and trainer of a method."""
    curriculum, training = METHODS[method]
    return {**_SHAPE, **curriculum}, TorchTrainerConfig(**{**_GRPO, **training})
