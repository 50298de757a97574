"""Base policies that a world makes itself: warm starts of several seeds, kept in a folder and checked by content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from cures_core.config.device import DeviceConfig
from cures_core.config.policy import WarmStartPolicy
from cures_core.errors import CorruptArtifact
from cures_core.files import canonical_json, digest_json, write_atomic
from cures_core.manifest import verify_manifest, write_manifest
from cures_core.policy.warm_start import RECIPE, Lesson, warm_start

POLICIES = Path(".cures/bench/policies")
_SHOWN = 256  # demonstrations that a lesson is told from another by


def warm_started(world: str, cfg: WarmStartPolicy, lesson: Lesson, folder: Path = POLICIES) -> Path:
    """Folder of the policy that `cfg` and `lesson` make, named after both: the lesson is known by what it shows.

    A killed warm start goes on from its last checkpoint; a folder whose files are not what was written is made again.
    """
    shown = lesson.tutor(cfg.seed)(np.random.default_rng(0), _SHOWN)
    taught = [shown, lesson.symbols, lesson.words, lesson.positions, lesson.initial_deviation]
    settings = cfg.model_dump(mode="json", exclude={"checkpoint_every"})
    key = digest_json({"policy": settings, "lesson": taught, "recipe": RECIPE})
    home = folder / f"{world}-{cfg.seed}-{key[:12]}"
    policy, scratch = home / "policy", home / "scratch"
    if policy.exists():
        try:
            verify_manifest(policy)
        except CorruptArtifact:
            shutil.rmtree(policy)
        else:
            return policy
    losses: list[float] = []

    def on_step(step: int, loss: float) -> None:
        losses.append(loss)
        if step % 250 == 0:
            print(f"{home.name}: step {step:,} of {cfg.steps:,}, loss {sum(losses[-250:]) / 250:.3f}", flush=True)

    made = home / "made"
    shutil.rmtree(made, ignore_errors=True)
    rows = warm_start(cfg, DeviceConfig(type="cpu"), scratch, made, on_step, lesson)
    figures = {"steps": float(cfg.steps), "loss": rows[-1]["loss"]}
    write_manifest(made)
    write_atomic(home / "figures.json", canonical_json({**figures, "seed": cfg.seed}))
    made.rename(policy)
    shutil.rmtree(scratch, ignore_errors=True)
    return policy
