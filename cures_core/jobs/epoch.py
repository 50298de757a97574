"""Job: train one epoch, checkpointing inside it."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from cures_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cures_core.checkpoints.in_epoch import SPOILT, StepWriter, latest_step
from cures_core.config.policy import dtype_of
from cures_core.config.rollout import VllmServerRolloutConfig
from cures_core.config.training import RanksConfig
from cures_core.curriculum import Strategy, load_posterior, make_curriculum, save_posterior
from cures_core.distributed import World, serve
from cures_core.epoch import Progress, run_epoch
from cures_core.errors import ConfigError, TrainingDiverged
from cures_core.events import StepDone
from cures_core.faults import fault_point
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.assemble import assemble_engine, assemble_policy, assemble_reference, assemble_verifier
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.kept_rollouts.keeper import RolloutKeeper
from cures_core.kept_rollouts.redaction import Redactor
from cures_core.kept_rollouts.table import FILE, write_rollouts
from cures_core.machine import joined_machines, machine_of
from cures_core.policy.loading import Policy
from cures_core.prompts import PromptSet
from cures_core.rewards.length import LengthRule
from cures_core.rollout.engine import RolloutEngine
from cures_core.rollout.sharded import ShardedEngine
from cures_core.tally import Tally
from cures_core.terms import Group
from cures_core.training.torch_trainer import TorchTrainer

LEFT_OUT = "rollouts_left_out"
"""In the state of an epoch's own checkpoints: how many rollouts were to be kept and were too many."""
MACHINES = "machines"
"""In the same: the machines that its steps were made on so far; not there in checkpoints of earlier versions. The
checkpoint that the next epoch reads tells none: its digest is that of what was computed."""

_log = logging.getLogger(__name__)


def run(job: Job, parent: Parent, world: World | None = None) -> None:
    """Write `checkpoint/`, `posterior.parquet`, `tally.json`, `rollouts.parquet`, `figures.json` and `timings.jsonl`,
    of which no two runs have the same. In a `world` of several ranks this is rank 0; the others `follow`."""
    if job.prompts is None or job.posterior is None:
        raise ConfigError("an epoch needs prompts and a posterior")
    cfg, world, redactor = job.config, world or World(), Redactor.of(job.config)
    resumed = latest_step(job.scratch)
    saved = resumed or (load_checkpoint(job.checkpoint) if job.checkpoint else None)
    policy, trainer = _policy_and_trainer(job, world)
    prompts = PromptSet.read_parquet(job.prompts)
    curriculum = make_curriculum(cfg.curriculum, prompts, load_posterior(job.posterior), cfg.seed)
    progress, tally, lengths = Progress(), Tally(readable=redactor.short), LengthRule.of(cfg)
    if saved is not None:
        trainer.load_state_dict(saved.weights, saved.optimizer, saved.state["trainer"])
        curriculum.load_state_dict(saved.curriculum)
        progress, tally = Progress(**saved.state["progress"]), Tally(saved.state.get("tally"), redactor.short)
    keeper = RolloutKeeper(cfg.kept_rollouts, cfg.seed, job.epoch, redactor)
    if resumed is not None:
        keeper.go_on(resumed.rollouts, resumed.state.get(LEFT_OUT, 0))
    here = machine_of(
        policy.device, dtype_of(cfg.policy), world.size if isinstance(cfg.training, RanksConfig) else None
    )
    machines = [] if saved is None else list(saved.state.get(MACHINES, []))
    if here not in machines:
        machines.append(here)
    session = _Session(
        job, parent, trainer, curriculum, tally, keeper, progress, resumed.metrics if resumed else [], machines
    )
    with closing(session), world.leading():
        world.call("engine")
        with assemble_verifier(cfg) as verifier, closing(_engine(job, policy, trainer, world)) as engine:
            try:
                run_epoch(progress, session.last_step, curriculum, engine, verifier, trainer, session.commit, lengths)
            except TrainingDiverged:
                _note_spoilt(job, session.progress.step, trainer)
                raise
        final = session.checkpoint()
    save_checkpoint(final, job.out / "checkpoint", cfg.checkpoint.shard_bytes)
    save_posterior(curriculum.posterior, job.out / "posterior.parquet")
    write_atomic(job.out / "tally.json", canonical_json(tally.state_dict()))
    write_rollouts(keeper.rows(), job.out / FILE, redactor.mark)
    if redactor.failures:
        _log.warning("redact: failed on texts (%s), which are withheld", redactor.failures)
    done = session.progress
    figures = {
        "step": done.step,
        "rollouts": done.rollouts,
        "tokens": done.tokens,
        "calibration": curriculum.calibration.figures(),
        "reliability": curriculum.calibration.reliability(),
        "kept_rollouts": keeper.counts(),
        "machine": joined_machines(machines),
    }
    write_atomic(job.out / "figures.json", canonical_json(figures))
    (job.out / "timings.jsonl").write_bytes(b"".join(_whole_lines(session.timings)))


