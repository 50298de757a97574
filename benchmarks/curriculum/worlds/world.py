"""What a benchmark world is: problems in pools of known mixture, how they are asked and judged, and base policies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cures_core.config.rewards import AnswerConfig
from cures_core.config.rollout import HfRolloutConfig
from cures_core.prompts import PromptSet


@dataclass(frozen=True)
class Pool:
    """Training prompts; a held-out suite of the same mixture, rightly labelled; and one of what is not solved from the
    start, `frontier`."""

    train: PromptSet
    heldout: PromptSet
    frontier: PromptSet


@dataclass(frozen=True)
class Sizes:
    """Numbers of prompts in the parts of a pool."""

    train: int
    heldout: int
    frontier: int


@dataclass(frozen=True)
class World:
    """One kind of task, with policies that can do it partly."""

    name: str
    pools: tuple[str, ...]
    sizes: Sizes
    make_pool: Callable[[str, int, Sizes], Pool]
    """Pool of a name with the prompts of a seed."""
    examples: Callable[[int, int], PromptSet]
    """So many held-out, rightly labelled problems of every kind (`Prompt.level`), by a seed."""
    base_policy: Callable[[int], Path]
    """Folder of a base policy; made where it is not there."""
    bases: tuple[int, ...]
    """Seeds of its base policies: each has initial weights, tutors and demonstrations of its own, where the world makes
    them itself."""
    tuning_base: int
    """That of the base policy on which settings are chosen."""
    rollout: HfRolloutConfig
    reward: AnswerConfig
    exact: bool = False
    """One completion alone is right, so that pass rates follow from one forward pass."""
    score: str = "avg_at_1"
    """The score that arms are compared by."""
    learning_rate: float = 5e-4
    """Of steps of 256 rollouts; what methods are tried around."""
    small_steps: float = 1.0
    """Times that for steps of 64 rollouts and less."""
    length_norm: float | None = None
    """`training.length_norm`: about the length of a completion, or each one's own."""
    evaluate_every: int = 2048
    """Rollouts between two evaluations of an arm."""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
