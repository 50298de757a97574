"""Job: train one epoch, checkpointing inside it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cures_core.checkpoint import Checkpoint, latest_step, load_checkpoint, save_checkpoint, save_step
from cures_core.config.curriculum import wants_moments
from cures_core.curriculum import Strategy, load_posterior, make_curriculum, save_posterior
from cures_core.epoch import Progress, run_epoch
from cures_core.errors import ConfigError
from cures_core.faults import fault_point
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.assemble import assemble_engine, assemble_policy, assemble_reference
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.prompts import PromptSet
from cures_core.rewards import make_verifier
from cures_core.tally import Tally
from cures_core.terms import Group
from cures_core.training.torch_trainer import TorchTrainer


def run(job: Job, parent: Parent) -> None:
    """Write `checkpoint/`, `posterior.parquet`, `tally.json`, `figures.json` and `timings.jsonl` (no two runs have the
    same)."""
    if job.prompts is None or job.posterior is None:
        raise ConfigError("an epoch needs prompts and a posterior")
    cfg = job.config
    resumed = latest_step(job.scratch)
    saved = resumed or (load_checkpoint(job.checkpoint) if job.checkpoint else None)
    policy = assemble_policy(job, saved)
    trainer = TorchTrainer(
        policy,
        cfg.training,
        cfg.rollout.temperature or 1.0,
        assemble_reference(job),
        measure=wants_moments(cfg.curriculum),
    )
    prompts = PromptSet.read_parquet(job.prompts)
    curriculum = make_curriculum(cfg.curriculum, prompts, load_posterior(job.posterior), cfg.seed)
    progress, tally = Progress(), Tally()
    if saved is not None:
        trainer.load_state_dict(saved.weights, saved.optimizer, saved.state["trainer"])
        curriculum.load_state_dict(saved.curriculum)
        progress, tally = Progress(**saved.state["progress"]), Tally(saved.state.get("tally"))
    session = _Session(job, parent, trainer, curriculum, tally, progress, resumed.metrics if resumed else [])
    with make_verifier(cfg.reward) as verifier, closing(assemble_engine(policy, cfg.rollout)) as engine:
        run_epoch(progress, session.last_step, curriculum, engine, verifier, trainer, session.commit)
    save_checkpoint(session.checkpoint(), job.out / "checkpoint")
    save_posterior(curriculum.posterior, job.out / "posterior.parquet")
    write_atomic(job.out / "tally.json", canonical_json(tally.state_dict()))
    done = session.progress
    figures = {
        "step": done.step,
        "rollouts": done.rollouts,
        "tokens": done.tokens,
        "calibration": curriculum.calibration.figures(),
        "reliability": curriculum.calibration.reliability(),
    }
    write_atomic(job.out / "figures.json", canonical_json(figures))
    (job.out / "timings.jsonl").write_bytes(session.timings.read_bytes() if session.timings.exists() else b"")


class _Session:
    """What the epoch commits after each step: metrics, timings, and a checkpoint when one is due."""

    def __init__(
        self,
        job: Job,
        parent: Parent,
        trainer: TorchTrainer,
        curriculum: Strategy,
        tally: Tally,
        progress: Progress,
        metrics: list[dict[str, Any]],
    ) -> None:
        self._job, self._parent, self._trainer, self._curriculum = job, parent, trainer, curriculum
        self._tally, self.progress, self._metrics = tally, progress, metrics
        self.last_step = job.epoch * job.config.steps_per_epoch
        self.timings: Path = job.scratch / "timings.jsonl"

    def commit(self, progress: Progress, groups: Sequence[Group], metrics: Mapping[str, Any], seconds: float) -> None:
        self.progress = progress
        self._tally.see(groups)
        self._metrics.append(dict(metrics))
        fault_point("train.before_checkpoint", str(progress.step))
        stopping = self._parent.stop_requested
        if stopping or progress.step % self._job.config.checkpoint_every == 0:
            save_step(self.checkpoint(), self._job.scratch)
        with self.timings.open("a", encoding="utf-8") as f:
            f.write(
                json.dumps({"step": progress.step, "seconds": round(seconds, 4), "at": round(time.time(), 3)}) + "\n"
            )
        self._parent.emit(
            "step", epoch=self._job.epoch, seconds=seconds, last_step=self.last_step, metrics=dict(metrics)
        )
        fault_point("train.step", str(progress.step))
        if stopping and progress.step < self.last_step:  # asked later than that: the next step is saved
            self._parent.stop_if_asked(f"step {progress.step}")

    def checkpoint(self) -> Checkpoint:
        weights, optimizer, trainer = self._trainer.state_dict()
        progress = {
            "step": self.progress.step,
            "rollouts": self.progress.rollouts,
            "tokens": self.progress.tokens,
        }
        state = {
            "step": self.progress.step,
            "trainer": trainer,
            "progress": progress,
            "tally": self._tally.state_dict(),
        }
        return Checkpoint(weights, optimizer, self._curriculum.state_dict(), state, list(self._metrics))