def _whole_lines(path: Path) -> list[bytes]:
    """Without what a power cut left of a line: timings are for people, and must not stop a run at its end."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [line + b"\n" for line in lines if line.startswith(b'{"step":') and line.endswith(b"}")]


def _note_spoilt(job: Job, step: int, trainer: TorchTrainer) -> None:
    """Leave `spoilt.json`: the step from which on checkpoints are no place to go on from with other settings.

    Where the trainer has counted bad steps it has changed nothing in them. Else the weights themselves give what is not
    finite: those of the last step, which its finite loss did not tell.
    """
    if not trainer.bad_steps:
        write_atomic(job.scratch / SPOILT, canonical_json({"step": step}))


def follow(job: Job, world: World) -> None:
    """Any rank but 0: generate and train its share until rank 0 ends the epoch."""
    policy, trainer = _policy_and_trainer(job, world)
    with ExitStack() as stack:

        def start(_: object) -> None:  # when the weights are there
            if (engine := _sharded(job, policy, trainer, world)) is not None:
                handlers.update(stack.enter_context(closing(engine)).handlers)

        handlers = {**trainer.handlers, "engine": start}
        serve(world, handlers)


def _policy_and_trainer(job: Job, world: World) -> tuple[Policy, TorchTrainer]:
    cfg, policy = job.config, assemble_policy(job, None)
    temperature, reference = cfg.rollout.temperature or 1.0, assemble_reference(job)
    return policy, TorchTrainer(policy, cfg.training, temperature, reference, world=world)


def _engine(job: Job, policy: Policy, trainer: TorchTrainer, world: World) -> RolloutEngine:
    shared = _sharded(job, policy, trainer, world)
    return assemble_engine(policy, job.config.rollout, trainer.model) if shared is None else shared


def _sharded(job: Job, policy: Policy, trainer: TorchTrainer, world: World) -> ShardedEngine | None:
    """None where rollouts are not shared out: one rank, or servers, which rank 0 keeps busy by itself."""
    if world.size == 1 or isinstance(job.config.rollout, VllmServerRolloutConfig):
        return None
    own = assemble_engine(policy, job.config.rollout, trainer.model)
    return ShardedEngine(own, world, lambda: trainer.model)


class _Session:
    """What the epoch commits after each step: metrics, timings, and a checkpoint when one is due."""

    def __init__(
        self,
        job: Job,
        parent: Parent,
        trainer: TorchTrainer,
        curriculum: Strategy,
        tally: Tally,
        keeper: RolloutKeeper,
        progress: Progress,
        metrics: list[dict[str, float | str]],
        machines: list[dict[str, str]],
    ) -> None:
        self._job, self._parent, self._trainer, self._curriculum = job, parent, trainer, curriculum
        self._tally, self._keeper, self.progress, self._metrics = tally, keeper, progress, metrics
        self._machines = machines
        self.last_step = job.epoch * job.config.steps_per_epoch
        self.timings: Path = job.scratch / "timings.jsonl"
        self._writer = StepWriter(job.scratch, job.config.checkpoint)

    def commit(
        self, progress: Progress, groups: Sequence[Group], metrics: Mapping[str, float | str], seconds: float
    ) -> None:
        self.progress = progress
        self._tally.observe(groups)
        self._keeper.observe(progress.step, groups, self._trainer.credits, self._tally)
        self._metrics.append(dict(metrics))
        fault_point("train.before_checkpoint", str(progress.step))
        stopping = self._parent.stop_requested
        if stopping or progress.step % self._job.config.checkpoint_every == 0:
            self._writer.save(self.with_rollouts())
        with self.timings.open("a", encoding="utf-8") as f:
            f.write(
                json.dumps({"step": progress.step, "seconds": round(seconds, 4), "at": round(time.time(), 3)}) + "\n"
            )
        event = StepDone(epoch=self._job.epoch, seconds=seconds, last_step=self.last_step, metrics=dict(metrics))
        self._parent.emit(event)
        fault_point("train.step", str(progress.step))
        if stopping and progress.step < self.last_step:  # asked later than that: the next step is saved
            self._writer.wait()
            self._parent.stop_if_asked(f"step {progress.step}")

    def close(self) -> None:
        """Wait for the last checkpoint to be on disk."""
        self._writer.close()

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

    def with_rollouts(self) -> Checkpoint:
        """The checkpoint that this epoch may go on from. What is kept to be read is no part of what the next one reads:
        so that no digest of its inputs depends on how much that is, or on the machine."""
        checkpoint = self.checkpoint()
        checkpoint.rollouts = list(self._keeper.lines)
        checkpoint.state |= {LEFT_OUT: self._keeper.left_out, MACHINES: self._machines}
        return checkpoint
