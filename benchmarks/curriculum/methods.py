"""The methods of the curriculum benchmark, each with the settings that were found best for it on tuning seeds."""

from __future__ import annotations

from typing import Any

from cures_core.config.training import TorchTrainerConfig

_SHAPE: dict[str, Any] = {"prompts_per_step": 32, "rollouts_per_step": 256}
_HELD: dict[str, Any] = {"solved_advantage": 1.0}
_NEYMAN: dict[str, Any] = {"type": "cures", "prompts_per_step": 16, "rollouts_per_step": 64}
_SCREENED: dict[str, Any] = {
    "type": "cures", "prompts_per_step": 40, "rollouts_per_step": 64, "allocation": {"type": "screen"},
}  # fmt: skip
_GRPO: dict[str, Any] = {"learning_rate": 5e-4, "length_norm": 4.0}
_FASTER: dict[str, Any] = {"learning_rate": 1e-3}
_SLOWER: dict[str, Any] = {"learning_rate": 2.5e-4}

METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "uniform": ({"type": "uniform"}, {}),
    "uniform-small": ({"type": "uniform", "rollouts_per_step": 128}, {}),
    "uniform-held": ({"type": "uniform", "rollouts_per_step": 64}, _HELD),
    "reinforce++": ({"type": "uniform"}, {"advantage": "reinforce++", "loss_weight": "rollout"}),
    "cures": (_SCREENED, _HELD),
    "uniform-screened": ({**_SCREENED, "explore": 1.0}, _HELD),
    "cures-equal": ({"type": "cures", "rollouts_per_step": 64}, _HELD),
    "cures-grpo": ({"type": "cures", "rollouts_per_step": 128}, {}),
    "cures-neyman": ({**_NEYMAN, "allocation": {"type": "neyman"}}, _HELD),
    "cures-gradient": ({**_NEYMAN, "allocation": {"type": "neyman", "sigma": "gradient"}}, _HELD),
    "paper": ({"type": "paper", "subsets": 1, "steps_per_subset": 1000}, {}),
    "cures-official": ({"type": "cures-official"}, _SLOWER),
    "dapo": ({"type": "dapo", "prompts_per_step": 16, "rollouts_per_step": 512}, _FASTER),
    "speed": ({"type": "speed"}, {}),
    "gvm": ({"type": "gvm"}, _FASTER),
    "mopps": ({"type": "mopps"}, {}),
    "arc": ({"type": "arc"}, {}),
    "gvm-held": ({"type": "gvm", "rollouts_per_step": 64}, _HELD),
    "mopps-held": ({"type": "mopps", "rollouts_per_step": 64}, _HELD),
    "arc-held": ({"type": "arc", "rollouts_per_step": 64}, _HELD),
    "oracle": ({**_SCREENED, "type": "oracle", "explore": 0.0}, _HELD),
}
"""Name: (curriculum, changes of the training), on top of 32 prompts x 8 rollouts and GRPO at 5e-4, which of
half, once and twice that rate is best for nearly all (docs/benchmarks.md).

`uniform` is the shape that is common in the field; `uniform-small` the best one for uniform prompts and plain GRPO;
`uniform-held` takes small steps and holds solved groups; `uniform-screened` is everything that `cures` has but the
sampling; `cures-grpo` the sampling alone, on plain GRPO; `cures-equal` the sampling with two rollouts for every prompt,
`cures-neyman` and `cures-gradient` with a budget split by spread and by measured gradients; `gvm-held`, `mopps-held`
and `arc-held` are those rivals with small steps and held solved groups.
"""


def settings(method: str) -> tuple[dict[str, Any], TorchTrainerConfig]:
    """Curriculum settings and trainer of a method."""
    curriculum, training = METHODS[method]
    return {**_SHAPE, **curriculum}, TorchTrainerConfig(**{**_GRPO, **training})
